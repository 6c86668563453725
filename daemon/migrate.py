"""Applies `supabase/migrations` to a database, in the bookkeeping of the Supabase CLI.

`supabase db push` and `ambara migrate` keep one record, so either may follow the other. Every migration is safe to
run twice: where the record was lost they are simply applied again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.errors import ConfigurationError, TemporaryError

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.Connection[tuple[object, ...]]

DB_URL_VARIABLE = "SUPABASE_DB_URL"
RELOAD = "notify pgrst, 'reload schema';"
"""PostgREST knows new functions only once it is told to look again."""

_PACKAGED = Path(__file__).parent / "_migrations"
_CHECKOUT = Path(__file__).parents[1] / "supabase" / "migrations"

_RECORD = """
create schema if not exists supabase_migrations;
create table if not exists supabase_migrations.schema_migrations (version text not null primary key);
alter table supabase_migrations.schema_migrations
  add column if not exists statements text[], add column if not exists name text;
"""
_LOCK = "select pg_advisory_xact_lock(hashtext('ambara_migrate'))"
_PATIENCE = "set local lock_timeout = '10s'"
_CONNECT_S = 10


@dataclass(frozen=True, slots=True)
class Migration:
    """One file. The 14 digits before the first underscore are its version."""

    version: str
    name: str
    sql: str


def migrations() -> list[Migration]:
    """All of them in order, from the installed package or the source checkout."""
    folder = _PACKAGED if _PACKAGED.is_dir() else _CHECKOUT
    files = sorted(folder.glob("*.sql"))
    if not files:
        raise ConfigurationError(f"There are no migrations in {folder}; install Ambara again.")
    parts = [(file, *file.stem.partition("_")) for file in files]
    return [Migration(version, name, file.read_text(encoding="utf-8")) for file, version, _, name in parts]


def script() -> str:
    """All migrations as one text for an SQL editor."""
    texts = [f"-- {each.version}_{each.name}\n{each.sql.rstrip()}\n" for each in migrations()]
    return "\n".join([*texts, RELOAD + "\n"])


def pending(db_url: str, *, again: bool = False) -> list[str]:
    """Names of the migrations that `apply` would apply. Changes nothing."""
    with _connect(db_url) as connection:
        _require_dataset(connection)
        known = migrations()
        first = 0 if again else _first_missing([_recorded(connection, each.version) for each in known])
        return [f"{each.version}_{each.name}" for each in known[first:]]


def apply(db_url: str, warn: Callable[[str], None] = lambda _warning: None, *, again: bool = False) -> list[str]:
    """Apply what is not recorded yet, each migration in a transaction of its own. Returns the names of those applied.

    What comes behind a migration that is missing is applied again: an older one brings back the functions of its time.
    `warn` hears what a migration could not do and does without. `again` applies what is recorded as well: where
    somebody took away what a migration had made, the record does not know it.
    Raises `ConfigurationError` when a person has to change something, `TemporaryError` when the database is away or
    somebody holds a table.
    """
    applied = []
    with _connect(db_url) as connection:
        connection.add_notice_handler(lambda said: _pass_on(said, warn))
        _require_dataset(connection)
        for each in migrations():
            label = f"{each.version}_{each.name}"
            # The lock belongs to the transaction: a pooler may give the next one another session.
            with _explained(label), connection.transaction():
                connection.execute(_LOCK)
                connection.execute(_PATIENCE)
                if _recorded(connection, each.version) and not again:
                    continue
                again = True
                connection.execute(each.sql.encode())
                connection.execute(_RECORD)
                connection.execute(
                    "insert into supabase_migrations.schema_migrations (version, statements, name) values (%s, %s, %s) "
                    "on conflict (version) do nothing",
                    (each.version, [each.sql], each.name),
                )
            applied.append(label)
        with _explained("the reload of the API"):
            connection.execute(RELOAD.encode())
    return applied


def _first_missing(recorded: Sequence[bool]) -> int:
    return recorded.index(False) if False in recorded else len(recorded)


def _pass_on(said: psycopg.errors.Diagnostic, warn: Callable[[str], None]) -> None:
    """Warnings are for people; notices that something was there already are not."""
    if said.severity_nonlocalized == "WARNING" and said.message_primary:
        warn(said.message_primary)


@contextmanager
def _connect(db_url: str) -> Iterator[Connection]:
    import psycopg

    try:
        place = psycopg.conninfo.conninfo_to_dict(db_url)
    except psycopg.Error:
        raise ConfigurationError(
            f"{DB_URL_VARIABLE} is not a database address. It looks like postgresql://postgres:PASSWORD@HOST:5432/postgres"
            " (special characters of the password as %XX)."
        ) from None
    host = f"{place.get('host') or 'the local socket'}:{place.get('port') or 5432}"
    try:
        # A pooler in transaction mode knows no prepared statements.
        connection = psycopg.connect(db_url, autocommit=True, connect_timeout=_CONNECT_S, prepare_threshold=None)
    except psycopg.Error as error:
        raise _unreachable(str(error), host) from None
    with connection:
        yield connection


def _unreachable(answer: str, host: str) -> ConfigurationError | TemporaryError:
    """Why there is no connection. The server's own words stay unsaid: they may repeat the address."""
    answer = answer.lower()
    if "password" in answer or "authentication" in answer or "role " in answer:
        return ConfigurationError(f"The database at {host} refuses the user or the password in {DB_URL_VARIABLE}.")
    if "does not exist" in answer:
        return ConfigurationError(f"The server at {host} has no such database; correct the end of {DB_URL_VARIABLE}.")
    if "translate host name" in answer or "resolve" in answer:
        return ConfigurationError(
            f"No host has the name in {DB_URL_VARIABLE} ({host}); copy it from the project again."
        )
    return TemporaryError(
        f"The database at {host} does not answer; see that it runs and that {DB_URL_VARIABLE} is right.",
        reason="database-away",
    )


def _require_dataset(connection: Connection) -> None:
    """Raise unless the editor's tables and the roles of a Supabase project are there."""
    with _explained("a look at the tables"):
        for table in ("runs", "clips"):
            if connection.execute("select to_regclass(%s)", [f"public.{table}"]).fetchone() == (None,):
                raise ConfigurationError(f"This database has no table {table}: run the editor's SQL first.")
        roles = connection.execute(
            "select count(*) from pg_roles where rolname in ('anon', 'authenticated', 'service_role')"
        )
        if roles.fetchone() != (3,):
            raise ConfigurationError(
                "This database has not the roles anon, authenticated and service_role: it is not a Supabase project's."
            )


def _recorded(connection: Connection, version: str) -> bool:
    """Whether the record has this version. There may be no record yet."""
    found = connection.execute("select to_regclass('supabase_migrations.schema_migrations')").fetchone()
    if found == (None,):
        return False
    rows = connection.execute("select 1 from supabase_migrations.schema_migrations where version = %s", [version])
    return rows.fetchone() is not None


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn a failure of the database into a sentence."""
    import psycopg

    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise ConfigurationError(
            f"The user in {DB_URL_VARIABLE} may not do this: {error.diag.message_primary} ({what}). "
            "Use the project's user postgres."
        ) from None
    except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
        raise TemporaryError(
            f"Somebody holds a table that {what} needs; nothing of it was applied, try again."
        ) from None
    except psycopg.OperationalError:
        raise TemporaryError(f"The connection was lost during {what}; nothing of it was applied, try again.") from None
    except psycopg.Error as error:
        raise ConfigurationError(
            f"{what} failed and nothing of it was applied: {error.diag.message_primary} (SQLSTATE {error.sqlstate})."
        ) from None
