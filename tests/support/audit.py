"""A witness inside the database, in the tests alone: triggers that judge every write of `clips` in words of their own.

Nothing here calls the daemon's functions, so a mistake in them is seen. One sequence numbers what happens to a clip:
a claim, its end, a write of the daemon, anything that somebody else does to the row. Each number is drawn while the
clip's row is locked, so their order is the order of the events, whatever the clocks say.

A draft may bear its worker and fence (`stamp`); then it is also known under which claim it was made.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

Database = psycopg.Connection[Any]

_INSTALL = Path(__file__).with_suffix(".sql")

_REMOVE = (
    "drop trigger if exists zz_audit_updating on public.clips",
    "drop trigger if exists zz_audit_came on public.clips",
    "drop trigger if exists zz_audit_claiming on public.draft_state",
    "drop trigger if exists zz_audit_logging on public.drafts",
    "drop schema if exists audit cascade",
)
"""Each by itself: a daemon's last statement may hold one of these tables and want another."""

# An interleaving: somebody's statement reached a clip between its claim and the submission that was then judged, or
# took the clip away. A claim that ended by itself, or was given back, is none.
_COUNTS = """
with told as (
  select *, lead(kind) over w as next_kind, lead(writer) over w as next_writer, lead(seq) over w as next_seq
  from audit.log where kind <> 'touch' and kind <> 'draft'
  window w as (partition by clip_id order by seq)
),
windows as (
  select t.*, exists (
    select from audit.log l where l.clip_id = t.clip_id and l.kind = 'touch' and l.seq > t.seq
      and (t.next_seq is null or l.seq < t.next_seq)
  ) as touched
  from told t where t.kind = 'claim'
)
select
  (select count(*) from windows) as claims,
  (select count(*) from windows where touched or next_kind = 'gone') as touched_while_claimed,
  (select count(*) from windows
   where (touched and next_kind = 'end' and next_writer = 'ambara_submit') or next_kind = 'gone') as interleavings,
  (select count(*) from audit.log where kind = 'draft') as drafts,
  (select count(*) from audit.log where kind = 'restore') as restored,
  (select count(*) from audit.log where kind in ('touch', 'gone')) as human_writes,
  (select count(*) from audit.violations) as violations
"""


def stamp(worker: str, fence: int, text: str) -> str:
    """A draft's text that says under which claim it was made."""
    return f"[{worker} {fence}] {text}"


def install(db: Database) -> None:
    """Begin to watch, from an empty record; where it watches already, nothing changes."""
    if db.execute("select to_regnamespace('audit') is not null").fetchone() != (True,):
        with db.transaction():
            db.execute(_INSTALL.read_bytes())


def allow_priorities(db: Database) -> None:
    """From now on the daemon may set the priority of clips that have none; what it wrote before counts as its own."""
    db.execute("insert into audit.asked values (true)")
    db.execute(
        "insert into audit.priorities select clip_id, former_priority, given_priority from draft_state "
        "where given_priority is not null"
    )


def remove(db: Database) -> None:
    """Stop watching, and forget."""
    for statement in _REMOVE:
        with db.transaction():
            db.execute(statement.encode())


def violations(db: Database) -> list[str]:
    """What the daemon did and may not, in the order of its happening."""
    rows = db.execute("select what, clip_id, writer from audit.violations order by seq").fetchall()
    return [f"{what} (clip {clip}, by {writer})" for what, clip, writer in rows]


def counts(db: Database) -> dict[str, int]:
    """How much was seen: claims, touched_while_claimed, interleavings, drafts, restored, human_writes, violations."""
    with db.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        row = cursor.execute(_COUNTS.encode()).fetchone()
    assert row is not None
    return {name: int(value) for name, value in row.items()}


def doubled(db: Database) -> list[str]:
    """Clips that were drafted twice though nobody had touched them in between. Ask where one version is live."""
    rows = db.execute(
        "select distinct clip_id::text from ("
        "  select clip_id, kind, lag(kind) over (partition by clip_id order by seq) as before"
        "  from audit.log where kind in ('draft', 'touch', 'restore')) told where kind = 'draft' and before = 'draft'"
    ).fetchall()
    return [row[0] for row in rows]


@contextmanager
def audited(db: Database) -> Iterator[Database]:
    """Watch during the block. The record is gone after it: ask within."""
    install(db)
    try:
        yield db
    finally:
        remove(db)
