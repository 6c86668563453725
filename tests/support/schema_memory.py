"""What a database offers to a daemon, and what of it a later migration has taken away.

Daemons of two versions work side by side while they are upgraded. So whatever one migration has made, every later one
has to leave: the tables and functions that an older daemon uses, by their names, with their types, for its role.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import psycopg

_COLUMNS = """
select c.relname || '.' || a.attname, jsonb_build_object(
    'table', c.relname, 'type', format_type(a.atttypid, a.atttypmod), 'required', a.attnotnull and not a.atthasdef
      and a.attidentity = '' and a.attgenerated = '')
from pg_attribute a join pg_class c on c.oid = a.attrelid
where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'v', 'm') and a.attnum > 0 and not a.attisdropped
"""
_FUNCTIONS = """
select p.oid::regprocedure::text, jsonb_build_object(
    'name', p.proname, 'returns', pg_get_function_result(p.oid), 'defaults', p.pronargdefaults,
    'names', coalesce(to_jsonb(p.proargnames[1:p.pronargs]), '[]'),
    'types', (select coalesce(jsonb_agg(format_type(t, null) order by n), '[]')
      from unnest(p.proargtypes::oid[]) with ordinality u (t, n)))
from pg_proc p where p.pronamespace = 'public'::regnamespace and p.proname like 'ambara\\_%'
"""
_CHECKS = """
select c.conrelid::regclass || '.' || c.conname, jsonb_build_object('table', c.conrelid::regclass::text,
    'says', pg_get_constraintdef(c.oid), 'columns', (select jsonb_agg(a.attname) from pg_attribute a
      where a.attrelid = c.conrelid and a.attnum = any (c.conkey)))
from pg_constraint c where c.connamespace = 'public'::regnamespace and c.contype in ('c', 'f', 'u', 'x')
"""
_RIGHTS = """
select format('execute %s as %s', p.oid::regprocedure, r.rolname),
    jsonb_build_object('name', p.proname, 'role', r.rolname)
  from pg_proc p, pg_roles r where p.pronamespace = 'public'::regnamespace and p.proname like 'ambara\\_%'
    and r.rolname in ('service_role', 'authenticated', 'ambara_daemon')
    and has_function_privilege(r.rolname, p.oid, 'execute')
union all
select format('%s %s.%s as %s', k.kind, c.relname, a.attname, r.rolname), '{}'
  from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped, pg_roles r,
    unnest(array['select', 'insert', 'update']) k (kind)
  where c.relnamespace = 'public'::regnamespace and c.relkind = 'r'
    and r.rolname in ('service_role', 'authenticated', 'ambara_daemon')
    and has_column_privilege(r.rolname, c.oid, a.attnum, k.kind)
union all
select 'changes of ' || tablename, '{}' from pg_publication_tables where pubname = 'supabase_realtime'
union all
select format('policy %s on %s', policyname, tablename), '{}' from pg_policies where schemaname = 'public'
"""
_ANSWERS = """
select p.oid::regprocedure::text from pg_proc p
where p.pronamespace = 'public'::regnamespace and p.proname like 'ambara\\_%' and p.pronargs = p.pronargdefaults
  and p.prorettype in ('jsonb'::regtype, 'json'::regtype) and p.provolatile <> 'v'
"""

LEAVE = "drop function ambara_leave(text); create function ambara_leave"
STAGES = (
    "alter table model_versions drop constraint model_versions_stage_check, add constraint model_versions_stage_check "
    "check (stage in"
)
NEXT = f"""
alter table draft_state add column heard_s double precision, add column mood text not null default 'calm';
create table notes (clip_id uuid primary key, note text not null check (note <> ''));
alter table draft_state add constraint moods check (mood in ('calm', 'cross'));
{STAGES} ('training', 'candidate', 'live', 'retired', 'rejected', 'resting'));
alter table model_versions alter column name drop not null;
{LEAVE}(p_worker text, p_why text default '') returns void language sql as
  $$ delete from public.ambara_daemons where worker = p_worker $$;
