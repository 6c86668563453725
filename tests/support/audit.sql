-- The triggers of audit.py.
-- In the order of a person's delete, so that neither waits for the other.
lock table public.clips, public.draft_state, public.drafts in share row exclusive mode;
create schema audit;
grant usage on schema audit to public;
create sequence audit.clock;
-- Append-only: writing it down never makes anybody wait.
create table audit.log (
  seq bigint not null default nextval('audit.clock'), clip_id uuid not null, kind text not null,
  writer text not null, worker text, fence bigint
);
create index on audit.log (clip_id, seq desc);
create table audit.violations (
  seq bigint not null default nextval('audit.clock'), clip_id uuid, what text not null, writer text not null
);

-- The function of ours from within which this is done, or the role that does it by itself.
create function audit.writer(context text) returns text language sql stable as $$
  select coalesce(
    case when strpos(context, 'ambara_') > 0 then
      substring(context, '(?n)^(?:PL/pgSQL|SQL) function "?(?:public\.)?(ambara_\w+)')
    end,
    nullif(current_setting('role', true), 'none'), session_user)
$$;

create function audit.accuse(clip uuid, writer text, what text) returns void language sql
as $$ insert into audit.violations (clip_id, writer, what) values (clip, writer, what) $$;

-- Where the daemon is asked to show useful clips first, a row in here; and then what it wrote, and over what.
create table audit.asked (useful boolean);
create table audit.priorities (clip_id uuid primary key, former double precision, given double precision);

-- The daemon sets the priority of a clip that has none, or its own again, and gives back what was there.
create function audit.prioritising(clip uuid, writer text, was double precision, becomes double precision)
returns void language plpgsql as $$
declare
  own audit.priorities;
begin
  select * into own from audit.priorities p where p.clip_id = clip and p.given is not distinct from was;
  if own.clip_id is null and (coalesce(was, 0) <> 0 or writer <> 'ambara_submit') then
    perform audit.accuse(clip, writer, format('took the priority %s for its own', was));
  elsif writer <> 'ambara_submit' and becomes is distinct from own.former then
    perform audit.accuse(clip, writer, format('gave back %s for %s', becomes, own.former));
  elsif becomes <> 0 and (becomes < 0 or becomes > 1) then
    perform audit.accuse(clip, writer, format('set the priority %s', becomes));
  end if;
  insert into audit.priorities (clip_id, former, given)
  values (clip, case when own.clip_id is null then was else own.former end, becomes)
  on conflict (clip_id) do update set former = excluded.former, given = excluded.given;
end $$;

create function audit.is_daemon(writer text) returns boolean language sql immutable
as $$ select starts_with(writer, 'ambara_') $$;

-- Why a draft must not be written into this row; null where it may.
create function audit.objection(clip jsonb) returns text language plpgsql stable as $$
begin
  return case
    when clip ->> 'status' is distinct from 'pending' then 'status ' || (clip ->> 'status')
    when clip ->> 'corrected_transcription' is not null then 'a person''s words'
    when clip ->> 'paragraphs' is not null then 'a chapter'
    when coalesce(
      (select to_jsonb(r) ->> 'type' from public.runs r where r.id = (clip ->> 'run_id')::uuid), 'extraction'
    ) <> 'extraction' then 'a reading run'
    when clip ->> 'file_name' like 'chunks/%' and exists (
      select from public.clips k
      where k.run_id = (clip ->> 'run_id')::uuid and to_jsonb(k) ->> 'paragraphs' is not null
    ) then 'a piece of a chapter'
  end;
end $$;

-- Before the row changes, because the claim is settled by the same statement.
create function audit.updating() returns trigger language plpgsql security definer as $$
declare
  context text;
  who text;
  before jsonb;
  changed text[];
  objection text;
  last audit.log;
  stamp text[];
