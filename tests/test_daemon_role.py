"""The daemon under a role of its own: it does all of its work, and the functions are its only way to write."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
import rogue
from daemon_process import ambara, daemon_process
from witness import clip_rows, scalar, team, until

from daemon.audio_bucket import BucketAudio
from daemon.clips import SCHEMA_VERSION
from daemon.local.origin import origin_sql
from daemon.local.speech import Utterance, speak_corpus, wav_bytes
from daemon.migrate import apply
from daemon.supabase_client import connect

ROLE = "ambara_daemon"
Database = psycopg.Connection[Any]
SOURCES = [path for path in sorted((Path(__file__).parents[1] / "daemon").rglob("*.py")) if "local" not in path.parts]
TAPES, CLIPS, WAITING = 3, 8, 6
LEARN = {
    "enabled": True,
    "min_new_clips": 10,
    "batch_size": 16,
    "gradient_accumulation": 1,
    "held_out_share": 0.34,
    "arguments": {"max_steps": 2},
}


@dataclass(frozen=True, slots=True)
class Project:
    """A project whose owner has signed a token for the daemon."""

    url: str
    service_role_key: str


@pytest.fixture(scope="module")
def spoken() -> Sequence[Utterance]:
    count = TAPES * CLIPS + WAITING
    return list({each.text: each for each in speak_corpus("B", 2 * count, seed=20)}.values())[:count]


@pytest.fixture
def db(clean_stack: Any) -> Iterator[Database]:
    with psycopg.connect(clean_stack.db_url, autocommit=True) as connection:
        connection.execute("select public.ambara_admit()")
        yield connection


async def test_a_whole_daemon(clean_stack: Any, db: Database, spoken: Sequence[Utterance], tmp_path: Path) -> None:
    """Drafts appear, the feed is live, a training runs to its end, the candidate is judged, and commands answer."""
    project = Project(clean_stack.url, clean_stack.mint(ROLE))
    env = {"SUPABASE_ANON_KEY": clean_stack.anon_key}
    async with team(clean_stack) as people:
        for tape in range(TAPES):
            said = spoken[tape * CLIPS : (tape + 1) * CLIPS]
            run = await people.sync_extraction(**clips_of(said, f"reel {tape}.mp3"), label=f"tape {tape}")
            for clip, each in zip(sorted(await people.clips(run), key=itemgetter("file_name")), said, strict=True):
                await people.save(clip, each.text)
        words = clip_rows(db)
        with daemon_process(project, tmp_path, env=env, drafting={"sweep_seconds": 1}, training=LEARN) as daemon:
            await people.sync_extraction(**clips_of(spoken[-WAITING:], "new.mp3"), label="new")
            daemon.wait_for("feed", state="live")
            daemon.wait_for("training begins")
            judged = daemon.wait_for("compared", guard_s=240, never="training failed")
            drafted = "select count(*) from drafts d join clips c on c.id = d.clip_id and c.status = 'pending'"
            await until(lambda: scalar(db, drafted) >= WAITING, "every waiting clip drafted")
            for command in ("status", "why", f"models promote {judged['version']}", "models rollback"):
                done = ambara(project, tmp_path, *command.split(), **env)
                assert done.returncode == 0, done.stderr
            clip = scalar(db, "select id::text from clips where status = 'pending' limit 1")
            draft = scalar(db, "select min(id) from drafts where clip_id = %s", clip)
            restored = ambara(project, tmp_path, "drafts", clip, "--restore", str(draft), **env)
            assert restored.returncode == 0, restored.stderr
            person = next(iter(words))
            assert "no draft" in ambara(project, tmp_path, "drafts", person, "--restore", "1", **env).stderr
            assert ambara(project, tmp_path, "train", "--now", **env).returncode == 0
            assert daemon.stop() == 0
            for secret in (project.service_role_key, clean_stack.anon_key):
                assert secret not in daemon.output
    assert scalar(db, "select status from training_runs where version_id = %s", judged["version"]) == "finished"
    assert {clip: row for clip, row in clip_rows(db).items() if clip in words} == words
    assert scalar(db, "select count(*) from ambara_daemons") == 0


def clips_of(spoken: Sequence[Utterance], tape: str) -> dict[str, Any]:
    """Rows and audio of an extraction of one recording. Its name decides whether it is held out."""
    names = [f"clips/clip_{i:05}.wav" for i in range(len(spoken))]
    rows = [
        {"file_name": n, "source_file": tape, "duration_sec": u.seconds} for n, u in zip(names, spoken, strict=True)
    ]
    return {"clips": rows, "audio": {n: wav_bytes(u.audio) for n, u in zip(names, spoken, strict=True)}}


def test_the_role_may_call_what_the_daemon_calls_and_nothing_else(db: Database) -> None:
    """The daemon's sources and the migration tell the same names; all of them run with their owner's rights."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES)
    called = set(re.findall(r'"(ambara_\w+)"|rpc/(?P<x>ambara_\w+)', text))
    named = {name for pair in called for name in pair if name} & rogue.functions(db)
    assert rogue.executable(db, ROLE) == named
    own = db.execute(
        "select proname, prosecdef, proconfig from pg_proc "
        "where pronamespace = 'public'::regnamespace and proname like 'ambara\\_%'"
    ).fetchall()
    definer = {name for name, secdef, _ in own if secdef}
    # The trigger writes into the queue what people may not, and does nothing else.
    assert definer == (named - {"ambara_whoami", "ambara_schema_version"}) | {"ambara_follow_clips"}
    path = "search_path=pg_catalog, public, extensions, pg_temp"
    assert [name for name, _, config in own if name in definer and path not in config] == []
    assert scalar(db, "select ambara_schema_version()") == SCHEMA_VERSION


