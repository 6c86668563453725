-- What `ambara doctor` cannot see through the API: how the database is set up for the daemon. Safe to run twice.

-- The functions that the daemon calls by itself; all others are called by these. The one list of them.
create or replace function public.ambara_called()
returns text[]
language sql immutable
as $$
  select array[
    'ambara_ask_training', 'ambara_beat', 'ambara_begin_training', 'ambara_claim', 'ambara_count_manual',
    'ambara_decide', 'ambara_drafts', 'ambara_evaluated', 'ambara_examine', 'ambara_exportable', 'ambara_fail',
    'ambara_fail_training', 'ambara_finish_training', 'ambara_leave', 'ambara_left_out', 'ambara_let_go', 'ambara_pin',
    'ambara_promote', 'ambara_recordings', 'ambara_register_model', 'ambara_reject', 'ambara_release', 'ambara_renew',
    'ambara_restore', 'ambara_rollback', 'ambara_samples', 'ambara_samples_frozen', 'ambara_snapshot', 'ambara_status',
    'ambara_submit', 'ambara_training', 'ambara_training_progress', 'ambara_versions'
  ]
$$;

-- As in the migration before, with the list above. The two that tell nothing but who calls and what is installed run
-- with the caller's rights.
create or replace function public.ambara_restrict()
returns void
language plpgsql
as $$
declare
  called constant text[] := public.ambara_called();
  told constant text[] := array['ambara_schema_version', 'ambara_whoami'];
  role_exists constant boolean := exists (select from pg_roles where rolname = 'ambara_daemon');
  f record;
begin
  for f in
    select p.oid::regprocedure as signature, p.proname::text as name from pg_proc p
    where p.pronamespace = 'public'::regnamespace and p.proname like 'ambara\_%'
  loop
    execute format('revoke all on function %s from public, anon, authenticated', f.signature);
    execute format('grant execute on function %s to service_role', f.signature);
    if f.name = any (called) then
      execute format('alter function %s security definer set search_path = pg_catalog, public, extensions, pg_temp',
        f.signature);
    end if;
    if role_exists and f.name = any (called || told) then
      execute format('grant execute on function %s to ambara_daemon', f.signature);
    elsif role_exists then
      execute format('revoke all on function %s from ambara_daemon', f.signature);
    end if;
  end loop;
end
$$;

-- What was found, with no judgement: that is the doctor's. Reads the catalogue alone, and no row of anybody's.
create or replace function public.ambara_examine()
returns jsonb
language sql stable
as $$
  with tables as (
    select t.name, c.oid, c.relrowsecurity
    from unnest(array[
      'runs', 'clips', 'model_versions', 'drafts', 'draft_state', 'training_runs', 'training_samples',
      'training_recordings', 'training_requests', 'ambara_daemons'
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
