-- What people changed in the daemon's drafts, clip by clip: whether the drafts really get better. Safe to run twice.

-- The draft that a person had before them beside what they made of it, measured by a daemon (counts of edits need an
-- alignment). The row outlives the draft in the log. One row a clip: a correction that is changed later is measured anew.
create table if not exists public.draft_edits (
  clip_id uuid primary key references public.clips (id) on delete cascade,
  version_id bigint not null references public.model_versions (id),
  draft_id bigint not null,
  -- Of the correction that was measured.
  text_md5 text not null,
  recording text not null,
  corrected_at timestamptz not null,
  -- Of the correction, as it is written.
  words integer not null,
  characters integer not null,
  word_edits integer not null,
  character_edits integer not null
);
create index if not exists draft_edits_version_idx on public.draft_edits (version_id);

alter table public.draft_edits enable row level security;
revoke all on public.draft_edits from public, anon, authenticated;
grant select, insert, update, delete on public.draft_edits to service_role;

create or replace function public.ambara_schema_version()
returns integer
language sql immutable
as $$ select 7 $$;

-- Corrections of drafts that are not measured yet, by clip, from the one behind p_after on:
-- [{"clip_id", "draft_id", "version", "recording", "corrected_at", "text_md5", "draft", "words"}].
-- The draft is the clip's last one in the log, since nothing is drafted under a person's words. The editor shows what was
-- there when its page was opened, which may be an older one: where the correction is one of those to the letter, it is that
-- one that the person accepted. What somebody else has written over the last draft is nobody's draft of ours.
-- `corrected_at` is the clock of somebody's computer, or missing: what cannot be true gives way to the row's own time.
create or replace function public.ambara_unmeasured(p_after uuid, p_limit integer)
returns jsonb
language sql stable
as $$
  select coalesce(jsonb_agg(jsonb_build_object('clip_id', m.clip_id, 'draft_id', m.draft_id, 'version', m.version_id,
    'recording', m.recording, 'corrected_at', m.corrected_at, 'text_md5', md5(m.words), 'draft', m.draft,
    'words', m.words) order by m.clip_id), '[]')
  from (
    select c.clip_id, c.recording, c.words, d.id as draft_id, d.version_id, d.text as draft,
      case when k.corrected_at between d.created_at and now() then k.corrected_at
        else greatest(k.updated_at, d.created_at) end as corrected_at
    from public.ambara_corrections() c
    join public.clips k on k.id = c.clip_id
    cross join lateral (
      select n.text from public.drafts n where n.clip_id = c.clip_id order by n.id desc limit 1
    ) as last
    cross join lateral (
      select n.* from public.drafts n where n.clip_id = c.clip_id
      order by btrim(n.text) = btrim(c.words) desc, n.id desc limit 1
    ) as d
    left join public.draft_edits e on e.clip_id = c.clip_id
    where (c.left_out is null or c.left_out = 'too-long') and c.kind = 'extraction'
      and k.draft_transcription = last.text
      and e.text_md5 is distinct from md5(c.words)
      and (p_after is null or c.clip_id > p_after)
    order by c.clip_id limit p_limit
  ) as m
$$;

-- Note measurements: [{"clip_id", "draft_id", "version", "recording", "corrected_at", "text_md5", "words", "characters",
-- "word_edits", "character_edits"}]. What people have changed since is passed by, and measured another time.
create or replace function public.ambara_measured(p_rows jsonb)
returns integer
language sql volatile
as $$
  with given as (
    select r.* from jsonb_to_recordset(public.ambara_json(p_rows)) as r (
      clip_id uuid, draft_id bigint, version bigint, recording text, corrected_at timestamptz, text_md5 text,
      words integer, characters integer, word_edits integer, character_edits integer
    )
    join public.clips c on c.id = r.clip_id and c.status = 'corrected' and md5(c.corrected_transcription) = r.text_md5
    order by r.clip_id
    for key share of c skip locked
  ),
  noted as (
    insert into public.draft_edits (clip_id, version_id, draft_id, text_md5, recording, corrected_at, words, characters,
      word_edits, character_edits)
    select g.clip_id, g.version, g.draft_id, g.text_md5, g.recording, g.corrected_at, g.words, g.characters,
      g.word_edits, g.character_edits
    from given g
    on conflict (clip_id) do update set version_id = excluded.version_id, draft_id = excluded.draft_id,
      text_md5 = excluded.text_md5, recording = excluded.recording, corrected_at = excluded.corrected_at,
      words = excluded.words, characters = excluded.characters, word_edits = excluded.word_edits,
      character_edits = excluded.character_edits
    returning 1
  )
  select count(*)::integer from noted