def test_the_role_holds_no_right_to_write(db: Database) -> None:
    """Of any kind, on any table, in any schema; and reads no more than these columns."""
    rights = db.execute(
        "select distinct privilege_type from information_schema.role_table_grants where grantee = %s "
        "union select distinct privilege_type from information_schema.role_column_grants where grantee = %s",
        [ROLE, ROLE],
    ).fetchall()
    assert rights == [("SELECT",)]
    columns = db.execute(
        "select table_name, array_agg(column_name::text order by 1) from information_schema.role_column_grants "
        "where grantee = %s and table_schema = 'public' group by 1 order by 1",
        [ROLE],
    ).fetchall()
    assert {table: set(names) for table, names in columns} == {
        "ambara_daemons": {"worker", "beat"},
        "clips": {"id", "status", "corrected_transcription"},
        "runs": {"id", "label"},
    }
    attributes = "select rolsuper or rolcreaterole or rolcreatedb or rolcanlogin or rolbypassrls or rolinherit"
    assert scalar(db, f"{attributes} from pg_roles where rolname = %s", ROLE) is False
    assert db.execute("select 1 from pg_auth_members where member = %s::regrole", [ROLE]).fetchall() == []


def test_the_functions_are_the_only_way_to_write_in_the_code() -> None:
    """Whatever the key may do: after `.table(…)` the daemon says `.select`, and its addresses name functions."""
    found = []
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        after = {id(node.value): node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                name = node.func.attr
                if name in {"table", "from_"} and after.get(id(node)) != "select":
                    found.append((path.name, node.lineno, name))
                if name in {"insert", "upsert", "delete"}:
                    found.append((path.name, node.lineno, name))
            if isinstance(node, ast.Attribute) and node.attr == "storage" and after.get(id(node)) != "get_bucket":
                found.append((path.name, node.lineno, "storage"))
            if (
                isinstance(node, ast.Constant)
                and "rest/v1" in str(node.value)
                and "rest/v1/rpc/ambara_" not in node.value
            ):
                found.append((path.name, node.lineno, node.value))
            if isinstance(node, ast.Import) and path.name != "migrate.py" and "psycopg" in {n.name for n in node.names}:
                found.append((path.name, node.lineno, "psycopg"))
    assert found == []


def test_a_role_that_cannot_be_made_is_no_reason_to_stop(blank_database: str) -> None:
    """On a database whose owner may make no roles, everything else is there, and the service key works."""
    with psycopg.connect(blank_database, autocommit=True) as db:
        db.execute(f"alter role {ROLE} rename to somebody_else")
        try:
            db.execute("create role owner login password 'hush'; grant create, usage on schema public to owner")
            db.execute("grant create on database second to owner")
            db.execute("set session authorization owner")
            db.execute(origin_sql(minimal=False).encode())
            db.execute("reset session authorization")
            apply(blank_database.replace(blank_database.split("@", maxsplit=1)[0], "postgresql://owner:hush"))
            assert scalar(db, "select ambara_schema_version()") == SCHEMA_VERSION
            db.execute("set role service_role")
            assert scalar(db, "select ambara_snapshot() ->> 'ready'") == "0"
        finally:
            db.execute("reset role; reset session authorization")
            db.execute(f"drop owned by owner cascade; drop role owner; alter role somebody_else rename to {ROLE}")


async def test_the_gateway_sees_one_key_and_the_servers_the_other() -> None:
    """Every request to the Data API and to Storage."""
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, stream=httpx.ByteStream(b"[]"))

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        client = await connect("https://abc.supabase.co", "the-token", http, apikey="the-key")
        await client.rpc("ambara_snapshot", {}).execute()
        await client.table("runs").select("id").execute()
        await client.storage.list_buckets()
        bucket = BucketAudio("https://abc.supabase.co", "the-token", apikey="the-key", client=http)
        async with bucket.open(str(uuid4()), "clips/1.wav"):
            pass
    assert len(seen) == 4
    for request in seen:
        assert (request.headers["apikey"], request.headers["Authorization"]) == ("the-key", "Bearer the-token")
