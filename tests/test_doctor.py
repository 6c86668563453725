"""`ambara doctor` on a real project: each thing is broken once, told, and mended as told."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from daemon_process import environment, write_config
from doctor_bench import Db, faults, look, made, mended, under
from typer.testing import CliRunner

from daemon.cli import app
from daemon.config import Settings, load
from daemon.doctor import feed, project
from daemon.doctor.finding import Check, Verdict
from daemon.local.keys import mint
from daemon.local.sockets import free_port
from daemon.local.stack import LocalStack

QUICK_S = 1.5
"""For a round trip that will not succeed."""


@pytest.fixture
def db(local_stack: LocalStack) -> Iterator[Db]:
    with mended(local_stack) as connection:
        yield connection


@pytest.fixture
def settings(local_stack: LocalStack, tmp_path: Path) -> Settings:
    return made(local_stack, tmp_path)


async def test_whatever_goes_wrong_in_a_check_is_a_finding(settings: Settings) -> None:
    def fails(_: object) -> str:
        raise KeyError(settings.supabase.key.get_secret_value())

    found = await look(settings, checks=[Check("a", fails), Check("b", lambda _: "fine"), Check("c", fails, ("a",))])
    assert faults(found) == {"a": "AMBARA_DEBUG=1 ambara doctor"}
    assert [each.verdict for each in found.values()] == [Verdict.FAULT, Verdict.WELL, Verdict.UNCHECKED]


BROKEN_BY_SQL = {
    # name: (what breaks it, the check that turns red, a part of the SQL that mends it)
    "clips is not published": (
        "alter publication supabase_realtime drop table clips",
        "publication",
        "alter publication supabase_realtime add table public.clips;",
    ),
    "neither table is published": (
        "alter publication supabase_realtime drop table clips, ambara_daemons",
        "publication",
        "add table public.clips, public.ambara_daemons;",
    ),
    "no publication": ("drop publication supabase_realtime", "publication", "create publication supabase_realtime"),
    "a publication of inserts alone": (
        "alter publication supabase_realtime set (publish = 'insert')",
        "publication",
        "set (publish = 'insert, update, delete, truncate');",
    ),
    "row security is off for a table of ours": (
        "alter table drafts disable row level security",
        "row security",
        "alter table public.drafts enable row level security;",
    ),
    "row security is off for the people's": (
        "alter table clips disable row level security; alter table runs disable row level security",
        "row security",
        "alter table public.clips enable row level security;",
    ),
    "the daemon's role may not call": (
        "revoke execute on function ambara_snapshot() from service_role",
        "functions",
        "select public.ambara_restrict();",
    ),
    "everybody may call": (
        "grant execute on function ambara_status() to anon",
        "functions",
        "select public.ambara_restrict();",
    ),
    "a trigger of the queue is off": (
        "alter table clips disable trigger ambara_clips_came",
        "queue",
        "alter table public.clips enable trigger ambara_clips_came;\n-- What came meanwhile is found",
    ),
    "both are for replicas alone": (
        "alter table clips enable replica trigger ambara_clips_came, enable replica trigger ambara_clips_changed",
        "queue",
        "alter table public.clips enable trigger ambara_clips_changed;",
    ),
    "no bucket": ("delete from storage.buckets where id = 'clips'", "bucket", "insert into storage.buckets"),
}


@pytest.mark.parametrize("name", BROKEN_BY_SQL)
async def test_broken_told_and_mended_by_the_sql(name: str, clean_stack: Any, db: Db, settings: Settings) -> None:
    breaks, red, remedy = BROKEN_BY_SQL[name]
    db.execute(breaks.encode())
    found = faults(await look(settings))
    assert found.keys() == {red}
    assert remedy in found[red]
    db.execute(found[red].encode())
    assert faults(await look(settings)) == {}


BROKEN_AND_MIGRATED = {
    # name: (what breaks it, the check that turns red, the command that mends it)
    "never migrated": (
        "drop function ambara_whoami(); drop function ambara_schema_version()",
        "schema",
        "ambara migrate --again",
    ),
    "an old schema": (
        "create or replace function ambara_schema_version() returns int language sql as 'select 2'",
        "schema",
        "ambara migrate --again",
    ),
    "no examination": ("drop function ambara_examine()", "examination", "ambara migrate --again"),
    "a function is gone": ("drop function ambara_let_go(text, bigint, bigint)", "functions", "ambara migrate --again"),
    "a table is gone": ("drop table training_requests", "tables", "ambara migrate --again"),
    "the measurements are gone": ("drop table draft_edits", "tables", "ambara migrate --again"),
    "the queue is gone": ("drop table draft_queue", "tables", "ambara migrate --again"),
    "a trigger of the queue is gone": (
        "drop trigger ambara_clips_changed on clips",
        "queue",
        "ambara migrate --again",
    ),
    "a migration is not recorded": (
        "delete from supabase_migrations.schema_migrations where name = 'examine'",
        "migrations",
        "ambara migrate",
    ),
}


@pytest.mark.parametrize("name", BROKEN_AND_MIGRATED)
async def test_broken_told_and_mended_by_the_command(
    name: str, local_stack: LocalStack, db: Db, settings: Settings
) -> None:
    breaks, red, remedy = BROKEN_AND_MIGRATED[name]
    db.execute(breaks.encode())
    assert faults(await look(settings, local_stack.db_url)) == {red: remedy}
    done = CliRunner().invoke(app.app, shlex.split(remedy)[1:], env={"SUPABASE_DB_URL": local_stack.db_url})
    assert done.exit_code == 0, done.output
    assert faults(await look(settings, local_stack.db_url)) == {}


BROKEN_ADDRESSES: dict[str, tuple[Callable[[LocalStack, Settings], tuple[Settings, str]], str, str]] = {
    # name: (settings and SUPABASE_DB_URL, the check that turns red, a part of what mends it)
    "nobody at the address": (
        lambda stack, s: (under(s, stack.service_role_key, f"http://127.0.0.1:{free_port()}"), ""),
        "address",
        "export SUPABASE_URL=",
    ),
    "a key of another project": (
        lambda _, s: (under(s, mint("another-secret-of-32-characters!!", "service_role")), ""),
        "key",
        "export SUPABASE_SERVICE_ROLE_KEY=…",
    ),
    "the anon key": (
        lambda stack, s: (under(s, stack.anon_key), ""),
        "role",
        "export SUPABASE_SERVICE_ROLE_KEY=…",
    ),
    "no database there": (
        lambda _, s: (s, f"postgresql://u:hush@127.0.0.1:{free_port()}/postgres"),
        "database address",
        "export SUPABASE_DB_URL=postgresql://postgres:…@",
    ),
}


@pytest.mark.parametrize("name", BROKEN_ADDRESSES)
async def test_an_address_or_a_key(name: str, local_stack: LocalStack, db: Db, settings: Settings) -> None:
    breaks, red, remedy = BROKEN_ADDRESSES[name]
    changed, db_url = breaks(local_stack, settings)
    found = await look(changed, db_url)
    assert faults(found).keys() == {red}
    assert remedy in faults(found)[red]
    assert "hush" not in repr(found)
    assert found["realtime"].found == f"not checked: mend {red} first"


@pytest.mark.parametrize("how", ["mute", "hollow", "refuse"])
async def test_realtime(
    how: str, local_stack: LocalStack, db: Db, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says nothing, it says "subscribed" and nothing more, it is not there."""
    monkeypatch.setattr(feed, "LIMIT_S", QUICK_S)
    place = f"{local_stack.url}/_local/realtime/faults"
    async with httpx.AsyncClient(headers={"apikey": local_stack.service_role_key}) as http:
        (await http.post(place, json={"action": how})).raise_for_status()
        try:
            found = faults(await look(settings))
        finally:
            (await http.post(place, json={"action": "clear"})).raise_for_status()
    assert found.keys() == {"realtime"}
    assert found["realtime"].startswith("docker restart")
    monkeypatch.undo()
    assert faults(await look(settings)) == {}
    assert db.execute("select count(*) from ambara_daemons where worker like 'doctor-%'").fetchone() == (0,)


