-- The dataset's tables as the editor knows them, without the parts that came later (optional.sql).
create table public.runs (
  id uuid primary key default gen_random_uuid(),
  label text not null,
  source text,
  created_at timestamptz not null default now()
);

create table public.clips (
  id uuid primary key default gen_random_uuid(),
  run_id uuid not null references public.runs (id) on delete cascade,
  file_name text not null,
  source_file text,
  start_sec double precision,
  end_sec double precision,
  duration_sec double precision,
  speech_score double precision,
  music_score double precision,
  draft_transcription text,
  corrected_transcription text,
  status text not null default 'pending' check (status in ('pending', 'corrected', 'discarded')),
  priority double precision not null default 0,
  corrected_at timestamptz,
  corrected_by text,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  unique (run_id, file_name)
);
create index clips_run_status_priority on public.clips (run_id, status, priority desc);

-- Append-only: what a person changed, from what, to what.
create table public.clip_edits (
  id uuid primary key default gen_random_uuid(),
  clip_id uuid not null references public.clips (id) on delete cascade,
  editor_id text,
  field text not null,
  old_value text,
  new_value text,
  reason text,
  created_at timestamptz not null default now()
);
create index clip_edits_clip on public.clip_edits (clip_id, created_at);

create function public.set_updated_at() returns trigger language plpgsql as $$
begin
  new.updated_at = now();
  return new;
end
$$;
create trigger clips_set_updated_at before update on public.clips
  for each row execute function public.set_updated_at();

alter table public.runs enable row level security;
alter table public.clips enable row level security;
alter table public.clip_edits enable row level security;

-- Whoever is signed in reads everything, adds rows and corrects clips. Nobody but the service role deletes.
create policy "Signed-in people read runs" on public.runs for select to authenticated using (true);
create policy "Signed-in people add runs" on public.runs for insert to authenticated with check (true);
create policy "Signed-in people read clips" on public.clips for select to authenticated using (true);
create policy "Signed-in people add clips" on public.clips for insert to authenticated with check (true);
create policy "Signed-in people correct clips" on public.clips for update to authenticated using (true);
create policy "Signed-in people read edits" on public.clip_edits for select to authenticated using (true);
create policy "Signed-in people add edits" on public.clip_edits for insert to authenticated with check (true);
