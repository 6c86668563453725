-- Most useful clips first, where the daemon is asked for it: a draft may come with how unsure the model was, and the same
-- write then sets the clip's priority. What stood there before is remembered, and can be given back. Safe to run twice.

create or replace function public.ambara_schema_version()
returns integer
language sql immutable
as $$ select 9 $$;

-- What Ambara has written into `clips.priority`, and what it found there. `given_priority` null: nothing was written. While
-- the clip's priority is `given_priority`, nobody has changed it since.
alter table public.draft_state
  add column if not exists given_priority double precision,
  add column if not exists former_priority double precision;
create index if not exists draft_state_given_idx on public.draft_state (clip_id) where given_priority is not null;

-- As before, and a draft may say "uncertainty", from 0 to 1. Where nobody gave the clip a priority (it is 0, or null), it
-- gets that. One without it, or with 0, gives back what was there before; so does a daemon that knows nothing of this.
-- No other priority is touched.
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
    select d.clip_id, d.text, d.confidence, coalesce(d.flags, '{}') as flags, d.uncertainty, s.clip_updated_at,
      s.claimed_seq,
      -- As it would be without us.
      case when k.priority = s.given_priority then s.former_priority else k.priority end as former
    from jsonb_to_recordset(p_drafts) as d (
      clip_id uuid, fence bigint, text text, confidence double precision, flags text[], uncertainty double precision
    )
    join public.draft_state s on s.clip_id = d.clip_id and s.worker = p_worker and s.fence = d.fence
    join public.clips k on k.id = d.clip_id
    where d.clip_id = any (claims)
  ),
  written as (
    update public.clips c
    set draft_transcription = o.text,
      priority = case when coalesce(o.former, 0) = 0 and o.uncertainty > 0 then least(o.uncertainty, 1)
        else o.former end
    from owned o
    join public.ambara_draftable() w on w.clip_id = o.clip_id
    where c.id = o.clip_id and c.updated_at is not distinct from o.clip_updated_at
    returning c.id, c.updated_at, c.priority, o.former, o.text, o.confidence, o.flags, o.claimed_seq
  ),
  logged as (
    insert into public.drafts (clip_id, version_id, text, confidence, flags, worker)
    select w.id, p_version, w.text, w.confidence, w.flags, p_worker from written w
  ),
  settled as (
    update public.draft_state s
    set version_id = p_version, settled_seq = w.claimed_seq, drafted_at = w.updated_at, text_md5 = md5(w.text),
      worker = null, lease_until = null, attempts = 0, failed_seq = null, failed_row_at = null, retry_at = null,
      reason = null, message = null,
      given_priority = case when w.priority is distinct from w.former then w.priority end,
      former_priority = case when w.priority is distinct from w.former then w.former end
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

-- Give back what was there before, to up to p_limit clips, whatever has become of them since; a priority that somebody
-- has changed stays as it is, and is forgotten. Returns how many were looked at: 0 is the end, but for rows that somebody
-- holds at this moment. Locks as in `ambara_submit`. `updated_at` moves with each write, and with it all that is compared
-- with it: nothing is drafted or tried again for this, and no draft on its way is dropped.
create or replace function public.ambara_give_back_priorities(p_limit integer)
returns integer
language plpgsql volatile
as $$
declare
  locked uuid[];
  mine uuid[];
  looked_at integer;
begin
  locked := array(
    select c.id from public.clips c
    where c.id = any (array(select s.clip_id from public.draft_state s where s.given_priority is not null limit p_limit))
    for no key update skip locked
  );
  mine := array(select s.clip_id from public.draft_state s where s.clip_id = any (locked) for no key update skip locked);
  with held as materialized (
    select s.clip_id, s.given_priority, s.former_priority, c.updated_at as seen_at
    from public.draft_state s join public.clips c on c.id = s.clip_id
    where s.clip_id = any (mine) and s.given_priority is not null
  ),
  given as (
    update public.clips c set priority = h.former_priority
    from held h where c.id = h.clip_id and c.priority = h.given_priority
    returning c.id, h.seen_at, c.updated_at
  ),
  forgotten as (
    update public.draft_state s
    set given_priority = null, former_priority = null,
      drafted_at = case when s.drafted_at = g.seen_at then g.updated_at else s.drafted_at end,
      failed_row_at = case when s.failed_row_at = g.seen_at then g.updated_at else s.failed_row_at end,
      clip_updated_at = case when s.clip_updated_at = g.seen_at then g.updated_at else s.clip_updated_at end
    from held h left join given g on g.id = h.clip_id
    where s.clip_id = h.clip_id
  )
  select count(*)::integer into looked_at from held;
  return looked_at;
end
$$;

-- One function more that the daemon calls by itself. Only added: whatever else is on the list stays.
do $$
begin
  execute format(
    'create or replace function public.ambara_called() returns text[] language sql immutable as $called$ select %L::text[] $called$',
    (
      select array_agg(distinct t.name order by t.name)
      from unnest(public.ambara_called() || 'ambara_give_back_priorities'::text) as t (name)
    )
  );
end
$$;

select public.ambara_restrict();
-- Says nothing but the caller's own role.
grant execute on function public.ambara_whoami() to anon, authenticated;
