"""What the tests of `ambara doctor` share: settings, the findings by name, and a database that is put right again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from daemon_process import environment, write_config
from pydantic import SecretStr

from daemon import migrate
from daemon.config import Settings, load
from daemon.doctor.finding import Check, Finding, Verdict
from daemon.doctor.rounds import PROJECT, examine
from daemon.local import origin
from daemon.local.stack import LocalStack

Db = psycopg.Connection[Any]


@contextmanager
def mended(stack: LocalStack) -> Iterator[Db]:
    """The superuser's connection. Afterwards all is as it was, whatever a test has left."""
    stack.ensure()
    with psycopg.connect(stack.db_url, autocommit=True) as connection:
        yield connection
        connection.execute("drop publication if exists supabase_realtime")
        connection.execute(migrate.script().encode())
        connection.execute(origin.storage_sql().encode())
        connection.execute("alter table runs enable row level security; alter table clips enable row level security")


def made(stack: Any, folder: Path, **sections: Any) -> Settings:
    """Settings with the carried model; training is on, so that its room is asked for."""
    training = {"enabled": True} | sections.pop("training", {})
    return load(write_config(folder, training=training, **sections), environment(stack, folder))


def under(settings: Settings, key: str, url: str | None = None) -> Settings:
    """The same with another key, which `load` would refuse, or at another address."""
    changed = {"key": SecretStr(key), "apikey": SecretStr(key), "url": url or settings.supabase.url}
    return settings.model_copy(update={"supabase": settings.supabase.model_copy(update=changed)})


async def look(settings: Settings, db_url: str = "", checks: Sequence[Check] = PROJECT) -> dict[str, Finding]:
    """All findings by name; none holds a secret."""
    found = {each.check: each async for each in examine(settings, db_url, checks=checks)}
    for secret in (*settings.secrets(), db_url):
        assert not secret or secret not in repr(found)
    return found


def faults(found: dict[str, Finding]) -> dict[str, str]:
    """The checks that turned red, and their remedies; every one has some."""
    red = {name: each.remedy or "" for name, each in found.items() if each.verdict is Verdict.FAULT}
    assert all(red.values())
    return red