begin
  get diagnostics context = pg_context;
  who := audit.writer(context);
  if not audit.is_daemon(who) and who <> 'service_role' then
    insert into audit.log (clip_id, kind, writer) values (old.id, 'touch', who);
    return new;
  end if;
  before := to_jsonb(old);
  select coalesce(array_agg(n.key order by n.key), '{}') into changed
  from jsonb_each(to_jsonb(new)) n where n.value is distinct from before -> n.key;
  if who = 'service_role' then
    -- The extraction's scripts send rows again, over those that are there; else nobody writes under this role.
    if changed && '{id,run_id,file_name,status,corrected_transcription,corrected_at,corrected_by,paragraphs,created_at}'
      or (current_query() !~* 'on conflict' and changed <> '{}') then
      perform audit.accuse(old.id, who, 'changed ' || array_to_string(changed, ', ') || ' beside the functions');
    end if;
    insert into audit.log (clip_id, kind, writer) values (old.id, 'touch', who);
    return new;
  end if;

  if 'priority' = any (changed) and exists (select from audit.asked) then
    perform audit.prioritising(old.id, who, old.priority, new.priority);
    changed := array_remove(changed, 'priority');
  end if;
  if who = 'ambara_give_back_priorities' and exists (select from audit.asked) then
    if not changed <@ '{updated_at}' then
      perform audit.accuse(old.id, who, 'changed ' || array_to_string(changed, ', '));
    end if;
    return new;
  end if;
  if not changed <@ '{draft_transcription,updated_at}' then
    perform audit.accuse(old.id, who, 'changed ' || array_to_string(changed, ', '));
  end if;
  objection := audit.objection(before);
  if objection is not null then
    perform audit.accuse(old.id, who, 'drafted where there was ' || objection);
  end if;
  if who = 'ambara_submit' then
    select * into last from audit.log l
    where l.clip_id = old.id and l.kind in ('claim', 'end', 'restore') order by l.seq desc limit 1;
    if last.kind is distinct from 'claim' then
      perform audit.accuse(old.id, who, 'drafted without a claim');
    elsif exists (select from audit.log l where l.clip_id = old.id and l.kind = 'touch' and l.seq > last.seq) then
      perform audit.accuse(old.id, who, 'drafted over a change');
    end if;
    stamp := regexp_match(new.draft_transcription, '^\[(\S+) (\d+)\]');
    if stamp[1] <> last.worker then
      perform audit.accuse(old.id, who, format('%s drafted under a claim of %s', stamp[1], last.worker));
    elsif stamp[2]::bigint <> last.fence then
      perform audit.accuse(old.id, who, format('drafted under fence %s, it is %s', stamp[2], last.fence));
    end if;
    insert into audit.log (clip_id, kind, writer) values (old.id, 'draft', who);
  else
    if who <> 'ambara_restore' then
      perform audit.accuse(old.id, who, 'wrote to clips');
    end if;
    insert into audit.log (clip_id, kind, writer) values (old.id, 'restore', who);
  end if;
  return new;
end $$;

create function audit.came_or_went() returns trigger language plpgsql security definer as $$
declare
  context text;
  who text;
  clip uuid := case when tg_op = 'DELETE' then old.id else new.id end;
begin
  get diagnostics context = pg_context;
  who := audit.writer(context);
  -- Scripts delete a run, and its clips go with it; a clip alone is deleted by nobody.
  if audit.is_daemon(who) or (
    who = 'service_role' and tg_op = 'DELETE' and exists (select from public.runs r where r.id = old.run_id)
  ) then
    perform audit.accuse(clip, who, lower(tg_op) || ' of a clip');
  end if;
  insert into audit.log (clip_id, kind, writer)
  values (clip, case tg_op when 'DELETE' then 'gone' else 'touch' end, who);
  return null;
end $$;

create function audit.claiming() returns trigger language plpgsql security definer as $$
declare
  context text;
  claimed boolean := new.worker is not null and (tg_op = 'INSERT' or new.fence is distinct from old.fence);
begin
  if claimed or (tg_op = 'UPDATE' and new.worker is null and (old.worker is not null or new.fence <> old.fence)) then
    get diagnostics context = pg_context;
    insert into audit.log (clip_id, kind, writer, worker, fence)
    values (new.clip_id, case when claimed then 'claim' else 'end' end, audit.writer(context), new.worker, new.fence);
    if claimed and tg_op = 'UPDATE' and new.fence <= old.fence then
      perform audit.accuse(new.clip_id, new.worker, format('fence %s after %s', new.fence, old.fence));
    end if;
  elsif tg_op = 'UPDATE' and new.worker is distinct from old.worker then
    perform audit.accuse(new.clip_id, new.worker, format('took the claim of %s without a fence', old.worker));
  end if;
  return null;
end $$;

create function audit.logging() returns trigger language plpgsql security definer as $$
declare
  context text;
  holder text;
begin
  get diagnostics context = pg_context;
  if audit.writer(context) = 'ambara_submit' then
    select l.worker into holder from audit.log l
    where l.clip_id = new.clip_id and l.kind = 'claim' order by l.seq desc limit 1;
    if holder is distinct from new.worker then
      perform audit.accuse(new.clip_id, new.worker, format('drafted under a claim of %s', holder));
    end if;
  end if;
  return null;
end $$;

-- Named to come last: what the row is then is what it will be.
create trigger zz_audit_updating before update on public.clips for each row execute function audit.updating();
create trigger zz_audit_came after insert or delete on public.clips for each row execute function audit.came_or_went();
create trigger zz_audit_claiming after insert or update on public.draft_state
  for each row execute function audit.claiming();
create trigger zz_audit_logging after insert on public.drafts for each row execute function audit.logging();
insert into audit.log (clip_id, kind, writer, worker, fence)
select clip_id, 'claim', 'before the audit', worker, fence from public.draft_state where worker is not null;
