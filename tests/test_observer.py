"""What a decision gets to see when the database does not tell everything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from supabase import AsyncClient
from witness import Database, insert_clips

from daemon import database
from daemon.clips import ClipStore
from daemon.errors import TemporaryError
from daemon.learning.edits import EditBook
from daemon.learning.ledger import Ledger
from daemon.learning.registry import Registry
from daemon.local.sockets import free_port
from daemon.observer import Observer
from daemon.supabase_client import connect, http_client
from handlers.commands import Lane

RUN = "00000000-0000-4000-8000-000000000001"


def nothing_runs() -> frozenset[Lane]:
    return frozenset()


async def test_where_corrections_cannot_be_counted_the_queue_can_be_read(
    supabase_client: AsyncClient, clean_stack: Any, db: Database, tmp_path: Path
) -> None:
    """As where there are so many that a statement may not take so long."""
    store, registry = ClipStore(supabase_client, "worker"), Registry(tmp_path)
    version, _ = await store.register("base", "f" * 64, {}, go_live=True)
    insert_clips(db, RUN, ["clips/1.wav"])
    whole = Observer(
        store, Ledger(database.Database(supabase_client), "worker"), registry, lambda: version, nothing_runs
    )
    assert (await whole.observe(learning=True)).learning is not None
    async with http_client() as http:
        nobody = await connect(f"http://127.0.0.1:{free_port()}", clean_stack.service_role_key, http)
        lacking = Ledger(database.Database(nobody), "worker")
        observer = Observer(store, lacking, registry, lambda: version, nothing_runs)
        snapshot = await observer.observe(learning=False)
        assert (snapshot.live, snapshot.ready, snapshot.learning) == (version, 1, None)
        with pytest.raises(TemporaryError):
            await observer.observe(learning=True)
        half = Ledger(database.Database(supabase_client), "worker")
        half.edits = EditBook(database.Database(nobody))
        found = await Observer(store, half, registry, lambda: version, nothing_runs).observe(learning=True)
        assert found.learning is not None
        assert found.learning.edits is None
        away = Observer(ClipStore(nobody, "worker"), lacking, registry, lambda: version, nothing_runs)
        with pytest.raises(TemporaryError):
            await away.observe(learning=False)
