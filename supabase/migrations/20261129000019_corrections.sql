-- Corrections were read from end to end every half minute: to count what there is to learn, and to find what is not
-- measured yet. At a million clips that was a processor's whole work for some daemons. Now what may be new stands in a
-- table of its own, and what was looked at leaves it. What is counted is as before. Safe to run twice.

-- One corrected clip after the other, for who walks over all of them; and one recording after the other. For the words of
-- the second see `ambara_corrections`.
create index if not exists ambara_clips_corrections on public.clips (id) where status = 'corrected';
create index if not exists ambara_clips_recordings on public.clips
  (md5(coalesce(nullif(btrim(source_file), ''), run_id::text))) where status = 'corrected';

-- One row for each correction that a run may have to learn, or whose edits may have to be measured. The trigger on `clips`
-- keeps it. It may hold too much, and must not hold too little: what it offers is judged by `ambara_news` and
-- `ambara_unmeasured`. Whoever writes a row here holds the clip's row in `clips`, as in `draft_queue`.
create table if not exists public.correction_queue (
  clip_id uuid primary key references public.clips (id) on delete cascade,
  -- No run has attempted it with these words and this audio, perhaps.
  learn boolean not null,
  measure boolean not null,
  -- When it came, or was last looked at to no avail.
  since timestamptz not null default now()
);
create index if not exists correction_queue_learn on public.correction_queue (since, clip_id) where learn;
create index if not exists correction_queue_measure on public.correction_queue (clip_id) where measure;
alter table public.correction_queue enable row level security;
revoke all on public.correction_queue from public, anon, authenticated;
grant select, insert, update, delete on public.correction_queue to service_role;

-- As `ambara_audio_tags` told it, of some names, or with null of all.
create or replace function public.ambara_audio_tags_of(p_bucket text, p_names text[])
returns table (name text, tag text)
language plpgsql stable
as $$
begin
  return query execute
    'select o.name::text, coalesce('
    '  public.ambara_json(to_jsonb(o.metadata)) ->> ''eTag'', to_jsonb(o) ->> ''version'', to_jsonb(o) ->> ''updated_at'')'
    ' from storage.objects o where o.bucket_id = $1 and ($2 is null or o.name = any ($2))'
    using p_bucket, p_names;
exception when others then
  return;
end
$$;

create or replace function public.ambara_audio_tags(p_bucket text)
returns table (name text, tag text)
language sql stable
as $$ select t.name, t.tag from public.ambara_audio_tags_of(p_bucket, null) t $$;

-- Which of these clips are new, as `ambara_trainable` says it: may be learned, are not held out, and were in no run with
-- these words and this audio. They are few beside all, so each is looked up.
create or replace function public.ambara_news(p_bucket text, p_clips uuid[])
returns table (clip_id uuid, duration_sec double precision)
language plpgsql stable
set plan_cache_mode = force_generic_plan
set jit = off
as $$
begin
  return query
  with known as materialized (
    select k.*, k.run_id::text || '/' || k.file_name as name from public.ambara_learnable() k
    where k.clip_id = any (p_clips) and k.side is distinct from 'held-out'
  ),
  heard as materialized (
    select a.* from public.ambara_audio_tags_of(p_bucket, array(select k.name from known k)) a
  )
  select k.clip_id, k.duration_sec
  from known k left join heard a on a.name = k.name
  where not exists (
    select from public.training_samples t
    where t.clip_id = k.clip_id and t.text_md5 = k.text_md5 and (a.tag is null or t.audio_tag is not distinct from a.tag)
  );
end
$$;

-- The first p_limit recordings with something to learn, by their hash, for a name may be longer than an index takes: it is
-- skipped through from one to the next.
create or replace function public.ambara_recorded(p_limit integer)
returns table (recording text, side text)
language sql stable
as $$
  with recursive each_one as (
    (
      select md5(coalesce(nullif(btrim(c.source_file), ''), c.run_id::text)) as hash
      from public.clips c where c.status = 'corrected' order by 1 limit 1
    )
    union all
    select n.hash
    from each_one e cross join lateral (
      select md5(coalesce(nullif(btrim(c.source_file), ''), c.run_id::text)) as hash
      from public.clips c
      where c.status = 'corrected' and md5(coalesce(nullif(btrim(c.source_file), ''), c.run_id::text)) > e.hash
      order by 1 limit 1
    ) as n
  )
  select k.recording, k.side
  from each_one e
  cross join lateral (
    select l.recording, l.side from public.ambara_learnable() l where md5(l.recording) = e.hash limit 1
  ) as k
  limit p_limit
