-- A role of the daemon's own, `ambara_daemon`, for owners who can sign a token for it: it calls the functions that the
-- daemon calls, reads a few columns, and may write to no table. The functions write, with the rights of their owner.
-- With the service key everything is as before. Safe to run twice.

create or replace function public.ambara_schema_version()
returns integer
language sql immutable
as $$ select 3 $$;

-- Whoever applies this may not be allowed to make roles; then there is the service key.
do $$
begin
  if not exists (select from pg_roles where rolname = 'ambara_daemon') then
    begin
      create role ambara_daemon nologin noinherit;
    exception when duplicate_object or unique_violation then
      null;  -- Roles belong to the whole cluster: another database's migration was faster.
    end;
  end if;
  if exists (select from pg_roles where rolname = 'authenticator') then
    grant ambara_daemon to authenticator;
  end if;
exception when insufficient_privilege then
  raise warning 'the role ambara_daemon cannot be used: %', sqlerrm;
end
$$;

-- Who may call what; every migration ends with it, because to replace a function is to make it an ordinary one again.
-- Supabase lets every role execute what appears in `public`; these functions are for the daemon alone.
-- What the daemon calls runs with its owner's rights. What those call in turn stays ordinary, so that it is merged into
-- their statements. Names are looked up in a fixed order, and the caller's temporary things last: a view that a caller
-- puts before a table of the catalogue would otherwise be read with the owner's rights. `public` and `extensions` are
-- there for the triggers of the dataset's own tables.
create or replace function public.ambara_restrict()
returns void
language plpgsql
as $$
declare
  called constant text[] := array[
    'ambara_ask_training', 'ambara_beat', 'ambara_begin_training', 'ambara_claim', 'ambara_count_manual',
    'ambara_decide', 'ambara_drafts', 'ambara_evaluated', 'ambara_exportable', 'ambara_fail', 'ambara_fail_training',
    'ambara_finish_training', 'ambara_leave', 'ambara_left_out', 'ambara_let_go', 'ambara_pin', 'ambara_promote',
    'ambara_recordings', 'ambara_register_model', 'ambara_reject', 'ambara_release', 'ambara_renew', 'ambara_restore',
    'ambara_rollback', 'ambara_samples', 'ambara_samples_frozen', 'ambara_snapshot', 'ambara_status', 'ambara_submit',
    'ambara_training', 'ambara_training_progress', 'ambara_versions'
  ];
  -- They tell nothing but who calls and what is installed.
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

-- What the role reads by itself: labels of runs, why a person's wish to restore a draft is not carried out, the columns
-- that it subscribes to, and the audio. To be called again where Storage makes its tables later than this.
create or replace function public.ambara_admit()
returns void
language plpgsql
as $$
declare
  name text;
begin
  if not exists (select from pg_roles where rolname = 'ambara_daemon') then
    return;
  end if;
  grant usage on schema public to ambara_daemon;
  grant select (id, label) on public.runs to ambara_daemon;
  grant select (id, status, corrected_transcription) on public.clips to ambara_daemon;
  grant select (worker, beat) on public.ambara_daemons to ambara_daemon;
  foreach name in array array['runs', 'clips', 'ambara_daemons'] loop
    execute format('drop policy if exists "Ambara reads" on public.%I', name);
    execute format('create policy "Ambara reads" on public.%I for select to ambara_daemon using (true)', name);
  end loop;
  if has_schema_privilege('ambara_daemon', 'public', 'create') then
    raise warning 'everybody may create things in the schema public, also the role ambara_daemon: revoke that from public';
  end if;

  -- Storage's tables may not be there yet, or be somebody else's.
  begin
    if to_regclass('storage.objects') is not null and to_regclass('storage.buckets') is not null then
      grant usage on schema storage to ambara_daemon;
      grant select on storage.buckets, storage.objects to ambara_daemon;
      drop policy if exists "Ambara finds the bucket" on storage.buckets;
      -- Not every Storage server asks whoever empties a bucket for more than to see it.
      create policy "Ambara finds the bucket" on storage.buckets for select to ambara_daemon
        using (id = 'clips' and coalesce(current_setting('storage.operation', true), '') not like '%bucket.empty');
      drop policy if exists "Ambara hears clips" on storage.objects;
      create policy "Ambara hears clips" on storage.objects for select to ambara_daemon using (bucket_id = 'clips');
      -- A grant without the right to grant is no more than a warning.
      if not has_schema_privilege('ambara_daemon', 'storage', 'usage')
        or not has_table_privilege('ambara_daemon', 'storage.objects', 'select') then
        raise insufficient_privilege using message = 'no right to grant it';
      end if;
    end if;
  exception when insufficient_privilege then
    raise warning 'the role ambara_daemon may not read the audio in Storage: %', sqlerrm;
  end;
end
$$;

select public.ambara_restrict();
select public.ambara_admit();
-- Says nothing but the caller's own role.
grant execute on function public.ambara_whoami() to anon, authenticated;
