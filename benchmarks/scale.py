"""What the database takes for a million clips, how several workers share it, and what a burst of inserts does.

    python benchmarks/scale.py [--clips 1000000] [--inserts 20000] [--only statements,workers,burst] [--buffers 1GB]

Statements: the same in a database of 1,000 clips and in a large one beside it, in turn, each undone afterwards; on a
plain day, when nothing is new, after another version went live, and far into the drafting that follows. Workers: the
real pipeline and store over the Data API, with an engine of fixed cost. Exits with 1 when the large database was read
from end to end by a statement that does not have to, or a clip was drafted twice or not at all.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time
from collections.abc import Callable, Sequence

import psycopg
import structlog
from psycopg.sql import SQL
from report import Table, heading
from scale_rows import Db, database, generate
from scale_statements import CROWDED, STATEMENTS, Statement, connected, medians, reads, undone
from scale_workers import burst, shift

from daemon import migrate
from daemon.local.stack import LocalStack

SMALL = 1_000
BATCH_S = 0.25
"""What that engine takes for a batch of 16."""
CLIPS_EACH = 640
FURTHER = 150
"""Claims of 64, each submitted, between "another version is live" and "far into it"."""

_LIVE = "(select id from model_versions where stage = 'live')"
_PROMOTE = "select ambara_promote((select min(id) from model_versions), null, 'bench')"
_TURN = f"""
with held as materialized (select * from ambara_claim('turn', {_LIVE}, 64, 60)),
drafts as (
  select jsonb_agg(jsonb_build_object('clip_id', clip_id, 'fence', fence, 'text', 'again ' || clip_id)) as items
  from held
)
select count(*) from drafts, ambara_submit('turn', {_LIVE}, drafts.items)
"""
_SETTLE = """
with live as (select id, live_seq from model_versions where stage = 'live'),
new as (select clip_id from draft_queue where quiet_seq = 0),
state as (
  insert into draft_state (clip_id, version_id, settled_seq, drafted_at, text_md5)
  select c.id, live.id, live.live_seq, c.updated_at, md5(c.draft_transcription)
  from new join clips c on c.id = new.clip_id, live
  on conflict (clip_id) do update set version_id = excluded.version_id, settled_seq = excluded.settled_seq,
    drafted_at = excluded.drafted_at, text_md5 = excluded.text_md5
)
update draft_queue q set quiet_seq = live.live_seq, drafted = true from new, live where q.clip_id = new.clip_id
"""
_SIZES = """
select relname, pg_size_pretty(pg_total_relation_size(oid)) from pg_class
where relname in ('clips', 'draft_queue', 'draft_state', 'drafts', 'training_samples') order by relname
"""
_OFF = "alter table clips disable trigger ambara_clips_came; alter table clips disable trigger ambara_clips_changed; "


def compare(stack: LocalStack, clips: int) -> list[str]:
    """Print what the statements take in a small database and in a large one. Returns what should not be."""
    dbs = []
    for name, size in (("small", SMALL), ("large", clips)):
        url = database(stack.db_url, name)
        began = time.monotonic()
        with psycopg.connect(url, autocommit=True) as db:
            generate(db, size, 0.05 if size > SMALL else 0.4)  # as much to claim in both
        say(f"{size:,} clips made in {time.monotonic() - began:.0f} s")
        dbs.append(connected(url))
    for name, states in zip(("small", "large"), map(kinds, dbs), strict=True):
        say(f"{name}: {states}")
    say("sizes with indexes: " + ", ".join(f"{table} {size}" for table, size in dbs[1].execute(_SIZES).fetchall()))
    say(f"the migration that makes the queue keeps writers out for {filled(dbs[1]):.1f} s")
    found = []
    queue = ("snapshot", "claim 64")
    for title, change, times, names in (
        ("a plain day", "", (0, 0), [name for name, each in STATEMENTS.items() if not each.people]),
        ("nothing is new", _SETTLE, (1, 1), queue),
        ("another version is live", _PROMOTE, (1, 1), queue),
        (f"{FURTHER * 64:,} clips further", _TURN, (3, FURTHER), [*queue, "submit 16"]),
    ):
        for db, rounds in zip(dbs, times, strict=True):
            for _ in range(rounds):
                db.execute(change.encode())
        table = beneath(title, "1,000", f"{clips:,}", "ratio", "rows read", "end to end")
        found += [problem for name in names if (problem := compared(table, dbs, name, STATEMENTS[name]))]
        if change == _PROMOTE:
            (crowded,) = medians(dbs[1:], CROWDED)
            table.add("claim 64 beside 50 workers", "", ms(crowded), "", f"{reads(dbs[1], CROWDED)[1]:,}", "")
    table = beneath("what people do", "without the queue", "with it", "ratio", "rows read", "end to end")
    for name, each in STATEMENTS.items():
        if each.people:
            found += [problem] if (problem := beside(table, dbs[1], name, each)) else []
    for db in dbs:
        db.close()
    return found


def filled(db: Db) -> float:
    """How long the migration takes over these clips, had it not been there."""
    (queue,) = (each for each in migrate.migrations() if each.name == "queue")
    with undone(db):
        db.execute(
            "truncate draft_queue; drop index draft_queue_order; "
            "alter table draft_queue drop constraint draft_queue_clip_id_fkey"
        )
        began = time.monotonic()
        db.execute(queue.sql.encode())
        return time.monotonic() - began


def compared(table: Table, dbs: Sequence[Db], name: str, statement: Statement) -> str:
    """Print one line. Returns what is wrong with it, or nothing."""
    scans, rows = reads(dbs[1], statement)
    small, large = medians(dbs, statement)
    table.add(name, ms(small), ms(large), f"{large / small:.2f}", f"{rows:,}", f"{scans} times" if scans else "no")
    return f"{name} reads clips from end to end" if scans and not statement.counts_all else ""


def beside(table: Table, db: Db, name: str, statement: Statement) -> str:
    """The same of what people do, in the large database, with and without the triggers."""
    scans, rows = reads(db, statement)
    alone = Statement(statement.sql, _OFF + statement.before)
    without, with_it = (medians([db], each, budget_s=1.0)[0] for each in (alone, statement))
    table.add(
        name, ms(without), ms(with_it), f"{with_it / without:.2f}", f"{rows:,}", f"{scans} times" if scans else "no"
    )
    return f"{name} reads clips from end to end" if scans else ""


def kinds(db: Db) -> str:
    """How many clips there are of each kind."""
    row = db.execute("select ambara_status()").fetchone()
    assert row is not None
    told = row[0]
    return ", ".join(f"{count:,} {what}" for part in ("clips", "queue", "held") for what, count in told[part].items())


def share(stack: LocalStack, settled: int) -> list[str]:
    """Print how 1, 2 and 4 workers fare. Returns what should not be."""
    with psycopg.connect(stack.db_url, autocommit=True) as db:
        generate(db, settled)
        db.execute("delete from clips where id in (select clip_id from draft_queue where quiet_seq = 0)")
        db.execute("delete from clips where id in (select clip_id from draft_state where retry_at < now())")
        row = db.execute("select id from model_versions where stage = 'live'").fetchone()
        assert row is not None
        shifts = [shift(stack, db, row[0], n, n * CLIPS_EACH, BATCH_S) for n in (1, 2, 4)]
    ideal = 16 / BATCH_S
    title = f"workers beside {settled:,} clips that want nothing"
    table = beneath(title, "clips", "clips/s", "of the engine's", "statements per clip", "each", "wrong")
    for each in shifts:
        speed = each.clips / each.seconds
        table.add(
            str(each.workers), f"{each.clips:,}", f"{speed:.0f}", f"{speed / ideal / each.workers:.0%}",
            f"{each.statements / each.clips:.3f}", " ".join(map(str, each.shares)), ", ".join(each.wrong) or "nothing",
        )  # fmt: skip
    return [problem for each in shifts for problem in each.wrong]


def listen(stack: LocalStack, inserts: int) -> list[str]:
    """Print what a burst does to who listens: with the real server's limit, and when all of it is delivered."""
    table = beneath(
        f"{inserts:,} inserts, resident MB", "before", "most", "after", "the server's", "heard", "rings", "connections"
    )
    with psycopg.connect(stack.db_url, autocommit=True) as db:
        for title, limit in (("100 events/s at most", 100.0), ("no limit", 1e9)):
            found = asyncio.run(burst(stack, db, inserts, limit))
            table.add(
                title, f"{found.before:.1f}", f"{found.most:.1f}", f"{found.after:.1f}",
                f"{found.server_before:.1f} -> {found.server_after:.1f}", f"{found.heard:,}", str(found.rings),
                str(found.connections),
            )  # fmt: skip
    return []


