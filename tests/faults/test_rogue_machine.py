"""The daemon's own role in the wrong hands: it can make drafts, and nothing that it writes is anything but a draft."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest
import rogue
from fault_record import Fault

from daemon import migrate
from daemon.local.origin import origin_sql
from daemon.local.stack import LocalStack

ROLE = "ambara_daemon"
Database = psycopg.Connection[Any]
OWN = (
    "public.ambara_daemons",
    "public.draft_queue",
    "public.draft_state",
    "public.drafts",
    "public.model_versions",
    "public.training_recordings",
    "public.training_requests",
    "public.training_runs",
    "public.training_samples",
)
"""The daemon's tables."""
SCENE = """
with r as (insert into runs (label) values ('sermon') returning id),
c as (insert into clips (run_id, file_name, status, draft_transcription, corrected_transcription)
  select id, 'clips/' || n || '.wav', case when n % 2 = 0 then 'corrected' else 'pending' end, 'stock',
    case when n % 2 = 0 then 'a person''s words' end from r, generate_series(1, 10) n returning id)
insert into clip_edits (clip_id, field, old_value, new_value) select id, 'corrected_transcription', 'x', 'y' from c;
insert into model_versions (name, fingerprint, kind, stage, live_seq) values ('base', 'f', 'base', 'live', 1);
insert into drafts (clip_id, version_id, text, worker) select c.id, v.id, 'stock', 'w' from clips c, model_versions v;
insert into draft_state (clip_id, worker, fence) select id, 'w', 7 from clips;
insert into training_recordings (recording, side) values ('tape', 'train');
insert into training_requests default values;
insert into training_runs (version_id, status) select id, 'finished' from model_versions;
insert into training_samples (run_id, clip_id, text_md5) select r.id, c.id, md5('x') from training_runs r, clips c;
insert into ambara_daemons (worker) values ('w');
"""


@pytest.fixture
def db(local_stack: LocalStack) -> Iterator[Database]:
    """The superuser's connection to a database with something of everything."""
    local_stack.ensure()
    local_stack.truncate()
    with psycopg.connect(local_stack.db_url, autocommit=True) as connection:
        connection.execute("select public.ambara_admit()")
        connection.execute(SCENE)
        yield connection


def helpers(db: Database) -> set[str]:
    """The functions that only other functions call."""
    return rogue.functions(db) - rogue.executable(db, ROLE)


def run_of(db: Database) -> str:
    row = db.execute("select id from runs").fetchone()
    assert row is not None
    return str(row[0])


@pytest.mark.fault("F20", "rogue-machine")
def test_every_statement_but_a_call_is_refused(fault: Fault, db: Database, local_stack: LocalStack) -> None:
    """Over SQL: each column of each table, each way to write it, and each way around."""
    statements = [
        *rogue.on_tables(db, "public", "storage"),
        *rogue.on_sequences(db, "public"),
        *rogue.on_everything_else(),
        *rogue.calls(db, helpers(db)),
    ]
    tries = rogue.attempt(local_stack.db_url, ROLE, statements)
    fault.injected(f"{tries.count} statements under the daemon's own role, over SQL")
    fault.holds("100 % refused with 42501", tries.otherwise)


@pytest.mark.fault("F20", "rogue-machine, REST")
def test_every_request_but_a_call_is_refused(fault: Fault, db: Database, local_stack: LocalStack) -> None:
    """Over the Data API and Storage, with the token that a daemon has."""
    run = run_of(db)
    service = headers(local_stack, local_stack.service_role_key)
    audio = f"{local_stack.url}/storage/v1/object/clips/{run}/clips/1.wav"
    httpx.post(audio, headers=service, content=b"RIFF").raise_for_status()
    before = rogue.contents(db, "public", "storage")
    refused, otherwise = 0, []
    with httpx.Client(base_url=local_stack.url, headers=headers(local_stack, local_stack.mint(ROLE))) as client:
        for method, path, body, prefer in data_requests(db):
            answer = client.request(method, f"/rest/v1/{path}", json=body, headers={"Prefer": prefer})
            if answer.status_code == 403 and answer.json()["code"] == rogue.REFUSED:
                refused += 1
            else:
                otherwise.append(f"{method} {path} {body}: {answer.status_code} {answer.text[:200]}")
        fault.holds("100 % refused with 42501", otherwise)
        taken = [answer for each in storage_requests(run) if not (answer := client.request(**each)).is_error]
        fault.holds("Storage takes nothing", [f"{each.request.method} {each.url.path}" for each in taken])
    after = rogue.contents(db, "public", "storage")
    fault.holds("no row differs", [table for table in before if before[table] != after[table]])
    fault.holds("the audio is there", [] if httpx.get(audio, headers=service).content == b"RIFF" else [audio])
    fault.injected(
        f"{refused} requests to the Data API, {len(storage_requests(run))} to Storage, with the role's token"
    )


