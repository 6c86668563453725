-- What the learning loop keeps: sides of recordings, training runs with their samples, versions and who is live.
-- Safe to run twice.

-- A recording's side is decided once, and for ever: what a model is judged on, none was ever trained on.
create table if not exists public.training_recordings (
  recording text primary key,
  side text not null check (side in ('train', 'held-out')),
  decided_at timestamptz not null default now()
);

-- A person wants training now: one row, or none.
create table if not exists public.training_requests (
  one boolean primary key default true check (one),
  asked_at timestamptz not null default now()
);

alter table public.model_versions
  add column if not exists reason text,
  add column if not exists pinned boolean not null default false,
  -- A person made it live; see `ambara_register_model`.
  add column if not exists chosen boolean not null default false;
alter table public.model_versions drop constraint if exists model_versions_stage_check;
alter table public.model_versions add constraint model_versions_stage_check
  check (stage in ('training', 'candidate', 'live', 'retired', 'rejected'));

alter table public.training_runs
  add column if not exists attempts integer not null default 1,
  -- Workers that never came back.
  add column if not exists lost integer not null default 0,
  -- Of the training side, as counted when the run began.
  add column if not exists trained_clips integer not null default 0,
  add column if not exists trained_minutes double precision not null default 0,
  add column if not exists left_out jsonb not null default '{}';

alter table public.training_samples
  add column if not exists audio_tag text,
  add column if not exists side text check (side in ('train', 'held-out'));

create index if not exists ambara_clips_corrected on public.clips (run_id) where status = 'corrected';

do $$
declare
  name text;
begin
  foreach name in array array['training_recordings', 'training_requests'] loop
    execute format('alter table public.%I enable row level security', name);
    execute format('revoke all on public.%I from public, anon, authenticated', name);
    execute format('grant select, insert, update, delete on public.%I to service_role', name);
  end loop;
end
$$;

create or replace function public.ambara_schema_version()
returns integer
language sql immutable
as $$ select 2 $$;

-- Corrected clips, and why one of them may not be trained on: the one place that says so. `left_out` null: it may.
-- `runs.type` and `clips.paragraphs` may be missing or arrive later; see `ambara_draftable`.
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
      when c.words ~ '^\s*\{' and strpos(c.words, '"_splitOrigin"') > 0 then 'split-record'
      when c.ambara_chapter is not null then 'chapter'
      -- Nothing but white space, whatever the database's locale takes for it.
      when c.words is null
        or c.words !~ '[^[:space:]\x1c-\x1f\u0085\u00a0\u1680\u2000-\u200b\u2028\u2029\u202f\u205f\u2060\u3000\ufeff]'
        then 'empty-text'
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

-- What tells one recording at an object's place from the next. Nothing where Storage keeps its objects elsewhere or
-- does not let itself be read.
create or replace function public.ambara_audio_tags(p_bucket text)
returns table (name text, tag text)
language plpgsql stable
as $$
begin
  return query execute
    'select o.name::text, coalesce('
    '  public.ambara_json(to_jsonb(o.metadata)) ->> ''eTag'', to_jsonb(o) ->> ''version'', to_jsonb(o) ->> ''updated_at'')'
    ' from storage.objects o where o.bucket_id = $1'
    using p_bucket;
exception when others then
  return;
end
$$;

-- Clips that may be trained on. Not one that was in a run on the other side than its recording is on now (it was given to
-- another since): what was judged by is not trained on, nor the reverse. New is what no run has attempted with these
-- words and this audio, and what is not held out. Audio that cannot be seen now is taken for what it was: a run that is
-- being deleted loses its objects first.
create or replace function public.ambara_trainable(p_bucket text)
returns table (
  clip_id uuid, duration_sec double precision, text_md5 text, recording text, side text, audio_tag text, is_new boolean
)
language sql stable
as $$
  select c.clip_id, c.duration_sec, md5(c.words), c.recording, r.side, a.tag,
    r.side is distinct from 'held-out' and not exists (
      select from public.training_samples t
      where t.clip_id = c.clip_id and t.text_md5 = md5(c.words)
        and (a.tag is null or t.audio_tag is not distinct from a.tag)
    )
  from public.ambara_corrections() c
  left join public.training_recordings r on r.recording = c.recording
  left join public.ambara_audio_tags(p_bucket) a on a.name = c.run_id::text || '/' || c.file_name
  where c.left_out is null and not exists (
    select from public.training_samples t where t.clip_id = c.clip_id and t.side <> r.side
  )
