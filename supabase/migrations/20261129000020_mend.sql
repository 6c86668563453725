-- What the queues say of a clip may be wrong for longer than a while; now it is put right, clip by clip. Safe to run twice.

create or replace function public.ambara_schema_version()
returns integer
language sql immutable
as $$ select 10 $$;

-- Walk over the dataset: of the next p_limit clips behind p_after, put right what the queues say of them. They say it
-- wrongly after a dump was restored without triggers, while a trigger was switched off, when audio was replaced and its
-- row was not touched, or when a run's type was changed. Returns {"wrong", "after"}: how many rows were wrong, and
-- the clip to go on behind, or null at the end. What somebody holds is left for the next time.
create or replace function public.ambara_mend_clips(p_bucket text, p_after uuid, p_limit integer)
returns jsonb
language plpgsql volatile
set plan_cache_mode = force_generic_plan
set jit = off
as $$
declare
  live bigint := (select v.live_seq from public.model_versions v where v.stage = 'live');
  walked uuid[] := array(
    select c.id from public.clips c
    where c.id > coalesce(p_after, '00000000-0000-0000-0000-000000000000') order by c.id limit p_limit
  );
  wrong uuid[];
  drafts integer;
  corrections integer;
begin
  -- What is to be drafted, and what the queue would not offer. A failure is not known to `ambara_queueable`.
  wrong := array(
    select w.clip_id from public.ambara_queueable() w
    left join public.draft_queue q on q.clip_id = w.clip_id
    where w.clip_id = any (walked) and (
      q.clip_id is null
      or (q.priority, q.created_at, q.drafted) is distinct from (w.priority, w.created_at, w.drafted)
      or (w.quiet_seq = live and q.quiet_seq <> live)
      or (
        q.quiet_seq = live and w.quiet_seq <> live
        and exists (select from public.ambara_waiting(live, null, null) n where n.clip_id = w.clip_id offset 0)
        -- That is found by its time.
        and not exists (
          select from public.draft_state s where s.clip_id = w.clip_id and s.failed_seq = live and s.retry_at <= now()
        )
      )
    )
  );
  wrong := array(select c.id from public.clips c where c.id = any (wrong) for no key update skip locked);
  insert into public.draft_queue as q (clip_id, priority, created_at, drafted, quiet_seq)
  select w.clip_id, w.priority, w.created_at, w.drafted, w.quiet_seq
  from public.ambara_queueable() w where w.clip_id = any (wrong)
  on conflict (clip_id) do update set
    priority = excluded.priority, created_at = excluded.created_at, drafted = excluded.drafted,
    quiet_seq = excluded.quiet_seq;
  get diagnostics drafts = row_count;

  wrong := array(
    select n.clip_id from public.ambara_news(p_bucket, walked) n
    where not exists (select from public.correction_queue q where q.clip_id = n.clip_id and q.learn)
    union
    select e.clip_id from public.ambara_edited() e
    where e.clip_id = any (walked)
      and not exists (select from public.correction_queue q where q.clip_id = e.clip_id and q.measure)
  );
  wrong := array(select c.id from public.clips c where c.id = any (wrong) for no key update skip locked);
  insert into public.correction_queue (clip_id, learn, measure)
  select w.id, true, true from unnest(wrong) as w (id)
  on conflict (clip_id) do update set learn = true, measure = true;
  get diagnostics corrections = row_count;
  return jsonb_build_object('wrong', drafts + corrections,
    'after', case when cardinality(walked) = p_limit then walked[p_limit] end);
end
$$;

-- One function more that the daemon calls by itself. Only added: whatever else is on the list stays.
do $$
begin
  execute format(
    'create or replace function public.ambara_called() returns text[] language sql immutable as $called$ select %L::text[] $called$',
    (
      select array_agg(distinct t.name order by t.name)
      from unnest(public.ambara_called() || array['ambara_mend_clips']) as t (name)
    )
  );
end
$$;

select public.ambara_restrict();
-- Says nothing but the caller's own role.
grant execute on function public.ambara_whoami() to anon, authenticated;
