-- Pieces of a chapter were safe while the chapter was there. A person may delete it, and its pieces stay: their text would
-- have been drafted over. Now they are known by themselves. Safe to run twice.

-- Few, and looked at one by one.
create index if not exists ambara_clips_pieces on public.clips (id)
  where file_name like 'chunks/%' and status = 'pending' and corrected_transcription is null;

-- As before, and no text of a piece is drafted over that is none of ours.
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
    -- So is the draft of a piece cut from a chapter. The editor inserts the pieces before it marks the chapter, and the
    -- chapter may be gone: what stands in such a clip is a person's, unless the last draft that it was given is there yet.
    and not (
      c.file_name like 'chunks/%'
      and (
        (
          coalesce(btrim(c.draft_transcription), '') <> ''
          and not exists (
            select from public.draft_state s where s.clip_id = c.id and s.text_md5 = md5(c.draft_transcription)
          )
        )
        or exists (
          select
          from (select k.run_id, paragraphs as ambara_chapter from public.clips k) as sibling
          where sibling.run_id = c.run_id and sibling.ambara_chapter is not null
        )
      )
    )
$$;

-- As before; pieces whose text is a person's are held wherever they are.
create or replace function public.ambara_status()
returns jsonb
language plpgsql stable
set jit = off
set statement_timeout = '55s'
as $$
declare
  live public.model_versions := public.ambara_live_version();
  learning jsonb := public.ambara_training();
  by_status jsonb;
  untouched bigint;
  -- Runs to be read aloud, and runs with a chapter. For the names see `ambara_draftable`.
  special uuid[] := array(
    select r.id
    from (select 'extraction'::text as type) as absent
    cross join lateral (select k.id, type as ambara_kind from public.runs k) as r
    where r.ambara_kind is distinct from 'extraction'
    union
    select c.run_id
    from (select null::jsonb as paragraphs) as absent
    cross join lateral (select k.run_id, paragraphs as ambara_chapter from public.clips k) as c
    where c.ambara_chapter is not null
  );
  aloud uuid[];
begin
  select coalesce(jsonb_object_agg(g.status, g.clips), '{}') into by_status
  from (select c.status, count(*) as clips from public.clips c group by c.status) as g;
  select count(*) into untouched
  from public.clips c where c.status = 'pending' and c.corrected_transcription is null;
  aloud := array(
    select c.id from public.clips c
    where c.run_id = any (special) and c.status = 'pending' and c.corrected_transcription is null
      and not exists (select from public.ambara_draftable() d where d.clip_id = c.id offset 0)
    union
    select c.id from public.clips c
    where c.file_name like 'chunks/%' and c.status = 'pending' and c.corrected_transcription is null
      and not exists (select from public.ambara_draftable() d where d.clip_id = c.id offset 0)
  );
  return (
    with judged as materialized (
      select s.reason, s.message, (q.quiet_seq = live.live_seq) is true as quiet,
        case
          when s.lease_until >= now() then 'claimed'
          when s.settled_seq = live.live_seq and not (
            d.updated_at is distinct from s.drafted_at and s.text_md5 is distinct from md5(d.draft_transcription)
          ) then 'drafted'
          when s.retry_at is null or s.retry_at <= now() or d.updated_at is distinct from s.failed_row_at
            or s.failed_seq is distinct from live.live_seq then 'ready'
          when s.retry_at = 'infinity' then 'failed'
          else 'retrying'
        end as state
      from public.draft_state s
      join public.ambara_draftable() d on d.clip_id = s.clip_id
      left join public.draft_queue q on q.clip_id = s.clip_id
      -- Whoever holds a clip has a name: that index is there.
      where (s.worker is not null and s.lease_until >= now())
        or (s.retry_at is not null and s.failed_seq = live.live_seq)
    ),
    counted as (
      select count(*) filter (where j.state = 'claimed') as claimed,
        count(*) filter (where j.state = 'failed') as failed,
        count(*) filter (where j.state = 'retrying') as retrying,
        (select count(*) from public.draft_queue q where q.quiet_seq = live.live_seq)
          - (select count(*) from public.draft_queue q where q.quiet_seq = live.live_seq and q.clip_id = any (aloud))
          - count(*) filter (where j.quiet and j.state <> 'drafted')
          + count(*) filter (where not j.quiet and j.state = 'drafted') as drafted
      from judged j
    )
    select jsonb_build_object(
      'now', now(),
      'live', case when live.id is not null then
        jsonb_build_object('id', live.id, 'name', live.name, 'kind', live.kind, 'since', live.live_at,
          'reason', live.reason, 'drafts', (select count(*) from public.drafts d where d.version_id = live.id))
      end,
      'clips', by_status,
      'queue', (
        select coalesce(jsonb_object_agg(n.state, n.clips), '{}')
        from (
          values ('claimed', c.claimed), ('failed', c.failed), ('retrying', c.retrying), ('drafted', c.drafted),
            ('ready', untouched - cardinality(aloud) - c.claimed - c.failed - c.retrying - c.drafted)
        ) as n (state, clips)
        where n.clips > 0
      ),
      'held', jsonb_build_object(
        'person_at_work', coalesce((by_status ->> 'pending')::bigint, 0) - untouched,
        'person_text', cardinality(aloud)
      ),
      'failures', (
        select coalesce(jsonb_agg(g.failure order by g.reason), '[]')
        from (
          select j.reason, jsonb_build_object('reason', j.reason, 'message', min(j.message), 'clips', count(*),
            'state', j.state) as failure
          from judged j where j.state in ('failed', 'retrying') group by j.reason, j.state
        ) as g
      ),
      'new_corrections', jsonb_build_object('clips', learning -> 'new_clips', 'minutes', learning -> 'new_minutes'),
      'training', learning - 'candidate',
      'candidate', learning -> 'candidate',
      'versions', (select count(*) from public.model_versions),
      'daemons', (
        select coalesce(jsonb_agg(jsonb_build_object('worker', d.worker, 'started_at', d.started_at,
          'seen_at', d.seen_at, 'silent_s', extract(epoch from now() - d.seen_at), 'state', d.state)
          order by d.started_at), '[]')
        from public.ambara_daemons d
      ),
      'published', (
        select coalesce(jsonb_agg(t.tablename order by t.tablename), '[]') from pg_publication_tables t
        where t.pubname = 'supabase_realtime' and t.schemaname = 'public'
          and t.tablename in ('clips', 'ambara_daemons')
      )
    )
    from counted c
  );