$$;

-- Everything that the learning loop's decisions look at.
create or replace function public.ambara_training(p_bucket text default 'clips')
returns jsonb
language sql stable
as $$
  with known as materialized (select * from public.ambara_trainable(p_bucket)),
  counted as (
    select count(*) filter (where is_new) as clips, coalesce(sum(duration_sec) filter (where is_new), 0) / 60 as minutes
    from known
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

-- [{"key", "clips", "seconds", "side"}] of all recordings with something to train on.
create or replace function public.ambara_recordings()
returns jsonb
language sql stable
as $$
  select coalesce(jsonb_agg(jsonb_build_object('key', g.recording, 'clips', g.clips, 'seconds', g.seconds,
    'side', r.side) order by g.recording), '[]')
  from (
    select c.recording, count(*) as clips, coalesce(sum(c.duration_sec), 0) as seconds
    from public.ambara_corrections() c where c.left_out is null group by c.recording
  ) as g
  left join public.training_recordings r on r.recording = g.recording
$$;

-- p_sides: {recording: side}. What is decided stays, also where a recording only has another name now: that of its clips
-- which were in a run. Returns how many were.
create or replace function public.ambara_decide(p_sides jsonb)
returns integer
language sql volatile
as $$
  with was as (
    select c.recording, max(t.side) as side
    from public.ambara_corrections() c join public.training_samples t on t.clip_id = c.clip_id
    group by c.recording
  ),
  decided as (
    insert into public.training_recordings (recording, side)
    select s.key, coalesce(w.side, s.value)
    from jsonb_each_text(public.ambara_json(p_sides)) s left join was w on w.recording = s.key
    order by s.key
    on conflict (recording) do nothing
    returning 1
  )
  select count(*)::integer from decided
$$;

create or replace function public.ambara_ask_training()
returns void
language sql volatile
as $$ insert into public.training_requests default values on conflict do nothing $$;

-- The progress card of the editor, where it has one: one row a run. Its table knows no training, so it passes for a
-- re-draft. Whatever goes wrong here goes unsaid: a card is no reason to stop a training.
create or replace function public.ambara_training_card(p_run bigint)
returns void
language plpgsql volatile
as $$
declare
  run public.training_runs;
  version public.model_versions;
  card_status text;
  percent integer;
  message text;
begin
  if to_regclass('public.jobs') is null then
    return;
  end if;
  select * into run from public.training_runs where id = p_run;
  select * into version from public.model_versions where id = run.version_id;
  if run.status = 'active' then
    card_status := 'running';
    -- `least` passes over a null.
    percent := coalesce(floor(100 * (run.detail ->> 'step')::numeric / nullif((run.detail ->> 'steps')::numeric, 0)), 0);
    percent := greatest(0, least(99, percent));
    message := concat_ws(', ',
      'Training version ' || version.id || coalesce(' (' || (run.detail ->> 'phase') || ')', ''),
      'step ' || (run.detail ->> 'step') || ' of ' || (run.detail ->> 'steps'),
      'loss ' || round((run.detail ->> 'loss')::numeric, 3),
      'word error rate ' || round(100 * (run.detail ->> 'wer')::numeric, 1) || ' %',
      'about ' || ceil((run.detail ->> 'seconds_left')::numeric / 60) || ' min left');
  elsif run.status = 'failed' then
    card_status := 'failed';
    message := format('Training version %s failed: %s', version.id, run.reason);
  else
    card_status := 'done';
    percent := 100;
    message := case when version.stage = 'rejected' then format('Version %s was turned down: %s', version.id, version.reason)
      else format('Version %s is trained; it is judged before it drafts.', version.id) end;
  end if;
  update public.jobs j set status = card_status, progress = coalesce(percent, j.progress), progress_message = message
  where j.params ->> 'ambara_run' = p_run::text;
  if not found then
    insert into public.jobs (type, status, progress, progress_message, params)
    values ('redraft', card_status, coalesce(percent, 0), message, jsonb_build_object('ambara_run', p_run));
  end if;
exception when others then
  return;
end
$$;

-- End a run without a candidate. For the other functions: the caller holds the row.
create or replace function public.ambara_end_in_failure(p_run bigint, p_message text, p_detail jsonb)
returns void
language sql volatile
as $$
  update public.training_runs
  set status = 'failed', reason = p_message, detail = detail || p_detail, lease_until = null, ended_at = now()
  where id = p_run;
  update public.model_versions set stage = 'rejected', reason = p_message
  where stage = 'training' and id = (select r.version_id from public.training_runs r where r.id = p_run);
  select public.ambara_training_card(p_run);
$$;

-- Begin a run, or take over one whose lease has ended. Returns what the worker holds then, or null. A run begins when so
-- many clips or minutes are new, when a person has asked, or when p_retry_of has failed and no run came after it.
-- One at a time: whoever waited for the lock counts again what is left.
create or replace function public.ambara_begin_training(
  p_worker text, p_bar_clips integer, p_bar_minutes double precision, p_lease_s double precision,
  p_settings jsonb, p_bucket text default 'clips', p_retry_of bigint default null
)
returns jsonb
language plpgsql volatile
as $$
declare
  run public.training_runs;
  version bigint;
  counted record;
begin
  perform pg_advisory_xact_lock(hashtext('ambara_training'));
  select * into run from public.training_runs where status = 'active' for update;
  if found then
    if run.lease_until >= now() then
      return null;
    end if;
    -- A worker that let go left no name, and is no loss.
    if run.worker is not null then
      run.lost := run.lost + 1;
    end if;
    if run.lost >= 5 then
      perform public.ambara_end_in_failure(
        run.id, 'Five workers began this training and none came back; look in their logs for what ended them.', '{}');
      return null;
    end if;
    update public.training_runs
    set worker = p_worker, fence = run.fence + 1, attempts = run.attempts + 1, lost = run.lost,
      lease_until = now() + make_interval(secs => p_lease_s)
    where id = run.id
    returning * into run;
  else
    -- A recording without a side can neither be trained on nor be judged by, so it counts for nothing yet.
    select count(*) as clips, count(*) filter (where t.is_new) as new_clips,
      coalesce(sum(t.duration_sec) filter (where t.is_new), 0) / 60 as new_minutes
    into counted
    from public.ambara_trainable(p_bucket) t where t.side = 'train';
    if counted.clips = 0 or not (
      counted.new_clips >= greatest(p_bar_clips, 1)
      or (p_bar_minutes > 0 and counted.new_minutes >= p_bar_minutes)
      or exists (select from public.training_requests)
      or exists (
        select from public.training_runs r
        where r.id = p_retry_of and r.status = 'failed' and r.id = (select max(id) from public.training_runs)
      )
    ) then
      return null;
    end if;
    delete from public.training_requests where one;  -- some servers refuse a delete without a condition
    insert into public.model_versions (name, fingerprint, kind, stage)
    values ('training', 'untrained:' || gen_random_uuid(), 'trained', 'training')
    returning id into version;
    update public.model_versions
    set name = 'trained-' || lpad(version::text, greatest(4, length(version::text)), '0') where id = version;
    insert into public.training_runs (version_id, worker, fence, lease_until, detail, left_out)
    values (version, p_worker, 1, now() + make_interval(secs => p_lease_s),
      jsonb_build_object('settings', public.ambara_json(p_settings)), public.ambara_left_out(null))
    returning * into run;
    -- Locked without waiting: a person who deletes a run locks its clips too, in an order of their own.
    with known as materialized (select * from public.ambara_trainable(p_bucket) t where t.side is not null),
    held as materialized (
      select c.id from public.clips c where c.id in (select k.clip_id from known k) for key share skip locked
    ),
    taken as (
      insert into public.training_samples (run_id, clip_id, text_md5, audio_tag, side)
      select run.id, k.clip_id, k.text_md5, k.audio_tag, k.side from known k join held h on h.id = k.clip_id
    )
    update public.training_runs r
    set trained_clips = t.clips, trained_minutes = t.minutes
    from (
      select count(*) as clips, coalesce(sum(k.duration_sec), 0) / 60 as minutes
      from known k join held h on h.id = k.clip_id where k.side = 'train'
    ) as t
    where r.id = run.id;
  end if;
  perform public.ambara_training_card(run.id);
  return jsonb_build_object('id', run.id, 'version', run.version_id, 'fence', run.fence, 'attempts', run.attempts,
    'left_out', run.left_out);
end
$$;

-- The run, if this worker still holds it, locked; else nothing.
create or replace function public.ambara_held_run(p_worker text, p_run bigint, p_fence bigint)
returns setof public.training_runs
language sql volatile
as $$
  select r.* from public.training_runs r
  where r.id = p_run and r.status = 'active' and r.worker = p_worker and r.fence = p_fence
  for update
$$;

-- Renew the lease and store how far the run is. False: the run is another worker's.
create or replace function public.ambara_training_progress(
  p_worker text, p_run bigint, p_fence bigint, p_detail jsonb, p_lease_s double precision
)
returns boolean
language plpgsql volatile
as $$
begin
  perform from public.ambara_held_run(p_worker, p_run, p_fence);
  if not found then
    return false;
  end if;
  update public.training_runs
  set detail = detail || public.ambara_json(p_detail), lease_until = now() + make_interval(secs => p_lease_s)
  where id = p_run;
  perform public.ambara_training_card(p_run);
  return true;
end
$$;

-- End a run with a candidate. Returns the version, or null where the run is another worker's. A second call after a
-- lost answer finds the run finished and says the same.
create or replace function public.ambara_finish_training(
  p_worker text, p_run bigint, p_fence bigint, p_name text, p_fingerprint text, p_detail jsonb
)
returns jsonb
language plpgsql volatile
as $$
declare
  run public.training_runs;
  twin bigint;
begin
  -- Others make versions known under this lock, by the same fingerprint perhaps.
  perform pg_advisory_xact_lock(hashtext('ambara_live'));
  select * into run from public.ambara_held_run(p_worker, p_run, p_fence);
  if found then
    select v.id into twin from public.model_versions v where v.fingerprint = p_fingerprint;
    update public.model_versions
    set name = p_name,
      fingerprint = case when twin is null then p_fingerprint else fingerprint end,
      stage = case when twin is null then 'candidate' else 'rejected' end,
      reason = 'the same weights as version ' || twin,
      detail = detail || public.ambara_json(p_detail)
    where id = run.version_id;
    if twin is null then
      update public.model_versions
      set stage = 'rejected', reason = 'superseded by version ' || run.version_id
      where stage = 'candidate' and id < run.version_id;
    end if;
    update public.training_runs
    set status = 'finished', detail = detail || '{"phase": "finished"}', lease_until = null, ended_at = now()
    where id = p_run;
    perform public.ambara_training_card(p_run);
  else
    select * into run from public.training_runs r
    where r.id = p_run and r.status = 'finished' and r.worker = p_worker and r.fence = p_fence;
    if not found then
      return null;
    end if;
  end if;
  return public.ambara_versions(run.version_id) -> 0;
end
$$;

create or replace function public.ambara_fail_training(
  p_worker text, p_run bigint, p_fence bigint, p_message text, p_detail jsonb
)
returns boolean
language plpgsql volatile
as $$
begin
  perform from public.ambara_held_run(p_worker, p_run, p_fence);
  if not found then
    return false;
  end if;
  perform public.ambara_end_in_failure(p_run, p_message, public.ambara_json(p_detail));
  return true;
end
$$;

-- Give a run back, so that whoever comes next does not wait for the lease to end.
create or replace function public.ambara_let_go(p_worker text, p_run bigint, p_fence bigint)
returns boolean
language sql volatile
as $$
  with given as (
    update public.training_runs set worker = null, lease_until = null
    where id = p_run and status = 'active' and worker = p_worker and fence = p_fence
    returning 1
  )
  select exists (select from given)
$$;

-- What a run counted, a page at a time. `text`, `side` and place are one truth: where any of them changed since, there
-- is no text.
create or replace function public.ambara_samples(p_run bigint, p_after uuid, p_limit integer)
returns table (
  clip_id uuid, run_id uuid, file_name text, recording text, side text, kind text, text text, text_md5 text,
  duration_s double precision, label text, seen boolean
)
language sql stable
as $$
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
  order by t.clip_id
$$;

-- p_audio: {clip id: sha256 of the audio that was trained on}.
create or replace function public.ambara_samples_frozen(p_worker text, p_run bigint, p_fence bigint, p_audio jsonb)
returns integer
language sql volatile
as $$
  with noted as (
    update public.training_samples t set audio_sha256 = a.value
    from jsonb_each_text(public.ambara_json(p_audio)) a, public.ambara_held_run(p_worker, p_run, p_fence) r
    where t.run_id = r.id and t.clip_id = a.key::uuid
    returning 1
  )
  select count(*)::integer from noted
$$;

-- The corrected clips of these runs that may be trained on, a page at a time.
create or replace function public.ambara_exportable(p_runs uuid[], p_after uuid, p_limit integer)
returns table (
  clip_id uuid, run_id uuid, file_name text, recording text, side text, kind text, text text, text_md5 text,
  duration_s double precision, label text
)
language sql stable
as $$
  select c.clip_id, c.run_id, c.file_name, c.recording, coalesce(s.side, 'train'), c.kind, c.words, md5(c.words),
    c.duration_sec, c.label
  from public.ambara_corrections() c
  left join public.training_recordings s on s.recording = c.recording
  where c.run_id = any (p_runs) and c.left_out is null
    and c.clip_id > coalesce(p_after, '00000000-0000-0000-0000-000000000000')
  order by c.clip_id limit p_limit
$$;

-- {reason: how many} of corrected clips, of these runs or (null) of all. Without a side is only what training leaves out.
create or replace function public.ambara_left_out(p_runs uuid[])
returns jsonb
language sql stable
as $$
  select coalesce(jsonb_object_agg(g.reason, g.clips), '{}')
  from (
    select coalesce(c.left_out, case when s.side is null then 'undecided' else 'changed-sides' end) as reason,
      count(*) as clips
    from public.ambara_corrections() c left join public.training_recordings s on s.recording = c.recording
    where (p_runs is null or c.run_id = any (p_runs))
      and (c.left_out is not null or (
        p_runs is null and (s.side is null or exists (
          select from public.training_samples t where t.clip_id = c.clip_id and t.side <> s.side
        ))
      ))
    group by 1
  ) as g
$$;

-- Versions as the daemon knows them: all, one, or those at a stage; the oldest first.
create or replace function public.ambara_versions(p_version bigint default null, p_stage text default null)
returns jsonb
language sql stable
as $$
  select coalesce(jsonb_agg(jsonb_build_object('id', v.id, 'name', v.name, 'fingerprint', v.fingerprint,
    'kind', v.kind, 'stage', v.stage, 'live_seq', v.live_seq, 'pinned', v.pinned, 'reason', v.reason,
    'detail', v.detail, 'created_at', v.created_at, 'live_at', v.live_at,
    'drafts', (select count(*) from public.drafts d where d.version_id = v.id)) order by v.id), '[]')
  from public.model_versions v
  where (p_version is null or v.id = p_version) and (p_stage is null or v.stage = p_stage)
$$;

create or replace function public.ambara_evaluated(p_version bigint, p_comparison jsonb)
returns boolean
language sql volatile
as $$
  with noted as (
    update public.model_versions
    set detail = jsonb_set(detail, '{comparison}', public.ambara_json(p_comparison)) where id = p_version
    returning 1
  )
  select exists (select from noted)
$$;

-- Make a version live in place of the one that is. The caller holds the lock `ambara_live`.
create or replace function public.ambara_go_live(p_version bigint, p_reason text, p_chosen boolean)
returns void
language sql volatile
as $$
  update public.model_versions set stage = 'retired' where stage = 'live' and id <> p_version;
  update public.model_versions
  set stage = 'live', live_seq = nextval('public.ambara_live_seq'), live_at = now(), reason = p_reason, chosen = p_chosen
  where id = p_version;
$$;

-- p_expected: what a candidate was judged against; null: a person's choice, over whatever is live.
-- Returns {"live", "refused"}: what is live now, and why this version never can be, in words.
create or replace function public.ambara_promote(p_version bigint, p_expected bigint, p_reason text)
returns jsonb
language plpgsql volatile
as $$
declare
  mine public.model_versions;
  live public.model_versions;
  refused text;
begin
  perform pg_advisory_xact_lock(hashtext('ambara_live'));
  select * into mine from public.model_versions where id = p_version;
  live := public.ambara_live_version();
  refused := case
    when mine.id is null then format('There is no version %s; `ambara models list` shows them.', p_version)
    when mine.stage = 'training' then format('Version %s is still being trained.', p_version)
    when mine.fingerprint like 'untrained:%' then
      format('Version %s has no weights of its own: %s', p_version, mine.reason)
  end;
  if refused is null and mine.stage <> 'live'
    and (p_expected is null or (live.id = p_expected and mine.stage = 'candidate')) then
    perform public.ambara_go_live(p_version, p_reason, p_expected is null);
    live := public.ambara_live_version();
  end if;
  return jsonb_build_object('live', live.id, 'refused', refused);
end
$$;

create or replace function public.ambara_reject(p_version bigint, p_reason text)
returns boolean
language sql volatile
as $$
  with turned_down as (
    update public.model_versions set stage = 'rejected', reason = p_reason
    where id = p_version and stage not in ('live', 'training')
    returning 1
  )
  select exists (select from turned_down)
$$;

-- Make live what was live before. Returns it, or null where there was none.
create or replace function public.ambara_rollback(p_reason text)
returns jsonb
language plpgsql volatile
as $$
declare
  live public.model_versions;
  before bigint;
begin
  perform pg_advisory_xact_lock(hashtext('ambara_live'));
  live := public.ambara_live_version();
  select v.id into before from public.model_versions v
  where v.live_seq < live.live_seq and v.stage <> 'rejected'
  order by v.live_seq desc limit 1;
  if before is null then
    return null;
  end if;
  perform public.ambara_go_live(before, format('rolled back from version %s: %s', live.id, p_reason), true);
  update public.model_versions set stage = 'rejected', reason = p_reason where id = live.id;
  return public.ambara_versions(before) -> 0;
end
$$;

create or replace function public.ambara_pin(p_version bigint, p_pinned boolean)
returns boolean
language sql volatile
as $$
  with noted as (
    update public.model_versions set pinned = p_pinned where id = p_version
    returning 1
  )
  select exists (select from noted)
$$;

-- Make a model known. With p_go_live a base becomes the live version, but not over a trained version, which was judged
-- better than a base; not over one that a person made live by hand, unless this base never was live here (then it is the
-- newer wish); and not if it was turned down, unless nothing is live.
-- Returns {"version", "live": {"id", "name", "fingerprint", "kind"} or null}.
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
  select * into mine from public.model_versions where fingerprint = p_fingerprint;
  if not found then
    insert into public.model_versions (name, fingerprint, kind, detail)
    values (p_name, p_fingerprint, case when p_go_live then 'base' else 'manual' end, public.ambara_json(p_detail))
    returning * into mine;
  end if;
  live := public.ambara_live_version();
  if p_go_live and live.id is distinct from mine.id and (
    live.id is null
    or (live.kind <> 'trained' and mine.stage <> 'rejected' and (not live.chosen or mine.live_seq is null))
  ) then
    perform public.ambara_go_live(mine.id, null, false);
    update public.model_versions set kind = 'base' where id = mine.id and kind = 'manual';
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

-- Clips that want a draft now, and whether they were ever drafted here.
-- `updated_at` is when a transaction began, so a later change may bear an earlier time: only "another one" is asked.
-- p_manual null: from the live version; a clip is settled once it was drafted since that version went live, and
--   unsettled again when somebody else wrote another draft over it.
-- p_manual given: a person asked for drafts by this version; each clip is tried once per p_worker.
create or replace function public.ambara_waiting(p_live_seq bigint, p_manual bigint, p_worker text)
returns table (
  clip_id uuid, run_id uuid, file_name text, duration_sec double precision,
  priority double precision, created_at timestamptz, updated_at timestamptz, drafted boolean
)
language sql stable
as $$
  select d.clip_id, d.run_id, d.file_name, d.duration_sec, d.priority, d.created_at, d.updated_at,
    s.version_id is not null
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

create or replace function public.ambara_wanting(p_live_seq bigint, p_manual bigint, p_worker text)
returns table (
  clip_id uuid, run_id uuid, file_name text, duration_sec double precision,
  priority double precision, created_at timestamptz, updated_at timestamptz
)
language sql stable
as $$
  select w.clip_id, w.run_id, w.file_name, w.duration_sec, w.priority, w.created_at, w.updated_at
  from public.ambara_waiting(p_live_seq, p_manual, p_worker) w
$$;

-- Claim up to p_limit clips: those never drafted here first, then what only a better draft is wanted for; each group in
-- the editor's order. Claims are made one at a time (an advisory lock of milliseconds), so several workers never reach
-- for the same clip; `skip locked` passes by a row that an editor holds at this moment.
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
  enough integer := 4 * p_limit;  -- More than asked for: some may be locked.
  wanted uuid[];
  some_drafted boolean;
begin
  perform pg_advisory_xact_lock(hashtext('ambara_claim'));
  live := public.ambara_live_version();
  if not p_manual and live.id is distinct from p_version then
    return;
  end if;
  select coalesce(array_agg(h.clip_id), '{}'), coalesce(bool_or(h.drafted), false) into wanted, some_drafted
  from (
    select w.clip_id, w.drafted from public.ambara_waiting(live.live_seq, manual, p_worker) w
    where p_runs is null or w.run_id = any (p_runs)
    order by w.priority desc, w.created_at, w.clip_id
    limit enough
  ) as h;
  -- Of a long queue only the head was read, and those never drafted may stand far behind it.
  if some_drafted and cardinality(wanted) = enough then
    wanted := wanted || array(
      select w.clip_id from public.ambara_waiting(live.live_seq, manual, p_worker) w
      where not w.drafted and (p_runs is null or w.run_id = any (p_runs))
      order by w.priority desc, w.created_at, w.clip_id
      limit enough
    );
  end if;
  return query
  with held as materialized (
    select c.id, c.run_id, c.file_name, c.duration_sec, c.priority, c.created_at, c.updated_at,
      s.version_id is not null as drafted
    from public.clips c left join public.draft_state s on s.clip_id = c.id
    where c.id = any (wanted)
    order by drafted, c.priority desc, c.created_at, c.id
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
  order by h.drafted, h.priority desc, h.created_at, h.id;
end
$$;

-- [{"id", "version", "text", "confidence", "flags", "created_at"}]: all drafts of a clip, the newest first.
create or replace function public.ambara_drafts(p_clip uuid)
returns jsonb
language sql stable
as $$
  select coalesce(jsonb_agg(jsonb_build_object('id', d.id, 'version', d.version_id, 'text', d.text,
    'confidence', d.confidence, 'flags', d.flags, 'created_at', d.created_at) order by d.id desc), '[]')
  from public.drafts d where d.clip_id = p_clip
$$;

-- Give a clip an older draft back, under the guard of `ambara_submit`: the row is locked without waiting, judged in a new
-- statement, and nothing but `draft_transcription` is set. Settled under the present live number, it is not drafted over
-- before another version goes live; whoever was about to draft it loses the claim.
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
  return true;
end
$$;

-- What `ambara status` shows.
create or replace function public.ambara_status()
returns jsonb
language sql stable
as $$
  with live as (select * from public.model_versions v where v.stage = 'live'),
  learning as materialized (select public.ambara_training() as found),
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
      select jsonb_build_object('id', id, 'name', name, 'kind', kind, 'since', live_at, 'reason', reason, 'drafts',
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
    'new_corrections', jsonb_build_object('clips', found -> 'new_clips', 'minutes', found -> 'new_minutes'),
    'training', found - 'candidate',
    'candidate', found -> 'candidate',
    'versions', (select count(*) from public.model_versions),
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
  from learning
$$;

select public.ambara_restrict();
-- Says nothing but the caller's own role.
grant execute on function public.ambara_whoami() to anon, authenticated;
