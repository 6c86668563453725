-- `ambara doctor` looks at every table that is Ambara's: one was missing. Safe to run twice.

-- As before, with the table in which corrections are measured. Reads the catalogue alone, and no row of anybody's.
create or replace function public.ambara_examine()
returns jsonb
language sql stable
as $$
  with tables as (
    select t.name, c.oid, c.relrowsecurity
    from unnest(array[
      'runs', 'clips', 'model_versions', 'drafts', 'draft_state', 'training_runs', 'training_samples',
      'training_recordings', 'training_requests', 'ambara_daemons', 'draft_queue', 'draft_edits'
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
