-- What later releases of the editor added; a database set up by its published guide may lack all three.
alter table public.runs add column type text not null default 'extraction' check (type in ('extraction', 'reading'));

alter table public.clips add column paragraphs jsonb;

create table public.jobs (
  id uuid primary key default gen_random_uuid(),
  type text not null check (type in ('ingest', 'redraft', 'export')),
  status text not null default 'queued' check (status in ('queued', 'running', 'done', 'failed')),
  progress integer not null default 0,
  progress_message text,
  params jsonb not null default '{}',
  result jsonb,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);
create index jobs_status on public.jobs (status, created_at);
create trigger jobs_set_updated_at before update on public.jobs
  for each row execute function public.set_updated_at();

alter table public.jobs enable row level security;
create policy "Signed-in people read jobs" on public.jobs for select to authenticated using (true);
create policy "Signed-in people add jobs" on public.jobs for insert to authenticated with check (true);
create policy "Signed-in people update jobs" on public.jobs for update to authenticated using (true);
