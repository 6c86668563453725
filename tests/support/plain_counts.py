"""What `ambara status` has to say, by the plain words in which it was written first: they look at every clip."""

from __future__ import annotations

import re
from typing import Any

import psycopg

from daemon import migrate

Database = psycopg.Connection[Any]

_NAMES = ("corrections", "trainable", "training", "status")


def plainly(db: Database) -> None:
    """Make those functions for this connection, as `pg_temp.plain_…`."""
    (first,) = (each.sql for each in migrate.migrations() if each.name == "learning")
    made = [re.search(rf"create or replace function public\.ambara_{n}\(.*?\n\$\$;", first, re.DOTALL) for n in _NAMES]
    text = "\n".join(each.group() for each in made if each)
    db.execute(re.sub(rf"public\.ambara_({'|'.join(_NAMES)})\(", r"pg_temp.plain_\1(", text).encode())


def counted(db: Database) -> dict[str, Any]:
    """What status and training tell now, after a look that they tell the same as the plain ones at the same moment."""
    row = db.execute(
        b"select ambara_status(), pg_temp.plain_status(), ambara_training('clips'), pg_temp.plain_training('clips'), "
        b"array(select to_jsonb(t)::text from ambara_trainable('clips') t order by 1), "
        b"array(select to_jsonb(t)::text from pg_temp.plain_trainable('clips') t order by 1)"
    ).fetchone()
    assert row is not None
    status, plain_status, training, plain_training, trainable, plain_trainable = map(_in_order, row)
    assert status == plain_status
    assert training == plain_training
    assert trainable == plain_trainable
    assert isinstance(status, dict)
    return status


def _in_order(told: Any) -> Any:
    """With failures in one order, and sums without their last digits."""
    if isinstance(told, dict):
        return {
            name: sorted(map(_in_order, value), key=repr) if name == "failures" else _in_order(value)
            for name, value in told.items()
        }
    if isinstance(told, list):
        return [_in_order(each) for each in told]
    return round(told, 6) if isinstance(told, float) else told