@pytest.mark.fault("F20", "rogue-machine, mirrored")
def test_people_may_not_write_what_is_the_daemons(fault: Fault, blank_database: str) -> None:
    """Signed in or not: neither the daemon's tables nor its functions."""
    with psycopg.connect(blank_database, autocommit=True) as db:
        db.execute(origin_sql(minimal=False).encode())
        migrate.apply(blank_database)
        statements = [
            *rogue.on_tables(db, "public", only=OWN),
            *rogue.calls(db, rogue.functions(db) - {"ambara_whoami"}),
        ]
        theirs = rogue.executable(db, "anon") | rogue.executable(db, "authenticated")
        fault.holds("no function for people", theirs - {"ambara_whoami"})
    tried = 0
    for role in ("anon", "authenticated"):
        tries = rogue.attempt(blank_database, role, statements)
        fault.holds("100 % refused with 42501", [f"{role}: {each}" for each in tries.otherwise])
        tried += tries.count
    fault.injected(f"{tried} statements of people on the daemon's tables and functions")
    fault.observe("in a database beside the embedded one, whose API server gives people every right on every table")


@pytest.mark.fault("F20", "rogue-machine, mirrored over REST")
def test_people_change_nothing_of_the_daemons(fault: Fault, db: Database, local_stack: LocalStack) -> None:
    """Where a table's rights were given away, row level security still holds."""
    requests = [each for each in data_requests(db) if each[1].split("?")[0] in {name.split(".")[1] for name in OWN}]
    before = rogue.contents(db, "public")
    for token in (local_stack.anon_key, local_stack.mint("authenticated", sub=str(uuid.uuid4()))):
        with httpx.Client(base_url=local_stack.url, headers=headers(local_stack, token)) as client:
            for method, path, body, prefer in requests:
                client.request(method, f"/rest/v1/{path}", json=body, headers={"Prefer": prefer})
            for name in rogue.functions(db) - {"ambara_whoami"}:
                answer = client.post(f"/rest/v1/rpc/{name}", json=arguments(db, name))
                fault.holds("no function for people", [] if answer.is_error else [name])
    fault.injected(f"{2 * len(requests)} requests of people to the daemon's tables")
    after = rogue.contents(db, "public")
    fault.holds("no row differs", [table for table in before if before[table] != after[table]])


def headers(stack: LocalStack, token: str) -> dict[str, str]:
    return {"apikey": stack.anon_key, "Authorization": f"Bearer {token}"}


def data_requests(db: Database) -> list[tuple[str, str, Any, str]]:
    """Method, path, body and preference: every column of every table, and every function that others call."""
    columns: dict[str, list[str]] = {}
    made = set()
    """Columns that the database fills by itself: nobody at all may give them a value."""
    listed = (
        "select table_name, column_name, is_identity = 'YES' from information_schema.columns "
        "where table_schema = 'public' order by table_name, is_identity, ordinal_position"
    )
    for table, column, identity in db.execute(listed).fetchall():
        columns.setdefault(table, []).append(column)
        if identity:
            made.add((table, column))
    found: list[tuple[str, str, Any, str]] = []
    for table, names in sorted(columns.items()):
        some = f"{table}?{names[0]}=not.is.null"
        found += [("PATCH", some, {name: None}, "return=minimal") for name in names if (table, name) not in made]
        found += [
            ("POST", table, {names[0]: None}, f"return=minimal{more}") for more in ("", ",resolution=merge-duplicates")
        ]
        found.append(("DELETE", some, None, "return=minimal"))
    for name in sorted(helpers(db)):
        found.append(("POST", f"rpc/{name}", arguments(db, name), ""))
    return found


def arguments(db: Database, name: str) -> dict[str, None]:
    row = db.execute(
        "select proargnames[:pronargs] from pg_proc where pronamespace = 'public'::regnamespace and proname = %s",
        [name],
    ).fetchone()
    return dict.fromkeys(row[0] or []) if row else {}


def storage_requests(run: str) -> list[dict[str, Any]]:
    """Everything that would change an object or a bucket."""
    place, other = f"{run}/clips/1.wav", f"{run}/clips/{uuid.uuid4()}.wav"
    moved = {"bucketId": "clips", "sourceKey": place, "destinationKey": other}
    wav = {"headers": {"Content-Type": "audio/wav"}, "content": b"rogue"}
    upsert = {"headers": {"Content-Type": "audio/wav", "x-upsert": "true"}, "content": b"rogue"}
    requests: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", f"object/clips/{other}", wav),
        ("POST", f"object/clips/{place}", upsert),
        ("PUT", f"object/clips/{place}", wav),
        ("POST", "object/move", {"json": moved}),
        ("POST", "object/copy", {"json": moved}),
        ("POST", f"object/upload/sign/clips/{other}", {"json": {}}),
        ("POST", "bucket", {"json": {"id": "rogue", "name": "rogue", "public": True}}),
        ("PUT", "bucket/clips", {"json": {"id": "clips", "name": "clips", "public": True}}),
        ("POST", "bucket/clips/empty", {"json": {}}),
        ("DELETE", "bucket/clips", {}),
    ]
    return [{"method": method, "url": f"/storage/v1/{path}", **more} for method, path, more in requests]
