"""A PostgreSQL for the tests of the Realtime bridge, which they may stop and start as they like."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from daemon.local.realtime import BridgeSettings
from tests.local.realtime_support import SCHEMA, SECRET, Database


@pytest.fixture(scope="session")
def realtime_server() -> Iterator[Database]:
    database = Database()
    yield database
    database.remove()


@pytest.fixture
def realtime_db(realtime_server: Database) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """A connection to fresh tables `clips`, `runs` (published) and `notpub` (not)."""
    with realtime_server.connect() as connection:
        connection.execute(SCHEMA)
        yield connection


@pytest.fixture
def realtime_settings(
    realtime_server: Database, realtime_db: psycopg.Connection[tuple[Any, ...]]
) -> Callable[..., BridgeSettings]:
    """Settings for a bridge on the fresh tables, quick enough for tests."""

    def make(**changed: Any) -> BridgeSettings:
        quick: dict[str, Any] = {"poll_interval_s": 0.02, "reconnect_max_s": 0.2, "max_events_per_second": 1e9}
        return BridgeSettings(db_url=realtime_server.url, jwt_secret=SECRET, **{**quick, **changed})

    return make
