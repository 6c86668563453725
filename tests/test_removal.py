"""The SQL that removes Ambara, as the document has it, on a real PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from witness import insert_clips, scalar

from daemon import migrate
from daemon.local.origin import origin_sql

OPERATIONS = Path(__file__).parents[1] / "docs" / "operations.md"
THINGS = """
select relkind::text, relname::text from pg_class where relnamespace = 'public'::regnamespace
union all select 'function', oid::regprocedure::text from pg_proc where pronamespace = 'public'::regnamespace
union all select 'trigger', tgname::text from pg_trigger where not tgisinternal
union all select 'column', attrelid::regclass || '.' || attname from pg_attribute
  where attrelid in ('runs'::regclass, 'clips'::regclass) and attnum > 0 and not attisdropped
order by 1, 2
"""


@pytest.mark.parametrize("minimal", [True, False])
def test_it_leaves_what_was_there_before_and_there_is_a_way_back(minimal: bool, blank_database: str) -> None:
    """But for the role, which other databases of this server know."""
    removal = (
        OPERATIONS.read_text().partition("## Removing it")[2].partition("```sql\n")[2].partition("drop owned by")[0]
    )
    with psycopg.connect(blank_database, autocommit=True) as db:
        db.execute(origin_sql(minimal=minimal).encode())
        before = db.execute(THINGS.encode()).fetchall()
        migrate.apply(blank_database)
        insert_clips(db, "00000000-0000-4000-8000-000000000001", ["clips/1.wav"])
        assert len(db.execute(THINGS.encode()).fetchall()) > len(before) + 50
        db.execute(removal.encode())
        assert db.execute(THINGS.encode()).fetchall() == before
        migrate.apply(blank_database, again=True)
        assert scalar(db, "select count(*) from draft_queue") == 1
