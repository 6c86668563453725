-- The functions through which the daemon reads the queue and writes drafts. `ambara_submit` is its only way to
-- write to `clips`, and it sets `draft_transcription` alone. Safe to run twice.

-- A JSON argument, also from an API server that hands it on as a JSON string of JSON.
create or replace function public.ambara_json(p jsonb)
returns jsonb
language sql immutable
as $$ select case when jsonb_typeof(p) = 'string' then (p #>> '{}')::jsonb else p end $$;

-- Clips that may be drafted at all: the one place that says so.
-- `runs.type` and `clips.paragraphs` may be missing from a database, or arrive later. Inside the lateral subqueries
-- an unqualified name means the real column where there is one, and else the column of the same name in `absent`.
create or replace function public.ambara_draftable()
returns table (
  clip_id uuid, run_id uuid, file_name text, duration_sec double precision, draft_transcription text,
  priority double precision, created_at timestamptz, updated_at timestamptz
)
language sql stable
as $$
  select c.id, c.run_id, c.file_name, c.duration_sec, c.draft_transcription, c.priority, c.created_at, c.updated_at
  from (select null::jsonb as paragraphs, 'extraction'::text as type) as absent
  cross join lateral (
    select k.id, k.run_id, k.file_name, k.duration_sec, k.draft_transcription, k.corrected_transcription, k.status,
      k.priority, k.created_at, k.updated_at, paragraphs as ambara_chapter
    from public.clips k
  ) as c
  cross join lateral (select type as ambara_kind from public.runs r where r.id = c.run_id) as run
  where c.status = 'pending'
    -- A pending clip with a correction is one that a person is typing in.
    and c.corrected_transcription is null
    -- A chapter's draft is the text that a person reads aloud.
    and c.ambara_chapter is null
    and run.ambara_kind = 'extraction'
    -- So is the draft of a piece cut from a chapter. The editor inserts the pieces before it marks the chapter.
    and not (
      c.file_name like 'chunks/%'
      and exists (
        select
        from (select k.run_id, paragraphs as ambara_chapter from public.clips k) as sibling
        where sibling.run_id = c.run_id and sibling.ambara_chapter is not null
      )
    )
$$;

-- Clips that want a draft now.
-- `updated_at` is when a transaction began, so a later change may bear an earlier time: only "another one" is asked.
-- p_manual null: from the live version; a clip is settled once it was drafted since that version went live, and
--   unsettled again when somebody else wrote another draft over it.
-- p_manual given: a person asked for drafts by this version; each clip is tried once per p_worker.
create or replace function public.ambara_wanting(p_live_seq bigint, p_manual bigint, p_worker text)
returns table (
  clip_id uuid, run_id uuid, file_name text, duration_sec double precision,
  priority double precision, created_at timestamptz, updated_at timestamptz
)
language sql stable
as $$
  select d.clip_id, d.run_id, d.file_name, d.duration_sec, d.priority, d.created_at, d.updated_at
  from public.ambara_draftable() d
  left join public.draft_state s on s.clip_id = d.clip_id
  where (s.lease_until is null or s.lease_until < now())
    and case
      when p_manual is null then
        (
          s.settled_seq is distinct from p_live_seq
          or (d.updated_at is distinct from s.drafted_at and s.text_md5 is distinct from md5(d.draft_transcription))
        )
        and (
          s.retry_at is null
          or s.retry_at <= now()
          or d.updated_at is distinct from s.failed_row_at
          or s.failed_seq is distinct from p_live_seq
        )
      else
        s.version_id is distinct from p_manual
        and (s.reason is null or s.worker is distinct from p_worker)
    end
$$;

create or replace function public.ambara_live_version()
returns public.model_versions
language sql stable
as $$ select v from public.model_versions v where v.stage = 'live' $$;

-- Claim up to p_limit clips in the editor's order. Claims are made one at a time (an advisory lock of
-- milliseconds), so several workers never reach for the same clip; `skip locked` passes by a row that an editor
-- holds at this moment.
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
begin
  perform pg_advisory_xact_lock(hashtext('ambara_claim'));
  live := public.ambara_live_version();
  if not p_manual and live.id is distinct from p_version then
    return;
  end if;
  return query
  with wanted as materialized (
    -- More than asked for: some may be locked.
    select w.clip_id
    from public.ambara_wanting(live.live_seq, case when p_manual then p_version end, p_worker) w
    where p_runs is null or w.run_id = any (p_runs)
    order by w.priority desc, w.created_at, w.clip_id
    limit 4 * p_limit
  ),
  held as materialized (
    select c.id, c.run_id, c.file_name, c.duration_sec, c.priority, c.created_at, c.updated_at
    from public.clips c
    where c.id in (select w.clip_id from wanted w)
    order by c.priority desc, c.created_at, c.id
    limit p_limit
    for no key update of c skip locked
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
  order by h.priority desc, h.created_at, h.id;
end
$$;

-- Write many drafts in one statement. p_drafts: [{"clip_id", "fence", "text", "confidence", "flags"}].
-- Outcomes: written; dropped (a person came first, the clip is gone, or another worker has it now);
-- busy (somebody holds the row at this moment: submit it again).
-- The rows, and the claims on them, are locked without waiting, so a person's statement can never be the victim of a
-- deadlock with this one; only then, in a new statement that sees all that is committed, are they judged. (Without a lock
-- a claim could be given back in between: the daemon is stopped, and its last submission is still under way.)
create or replace function public.ambara_submit(p_worker text, p_version bigint, p_drafts jsonb)
returns table (clip_id uuid, outcome text)
language plpgsql volatile
as $$
#variable_conflict use_column
declare
  locked uuid[];
  claims uuid[];
begin
  p_drafts := public.ambara_json(p_drafts);
  select coalesce(array_agg(l.id), '{}') into locked
  from (
    select c.id from public.clips c
    where c.id in (select (d ->> 'clip_id')::uuid from jsonb_array_elements(p_drafts) d)
    for no key update skip locked
  ) l;
  select coalesce(array_agg(l.clip_id), '{}') into claims
  from (select s.clip_id from public.draft_state s where s.clip_id = any (locked) for no key update of s skip locked) l;

  return query
  with owned as materialized (
    select d.clip_id, d.text, d.confidence, coalesce(d.flags, '{}') as flags, s.clip_updated_at, s.claimed_seq
    from jsonb_to_recordset(p_drafts)
      as d (clip_id uuid, fence bigint, text text, confidence double precision, flags text[])
    join public.draft_state s on s.clip_id = d.clip_id and s.worker = p_worker and s.fence = d.fence
    where d.clip_id = any (claims)
  ),
  written as (
    update public.clips c
    set draft_transcription = o.text
    from owned o
    join public.ambara_draftable() w on w.clip_id = o.clip_id
    where c.id = o.clip_id and c.updated_at is not distinct from o.clip_updated_at
    returning c.id, c.updated_at, o.text, o.confidence, o.flags, o.claimed_seq
  ),
  logged as (
    insert into public.drafts (clip_id, version_id, text, confidence, flags, worker)
    select w.id, p_version, w.text, w.confidence, w.flags, p_worker from written w
  ),
  settled as (
    update public.draft_state s
    set version_id = p_version, settled_seq = w.claimed_seq, drafted_at = w.updated_at, text_md5 = md5(w.text),
      worker = null, lease_until = null, attempts = 0, failed_seq = null, failed_row_at = null, retry_at = null,
      reason = null, message = null
    from written w
    where s.clip_id = w.id
  ),
  released as (
    update public.draft_state s
    set worker = null, lease_until = null
    from owned o
    where s.clip_id = o.clip_id and s.clip_id not in (select w.id from written w)
  )
  select (d ->> 'clip_id')::uuid,
    case
      when w.id is not null then 'written'
      when (d ->> 'clip_id')::uuid = any (claims) then 'dropped'
      when exists (select from public.draft_state s where s.clip_id = (d ->> 'clip_id')::uuid) then 'busy'
      else 'dropped'
    end
  from jsonb_array_elements(p_drafts) d
  left join written w on w.id = (d ->> 'clip_id')::uuid;
end
$$;

-- The following lock rows of `draft_state` without waiting, because a person who deletes a run locks them too, in an
-- order of their own. What is passed by is settled when the lease ends.

-- Note why clips could not be drafted. p_failures: [{"clip_id", "fence", "retry", "reason", "message"}]. Retry:
-- soon: in 15 s (something around the clip failed); later: in 30 s, 1 min, 2 min ... 6 h, for ever; never: when the row
-- changes or another version goes live. A person's own try (p_manual) never keeps the live version from trying.
-- Returns how many were noted.
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
    returning 1
  )
  select count(*)::integer from noted
