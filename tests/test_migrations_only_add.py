"""Migrations only add: whatever one has made, an older daemon finds after every later one."""

from __future__ import annotations

import psycopg
import pytest
from schema_memory import LEAVE, NEXT, STAGES, Schema, taken

from daemon import migrate
from daemon.clips import SCHEMA_VERSION
from daemon.local.origin import origin_sql

EVERY = migrate.migrations()
TAKES_AWAY = {
    # what: (the migration, what is said of it)
    "a column": ("alter table draft_state drop column lease_until", "column draft_state.lease_until is gone"),
    "a column's name": ("alter table drafts rename column text to words", "column drafts.text is gone"),
    "a table": ("drop table training_requests", "column training_requests.one is gone"),
    "a type": ("alter table drafts alter column confidence type real", "column drafts.confidence was double precision"),
    "an absence": ("alter table drafts alter column confidence set not null", "column drafts.confidence must be given"),
    "a default": ("alter table drafts alter column flags drop default", "column drafts.flags must be given now"),
    "an insert": (
        "alter table ambara_daemons add column release text not null",
        "ambara_daemons.release must be given",
    ),
    "a stage": (
        f"{STAGES} ('training', 'candidate', 'live', 'retired'))",
        "the rule model_versions.model_versions_stage_check was",
    ),
    "a freedom": ("alter table drafts add check (length(text) < 100)", "there is a new rule drafts.drafts_text_check"),
    "a function": ("drop function ambara_leave(text)", "ambara_leave(text) cannot be called any more"),
    "a function's name": ("alter function ambara_leave(text) rename to ambara_gone", "ambara_leave(text) cannot be"),
    "an argument's name": (
        f"{LEAVE}(p_who text) returns void language sql as ''",
        "ambara_leave(text) cannot be called any more",
    ),
    "an argument that may be left out": (
        f"{LEAVE}(p_worker text, p_why text) returns void language sql as ''",
        "ambara_leave(text) cannot be called any more",
    ),
    "a clear meaning": (
        "create function ambara_leave(p_worker text, p_why text default '') returns void language sql as ''",
        "a call of ambara_leave(text) could mean 2 functions",
    ),
    "an answer": (
        f"{LEAVE}(p_worker text) returns boolean language sql as 'select true'",
        "ambara_leave(text) returned void and returns boolean",
    ),
    "a field of an answer": (
        "create or replace function ambara_snapshot() returns jsonb language sql stable as $$ select '{}'::jsonb $$",
        "ambara_snapshot does not tell live, now, ready any more",
    ),
    "a right": ("revoke execute on function ambara_status() from service_role", "no more: execute ambara_status()"),
    "a look": ("revoke select on clips from ambara_daemon", "no more: select clips.id as ambara_daemon"),
    "the announcement": ("alter publication supabase_realtime drop table clips", "no more: changes of clips"),
}


@pytest.fixture
def database(blank_database: str) -> str:
    """The editor's, before the first migration."""
    execute(blank_database, origin_sql(minimal=False))
    return blank_database


def execute(db_url: str, sql: str) -> None:
    with psycopg.connect(db_url, autocommit=True) as db:
        db.execute(sql.encode())


def test_whatever_a_migration_has_made_is_there_after_every_later_one(database: str) -> None:
    seen: dict[str, Schema] = {"the editor's own": Schema.of(database)}
    for each in EVERY:
        execute(database, each.sql)
        now = Schema.of(database)
        gone = {name: lost for name, before in seen.items() if (lost := taken(before, now))}
        assert not gone, f"{each.version}_{each.name} takes away what was there after {gone}"
        seen[each.name] = now
    assert len(now.functions) > 30, "something was looked at"
    assert now.answers["ambara_snapshot"] >= {"live", "ready"}


def test_applying_them_again_takes_nothing_away(database: str) -> None:
    """As after a lost record: an old migration must not bring back its own, smaller functions."""
    execute(database, migrate.script())
    before = Schema.of(database)
    execute(database, migrate.script())
    assert taken(before, Schema.of(database)) == []


def test_the_newest_schema_is_enough_for_this_code_and_says_so(database: str) -> None:
    execute(database, migrate.script())
    with psycopg.connect(database) as db:
        assert db.execute("select ambara_schema_version() >= %s", [SCHEMA_VERSION]).fetchone() == (True,)


@pytest.mark.parametrize("what", TAKES_AWAY)
def test_what_would_be_missed_is_found(what: str, database: str) -> None:
    sql, said = TAKES_AWAY[what]
    execute(database, migrate.script())
    before = Schema.of(database)
    execute(database, sql)
    assert any(said in lost for lost in taken(before, Schema.of(database))), taken(before, Schema.of(database))


def test_what_is_only_added_is_no_loss(database: str) -> None:
    execute(database, migrate.script())
    before = Schema.of(database)
    execute(database, NEXT)
    assert taken(before, Schema.of(database)) == []