end
$$;

-- As before, and a piece that is given back its draft stays in the queue.
create or replace function public.ambara_restore(p_worker text, p_clip uuid, p_draft bigint)
returns boolean
language plpgsql volatile
as $$
declare
  live public.model_versions;
  chosen public.drafts;
  written_at timestamptz;
begin
  select * into chosen from public.drafts where id = p_draft and clip_id = p_clip;
  if not found then
    return false;
  end if;
  perform from public.clips c where c.id = p_clip for no key update skip locked;
  if not found then
    return false;
  end if;
  update public.clips c
  set draft_transcription = chosen.text
  from public.ambara_draftable() w
  where c.id = p_clip and w.clip_id = c.id
  returning c.updated_at into written_at;
  if not found then
    return false;
  end if;
  insert into public.drafts (clip_id, version_id, text, confidence, flags, worker)
  values (p_clip, chosen.version_id, chosen.text, chosen.confidence, chosen.flags, p_worker);
  live := public.ambara_live_version();
  insert into public.draft_state as s (clip_id, version_id, settled_seq, drafted_at, text_md5, fence)
  values (p_clip, chosen.version_id, live.live_seq, written_at, md5(chosen.text), nextval('public.ambara_fence'))
  on conflict (clip_id) do update set
    version_id = excluded.version_id, settled_seq = excluded.settled_seq, drafted_at = excluded.drafted_at,
    text_md5 = excluded.text_md5, fence = excluded.fence, worker = null, lease_until = null, attempts = 0,
    failed_seq = null, failed_row_at = null, retry_at = null, reason = null, message = null;
  -- The trigger has seen the clip before this was known, and may have taken the text of a piece for a person's.
  insert into public.draft_queue as q (clip_id, priority, created_at, drafted, quiet_seq)
  select w.clip_id, w.priority, w.created_at, w.drafted, w.quiet_seq
  from public.ambara_queueable() w where w.clip_id = p_clip
  on conflict (clip_id) do update set quiet_seq = excluded.quiet_seq, drafted = excluded.drafted;
  return true;
end
$$;

select public.ambara_restrict();
-- Says nothing but the caller's own role.
grant execute on function public.ambara_whoami() to anon, authenticated;
