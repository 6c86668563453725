-- Progress cards of re-drafts, in an editor that has them: rows of `jobs`, of a type that its table knows. As with those
-- of trainings, whatever goes wrong with a card goes unsaid: it is no reason to stop. Safe to run twice.

-- The card of what is drafted again since another version went live: one for each live number, whichever daemons do the
-- work. To be called by each now and then; it also ends the cards that nobody would end: of a number that is not live
-- any more, of an `ambara re-draft` that has not been heard of for two minutes, of a training that is over.
create or replace function public.ambara_redraft_card()
returns void
language plpgsql volatile
as $$
declare
  live public.model_versions := public.ambara_live_version();
  card jsonb;
  remaining bigint;
  total bigint;
  done bigint;
  ended boolean;
begin
  -- One at a time, and nobody waits: the next call comes soon.
  if to_regclass('public.jobs') is null or not pg_try_advisory_xact_lock(hashtext('ambara_card')) then
    return;
  end if;
  update public.jobs j
  set status = 'failed', progress_message = 'Whoever drafted here is gone; what is missing was not drafted.'
  where j.status = 'running' and (j.params ->> 'ambara_seen')::timestamptz < now() - interval '2 minutes';
  perform public.ambara_training_card(r.id)
  from public.jobs j join public.training_runs r on r.id::text = j.params ->> 'ambara_run'
  where j.status = 'running' and r.status <> 'active';
  if live.id is null then
    return;
  end if;
  update public.jobs j
  set status = 'done', progress = 100,
    progress_message = format('Version %s is live since: it drafts what was left.', live.id)
  where j.status = 'running' and j.params ->> 'ambara_live' <> live.live_seq::text;

  -- Drafted before, under a number that is not live any more. 0 is what somebody else has written over.
  select count(*) into remaining
  from public.draft_queue q where q.quiet_seq > 0 and q.quiet_seq < live.live_seq and q.drafted;
  select j.params || jsonb_build_object('status', j.status) into card
  from public.jobs j where j.params ->> 'ambara_live' = live.live_seq::text;
  if card is null then
    if remaining > 0 then
      insert into public.jobs (type, status, progress, progress_message, params)
      values ('redraft', 'running', 0, format('Drafting again with version %s: 0 of %s clips', live.id, remaining),
        jsonb_build_object('ambara_live', live.live_seq, 'version', live.id, 'clips', remaining, 'since', now()));
    end if;
    return;
  end if;
  if card ->> 'status' <> 'running' then
    return;
  end if;
  total := greatest((card ->> 'clips')::bigint, remaining, 1);
  done := total - remaining;
  -- What the queue holds too much of, nobody drafts.
  ended := remaining = 0 or not (
    exists (select from public.ambara_next(live.live_seq, 1))
    or exists (select from public.draft_state s where s.worker is not null and s.lease_until >= now())
  );
  update public.jobs j
  set status = case when ended then 'done' else 'running' end,
    progress = case when ended then 100 else least(99, 100 * done / total) end,
    progress_message = case
      when ended then format('Version %s has drafted again: %s of %s clips', live.id, done, total)
      else concat_ws(', ', format('Drafting again with version %s: %s of %s clips', live.id, done, total),
        'about ' || ceil(extract(epoch from now() - (card ->> 'since')::timestamptz) * remaining / nullif(done, 0) / 60)
          || ' min left')
    end
  where j.params ->> 'ambara_live' = live.live_seq::text;
exception when others then
  return;
end
$$;

-- The card of one `ambara re-draft`, by its worker. To be called again at least every two minutes while it runs.
create or replace function public.ambara_manual_card(p_worker text, p_status text, p_progress integer, p_message text)
returns void
language plpgsql volatile
as $$
begin
  if to_regclass('public.jobs') is null then
    return;
  end if;
  update public.jobs j
  set status = p_status, progress = coalesce(p_progress, j.progress), progress_message = p_message,
    params = j.params || jsonb_build_object('ambara_seen', now())
  where j.params ->> 'ambara_worker' = p_worker;
  if not found then
    insert into public.jobs (type, status, progress, progress_message, params)
    values ('redraft', p_status, coalesce(p_progress, 0), p_message,
      jsonb_build_object('ambara_worker', p_worker, 'ambara_seen', now()));
  end if;
exception when others then
  return;
end
$$;

-- Two functions more that the daemon calls by itself. Only added: whatever else is on the list stays.
do $$
begin
  execute format(
    'create or replace function public.ambara_called() returns text[] language sql immutable as $called$ select %L::text[] $called$',
    (
      select array_agg(distinct t.name order by t.name)
      from unnest(public.ambara_called() || array['ambara_redraft_card', 'ambara_manual_card']) as t (name)
    )
  );
end
$$;

select public.ambara_restrict();
-- Says nothing but the caller's own role.
grant execute on function public.ambara_whoami() to anon, authenticated;
