-- The queue in an order that can be looked up, so that a claim and a snapshot read what they return and not what is done.
-- Until here both walked over `clips` in the editor's order and passed by every clip that has its draft: as many rows as
-- the dataset has. Safe to run twice.

-- Whether a run has a chapter is asked for each `chunks/…` in it: without this, each would be compared with all of the run.
-- Where the column comes later, apply this again.
do $$
begin
  if exists (
    select from pg_attribute
    where attrelid = 'public.clips'::regclass and attname = 'paragraphs' and not attisdropped
  ) then
    create index if not exists ambara_clips_chapters on public.clips (run_id) where paragraphs is not null;
  end if;
end
$$;

-- One row per clip that may be drafted (`ambara_draftable`), settled or not. A trigger keeps it. It may hold too much,
-- and must not hold too little: what it offers is judged by `ambara_waiting`, row by row.
-- Whoever writes a row here holds the clip's row in `clips`. So nobody ever waits for this table, nor in a circle.
create table if not exists public.draft_queue (
  clip_id uuid primary key,
  -- As in `clips`.
  priority double precision,
  created_at timestamptz,
  -- Ever drafted here.
  drafted boolean not null,
  -- Under this live number it wants no draft: it has one, or failed. 0: not even looked at.
  quiet_seq bigint not null default 0
);

-- Rows move through the index from one number to the next, and what they leave behind lies where claims begin to read.
alter table public.draft_queue set (
  autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, autovacuum_analyze_scale_factor = 0.05
);
alter table public.draft_queue enable row level security;
revoke all on public.draft_queue from public, anon, authenticated;
grant select, insert, update, delete on public.draft_queue to service_role;

create or replace function public.ambara_schema_version()
returns integer
language sql immutable
as $$ select 5 $$;

-- Rows as they belong into the queue. A failure is not known here: then the clip is looked at once too often.
create or replace function public.ambara_queueable()
returns table (clip_id uuid, priority double precision, created_at timestamptz, drafted boolean, quiet_seq bigint)
language sql stable
as $$
  select d.clip_id, d.priority, d.created_at, s.version_id is not null,
    case
      when d.updated_at is not distinct from s.drafted_at or md5(d.draft_transcription) is not distinct from s.text_md5
        then coalesce(s.settled_seq, 0)
      else 0
    end
  from public.ambara_draftable() d
  left join public.draft_state s on s.clip_id = d.clip_id
$$;

-- After every statement that adds or changes clips, the daemon's own included. The person who does so has no right on the
-- queue, so this has its owner's. A person's statement never fails on our account: what is missed here for whatever
-- reason, `ambara_mend_queue` finds. The rows are named by an array: a plan for any array suits one row and thousands, and
-- is made once for a connection.
create or replace function public.ambara_follow_clips()
returns trigger
language plpgsql security definer
set search_path = pg_catalog, public, extensions, pg_temp
set plan_cache_mode = force_generic_plan
as $$
declare
  ids uuid[];
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
  return null;
exception when others then
  raise warning 'Ambara did not queue these clips and will find them within the hour: %', sqlerrm;
  return null;
end
$$;

create or replace trigger ambara_clips_came after insert on public.clips
  referencing new table as came for each statement execute function public.ambara_follow_clips();
create or replace trigger ambara_clips_changed after update on public.clips
  referencing new table as came for each statement execute function public.ambara_follow_clips();

-- Nobody changes clips meanwhile: to make a trigger is to keep writers out until the end of this transaction.
insert into public.draft_queue (clip_id, priority, created_at, drafted, quiet_seq)
select w.clip_id, w.priority, w.created_at, w.drafted, w.quiet_seq from public.ambara_queueable() w
on conflict do nothing;
create index if not exists draft_queue_order
  on public.draft_queue (quiet_seq, drafted, priority desc, created_at, clip_id);
create index if not exists draft_state_retry_idx on public.draft_state (failed_seq, retry_at) where retry_at is not null;
-- Asked of all rows at once, and not of each that was put in above.
do $$
begin
  if not exists (select from pg_constraint where conname = 'draft_queue_clip_id_fkey') then
    alter table public.draft_queue add constraint draft_queue_clip_id_fkey
      foreign key (clip_id) references public.clips (id) on delete cascade;
  end if;
end
$$;
analyze public.draft_queue;

