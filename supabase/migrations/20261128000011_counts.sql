-- `ambara status` and the count of what there is to learn walked over all clips, ten seconds long at a million: more
-- than an API gives a statement. Now they read indexes, the queue, and the few rows that neither tells. What they answer is
-- as before. Safe to run twice.

create or replace function public.ambara_schema_version()
returns integer
language sql immutable
as $$ select 8 $$;

create index if not exists ambara_clips_status on public.clips (status);

-- As before. What begins with a plain character has words, and a text without the mark is no record: both is seen
-- without a regular expression, which costs more than all the rest together.
create or replace function public.ambara_corrections()
returns table (
  clip_id uuid, run_id uuid, file_name text, duration_sec double precision, words text,
  recording text, kind text, label text, left_out text
)
language sql stable
as $$
  select c.id, c.run_id, c.file_name, c.duration_sec, c.words,
    coalesce(nullif(btrim(c.source_file), ''), c.run_id::text), run.ambara_kind, run.label,
    case
      -- A split chapter bears a JSON record in place of a correction.
      when strpos(c.words, '"_splitOrigin"') > 0 and c.words ~ '^\s*\{' then 'split-record'
      when c.ambara_chapter is not null then 'chapter'
      -- Nothing but white space, whatever the database's locale takes for it.
      when c.words is null or (
        ascii(c.words) not between 33 and 126
        and c.words !~ '[^[:space:]\x1c-\x1f\u0085\u00a0\u1680\u2000-\u200b\u2028\u2029\u202f\u205f\u2060\u3000\ufeff]'
      ) then 'empty-text'
      when c.duration_sec > 30 then 'too-long'
    end
  from (select null::jsonb as paragraphs, 'extraction'::text as type) as absent
  cross join lateral (
    select k.id, k.run_id, k.file_name, k.duration_sec, k.corrected_transcription as words, k.source_file, k.status,
      paragraphs as ambara_chapter
    from public.clips k
  ) as c
  cross join lateral (select r.label, type as ambara_kind from public.runs r where r.id = c.run_id) as run
  where c.status = 'corrected'
$$;

-- Clips that may be trained on. Not one that was in a run on the other side than its recording is on now (it was given
-- to another since): what was judged by is not trained on, nor the reverse.
create or replace function public.ambara_learnable()
returns table (
  clip_id uuid, run_id uuid, file_name text, duration_sec double precision, text_md5 text, recording text, side text
)
language sql stable
as $$
  select c.clip_id, c.run_id, c.file_name, c.duration_sec, md5(c.words), c.recording, r.side
  from public.ambara_corrections() c
  left join public.training_recordings r on r.recording = c.recording
  -- Said so that half of them are expected, and not one in two hundred: they are joined as a whole then.
  where case when c.left_out is null then true else false end and not exists (
    select from public.training_samples t where t.clip_id = c.clip_id and t.side <> r.side
  )
$$;

-- The same, and what is new: what no run has attempted with these words and this audio, and what is not held out. Audio
-- that cannot be seen now is taken for what it was: a run that is being deleted loses its objects first.
create or replace function public.ambara_trainable(p_bucket text)
returns table (
  clip_id uuid, duration_sec double precision, text_md5 text, recording text, side text, audio_tag text, is_new boolean
)
language sql stable
as $$
  select k.clip_id, k.duration_sec, k.text_md5, k.recording, k.side, a.tag,
    k.side is distinct from 'held-out' and not exists (
      select from public.training_samples t
      where t.clip_id = k.clip_id and t.text_md5 = k.text_md5
        and (a.tag is null or t.audio_tag is not distinct from a.tag)
    )
  from public.ambara_learnable() k
  left join public.ambara_audio_tags(p_bucket) a on a.name = k.run_id::text || '/' || k.file_name
$$;

-- As before. Here what is new is a condition and not a column (see `ambara_trainable`): so the samples are read once,
-- and not looked up clip by clip. No JIT: it takes longer than the answer.
create or replace function public.ambara_training(p_bucket text default 'clips')
returns jsonb
language sql stable
set jit = off
as $$
  with known as materialized (select * from public.ambara_learnable()),
  counted as (
    select count(*) as clips, coalesce(sum(k.duration_sec), 0) / 60 as minutes
    from known k left join public.ambara_audio_tags(p_bucket) a on a.name = k.run_id::text || '/' || k.file_name
    where k.side is distinct from 'held-out' and not exists (
      select from public.training_samples t
      where t.clip_id = k.clip_id and t.text_md5 = k.text_md5
        and (a.tag is null or t.audio_tag is not distinct from a.tag)
    )
  ),
  recorded as (
    select count(*) as recordings, count(*) filter (where side = 'held-out') as held_out
    from (select distinct recording, side from known) as each_one
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

-- As before, and the queue is told that the clip wants nothing.
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
  -- The trigger has seen the clip before this was known.
  update public.draft_queue q set quiet_seq = live.live_seq, drafted = true
  where q.clip_id = p_clip and live.live_seq is not null;
  return true;
end
$$;

-- What was given back until now. As everywhere: whoever writes into the queue holds the clip, and waits for nobody.
with restored as materialized (
  select q.clip_id from public.draft_queue q join public.draft_state s on s.clip_id = q.clip_id
  where s.settled_seq = (select v.live_seq from public.model_versions v where v.stage = 'live')
    and q.quiet_seq <> s.settled_seq
),
held as materialized (
  select c.id from public.clips c where c.id = any (array(select r.clip_id from restored r))
  for no key update skip locked
)
update public.draft_queue q set quiet_seq = w.quiet_seq, drafted = w.drafted
from public.ambara_queueable() w
where w.clip_id = q.clip_id and q.clip_id = any (array(select h.id from held h));

-- What `ambara status` shows. A pending clip that nobody types in is one of these:
--   held, because its run or a chapter forbids it (`aloud`): few runs have such clips, and only they are looked at;
--   claimed, or failed under the live number (`judged`): few, and each is judged by what it is;
--   drafted, if the queue has it under the live number;
--   ready: all others. So what the queue has missed is ready too.
create or replace function public.ambara_status()
returns jsonb
language plpgsql stable
set jit = off
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
    except
    select d.clip_id from public.ambara_draftable() d where d.run_id = any (special)
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

-- As before, and what the queue depends on. Reads the catalogue alone, and no row of anybody's.
create or replace function public.ambara_examine()
returns jsonb
language sql stable
as $$
  with tables as (
    select t.name, c.oid, c.relrowsecurity
    from unnest(array[
      'runs', 'clips', 'model_versions', 'drafts', 'draft_state', 'training_runs', 'training_samples',
      'training_recordings', 'training_requests', 'ambara_daemons', 'draft_queue'
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

select public.ambara_restrict();
-- Says nothing but the caller's own role.
grant execute on function public.ambara_whoami() to anon, authenticated;
