-- What the status page shows beside `ambara_status`: the backlog by run, corrections by day, how long clips wait for their
-- first draft. Figures alone, no text. Safe to run twice.

-- {"runs": [{"run", "label", "waiting", "drafted", "failed", "held"}], "other_runs", "corrections": [{"day", "clips"}],
-- "latency": [{"day", "clips", "half_s", "most_s"}]}. Days are UTC's, the last p_days; runs are the thirty with the
-- longest backlog. Waiting is what `ambara_status` calls ready, claimed or retrying.
create or replace function public.ambara_history(p_days integer default 28)
returns jsonb
language sql stable
as $$
  with live as (select * from public.model_versions v where v.stage = 'live'),
  queue as materialized (
    select d.clip_id, d.run_id,
      case
        when s.lease_until >= now() then 'waiting'
        when s.settled_seq = (select live_seq from live)
          and not (d.updated_at is distinct from s.drafted_at and s.text_md5 is distinct from md5(d.draft_transcription))
          then 'drafted'
        when s.retry_at = 'infinity' and d.updated_at is not distinct from s.failed_row_at
          and s.failed_seq is not distinct from (select live_seq from live) then 'failed'
        else 'waiting'
      end as state
    from public.ambara_draftable() d left join public.draft_state s on s.clip_id = d.clip_id
  ),
  by_run as (
    select c.run_id,
      count(*) filter (where q.state = 'waiting') as waiting,
      count(*) filter (where q.state = 'drafted') as drafted,
      count(*) filter (where q.state = 'failed') as failed,
      count(*) filter (where q.state is null) as held
    from public.clips c left join queue q on q.clip_id = c.id
    where c.status = 'pending'
    group by c.run_id
  ),
  shown as (
    select b.*, r.label from by_run b join public.runs r on r.id = b.run_id
    order by b.waiting + b.failed desc, b.drafted + b.held desc, b.run_id
    limit 30
  ),
  -- Clips that came since Ambara drafts here: what lay there before has waited for another reason.
  waits as (
    select (d.created_at at time zone 'UTC')::date as day, extract(epoch from d.created_at - c.created_at) as seconds
    from (select * from public.drafts order by id desc limit 5000) d
    join public.clips c on c.id = d.clip_id
    where d.created_at > now() - make_interval(days => p_days)
      and c.created_at >= (select min(e.created_at) from (select created_at from public.drafts order by id limit 1) e)
      and not exists (select from public.drafts e where e.clip_id = d.clip_id and e.id < d.id)
  )
  select jsonb_build_object(
    'runs', (
      select coalesce(jsonb_agg(jsonb_build_object('run', run_id, 'label', label, 'waiting', waiting, 'drafted', drafted,
        'failed', failed, 'held', held) order by waiting + failed desc, drafted + held desc, run_id), '[]')
      from shown
    ),
    'other_runs', (select greatest(0, count(*) - 30) from by_run),
    'corrections', (
      select coalesce(jsonb_agg(jsonb_build_object('day', day, 'clips', n) order by day), '[]')
      from (
        select (c.corrected_at at time zone 'UTC')::date as day, count(*) as n from public.clips c
        where c.status = 'corrected' and c.corrected_at > now() - make_interval(days => p_days)
        group by 1
      ) as days
    ),
    'latency', (
      select coalesce(jsonb_agg(jsonb_build_object('day', day, 'clips', n, 'half_s', half, 'most_s', most) order by day), '[]')
      from (
        select day, count(*) as n, percentile_cont(0.5) within group (order by seconds) as half,
          percentile_cont(0.95) within group (order by seconds) as most
        from waits group by day
      ) as days
    )
  )
$$;

-- One function more that the daemon calls by itself. Only added: whatever else is on the list stays.
do $$
begin
  execute format(
    'create or replace function public.ambara_called() returns text[] language sql immutable as $called$ select %L::text[] $called$',
    (select array_agg(distinct t.name order by t.name) from unnest(public.ambara_called() || 'ambara_history'::text) as t (name))
  );
end
$$;

select public.ambara_restrict();
-- Says nothing but the caller's own role.
grant execute on function public.ambara_whoami() to anon, authenticated;