-- Put into the queue what came while the trigger was off (a dump that is restored without triggers), and what may be
-- drafted since something else changed: a run's type, a chapter that is gone. Up to p_limit; returns how many.
-- First what the queue does not know, from two indexes (hence the words of `ambara_clips_queue`); only of that, whether
-- it may be drafted.
create or replace function public.ambara_mend_queue(p_limit integer)
returns integer
language sql volatile
as $$
  with unknown as materialized (
    select c.id from public.clips c
    where c.status = 'pending' and c.corrected_transcription is null
      and not exists (select from public.draft_queue q where q.clip_id = c.id)
  ),
  missed as materialized (
    select u.id from unknown u
    where exists (select from public.ambara_draftable() d where d.clip_id = u.id offset 0)
    limit p_limit
  ),
  held as materialized (
    select c.id from public.clips c where c.id = any (array(select m.id from missed m))
    for no key update skip locked
  ),
  mended as (
    insert into public.draft_queue (clip_id, priority, created_at, drafted, quiet_seq)
    select w.clip_id, w.priority, w.created_at, w.drafted, w.quiet_seq
    from public.ambara_queueable() w where w.clip_id = any (array(select h.id from held h))
    on conflict do nothing
    returning 1
  )
  select count(*)::integer from mended
$$;

-- Clips that want a draft from the live version, by `ambara_waiting`; the first p_limit in the editor's order of each
-- kind, a kind being a number that is not the live one, drafted or never drafted. There are as many kinds as versions
-- that left something undone, and the index is skipped through from one to the next. Beside them those whose time to try
-- again has come; of more than p_limit, those that have waited longest.
-- `offset 0`: looked up for one clip after the other until there are enough. Merged into the query, it would be
-- estimated, and a wrong guess reads all clips.
create or replace function public.ambara_next(p_live_seq bigint, p_limit integer)
returns table (clip_id uuid, drafted boolean, priority double precision, created_at timestamptz)
language sql stable
as $$
  with recursive kind as (
    (select q.quiet_seq, q.drafted from public.draft_queue q order by q.quiet_seq, q.drafted limit 1)
    union all
    select n.quiet_seq, n.drafted
    from kind k cross join lateral (
      select q.quiet_seq, q.drafted from public.draft_queue q
      where (q.quiet_seq, q.drafted) > (k.quiet_seq, k.drafted)
      order by q.quiet_seq, q.drafted limit 1
    ) as n
  )
  select n.clip_id, n.drafted, n.priority, n.created_at
  from kind k cross join lateral (
    select q.clip_id, q.drafted, q.priority, q.created_at from public.draft_queue q
    where q.quiet_seq = k.quiet_seq and q.drafted = k.drafted
      and exists (select from public.ambara_waiting(p_live_seq, null, null) w where w.clip_id = q.clip_id offset 0)
    order by q.priority desc, q.created_at, q.clip_id
    limit p_limit
  ) as n
  where k.quiet_seq is distinct from p_live_seq
  union all
  select q.clip_id, q.drafted, q.priority, q.created_at
  from (
    select s.clip_id from public.draft_state s
    where s.failed_seq = p_live_seq and s.retry_at <= now()
      and exists (select from public.ambara_waiting(p_live_seq, null, null) w where w.clip_id = s.clip_id offset 0)
    order by s.retry_at
    limit p_limit
  ) as due
  join public.draft_queue q on q.clip_id = due.clip_id and q.quiet_seq = p_live_seq
$$;

-- The first p_limit of them in the order in which they are drafted. This and the next function are planned once for a
-- connection, whatever their arguments: how the queue is read does not depend on them, and to plan takes as long as to
-- read. No JIT: the planner thinks of all the rows that a limit leaves out.
create or replace function public.ambara_head(p_live_seq bigint, p_limit integer)
returns uuid[]
language plpgsql stable
set plan_cache_mode = force_generic_plan
set jit = off
as $$
begin
  return array(
    select n.clip_id from public.ambara_next(p_live_seq, p_limit) n
    order by n.drafted, n.priority desc, n.created_at, n.clip_id
    limit p_limit
  );
end
$$;

-- As before, and `ready` is counted in the queue.
create or replace function public.ambara_snapshot()
returns jsonb
language plpgsql stable
set plan_cache_mode = force_generic_plan
set jit = off
as $$
declare
  live public.model_versions := public.ambara_live_version();
begin
  return jsonb_build_object(
    'now', now(),
    'live', live.id,
    'ready', (select count(*) from (select from public.ambara_next(live.live_seq, 1000) limit 1000) as at_most)
  );