$$;

-- [{"version", "week", "clips", "unchanged", "words", "word_edits", "characters", "character_edits"}] by version and week;
-- a week is told by its Monday, in UTC.
create or replace function public.ambara_edit_rates()
returns jsonb
language sql stable
as $$
  select coalesce(jsonb_agg(jsonb_build_object('version', w.version_id, 'week', w.week, 'clips', w.clips,
    'unchanged', w.unchanged, 'words', w.words, 'word_edits', w.word_edits, 'characters', w.characters,
    'character_edits', w.character_edits) order by w.version_id, w.week), '[]')
  from (
    select e.version_id, date_trunc('week', e.corrected_at at time zone 'UTC')::date as week, count(*) as clips,
      count(*) filter (where e.character_edits = 0) as unchanged, sum(e.words) as words,
      sum(e.word_edits) as word_edits, sum(e.characters) as characters, sum(e.character_edits) as character_edits
    from public.draft_edits e group by 1, 2
  ) as w
$$;

-- What people changed in the live version's drafts and in those of the one before it, summed over recordings: clips of one
-- recording are alike, so it is recordings that tell chance from difference.
-- {"version", "before", "chosen", "edits": {version: {"clips", "recordings", "words", "edits", "words_words", "words_edits",
-- "edits_edits"}}}: the last three are sums of products, recording by recording. Null unless a version was live before.
-- `chosen`: a person, or a roll-back, made this one live.
create or replace function public.ambara_edits_compared()
returns jsonb
language sql stable
as $$
  select jsonb_build_object('version', live.id, 'before', before.id, 'before_kind', before.kind,
    'chosen', live.chosen or live.kind <> 'trained',
    'edits', (
      select coalesce(jsonb_object_agg(s.version_id, jsonb_build_object('clips', s.clips, 'recordings', s.recordings,
        'words', s.words, 'edits', s.edits, 'words_words', s.words_words, 'words_edits', s.words_edits,
        'edits_edits', s.edits_edits)), '{}')
      from (
        select g.version_id, sum(g.clips) as clips, count(*) as recordings, sum(g.words) as words, sum(g.edits) as edits,
          sum(g.words * g.words) as words_words, sum(g.words * g.edits) as words_edits, sum(g.edits * g.edits) as edits_edits
        from (
          select e.version_id, e.recording, count(*) as clips, sum(e.words) as words, sum(e.word_edits) as edits
          from public.draft_edits e where e.version_id in (live.id, before.id) group by 1, 2
        ) as g
        group by 1
      ) as s
    ))
  from public.model_versions live
  cross join lateral (
    select v.id, v.kind from public.model_versions v
    where v.live_seq < live.live_seq and v.stage <> 'rejected' order by v.live_seq desc limit 1
  ) as before
  where live.stage = 'live'
$$;

-- Make live what was live before p_version, if that is what is live, was promoted for being better, and nobody chose it.
-- Returns the version that is live then, or null where nothing was changed.
create or replace function public.ambara_rollback_from(p_version bigint, p_reason text)
returns jsonb
language plpgsql volatile
as $$
declare
  live public.model_versions;
begin
  perform pg_advisory_xact_lock(hashtext('ambara_live'));
  live := public.ambara_live_version();
  if live.id is distinct from p_version or live.chosen or live.kind <> 'trained' then
    return null;
  end if;
  return public.ambara_rollback(p_reason);
end
$$;

-- Functions more that the daemon calls by itself. Only added: whatever else is on the list stays.
do $$
begin
  execute format(
    'create or replace function public.ambara_called() returns text[] language sql immutable as $called$ select %L::text[] $called$',
    (
      select array_agg(distinct t.name order by t.name)
      from unnest(public.ambara_called() || array['ambara_unmeasured', 'ambara_measured', 'ambara_edit_rates',
        'ambara_edits_compared', 'ambara_rollback_from']) as t (name)
    )
  );
end
$$;

select public.ambara_restrict();
-- Says nothing but the caller's own role.
grant execute on function public.ambara_whoami() to anon, authenticated;