$$;

-- As before; of more than 1,000 recordings, 1,000 are counted. No JIT: it takes longer than the answer.
create or replace function public.ambara_training(p_bucket text default 'clips')
returns jsonb
language sql stable
set jit = off
set statement_timeout = '55s'
as $$
  with counted as (
    select count(*) as clips, coalesce(sum(n.duration_sec), 0) / 60 as minutes
    from public.ambara_news(p_bucket, array(select q.clip_id from public.correction_queue q where q.learn)) n
  ),
  recorded as (
    select count(*) as recordings, count(*) filter (where k.side = 'held-out') as held_out
    from public.ambara_recorded(1000) as k
  ),
  last as (select r.* from public.training_runs r where r.status <> 'active' order by r.id desc limit 1),
  attempted as (select r.* from public.training_runs r order by r.id desc limit 1)
  select jsonb_build_object(
    'new_clips', counted.clips,
    'new_minutes', counted.minutes,
    'trained_clips', coalesce((select trained_clips from attempted), 0),
    'trained_minutes', coalesce((select trained_minutes from attempted), 0),
    'recordings', recorded.recordings,
    'held_out', recorded.held_out,
    'asked', exists (select from public.training_requests),
    'active', (
      select jsonb_build_object('run', r.id, 'version', r.version_id, 'worker', r.worker, 'attempts', r.attempts,
        'abandoned', r.lease_until is null or r.lease_until < now(), 'since', r.created_at,
        'clips', r.trained_clips, 'minutes', r.trained_minutes, 'left_out', r.left_out, 'detail', r.detail)
      from public.training_runs r where r.status = 'active'
    ),
    'last', (
      select jsonb_build_object('run', id, 'version', version_id, 'status', status, 'reason', reason,
        'since', created_at, 'ended_at', ended_at, 'clips', trained_clips, 'minutes', trained_minutes,
        'left_out', left_out, 'detail', detail)
      from last
    ),
    'failure', (
      select jsonb_build_object('run', id, 'message', coalesce(reason, ''),
        'in_a_row', (
          select count(*) from public.training_runs f where f.status = 'failed'
            and f.id > coalesce((select max(g.id) from public.training_runs g where g.status = 'finished'), 0)
        ),
        'minutes_ago', greatest(extract(epoch from now() - ended_at), 0) / 60)
      from last where status = 'failed'
    ),
    'candidate', (
      select jsonb_build_object('version', v.id, 'name', v.name, 'since', v.created_at,
        'comparison', v.detail -> 'comparison')
      from public.model_versions v where v.stage = 'candidate' and v.kind = 'trained' order by v.id desc limit 1
    )
  )
  from counted, recorded
$$;

-- Corrections whose edits can be measured and are not yet, each with the draft that its person had: the words are those of
-- `ambara_unmeasured` before.
create or replace function public.ambara_edited()
returns table (
  clip_id uuid, recording text, words text, draft_id bigint, version_id bigint, draft text, corrected_at timestamptz
)
language sql stable
as $$
  select c.clip_id, c.recording, c.words, d.id, d.version_id, d.text,
    case when k.corrected_at between d.created_at and now() then k.corrected_at
      else greatest(k.updated_at, d.created_at) end
  from public.ambara_corrections() c
  join public.clips k on k.id = c.clip_id
  cross join lateral (
    select n.text from public.drafts n where n.clip_id = c.clip_id order by n.id desc limit 1
  ) as last
  cross join lateral (
    select n.* from public.drafts n where n.clip_id = c.clip_id
    order by btrim(n.text) = btrim(c.words) desc, n.id desc limit 1
  ) as d
  left join public.draft_edits e on e.clip_id = c.clip_id
  where (c.left_out is null or c.left_out = 'too-long') and c.kind = 'extraction'
    and k.draft_transcription = last.text
    and e.text_md5 is distinct from md5(c.words)
$$;