def beneath(*head: str) -> Table:
    """A table beneath the one before."""
    print()
    return Table(head)


def say(text: str) -> None:
    """A line of its own."""
    print(f"\n{text}", flush=True)


def ms(seconds: float) -> str:
    """Milliseconds, as far as they mean something."""
    return f"{seconds * 1000:,.1f} ms"


def main() -> int:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--clips", type=int, default=1_000_000, help="at least 10,000")
    arguments.add_argument("--inserts", type=int, default=20_000)
    arguments.add_argument("--only", default="statements,workers,burst")
    arguments.add_argument("--buffers", default="1GB", help="PostgreSQL's shared_buffers; usual is a quarter of memory")
    options = arguments.parse_args()
    clips, only = max(10_000, options.clips), options.only.split(",")
    say(f"{heading()}; {options.buffers} of shared buffers")
    parts: dict[str, Callable[[LocalStack], list[str]]] = {
        "statements": lambda stack: compare(stack, clips),
        "workers": lambda stack: share(stack, min(50_000, clips)),
        "burst": lambda stack: listen(stack, options.inserts),
    }
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    found = []
    with LocalStack.start() as stack:
        with psycopg.connect(stack.db_url, autocommit=True) as db:
            db.execute(SQL("alter system set shared_buffers = {}").format(options.buffers))
        stack.restart_postgres()
        stack.reload_api()
        for name, part in parts.items():
            if name in only:
                found += part(stack)
    say("wrong: " + ("; ".join(found) or "nothing"))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
