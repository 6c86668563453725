"""No statement walks over the dataset: what each reads, by PostgreSQL's own counters, among 30,000 clips."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from plain_counts import counted, plainly
from scale_rows import Db, database, generate
from scale_statements import STATEMENTS, Statement, connected, reads, undone
from witness import scalar

from daemon.local.stack import LocalStack

CLIPS = 30_000
HIDDEN = """
create function pg_temp.hidden() returns bigint language plpgsql as
  'begin return (select count(*) from clips where duration_sec > 20); end'
"""
MOST_ROWS = 5_000
"""That a statement may read of these. A snapshot looks at 1,000 clips, in both."""
TABLES = ("clips", "draft_queue")
"""Of the others some are so small here that to read all of them is the best plan."""
CLAIM = STATEMENTS["claim 64"].sql
PROMOTED = "select ambara_promote((select min(id) from model_versions), null, 'test')"
ANALYZED = "analyze draft_queue; analyze draft_state; analyze clips"
DRAFTED = """
do $$
declare
  live bigint := (select id from model_versions where stage = 'live');
begin
  for n in 1..6 loop
    perform ambara_submit('test', live, (
      select jsonb_agg(jsonb_build_object('clip_id', c.clip_id, 'fence', c.fence, 'text', 'again'))
      from ambara_claim('test', live, 500, 60) c));
  end loop;
end $$
"""


@pytest.fixture(scope="module")
def db(stack: object) -> Iterator[Db]:
    """A database of generated rows beside the session's; every test leaves it as it was."""
    if not isinstance(stack, LocalStack):
        pytest.skip("makes a database of its own: needs the embedded stack")
    url = database(stack.db_url, "scale")
    with connected(url) as connection:
        generate(connection, CLIPS)
        yield connection
    with connected(stack.db_url) as connection:
        connection.execute("drop database scale with (force)")


def test_the_rows_are_as_varied_as_real_ones(db: Db) -> None:
    found = scalar(db, "select ambara_status()")
    assert found["clips"].keys() == {"pending", "corrected", "discarded"}
    assert found["queue"].keys() == {"drafted", "ready", "claimed", "failed", "retrying"}
    assert all(found["held"].values())
    assert scalar(db, "select count(distinct run_id) from clips") > 100
    assert scalar(db, "select count(*) from clips where paragraphs is not null")


@pytest.mark.parametrize("name", [name for name, each in STATEMENTS.items() if not each.counts_all])
def test_no_statement_reads_clips_from_end_to_end(name: str, db: Db) -> None:
    scans, rows = reads(db, STATEMENTS[name], TABLES)
    assert (scans, rows <= MOST_ROWS) == (0, True), f"{scans} scans, {rows} rows"


@pytest.mark.parametrize(
    "before",
    [PROMOTED, f"{PROMOTED}; {DRAFTED}", f"{PROMOTED}; {DRAFTED}; {ANALYZED}", f"{DRAFTED}"],
    ids=["another version is live", "far into it", "far into it, analyzed", "nothing is new"],
)
def test_nor_does_it_pass_by_what_is_done(before: str, db: Db) -> None:
    with undone(db):
        db.execute(before.encode())
        for name in ("snapshot", "claim 64"):
            scans, rows = reads(db, STATEMENTS[name], TABLES)
            assert (scans, rows <= MOST_ROWS) == (0, True), f"{name}: {scans} scans, {rows} rows"


@pytest.mark.parametrize("before", ["", PROMOTED, f"{PROMOTED}; {DRAFTED}"], ids=["day", "live", "far"])
def test_the_queue_offers_what_is_wanted_in_the_editors_order(before: str, db: Db) -> None:
    """What is wanted is what `ambara_waiting` says, over all clips."""
    with undone(db):
        if before:
            db.execute(before.encode())
        live = scalar(db, "select live_seq from model_versions where stage = 'live'")
        order = "order by drafted, priority desc, created_at, clip_id"
        wanted = db.execute(f"select clip_id from ambara_waiting(%s, null, null) {order}".encode(), [live]).fetchall()
        queued = db.execute(f"select clip_id from ambara_next(%s, %s) {order}".encode(), [live, CLIPS]).fetchall()
        assert len(wanted) > 1000
        assert queued == wanted
        query = f"select clip_id from ambara_claim('test', {_live(db)}, 100, 60)"
        assert db.execute(query.encode()).fetchall() == wanted[:100]


@pytest.mark.parametrize("before", ["", PROMOTED, f"{PROMOTED}; {DRAFTED}"], ids=["day", "live", "far"])
def test_what_is_counted_is_what_a_look_at_all_would_count(before: str, db: Db) -> None:
    plainly(db)
    with undone(db):
        if before:
            db.execute(before.encode())
        assert counted(db)["queue"]["ready"] > 1000


def test_status_reads_clips_from_end_to_end_once_at_most(db: Db) -> None:
    """How many are in which state stands in an index, which of so few is not always taken."""
    scans, _ = reads(db, STATEMENTS["status"], ("clips",))
    assert scans <= 1


@pytest.mark.parametrize(
    ("sql", "before"),
    [
        ("select count(*) from clips where duration_sec > 20", ""),
        ("select pg_temp.hidden()", HIDDEN),
        (CLAIM, f"{PROMOTED}; drop index draft_queue_order"),
        (f"select * from ambara_waiting(2, null, null) order by priority desc, created_at limit {CLIPS}", ""),
    ],
    ids=["plainly", "in a function", "without the queue's index", "in order"],
)
def test_it_would_be_seen(sql: str, before: str, db: Db) -> None:
    scans, rows = reads(db, Statement(sql, before), TABLES)
    assert scans or rows > MOST_ROWS, f"{scans} scans, {rows} rows"


def _live(db: Db) -> int:
    return int(scalar(db, "select id from model_versions where stage = 'live'"))
