"""Every statement that meets the table `clips`: the daemon's and the people's; what it reads, and how long it takes.

EXPLAIN does not look into functions. PostgreSQL counts for each transaction how often a table was read from end to end
and how many of its rows were fetched, by whatever statement inside whatever function: that is what is asked here.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from scale_rows import Db

_LIVE = "(select id from model_versions where stage = 'live')"
_HELD = "create temp table held on commit drop as select * from ambara_claim('bench', " + _LIVE + ", {n}, 60)"
_RUN = """create temp table chosen on commit drop as select run_id, id from clips where id = (
  select clip_id from draft_queue where quiet_seq = (select max(quiet_seq) from draft_queue) and drafted
  order by priority desc, created_at, clip_id limit 1)"""
_BATCH = """(select jsonb_agg(jsonb_build_object('clip_id', clip_id, 'fence', fence, {more})) from held)"""
_DRAFTS = _BATCH.format(more="'text', 'what was heard', 'confidence', -0.2, 'flags', '[]'::jsonb")
_FAILURES = _BATCH.format(more="'retry', 'later', 'reason', 'audio-missing', 'message', 'no audio'")
_SOME = "id = any (array(select clip_id from draft_queue order by quiet_seq desc, drafted desc limit {n}))"

COUNTS_ALL = "all corrections, all clips or the whole queue are counted, which nobody can do without reading them"


@dataclass(frozen=True, slots=True)
class Statement:
    """What is measured, and what has to be there before it."""

    sql: str
    before: str = ""
    people: bool = False
    """The editor's or its scripts'."""
    counts_all: bool = False
    """See `COUNTS_ALL`."""


STATEMENTS = {
    "snapshot": Statement("select ambara_snapshot()"),
    "claim 64": Statement(f"select * from ambara_claim('bench', {_LIVE}, 64, 60)"),
    "claim 64 of a run": Statement(
        f"select * from ambara_claim('bench', {_LIVE}, 64, 60, false, array(select run_id from chosen))", _RUN
    ),
    "re-draft: count": Statement("select ambara_count_manual('none yet', array(select run_id from chosen))", _RUN),
    "re-draft: claim 64": Statement(
        "select * from ambara_claim('bench', 1, 64, 60, true, array(select run_id from chosen))", _RUN
    ),
    "submit 16": Statement(f"select * from ambara_submit('bench', {_LIVE}, {_DRAFTS})", _HELD.format(n=16)),
    "fail 16": Statement(f"select ambara_fail('bench', {_FAILURES})", _HELD.format(n=16)),
    "renew 64": Statement("select ambara_renew('bench', array(select clip_id from held), 60)", _HELD.format(n=64)),
    "release all": Statement("select ambara_release('bench')", _HELD.format(n=64)),
    "restore": Statement(
        "select ambara_restore('cli', c.id, (select min(id) from drafts where clip_id = c.id)) from chosen c", _RUN
    ),
    "drafts of a clip": Statement("select ambara_drafts(id) from chosen", _RUN),
    "mend the queue": Statement("select ambara_mend_queue(10000)", counts_all=True),
    "forget 200 drafts": Statement("select ambara_forget_drafts(30, null, 200)"),
    "samples, a page of 100": Statement("select * from ambara_samples((select max(id) from training_runs), null, 100)"),
    "export, a page": Statement("select * from ambara_exportable(array(select run_id from chosen), null, 500)", _RUN),
    "training (each sweep)": Statement("select ambara_training()"),
    "what is not measured": Statement("select ambara_unmeasured(null, 200)"),
    "settle corrections": Statement("select ambara_settle_corrections('clips', null, 500)"),
    "walk past the last 2,000": Statement(
        "select ambara_mend_clips('clips', (select id from clips order by id desc offset 2000 limit 1), 2000)"
    ),
    "recordings": Statement("select ambara_recordings()", counts_all=True),
    "status": Statement("select ambara_status()", counts_all=True),
    "people: open a run": Statement(
        "select * from clips where run_id = (select run_id from chosen) order by priority desc, created_at limit 1000",
        _RUN, people=True,
    ),
    "people: save": Statement(
        f"update clips set corrected_transcription = 'x', status = 'corrected', corrected_at = now() "
        f"where {_SOME.format(n=1)}",
        people=True,
    ),
    "people: autosave": Statement(
        f"update clips set corrected_transcription = 'x' where {_SOME.format(n=1)}", people=True
    ),
    "people: discard 50": Statement(
        f"update clips set status = 'discarded' where {_SOME.format(n=50)}", people=True
    ),
    "scripts: sync 500": Statement(
        "insert into clips (run_id, file_name, draft_transcription, duration_sec) "
        "select c.run_id, 'clips/new_' || n || '.wav', repeat('stock ', 20), 9 "
        f"from (select run_id from clips where {_SOME.format(n=1)}) as c, generate_series(1, 500) as n "
        "on conflict (run_id, file_name) do update set draft_transcription = excluded.draft_transcription",
        people=True,
    ),
}  # fmt: skip

CROWDED = Statement(
    f"select * from ambara_claim('bench', {_LIVE}, 64, 60)",
    f"select count(*) from generate_series(1, 50) n, ambara_claim('worker ' || n, {_LIVE}, 64, 60)",
)
"""A claim beside those of 50 other workers."""

_READ = """
select coalesce(sum(seq_scan) filter (where relname <> 'runs'), 0),
  coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0)
from pg_stat_xact_user_tables
where schemaname = 'public' and relname = any (%s)
"""
LARGE = ("clips", "runs", "draft_queue", "draft_state", "drafts", "training_samples", "draft_edits")
"""Tables that grow with the dataset; `runs` so slowly that to read all of it may be the best plan."""


@contextmanager
def undone(db: Db) -> Iterator[None]:
    """Whatever the block does, it is as if it had not been done."""
    with db.transaction(force_rollback=True):
        yield


def reads(db: Db, statement: Statement, tables: Sequence[str] = LARGE) -> tuple[int, int]:
    """How often one of these tables is read from end to end, and how many rows of them are read at all."""
    with undone(db):
        if statement.before:
            db.execute(statement.before.encode())
        scans, rows = _read(db, tables)
        db.execute(statement.sql.encode())
        scans_after, rows_after = _read(db, tables)
    return scans_after - scans, rows_after - rows


def _read(db: Db, tables: Sequence[str]) -> tuple[int, int]:
    row = db.execute(_READ.encode(), [list(tables)]).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def seconds(db: Db, statement: Statement) -> float:
    """How long it takes once."""
    with undone(db):
        if statement.before:
            db.execute(statement.before.encode())
        began = time.perf_counter()
        db.execute(statement.sql.encode())
        return time.perf_counter() - began


def medians(dbs: Sequence[Db], statement: Statement, budget_s: float = 2.0) -> list[float]:
    """The median of how long it takes in each of these databases, in turn, as often as the budget allows."""
    taken: list[list[float]] = [[] for _ in dbs]
    began = time.perf_counter()
    for number in range(25):
        if number >= 2 and time.perf_counter() - began > budget_s:
            break
        for db, each in zip(dbs, taken, strict=True):
            each.append(seconds(db, statement))
    return [statistics.median(each[1:]) for each in taken]


def connected(db_url: str) -> Db:
    """A connection on which nothing is shared with helpers, whose reading would be counted elsewhere."""
    return psycopg.connect(db_url, autocommit=True, options="-c max_parallel_workers_per_gather=0")
