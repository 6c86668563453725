"""Calling a function of the database, and the daemon's words for what can go wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import httpx
from postgrest.exceptions import APIError
from supabase import AsyncClient

from daemon.certificates import distrust
from daemon.errors import ConfigurationError, TemporaryError

_FOREIGN = frozenset({"PGRST202", "PGRST205", "42883", "42P01"})  # function or table unknown
_DENIED = frozenset({"42501", "PGRST301", "PGRST302", "401", "403"})
_NO_SUCH_ROLE = "22023"
"""The server could not become the role that the key names; other functions use this code for their arguments."""

_OF_THE_DATA = frozenset({"21", "22", "23", "38", "39", "42", "44", "54", "P0"})
"""Classes of SQLSTATE that a statement gets for what it says. Any other is the server's own trouble."""

UNREADABLE = (ValueError, TypeError, KeyError, IndexError)
"""What comes of reading an answer that some other web server gave."""
T = TypeVar("T")

MIGRATE = "Apply Ambara's migrations: `ambara migrate` with SUPABASE_DB_URL set, or `supabase db push`."


class Database:
    """The functions of `supabase/migrations`, by name."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def call(self, function: str, arguments: Mapping[str, Any], parse: Callable[[Any], T]) -> T:
        """Call a function and read its answer with `parse`.

        Raises `TemporaryError` when the database is away and `ConfigurationError` when it refuses for a reason that
        only a person can change.
        """
        try:
            return parse((await self._client.rpc(function, dict(arguments)).execute()).data)
        except (APIError, httpx.HTTPError) as error:
            raise translate(error, function) from None
        except UNREADABLE:
            raise not_supabase(function) from None


def not_supabase(what: str) -> TemporaryError:
    """An answer that Supabase would not give."""
    return TemporaryError(f"What answers for {what} is no Supabase project.", reason="not-supabase")


def translate(error: APIError | httpx.HTTPError, what: str) -> TemporaryError | ConfigurationError:
    """The daemon's word for a failure of the Data API. The original text may hold a URL or a row, and is not kept."""
    if isinstance(error, httpx.HTTPError):
        if doubt := distrust(error):
            return TemporaryError(doubt[0], reason=doubt[1])
        return TemporaryError(f"Supabase does not answer ({type(error).__name__} in {what}).", reason="database-away")
    code = str(error.code or "")
    if code in _FOREIGN:
        return ConfigurationError(f"The database does not know {what}. {MIGRATE}", reason="migration-missing")
    if code in _DENIED or (what, code) == ("ambara_whoami", _NO_SUCH_ROLE):
        return ConfigurationError(
            f"The database refuses {what} to this key (code {code}). "
            "Set SUPABASE_SERVICE_ROLE_KEY to the project's service_role (secret) key.",
            reason="key-refused",
        )
    its_own = len(code) == 5 and code[:2] in _OF_THE_DATA
    return TemporaryError(
        f"The database could not carry out {what} (code {code or 'unknown'}).",
        reason="database-error" if its_own else "database-away",
    )