async def test_without_realtime_its_publication_is_no_fault(local_stack: LocalStack, db: Db, tmp_path: Path) -> None:
    db.execute("drop publication supabase_realtime")
    found = await look(made(local_stack, tmp_path, realtime={"enabled": False}))
    assert faults(found) == {}
    assert found["publication"].verdict is found["realtime"].verdict is Verdict.UNCHECKED


async def test_the_clock(db: Db, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project, "clock", lambda: time.time() + 3600)
    found = await look(settings)
    assert faults(found) == {"clock": "sudo timedatectl set-ntp true"}
    assert " s ahead of the database's" in found["clock"].found


async def test_the_daemons_own_role(local_stack: LocalStack, db: Db, tmp_path: Path) -> None:
    """All is well under it; what it alone lacks is told, and mended by the SQL."""
    db.execute("select public.ambara_admit()")
    env = environment(local_stack, tmp_path)
    env |= {"SUPABASE_SERVICE_ROLE_KEY": local_stack.mint("ambara_daemon"), "SUPABASE_ANON_KEY": local_stack.anon_key}
    settings = load(write_config(tmp_path), env)
    assert faults(await look(settings)) == {}
    for breaks, red in (
        ("revoke execute on function ambara_snapshot() from ambara_daemon", "functions"),
        ('drop policy "Ambara reads" on clips', "row security"),
        ('drop policy "Ambara finds the bucket" on storage.buckets', "bucket"),
    ):
        db.execute(breaks.encode())
        found = faults(await look(settings))
        assert found.keys() == {red}
        db.execute(found[red].encode())
        assert faults(await look(settings)) == {}
