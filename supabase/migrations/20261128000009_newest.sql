-- A clip that comes while a long queue is drafted stands at its end in the editor's order, behind hours of work. The daemon
-- lets it in between two batches: that is what this finds, at the same cost however long the queue is. Safe to run twice.

create or replace function public.ambara_schema_version()
returns integer
language sql immutable
as $$ select 6 $$;

create index if not exists ambara_clips_newest on public.clips (created_at desc)
  where status = 'pending' and corrected_transcription is null;

-- Claim up to p_limit of the 64 newest clips, the newest first, if they were never drafted. Only so few are looked at, so
-- what waits longest has its turn as well. The live version's number is told with them; nothing is claimed unless it is
-- p_version. Locks as in `ambara_claim`.
create or replace function public.ambara_claim_newest(
  p_worker text, p_version bigint, p_limit integer, p_lease_s double precision
)
returns jsonb
language plpgsql volatile
as $$
#variable_conflict use_column
declare
  live public.model_versions;
  newest uuid[];
  clips jsonb := '[]';
begin
  perform pg_advisory_xact_lock(hashtext('ambara_claim'));
  live := public.ambara_live_version();
  if live.id = p_version then
    -- `offset 0`: looked up one by one. Merged into the query, what else is known of clips would be read as a whole.
    newest := array(
      select n.id
      from (
        select c.id from public.clips c
        where c.status = 'pending' and c.corrected_transcription is null
        order by c.created_at desc
        limit 64
      ) as n
      where exists (
        select from public.ambara_waiting(live.live_seq, null, p_worker) w
        where w.clip_id = n.id and not w.drafted offset 0
      )
    );
    with held as materialized (
      select c.id, c.run_id, c.file_name, c.duration_sec, c.created_at, c.updated_at
      from public.clips c
      where c.id = any (newest)
      order by c.created_at desc, c.id
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
        claimed_at = excluded.claimed_at, clip_updated_at = excluded.clip_updated_at,
        lease_until = excluded.lease_until
      where s.lease_until is null or s.lease_until < now()
      returning s.clip_id, s.fence, s.attempts
    )
    select coalesce(jsonb_agg(
        jsonb_build_object('clip_id', h.id, 'run_id', h.run_id, 'file_name', h.file_name,
          'duration_sec', h.duration_sec, 'fence', k.fence, 'attempts', k.attempts)
        order by h.created_at desc, h.id
      ), '[]')
    into clips
    from claimed k join held h on h.id = k.clip_id;
  end if;
  return jsonb_build_object('live', live.id, 'clips', clips);
end
$$;

-- One function more that the daemon calls by itself. Only added: whatever else is on the list stays.
do $$
begin
  execute format(
    'create or replace function public.ambara_called() returns text[] language sql immutable as $called$ select %L::text[] $called$',
    (select array_agg(distinct t.name order by t.name) from unnest(public.ambara_called() || 'ambara_claim_newest'::text) as t (name))
  );
end
$$;

select public.ambara_restrict();
-- Says nothing but the caller's own role.
grant execute on function public.ambara_whoami() to anon, authenticated;