$$;

-- Keep claims during long work. Returns how many are still held.
create or replace function public.ambara_renew(p_worker text, p_clips uuid[], p_lease_s double precision)
returns integer
language sql volatile
as $$
  with held as materialized (
    select s.clip_id from public.draft_state s
    where s.worker = p_worker and s.clip_id = any (p_clips) and s.lease_until is not null
    for no key update skip locked
  ),
  renewed as (
    update public.draft_state s set lease_until = now() + make_interval(secs => p_lease_s)
    from held h where s.clip_id = h.clip_id
    returning 1
  )
  select count(*)::integer from renewed
$$;

-- Give back claims, all of a worker's or those named, so that another worker may take them at once.
create or replace function public.ambara_release(p_worker text, p_clips uuid[] default null)
returns integer
language sql volatile
as $$
  with held as materialized (
    select s.clip_id from public.draft_state s
    where s.worker = p_worker and s.lease_until is not null and (p_clips is null or s.clip_id = any (p_clips))
    for no key update skip locked
  ),
  released as (
    update public.draft_state s set lease_until = null, worker = null
    from held h where s.clip_id = h.clip_id
    returning 1
  )
  select count(*)::integer from released
$$;

-- Supabase lets every role execute what appears in `public`; these functions are for the daemon alone.
create or replace function public.ambara_restrict()
returns void
language plpgsql
as $$
declare
  f regprocedure;
begin
  for f in
    select p.oid::regprocedure from pg_proc p
    where p.pronamespace = 'public'::regnamespace and p.proname like 'ambara\_%'
  loop
    execute format('revoke all on function %s from public, anon, authenticated', f);
    execute format('grant execute on function %s to service_role', f);
  end loop;
end
$$;

select public.ambara_restrict();