-- As before, of what stands in the queue.
create or replace function public.ambara_unmeasured(p_after uuid, p_limit integer)
returns jsonb
language sql stable
as $$
  select coalesce(jsonb_agg(jsonb_build_object('clip_id', m.clip_id, 'draft_id', m.draft_id, 'version', m.version_id,
    'recording', m.recording, 'corrected_at', m.corrected_at, 'text_md5', md5(m.words), 'draft', m.draft,
    'words', m.words) order by m.clip_id), '[]')
  from (
    select u.*
    from (
      select q.clip_id from public.correction_queue q
      where q.measure and q.clip_id > coalesce(p_after, '00000000-0000-0000-0000-000000000000')
    ) as q
    cross join lateral (select e.* from public.ambara_edited() e where e.clip_id = q.clip_id offset 0) as u
    order by q.clip_id limit p_limit
  ) as m
$$;

-- Take out of the queue what was learned or measured: of the next p_limit rows behind p_after, those that are to be
-- measured, or that came before the latest run began. Returns the clip to go on behind, or null at the end.
-- One statement after the other: those behind the lock see what whoever held a clip until then has written.
create or replace function public.ambara_settle_corrections(p_bucket text, p_after uuid, p_limit integer)
returns uuid
language plpgsql volatile
as $$
declare
  latest timestamptz := (select max(r.created_at) from public.training_runs r);
  behind uuid := coalesce(p_after, '00000000-0000-0000-0000-000000000000');
  looked uuid[] := array(
    select w.clip_id
    from (
      (
        select q.clip_id from public.correction_queue q
        where q.measure and q.clip_id > behind order by q.clip_id limit p_limit
      )
      union
      (
        select q.clip_id from public.correction_queue q
        where q.learn and q.since < latest and q.clip_id > behind order by q.clip_id limit p_limit
      )
    ) as w
    order by w.clip_id limit p_limit
  );
  held uuid[] := array(
    select c.id from public.clips c where c.id = any (looked) for no key update skip locked
  );
  fresh uuid[];
  edited uuid[];
begin
  fresh := array(select n.clip_id from public.ambara_news(p_bucket, held) n);
  edited := array(select e.clip_id from public.ambara_edited() e where e.clip_id = any (held));
  update public.correction_queue q
  set learn = q.learn and q.clip_id = any (fresh), measure = q.measure and q.clip_id = any (edited), since = now()
  where q.clip_id = any (held);
  delete from public.correction_queue q where q.clip_id = any (held) and not q.learn and not q.measure;
  return case when cardinality(looked) = p_limit then looked[p_limit] end;
end
$$;

-- As before; and a correction is put into the queue of those.
create or replace function public.ambara_follow_clips()
returns trigger
language plpgsql security definer
set search_path = pg_catalog, public, extensions, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
  ids uuid[];
  corrected uuid[];
begin
  ids := array(select n.id from came n);
  if ids = '{}' then
    return null;
  end if;
  insert into public.draft_queue as q (clip_id, priority, created_at, drafted, quiet_seq)
  select w.clip_id, w.priority, w.created_at, w.drafted, w.quiet_seq
  from public.ambara_queueable() w where w.clip_id = any (ids)
  on conflict (clip_id) do update set
    priority = excluded.priority, created_at = excluded.created_at, drafted = excluded.drafted,
    quiet_seq = excluded.quiet_seq
  where (q.priority, q.created_at, q.drafted, q.quiet_seq)
    is distinct from (excluded.priority, excluded.created_at, excluded.drafted, excluded.quiet_seq);
  if tg_op = 'UPDATE' then
    delete from public.draft_queue q
    where q.clip_id = any (ids)
      and not exists (select from public.ambara_draftable() d where d.clip_id = q.clip_id offset 0);
  end if;
  -- Draft by draft nothing comes of it: what is drafted is not corrected.
  corrected := array(select n.id from came n where n.status = 'corrected');
  if corrected <> '{}' then
    insert into public.correction_queue as q (clip_id, learn, measure)
    select c.clip_id, c.left_out is null, true from public.ambara_corrections() c where c.clip_id = any (corrected)
    on conflict (clip_id) do update set learn = q.learn or excluded.learn, measure = true
    where not (q.measure and (q.learn or not excluded.learn));
  end if;
  return null;
exception when others then
  raise warning 'Ambara did not queue these clips and will find them within the hour: %', sqlerrm;
  return null;
end
$$;