end
$$;

-- As before, and what is wanted is found in the queue; of some runs, or by a person, in those runs.
create or replace function public.ambara_claim(
  p_worker text, p_version bigint, p_limit integer, p_lease_s double precision,
  p_manual boolean default false, p_runs uuid[] default null
)
returns table (
  clip_id uuid, run_id uuid, file_name text, duration_sec double precision, fence bigint, attempts integer
)
language plpgsql volatile
as $$
#variable_conflict use_column
declare
  live public.model_versions;
  manual bigint := case when p_manual then p_version end;
  enough integer;
  wanted uuid[];
  free uuid[];
begin
  perform pg_advisory_xact_lock(hashtext('ambara_claim'));
  live := public.ambara_live_version();
  if not p_manual and live.id is distinct from p_version then
    return;
  end if;
  -- Where some are locked, more than asked for are looked at.
  foreach enough in array array[p_limit, 4 * p_limit] loop
    if p_manual or p_runs is not null then
      wanted := array(
        select w.clip_id from public.ambara_waiting(live.live_seq, manual, p_worker) w
        where p_runs is null or w.run_id = any (p_runs)
        order by w.drafted, w.priority desc, w.created_at, w.clip_id
        limit enough
      );
    else
      wanted := public.ambara_head(live.live_seq, enough);
    end if;
    free := array(
      select l.id
      from (
        select c.id, w.place from unnest(wanted) with ordinality as w (id, place) join public.clips c on c.id = w.id
        order by w.place
        limit p_limit
        for no key update of c skip locked
      ) as l
      order by l.place
    );
    exit when cardinality(free) = p_limit or cardinality(wanted) < enough;
  end loop;
  return query
  with held as materialized (
    select c.id, c.run_id, c.file_name, c.duration_sec, c.updated_at, f.place
    from unnest(free) with ordinality as f (id, place) join public.clips c on c.id = f.id
  ),
  claimed as (
    insert into public.draft_state as s
      (clip_id, worker, fence, claimed_seq, claimed_at, clip_updated_at, lease_until)
    select h.id, p_worker, nextval('public.ambara_fence'), live.live_seq, now(), h.updated_at,
      now() + make_interval(secs => p_lease_s)
    from held h
    on conflict (clip_id) do update set
      worker = excluded.worker, fence = excluded.fence, claimed_seq = excluded.claimed_seq,
      claimed_at = excluded.claimed_at, clip_updated_at = excluded.clip_updated_at, lease_until = excluded.lease_until
    -- A submission under an ended lease may have come in since this statement began.
    where s.lease_until is null or s.lease_until < now()
    returning s.clip_id, s.fence, s.attempts
  )
  select h.id, h.run_id, h.file_name, h.duration_sec, k.fence, k.attempts
  from claimed k join held h on h.id = k.clip_id
  order by h.place;
end
$$;

-- As before, and the queue is told that a clip wants nothing until its time comes, another version goes live, or
-- somebody changes it. Not if somebody has changed it since the claim, or does at this moment: whoever holds the clip's
-- row may be telling the queue the opposite.
create or replace function public.ambara_fail(p_worker text, p_failures jsonb, p_manual boolean default false)
returns integer
language sql volatile
as $$
  with failures as materialized (
    select f.* from jsonb_to_recordset(public.ambara_json(p_failures))
      as f (clip_id uuid, fence bigint, retry text, reason text, message text)
  ),
  held as materialized (
    select s.clip_id from public.draft_state s
    where s.worker = p_worker and s.clip_id in (select f.clip_id from failures f)
    for no key update skip locked
  ),
  noted as (
    update public.draft_state s
    set attempts = s.attempts + 1,
      failed_seq = case when p_manual then s.failed_seq else s.claimed_seq end,
      -- As it was at the claim: whatever changed since is a reason to look again.
      failed_row_at = case when p_manual then s.failed_row_at else s.clip_updated_at end,
      retry_at = case
        when p_manual then s.retry_at
        when f.retry = 'never' then 'infinity'::timestamptz
        when f.retry = 'soon' then now() + (0.8 + 0.4 * random()) * interval '15 seconds'
        else now() + (0.8 + 0.4 * random()) * least(interval '6 hours', interval '30 seconds' * 2 ^ least(s.attempts, 12))
      end,
      reason = f.reason, message = f.message, lease_until = null
    from failures f
    where s.clip_id = f.clip_id and s.worker = p_worker and s.fence = f.fence
      and s.clip_id in (select h.clip_id from held h)
    returning s.clip_id, s.failed_seq, s.failed_row_at
  ),
  unchanged as materialized (
    select c.id, n.failed_seq from noted n join public.clips c on c.id = n.clip_id
    where not p_manual and c.updated_at is not distinct from n.failed_row_at
    for no key update of c skip locked
  ),
  quiet as (
    update public.draft_queue q set quiet_seq = u.failed_seq
    from unchanged u where q.clip_id = u.id and u.failed_seq is not null
  )
  select count(*)::integer from noted
