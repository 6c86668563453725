-- Ambara's own tables. Nothing that people use is changed: no column, no policy, no replica identity.
-- Safe to run twice. Glossary: docs/glossary.md.

-- One row per model that ever drafted here. Exactly one is live.
create table if not exists public.model_versions (
  id bigint generated always as identity primary key,
  name text not null,
  -- sha256 over weights, settings, tokenizer and language: equal means equal drafts.
  fingerprint text not null unique,
  kind text not null check (kind in ('base', 'manual', 'trained')),
  stage text not null default 'candidate' check (stage in ('candidate', 'live', 'retired', 'rejected')),
  -- Rises each time a version goes live; a draft is current while it was made under the present number.
  live_seq bigint,
  detail jsonb not null default '{}',
  created_at timestamptz not null default now(),
  live_at timestamptz
);
create unique index if not exists model_versions_one_live on public.model_versions (stage) where stage = 'live';
create sequence if not exists public.ambara_live_seq;

-- Every draft ever made, append-only: undo, quality per version, what a person had before them.
create table if not exists public.drafts (
  id bigint generated always as identity primary key,
  clip_id uuid not null references public.clips (id) on delete cascade,
  version_id bigint not null references public.model_versions (id),
  text text not null,
  -- Mean log-probability of the generated tokens; null where nothing was generated.
  confidence double precision,
  flags text[] not null default '{}',
  worker text not null,
  created_at timestamptz not null default now()
);
create index if not exists drafts_clip_idx on public.drafts (clip_id, id desc);
create index if not exists drafts_version_idx on public.drafts (version_id);

-- The book-keeping of one clip, kept out of `clips` so that no editor is woken by it.
create table if not exists public.draft_state (
  clip_id uuid primary key references public.clips (id) on delete cascade,
  -- The last draft written.
  version_id bigint references public.model_versions (id),
  settled_seq bigint,
  drafted_at timestamptz,
  text_md5 text,
  -- The claim: who works on it, until when, under which number (rises for ever).
  worker text,
  fence bigint not null default 0,
  claimed_seq bigint,
  claimed_at timestamptz,
  clip_updated_at timestamptz,
  lease_until timestamptz,
  -- The last failure since the last draft.
  attempts integer not null default 0,
  failed_seq bigint,
  failed_row_at timestamptz,  -- `clips.updated_at` as it was then
  retry_at timestamptz,
  reason text,
  message text
);
create index if not exists draft_state_worker_idx on public.draft_state (worker) where worker is not null;
create index if not exists draft_state_failed_idx on public.draft_state (reason) where reason is not null;
create sequence if not exists public.ambara_fence;

-- What was trained, and on which words exactly.
create table if not exists public.training_runs (
  id bigint generated always as identity primary key,
  status text not null default 'active' check (status in ('active', 'finished', 'failed')),
  version_id bigint references public.model_versions (id),
  worker text,
  fence bigint,
  lease_until timestamptz,
  reason text,
  detail jsonb not null default '{}',
  created_at timestamptz not null default now(),
  ended_at timestamptz
);
create unique index if not exists training_runs_one_active on public.training_runs (status) where status = 'active';

create table if not exists public.training_samples (
  run_id bigint not null references public.training_runs (id) on delete cascade,
  clip_id uuid not null references public.clips (id) on delete cascade,
  text_md5 text not null,
  audio_sha256 text,
  primary key (run_id, clip_id)
);
create index if not exists training_samples_clip_idx on public.training_samples (clip_id, text_md5);

-- One row per daemon. It is also the canary: a daemon updates its row and must hear of it through Realtime.
create table if not exists public.ambara_daemons (
  worker text primary key,
  beat bigint not null default 0,
  state jsonb not null default '{}',
  started_at timestamptz not null default now(),
  seen_at timestamptz not null default now()
);

-- The editor's order, over nothing but what may still want a draft.
create index if not exists ambara_clips_queue on public.clips (priority desc, created_at, id)
  where status = 'pending' and corrected_transcription is null;

do $$
declare
  name text;
begin
  foreach name in array array['model_versions', 'drafts', 'draft_state', 'training_runs', 'training_samples', 'ambara_daemons'] loop
    execute format('alter table public.%I enable row level security', name);
    execute format('revoke all on public.%I from public, anon, authenticated', name);
    execute format('grant select, insert, update, delete on public.%I to service_role', name);
  end loop;

  foreach name in array array['model_versions', 'training_runs'] loop
    execute format('grant select on public.%I to authenticated', name);
    execute format('drop policy if exists "Authenticated read" on public.%I', name);
    execute format('create policy "Authenticated read" on public.%I for select to authenticated using (true)', name);
  end loop;

  grant usage on sequence public.ambara_live_seq, public.ambara_fence to service_role;
  revoke all on sequence public.ambara_live_seq, public.ambara_fence from public, anon, authenticated;

  -- Realtime delivers only what its publication names; one that names all tables already does. Whoever may not change
  -- the publication gets everything else all the same: without Realtime the sweep finds the clips.
  begin
    if not exists (select from pg_publication where pubname = 'supabase_realtime') then
      create publication supabase_realtime;
    end if;
    foreach name in array array['clips', 'ambara_daemons'] loop
      if not exists (
        select from pg_publication_tables
        where pubname = 'supabase_realtime' and schemaname = 'public' and tablename = name
      ) then
        execute format('alter publication supabase_realtime add table public.%I', name);
      end if;
    end loop;
  exception when insufficient_privilege then
    raise warning 'clips and ambara_daemons were not added to the publication supabase_realtime: %', sqlerrm;
  end;
end
$$;