revoke execute on function ambara_leave(text, text) from public;
grant execute on function ambara_leave(text, text) to service_role, ambara_daemon;
"""
"""A migration that there is not, of everything that a next one may do."""

Facts = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Schema:
    """A database's public schema, as far as a daemon can see it."""

    columns: Facts
    functions: Facts
    checks: Facts
    rights: Facts
    answers: Mapping[str, frozenset[str]]
    """Of functions that answer with an object and want no argument: its fields."""

    @classmethod
    def of(cls, db_url: str) -> Schema:
        """As it is now."""
        with psycopg.connect(db_url, autocommit=True) as db:
            columns, functions, checks, rights = (
                dict(db.execute(query.encode()).fetchall()) for query in (_COLUMNS, _FUNCTIONS, _CHECKS, _RIGHTS)
            )
            names = [row[0].partition("(")[0] for row in db.execute(_ANSWERS.encode()).fetchall()]
            answers = {}
            for name in names:
                try:
                    row = db.execute(f"select {name}()".encode()).fetchone()
                except psycopg.Error:  # it wants the tables of Storage, which are not everywhere
                    continue
                if row and isinstance(row[0], dict):
                    answers[name] = frozenset(row[0])
        return cls(columns, functions, checks, rights, answers)


def taken(before: Schema, after: Schema) -> list[str]:
    """What `before` offers and `after` does not, in words; empty where only something was added."""
    return [*_columns(before, after), *_functions(before, after), *_checks(before, after), *_rights(before, after)]


def _columns(before: Schema, after: Schema) -> Iterator[str]:
    tables = {column["table"] for column in before.columns.values()}
    for name, column in before.columns.items():
        now = after.columns.get(name)
        if now is None:
            yield f"column {name} is gone"
        elif now["type"] != column["type"]:
            yield f"column {name} was {column['type']} and is {now['type']}"
        elif now["required"] and not column["required"]:
            yield f"column {name} must be given now"
    for name in after.columns.keys() - before.columns.keys():
        if after.columns[name]["required"] and after.columns[name]["table"] in tables:
            yield f"the new column {name} must be given"


def _functions(before: Schema, after: Schema) -> Iterator[str]:
    """A daemon names the arguments, so there may be more of them if they may be left out; but then only once."""
    for signature, function in before.functions.items():
        namesakes = [each for each in after.functions.values() if each["name"] == function["name"]]
        fitting = [each for each in namesakes if _takes(each, function)]
        if not fitting:
            yield f"{signature} cannot be called any more"
        elif len(fitting) > 1:
            yield f"a call of {signature} could mean {len(fitting)} functions"
        elif fitting[0]["returns"] != function["returns"]:
            yield f"{signature} returned {function['returns']} and returns {fitting[0]['returns']}"
    for name, fields in before.answers.items():
        if lost := fields - after.answers.get(name, frozenset()):
            yield f"{name} does not tell {', '.join(sorted(lost))} any more"


def _takes(new: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Whether every call of `old` by names, with and without what it lets one leave out, is one of `new`."""
    types = dict(zip(new["names"], new["types"], strict=True))
    wanted = set(new["names"][: len(new["names"]) - new["defaults"]])
    always = set(old["names"][: len(old["names"]) - old["defaults"]])
    known = all(types.get(name) == kind for name, kind in zip(old["names"], old["types"], strict=True))
    return known and wanted <= always


def _checks(before: Schema, after: Schema) -> Iterator[str]:
    """A rule on old columns may let in more words than before, and nothing else."""
    columns = {(column["table"], name.partition(".")[2]) for name, column in before.columns.items()}
    for name, check in after.checks.items():
        old = before.checks.get(name)
        on_old = all((check["table"], column) in columns for column in check["columns"])
        if old is None and on_old:
            yield f"there is a new rule {name}: {check['says']}"
        elif old is not None and _narrower(old["says"], check["says"]):
            yield f"the rule {name} was {old['says']} and is {check['says']}"


def _narrower(before: str, after: str) -> bool:
    words = re.compile(r"'([^']*)'::\w+(?:, )?")
    same_shape = words.sub("", before) == words.sub("", after)
    return before != after and not (same_shape and set(words.findall(before)) <= set(words.findall(after)))


def _rights(before: Schema, after: Schema) -> Iterator[str]:
    callers = {(right["name"], right["role"]) for right in after.rights.values() if right}
    for name, right in before.rights.items():
        if name not in after.rights and not (right and (right["name"], right["role"]) in callers):
            yield f"no more: {name}"
