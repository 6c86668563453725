-- What a decision looks at, what a person looks at, and who is alive. Safe to run twice.

-- Rises with every change of these functions that the daemon's code relies on.
create or replace function public.ambara_schema_version()
returns integer
language sql immutable
as $$ select 1 $$;

-- The role that the request runs under, so that a daemon with the wrong key says so instead of seeing nothing.
create or replace function public.ambara_whoami()
returns text
language sql stable
as $$ select current_user::text $$;

-- Make a model known. With p_go_live a base becomes the live version, unless a trained version is live: that one was
-- judged better than a base. Returns {"version", "live": {"id", "name", "fingerprint", "kind"} or null}.
create or replace function public.ambara_register_model(
  p_name text, p_fingerprint text, p_detail jsonb, p_go_live boolean
)
returns jsonb
language plpgsql volatile
as $$
declare
  mine public.model_versions;
  live public.model_versions;
begin
  perform pg_advisory_xact_lock(hashtext('ambara_live'));
  insert into public.model_versions (name, fingerprint, kind, detail)
  values (p_name, p_fingerprint, case when p_go_live then 'base' else 'manual' end, public.ambara_json(p_detail))
  on conflict (fingerprint) do nothing;
  select * into mine from public.model_versions where fingerprint = p_fingerprint;
  live := public.ambara_live_version();
  if p_go_live and live.id is distinct from mine.id and live.kind is distinct from 'trained' then
    update public.model_versions set stage = 'retired' where id = live.id;
    update public.model_versions
    set stage = 'live', live_seq = nextval('public.ambara_live_seq'), live_at = now(),
      kind = case when kind = 'manual' then 'base' else kind end
    where id = mine.id;
    live := public.ambara_live_version();
  end if;
  return jsonb_build_object(
    'version', mine.id,
    'live', case when live.id is not null then
      jsonb_build_object('id', live.id, 'name', live.name, 'fingerprint', live.fingerprint, 'kind', live.kind)
    end
  );
end
$$;

-- The whole truth that a decision needs, in one read. `ready` stops counting at 1,000: enough to decide.
-- (The function in the middle is only merged into the query, and so only stops, when its arguments are columns.)
create or replace function public.ambara_snapshot()
returns jsonb
language sql stable
as $$
  select jsonb_build_object(
    'now', now(),
    'live', live.id,
    'ready', (select count(*) from (select from public.ambara_wanting(live.live_seq, null, null) limit 1000) as at_most)
  )
  from (values (true)) as one
  left join (select v.id, v.live_seq from public.model_versions v where v.stage = 'live') as live on true
$$;

-- How many clips of these runs a re-draft by the model with this fingerprint would draft.
create or replace function public.ambara_count_manual(p_fingerprint text, p_runs uuid[])
returns integer
language sql stable
as $$
  select count(*)::integer
  from (select coalesce((select v.id from public.model_versions v where v.fingerprint = p_fingerprint), 0) as id) as mine
  cross join lateral public.ambara_wanting(null, mine.id, '') w
  where w.run_id = any (p_runs)
$$;

-- A daemon says that it lives, and what it does. Returns the number of the beat, which Realtime must bring back.
create or replace function public.ambara_beat(p_worker text, p_state jsonb)
returns bigint
language sql volatile
as $$
  delete from public.ambara_daemons where seen_at < now() - interval '1 day';
  insert into public.ambara_daemons as d (worker, beat, state) values (p_worker, 1, public.ambara_json(p_state))
  on conflict (worker) do update set beat = d.beat + 1, state = excluded.state, seen_at = now()
  returning beat
$$;

-- A daemon says good-bye.
create or replace function public.ambara_leave(p_worker text)
returns void
language sql volatile
as $$ delete from public.ambara_daemons where worker = p_worker $$;

-- What `ambara status` shows.
create or replace function public.ambara_status()
returns jsonb
language sql stable
as $$
  with live as (select * from public.model_versions v where v.stage = 'live'),
  queue as (
    select d.clip_id,
      case
        when s.lease_until >= now() then 'claimed'
        when s.settled_seq = (select live_seq from live)
          and not (d.updated_at is distinct from s.drafted_at and s.text_md5 is distinct from md5(d.draft_transcription)) then 'drafted'
        when s.retry_at is null or s.retry_at <= now() or d.updated_at is distinct from s.failed_row_at
          or s.failed_seq is distinct from (select live_seq from live) then 'ready'
        when s.retry_at = 'infinity' then 'failed'
        else 'retrying'
      end as state,
      s.reason, s.message
    from public.ambara_draftable() d left join public.draft_state s on s.clip_id = d.clip_id
  )
  select jsonb_build_object(
    'now', now(),
    'live', (
      select jsonb_build_object('id', id, 'name', name, 'kind', kind, 'since', live_at, 'drafts',
        (select count(*) from public.drafts where version_id = live.id))
      from live
    ),
    'clips', (select coalesce(jsonb_object_agg(status, n), '{}') from (select status, count(*) n from public.clips group by 1) c),
    'queue', (select coalesce(jsonb_object_agg(state, n), '{}') from (select state, count(*) n from queue group by 1) q),
    'held', jsonb_build_object(
      'person_at_work', (select count(*) from public.clips where status = 'pending' and corrected_transcription is not null),
      'person_text', (select count(*) from public.clips c where c.status = 'pending' and c.corrected_transcription is null
        and not exists (select from queue q where q.clip_id = c.id))
    ),
    'failures', (
      select coalesce(jsonb_agg(f order by f ->> 'reason'), '[]') from (
        select jsonb_build_object('reason', reason, 'message', min(message), 'clips', count(*), 'state', state) f
        from queue where state in ('failed', 'retrying') group by reason, state
      ) g
    ),
    'new_corrections', (
      select jsonb_build_object('clips', count(*), 'minutes', coalesce(sum(c.duration_sec), 0) / 60)
      from public.clips c
      where c.status = 'corrected' and btrim(c.corrected_transcription) <> ''
        and not exists (
          select from public.training_samples t where t.clip_id = c.id and t.text_md5 = md5(c.corrected_transcription)
        )
    ),
    'daemons', (
      select coalesce(jsonb_agg(jsonb_build_object('worker', worker, 'started_at', started_at, 'seen_at', seen_at,
        'silent_s', extract(epoch from now() - seen_at), 'state', state) order by started_at), '[]')
      from public.ambara_daemons
    ),
    'published', (
      select coalesce(jsonb_agg(tablename order by tablename), '[]') from pg_publication_tables
      where pubname = 'supabase_realtime' and schemaname = 'public' and tablename in ('clips', 'ambara_daemons')
    )
  )
$$;

select public.ambara_restrict();
-- Says nothing but the caller's own role.
grant execute on function public.ambara_whoami() to anon, authenticated;
