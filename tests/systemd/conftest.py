"""The installed service, in a container that was booted for these tests; anywhere else there are none of them.

They change the machine: users, /etc, /opt, units. `make systemd-test` boots a container for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from booted import Installed, in_a_container, install, put_tools
from booted_work import prepare_audio
from witness import Database

collect_ignore_glob = [] if in_a_container() else ["test_*.py"]


@pytest.fixture(scope="session")
def installed(stack: Any) -> Installed:
    """The service as the README's lines leave it: enabled, and at work on the session's stack."""
    assert in_a_container()
    put_tools()
    prepare_audio()
    return install(stack)


@pytest.fixture
def service(installed: Installed) -> Iterator[Installed]:
    """The service, running with its usual settings on a project without clips; its changes are taken back."""
    with psycopg.connect(installed.db_url, autocommit=True) as db:
        db.execute("delete from runs")
    installed.usual()
    yield installed
    installed.usual()


@pytest.fixture
def rows(service: Installed) -> Iterator[Database]:
    """The superuser's connection."""
    with psycopg.connect(service.db_url, autocommit=True) as db:
        yield db


@pytest.fixture
def jwt_secret(stack: Any) -> str:
    """What the stack's tokens are signed with."""
    return str(stack.jwt_secret)


@pytest.fixture
def documents() -> Path:
    """The checkout."""
    return Path(__file__).parents[2]
