"""A real Supabase for every test that wants one: the embedded stack, or any other that the environment names.

With SUPABASE_URL, SUPABASE_SERVICE_ROLE_KEY and SUPABASE_DB_URL set, the tests run against that project (and
SUPABASE_JWT_SECRET, where a test signs tokens). They empty its tables, so it has to be empty to begin with.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import uuid4

import psycopg
import pytest
from fault_plugin import (  # noqa: F401 - hooks and fixtures of pytest
    fault,
    pytest_addoption,
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_configure_node,
    pytest_runtest_makereport,
    pytest_terminal_summary,
)
from hypothesis import settings
from scripted_editor import Editor
from supabase import AsyncClient, acreate_client

import daemon.asr  # noqa: F401 - before any test imports PyTorch
from daemon.local import origin
from daemon.local.keys import mint
from daemon.local.stack import LocalStack

# A shell's background job ignores SIGINT, and whatever that starts; tests that send one are of programs that do not.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


settings.register_profile("untimed", deadline=None)  # how long an example takes, the machine's other work decides
settings.load_profile("untimed")


@dataclass(frozen=True, slots=True)
class ExternalStack:
    """A Supabase that somebody else runs: it can be used and emptied, but not stopped or broken."""

    url: str
    service_role_key: str
    db_url: str

    @property
    def jwt_secret(self) -> str:
        """The project's signing secret; skips the test where it is not known."""
        if secret := os.environ.get("SUPABASE_JWT_SECRET"):
            return secret
        pytest.skip("signs tokens: needs SUPABASE_JWT_SECRET, or the embedded stack")

    @property
    def anon_key(self) -> str:
        """A token of the role `anon`."""
        return self.mint("anon")

    def mint(self, role: str, **claims: object) -> str:
        """Sign a token for `role`."""
        return mint(self.jwt_secret, role, **claims)

    def truncate(self) -> None:
        """Empty every table and the bucket."""
        origin.empty(self.db_url, self.url, self.service_role_key)

    def ensure(self) -> None:
        """Nothing to see to: somebody else runs it."""


AnyStack = LocalStack | ExternalStack


@pytest.fixture(scope="session")
def stack() -> Iterator[AnyStack]:
    """One Supabase for the whole session. Take `clean_stack` unless the rows of other tests do not matter."""
    names = ("SUPABASE_URL", "SUPABASE_SERVICE_ROLE_KEY", "SUPABASE_DB_URL")
    # Out of the environment: what a test starts is told where to go by that test.
    url, key, db_url = (os.environ.pop(name, "") for name in names)
    if url and key and db_url:
        if os.environ.get("PYTEST_XDIST_WORKER"):
            pytest.exit("Several workers would empty one project's tables under each other: leave out -n.", 2)
        with psycopg.connect(db_url, autocommit=True) as connection:
            _must_be_empty(connection)
        origin.prepare(db_url, minimal=False)
        external = ExternalStack(url=url, service_role_key=key, db_url=db_url)
        yield external
        external.truncate()
    else:
        with LocalStack.start() as local:
            yield local


@pytest.fixture
def local_stack(stack: AnyStack) -> LocalStack:
    """The session's stack, for tests that break it on purpose; skipped when somebody else runs it."""
    if isinstance(stack, ExternalStack):
        pytest.skip("stops and starts servers: needs the embedded stack")
    return stack


@pytest.fixture
def clean_stack(stack: AnyStack) -> AnyStack:
    """The session's stack, running and without a row or an object."""
    stack.ensure()
    stack.truncate()
    return stack


@pytest.fixture
def db(clean_stack: AnyStack) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """The superuser's connection to an empty database; every statement commits by itself."""
    with psycopg.connect(clean_stack.db_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
async def supabase_client(clean_stack: AnyStack) -> AsyncIterator[AsyncClient]:
    """The unmodified client with the service key."""
    client = await acreate_client(clean_stack.url, clean_stack.service_role_key)
    yield client
    await client.realtime.close()


@pytest.fixture
async def editor(clean_stack: AnyStack, supabase_client: AsyncClient) -> AsyncIterator[Editor]:
    """A person at the editor, beside the scripts."""
    token = clean_stack.mint("authenticated", sub=str(uuid4()))
    person = await acreate_client(clean_stack.url, clean_stack.anon_key)
    person.postgrest.auth(token)
    person.storage.session.headers["Authorization"] = f"Bearer {token}"
    yield Editor(person, supabase_client)
    await person.realtime.close()


@pytest.fixture
def blank_database(local_stack: LocalStack) -> Iterator[str]:
    """Connection string of a new database beside the stack's own: platform roles and publication, no table."""
    with _second_database(local_stack.db_url) as url:
        yield url


@contextmanager
def _second_database(db_url: str) -> Iterator[str]:
    name = "second"
    with psycopg.connect(db_url, autocommit=True) as connection:
        connection.execute(f"drop database if exists {name} with (force)".encode())
        connection.execute(f"create database {name}".encode())
        url = db_url.rpartition("/")[0] + f"/{name}"
        with psycopg.connect(url) as second:
            second.execute(origin.platform_sql().encode())
        yield url
        connection.execute(f"drop database {name} with (force)".encode())


def _must_be_empty(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    for table in ("public.clips", "public.runs"):
        present = connection.execute("select to_regclass(%s) is not null", [table]).fetchone()
        if present == (True,) and connection.execute(f"select 1 from {table} limit 1".encode()).fetchone():
            pytest.exit(
                f"The tests empty every table, and {table} of SUPABASE_DB_URL has rows: use an empty project.", 2
            )
