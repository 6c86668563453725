-- What may be forgotten, so that nothing grows for ever that nobody needs. Never a row of `clips`. Safe to run twice.

-- Three functions more that the daemon calls by itself. Only added: whatever else is on the list stays.
do $$
begin
  execute format(
    'create or replace function public.ambara_called() returns text[] language sql immutable as $called$ select %L::text[] $called$',
    (
      select array_agg(distinct t.name order by t.name)
      from unnest(public.ambara_called() || array['ambara_forget_drafts', 'ambara_forget_samples', 'ambara_in_use'])
        as t (name)
    )
  );
end
$$;

-- The daemon of this schema calls them, and its disk fills up where they are not there.
create or replace function public.ambara_schema_version()
returns integer
language sql immutable
as $$ select 4 $$;

-- Versions that some daemon has in memory, by its last beat.
create or replace function public.ambara_in_use()
returns jsonb
language sql stable
as $$
  select coalesce(jsonb_agg(distinct (d.state ->> 'version')::bigint), '[]')
  from public.ambara_daemons d where d.state ->> 'version' ~ '^\d{1,18}$'
$$;

-- Forget drafts that nobody needs, of the p_limit behind number p_after: those older than p_days, of clips that people are
-- done with, which had long been replaced when the clip's last draft was written.
-- What always stays: every draft of a pending clip, which a person may have back; the last draft of each clip; and all
-- that were in place in the week before that one. A correction tells how good a draft was only beside the draft that the
-- person had in front of them, and a page that was opened days ago shows what was in place then. The last draft's time is
-- the database's own, and no later than the correction; `corrected_at` is the clock of somebody's computer, or missing.
-- Reads p_limit drafts and the clips that they belong to, so it takes as long whatever the size of the log. Waits for
-- nobody: what somebody holds is passed by.
-- Returns {"forgotten", "after"}: how many, and the number to go on behind, or null when the end is reached.
create or replace function public.ambara_forget_drafts(p_days double precision, p_after bigint, p_limit integer)
returns jsonb
language sql volatile
as $$
  with looked_at as materialized (
    select d.id, d.clip_id, d.created_at from public.drafts d
    where d.id > coalesce(p_after, 0) order by d.id limit p_limit
  ),
  last as materialized (
    select k.clip_id, (select max(n.created_at) from public.drafts n where n.clip_id = k.clip_id) as written_at
    from (select distinct l.clip_id from looked_at l) as k
    join public.clips c on c.id = k.clip_id and c.status in ('corrected', 'discarded')
  ),
  needless as materialized (
    select d.id from public.drafts d
    where d.id in (
      select l.id from looked_at l join last on last.clip_id = l.clip_id
      where l.created_at < now() - make_interval(secs => greatest(p_days, 1) * 86400)
        and exists (
          select from public.drafts s
          where s.clip_id = l.clip_id and s.id > l.id and s.created_at < last.written_at - interval '7 days'
        )
    )
    for update skip locked
  ),
  gone as (delete from public.drafts d using needless n where d.id = n.id returning 1)
  select jsonb_build_object(
    'forgotten', (select count(*) from gone),
    'after', (select max(l.id) from looked_at l having count(*) = p_limit)
  )
$$;

-- Forget up to p_limit samples of runs that failed. A later run has counted the same clip with the same words, audio and
-- side, so nothing that is ever asked of them has another answer: what is new, what is trained on, who is on which side.
-- The rows of the last run to count a clip stay.
create or replace function public.ambara_forget_samples(p_limit integer)
returns integer
language sql volatile
as $$
  with needless as materialized (
    select t.run_id, t.clip_id
    from public.training_runs r join public.training_samples t on t.run_id = r.id
    where r.status = 'failed' and exists (
      select from public.training_samples e
      where e.clip_id = t.clip_id and e.text_md5 = t.text_md5 and e.run_id > t.run_id
        and e.audio_tag is not distinct from t.audio_tag and e.side is not distinct from t.side
    )
    limit p_limit
    for update of t skip locked
  ),
  gone as (
    delete from public.training_samples t using needless n where t.run_id = n.run_id and t.clip_id = n.clip_id
    returning 1
  )
  select count(*)::integer from gone
$$;

select public.ambara_restrict();
-- Says nothing but the caller's own role.
grant execute on function public.ambara_whoami() to anon, authenticated;