$$;

-- The next three are as before, in PL/pgSQL: a function in SQL is planned without its arguments, as if they meant a tenth of
-- the table, and then reads all of it.
create or replace function public.ambara_count_manual(p_fingerprint text, p_runs uuid[])
returns integer
language plpgsql stable
as $$
declare
  mine bigint := coalesce((select v.id from public.model_versions v where v.fingerprint = p_fingerprint), 0);
begin
  return (select count(*) from public.ambara_wanting(null, mine, '') w where w.run_id = any (p_runs));
end
$$;

create or replace function public.ambara_samples(p_run bigint, p_after uuid, p_limit integer)
returns table (
  clip_id uuid, run_id uuid, file_name text, recording text, side text, kind text, text text, text_md5 text,
  duration_s double precision, label text, seen boolean
)
language plpgsql stable
as $$
#variable_conflict use_column
begin
  return query
  select t.clip_id, k.run_id, k.file_name, coalesce(c.recording, nullif(btrim(k.source_file), ''), k.run_id::text),
    t.side, coalesce(c.kind, 'extraction'),
    case when c.left_out is null and md5(c.words) = t.text_md5 and s.side = t.side then c.words end, t.text_md5,
    k.duration_sec, r.label,
    exists (
      select from public.training_samples e join public.training_runs n on n.id = e.run_id
      where e.clip_id = t.clip_id and e.text_md5 = t.text_md5 and e.run_id < p_run and n.status = 'finished'
    )
  from (
    select * from public.training_samples
    where run_id = p_run and side is not null and clip_id > coalesce(p_after, '00000000-0000-0000-0000-000000000000')
    order by clip_id limit p_limit
  ) as t
  join public.clips k on k.id = t.clip_id
  join public.runs r on r.id = k.run_id
  left join public.ambara_corrections() c on c.clip_id = t.clip_id
  left join public.training_recordings s on s.recording = c.recording
  order by t.clip_id;
end
$$;

create or replace function public.ambara_forget_drafts(p_days double precision, p_after bigint, p_limit integer)
returns jsonb
language plpgsql volatile
as $$
declare
  answer jsonb;
begin
  with looked_at as materialized (
    select d.id, d.clip_id, d.created_at from public.drafts d
    where d.id > coalesce(p_after, 0) order by d.id limit p_limit
  ),
  last as materialized (
    select k.clip_id, (select max(n.created_at) from public.drafts n where n.clip_id = k.clip_id) as written_at
    from (select distinct l.clip_id from looked_at l) as k
    join public.clips c on c.id = k.clip_id and c.status in ('corrected', 'discarded')
  ),
  needless as materialized (
    select d.id from public.drafts d
    where d.id in (
      select l.id from looked_at l join last on last.clip_id = l.clip_id
      where l.created_at < now() - make_interval(secs => greatest(p_days, 1) * 86400)
        and exists (
          select from public.drafts s
          where s.clip_id = l.clip_id and s.id > l.id and s.created_at < last.written_at - interval '7 days'
        )
    )
    for update skip locked
  ),
  gone as (delete from public.drafts d using needless n where d.id = n.id returning 1)
  select jsonb_build_object(
    'forgotten', (select count(*) from gone),
    'after', (select max(l.id) from looked_at l having count(*) = p_limit)
  ) into answer;
  return answer;
end
$$;

-- One function more that the daemon calls by itself. Only added: whatever else is on the list stays.
do $$
begin
  execute format(
    'create or replace function public.ambara_called() returns text[] language sql immutable as $called$ select %L::text[] $called$',
    (select array_agg(distinct t.name order by t.name) from unnest(public.ambara_called() || 'ambara_mend_queue'::text) as t (name))
  );
end
$$;

select public.ambara_restrict();
-- Says nothing but the caller's own role.
grant execute on function public.ambara_whoami() to anon, authenticated;
