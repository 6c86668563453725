"""The world of one fault."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_record import Fault
from scene import Scene, a_scene
from warm_start import Nest

from daemon.local.stack import LocalStack


@pytest.fixture(scope="session")
def nest() -> Iterator[Nest]:
    """Daemons that start in a second."""
    with Nest() as made:
        yield made


@pytest.fixture
def scene(local_stack: LocalStack, nest: Nest, tmp_path: Path, fault: Fault) -> Iterator[Scene]:
    """An empty Supabase behind a proxy, audited."""
    local_stack.ensure()
    local_stack.truncate()
    # A bridge that counts no events of the fault before towards its rate limit, and misbehaves in no way.
    local_stack.stop_gateway()
    local_stack.start_gateway()
    with a_scene(local_stack, nest, tmp_path, fault) as made:
        yield made