-- A daemon fills the table when it starts, with its walk past all clips: to do so here would keep people waiting.

-- As before, with that table.
create or replace function public.ambara_examine()
returns jsonb
language sql stable
set statement_timeout = '55s'
as $$
  with tables as (
    select t.name, c.oid, c.relrowsecurity
    from unnest(array[
      'runs', 'clips', 'model_versions', 'drafts', 'draft_state', 'training_runs', 'training_samples',
      'training_recordings', 'training_requests', 'ambara_daemons', 'draft_queue', 'draft_edits', 'correction_queue'
    ]) as t (name)
    left join pg_class c on c.oid = to_regclass('public.' || t.name)
  ),
  functions as (
    select p.oid, p.proname::text as name from pg_proc p
    where p.pronamespace = 'public'::regnamespace and p.proname like 'ambara\_%'
  ),
  -- Who may call what. A role that is not there may nothing, and is not told of.
  rights as (
    select r.rolname::text as role, f.name, has_function_privilege(r.oid, f.oid, 'execute') as may
    from functions f cross join pg_roles r
    where r.rolname in ('anon', 'authenticated', 'service_role', 'ambara_daemon')
  )
  select jsonb_build_object(
    'now', clock_timestamp(),
    'wal_level', current_setting('wal_level'),
    -- Null for one that is not there. `key`: whether it has a primary key, without which Realtime tells no row.
    -- `admits`: whether a policy is for the daemon's own role.
    'tables', (
      select jsonb_object_agg(t.name, case when t.oid is not null then jsonb_build_object(
        'row_security', t.relrowsecurity,
        'policies', (select count(*) from pg_policy y where y.polrelid = t.oid),
        'admits', exists (
          select from pg_policy y join pg_roles r on r.oid = any (y.polroles)
          where y.polrelid = t.oid and r.rolname = 'ambara_daemon'
        ),
        'key', exists (select from pg_index i where i.indrelid = t.oid and i.indisprimary)
      ) end)
      from tables t
    ),
    'functions', (select coalesce(jsonb_agg(distinct f.name), '[]') from functions f),
    -- By which `draft_queue` follows `clips`: whether they fire for what people do. Of one that is not there: nothing.
    'triggers', (
      select coalesce(jsonb_object_agg(g.tgname, g.tgenabled in ('O', 'A')), '{}') from pg_trigger g
      where g.tgrelid = to_regclass('public.clips') and g.tgname in ('ambara_clips_came', 'ambara_clips_changed')
    ),
    'queue_order', to_regclass('public.draft_queue_order') is not null,
    -- Role -> functions that it needs and may not call.
    'refused', (
      select coalesce(jsonb_object_agg(x.role, x.names), '{}') from (
        select g.role, jsonb_agg(distinct g.name) as names from rights g
        where not g.may and (g.role = 'service_role' or (g.role = 'ambara_daemon'
          and g.name = any (public.ambara_called() || array['ambara_schema_version', 'ambara_whoami'])))
        group by g.role
      ) x
    ),
    -- What everybody may call who has the public key. `ambara_whoami` tells nothing but that.
    'open', (
      select coalesce(jsonb_agg(distinct g.name), '[]') from rights g
      where g.may and g.role in ('anon', 'authenticated') and g.name <> 'ambara_whoami'
    ),
    -- Null where there is no such publication.
    'publication', (
      select jsonb_build_object(
        'changes', p.pubinsert and p.pubupdate and p.pubdelete,
        'tables', (
          select coalesce(jsonb_agg(t.tablename order by t.tablename), '[]') from pg_publication_tables t
          where t.pubname = p.pubname and t.schemaname = 'public' and t.tablename in ('clips', 'ambara_daemons')
        )
      )
      from pg_publication p where p.pubname = 'supabase_realtime'
    )
  )
$$;

-- Functions more that the daemon calls by itself. Only added: whatever else is on the list stays.
do $$
begin
  execute format(
    'create or replace function public.ambara_called() returns text[] language sql immutable as $called$ select %L::text[] $called$',
    (
      select array_agg(distinct t.name order by t.name)
      from unnest(public.ambara_called() || array['ambara_settle_corrections']) as t (name)
    )
  );
end
$$;

select public.ambara_restrict();
-- Says nothing but the caller's own role.
grant execute on function public.ambara_whoami() to anon, authenticated;
