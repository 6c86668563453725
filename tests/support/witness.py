"""What a test sees and does beside a daemon that is running: the rows, the drafts, the people.

Never empty whole tables while a daemon runs: its model version would be gone. `deserted` takes the clips away.
"""

from __future__ import annotations

import asyncio
import os
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import psycopg
from scripted_editor import Editor
from supabase import acreate_client

from daemon.asr.metrics import word_error_rate
from daemon.local.speech import Utterance, wav_bytes

Database = psycopg.Connection[tuple[Any, ...]]
Rows = dict[str, dict[str, Any]]

GUARD_S = 90.0


@contextmanager
def deserted(db_url: str) -> Iterator[Database]:
    """The superuser's connection to a database without runs and clips; every statement commits by itself."""
    with psycopg.connect(db_url, autocommit=True) as db:
        db.execute("delete from runs")
        yield db


@asynccontextmanager
async def team(stack: Any) -> AsyncIterator[Editor]:
    """A person at the editor, and the scripts."""
    token = stack.mint("authenticated", sub=str(uuid.uuid4()))
    person = await acreate_client(stack.url, stack.anon_key)
    person.postgrest.auth(token)
    person.storage.session.headers["Authorization"] = f"Bearer {token}"
    scripts = await acreate_client(stack.url, stack.service_role_key)
    try:
        yield Editor(person, scripts)
    finally:
        await person.realtime.close()
        await scripts.realtime.close()


async def until(condition: Callable[[], object], what: str, *, guard_s: float = GUARD_S, pause_s: float = 0.05) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + guard_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {guard_s} s: {what}"
        await asyncio.sleep(pause_s)


def clip_rows(db: Database) -> Rows:
    """Every clip to its last column, by id."""
    return dict(db.execute("select id::text, to_jsonb(c) from clips c").fetchall())


def scalar(db: Database, query: str, *values: Any) -> Any:
    """The one value that a query returns."""
    row = db.execute(query.encode(), values).fetchone()
    assert row is not None
    return row[0]


def drafted_by_machine(db: Database) -> dict[str, str]:
    """Clip id -> draft, of the clips whose draft is the last one in the log."""
    return dict(
        db.execute(
            "select distinct on (d.clip_id) d.clip_id::text, d.text from drafts d join clips c on c.id = d.clip_id "
            "and c.draft_transcription = d.text order by d.clip_id, d.id desc"
        ).fetchall()
    )


def drafted_more_than_once(db: Database) -> int:
    """How many clips have several drafts in the log."""
    return int(scalar(db, "select count(*) from (select from drafts group by clip_id having count(*) > 1) twice"))


def waiting(db: Database) -> int:
    """How many clips want a draft or are being drafted, at one moment."""
    held = "(select count(*) from draft_state where lease_until >= now())"
    return int(scalar(db, f"select (ambara_snapshot() ->> 'ready')::int + {held}"))


def claimed(db: Database) -> int:
    """How many clips are being drafted."""
    return int(scalar(db, "select count(*) from draft_state where lease_until > now()"))


def people_kept(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether nothing but the draft changed."""
    ours = {"draft_transcription", "updated_at"}
    return {k: v for k, v in before.items() if k not in ours} == {k: v for k, v in after.items() if k not in ours}


def insert_clips(db: Database, run_id: str, names: Sequence[str]) -> None:
    """A run (unless it is there) and its clips, committed at once and beside the project's URL."""
    db.execute("insert into runs (id, label) values (%s, 'load') on conflict do nothing", [run_id])
    db.execute(
        "insert into clips (run_id, file_name, draft_transcription, duration_sec) "
        "select %s, n, 'stock draft', 2 from unnest(%s::text[]) n",
        [run_id, list(names)],
    )


def write_run(directory: Path, spoken: Sequence[Utterance], count: int) -> dict[str, str]:
    """Put `count` WAVs into a run directory: hard links to a few. Returns file name -> what is said in it."""
    (directory / "clips").mkdir(parents=True)
    originals = [directory / f"original_{i}.wav" for i in range(len(spoken))]
    for path, utterance in zip(originals, spoken, strict=True):
        path.write_bytes(wav_bytes(utterance.audio))
    names = [f"clips/clip_{i:05}.wav" for i in range(count)]
    for i, name in enumerate(names):
        os.link(originals[i % len(spoken)], directory / name)
    return {name: spoken[i % len(spoken)].text for i, name in enumerate(names)}


def wer(said: dict[str, str], rows: Rows) -> float:
    """Word error rate of the drafts in `rows` against what was said, by file name."""
    drafts = {row["file_name"]: row["draft_transcription"] for row in rows.values()}
    return word_error_rate(list(said.values()), [drafts[name] for name in said])
