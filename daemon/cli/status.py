"""`ambara status`: one read of the database, one screen."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.certificates import distrust, trusted
from daemon.cli.context import settings_of
from daemon.errors import AmbaraError, ConfigurationError, TemporaryError

if TYPE_CHECKING:
    import httpx

TIMEOUT_S = 60.0
CONNECT_S = 5.0

_FOREIGN = frozenset({"PGRST202", "PGRST205", "42883", "42P01"})
_KEY = "Set SUPABASE_SERVICE_ROLE_KEY to the project's service_role (secret) key."
_URL = "Set SUPABASE_URL to the project's address, such as https://abcdefgh.supabase.co."


def status(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="The numbers as JSON, for a program.")] = False,
    watch: Annotated[
        bool,
        typer.Option("--watch", "-w", help="Look again every few seconds, until Ctrl-C. With --json: a line each."),
    ] = False,
) -> None:
    """Show what is live, what people change in its drafts, what waits, what failed and why, and who is at work.

    Ends with 0 when the project answered, 78 when something has to be set right first, 1 when it is away.

    [bold]Examples[/bold]

        ambara status

        ambara status --watch

        ambara status --json | jq .queue

        ambara --config /etc/ambara/ambara.toml status
    """
    supabase = settings_of(context, logging=False).supabase

    project = (supabase.url, supabase.key.get_secret_value(), supabase.apikey.get_secret_value())

    def look() -> dict[str, Any]:
        from daemon.cli.status_edits import edits

        found = fetch(*project)
        return found | {"edits": edits(found, lambda path: ask(path, *project))}

    if watch:
        from daemon.cli.status_watch import watch as keep_looking

        keep_looking(look, supabase.url, as_json=as_json)
        return
    found = look()
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    from daemon.cli.status_view import show

    show(found, supabase.url)


def fetch(url: str, key: str, apikey: str | None = None) -> dict[str, Any]:
    """The answer of the function `ambara_status`. Raises `ConfigurationError` or `TemporaryError`.

    `apikey`: what the project's gateway wants to see, where that is not `key` itself.
    """
    found = ask("rest/v1/rpc/ambara_status", url, key, apikey)
    if not isinstance(found, dict) or "queue" not in found:
        raise ConfigurationError(f"{url} answers, but not like a Supabase project with Ambara's functions. {_URL}")
    return found


def ask(path: str, url: str, key: str, apikey: str | None = None) -> Any:
    """What the function at `path`, one without arguments, answers; None for what is no JSON. Raises as `fetch`."""
    import httpx  # here, so that `--help` does without

    headers = {"apikey": apikey or key, "Authorization": f"Bearer {key}"}
    timeout = httpx.Timeout(TIMEOUT_S, connect=CONNECT_S)
    try:
        answer = httpx.post(
            f"{url}/{path}",
            headers=headers,
            json={},
            timeout=timeout,
            follow_redirects=False,
            verify=trusted(),
        )
    except httpx.HTTPError as error:
        raise _unreached(error, url) from None
    if not answer.is_success:
        raise _refusal(answer, url, path.rpartition("/")[2])
    try:
        return answer.json()
    except ValueError:
        return None


def _unreached(error: httpx.HTTPError, url: str) -> AmbaraError:
    """Whether the address is wrong or the server is away: what the operating system said stands in the causes."""
    if doubt := distrust(error):
        return ConfigurationError(doubt[0])
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME:
            return ConfigurationError(f"No host has the name in {url}. {_URL}")
        cause = cause.__cause__ or cause.__context__
    return TemporaryError(
        f"Supabase at {url} does not answer ({type(error).__name__}); see that it runs and that SUPABASE_URL is right.",
        reason="database-away",
    )


def _refusal(answer: httpx.Response, url: str, function: str) -> AmbaraError:
    """What is wrong with an answer that is no success, in words."""
    match answer.status_code, _code(answer):
        case _, "42501":
            wrong = f"The key's role may not ask for the status. {_KEY}"
        case _, code if code in _FOREIGN:
            wrong = f"The database does not know {function}: run `ambara migrate` with SUPABASE_DB_URL set."
        case 401 | 403, _:
            wrong = f"Supabase at {url} refuses the key. {_KEY}"
        case 540, _:
            wrong = "The project is paused: restore it in the dashboard of Supabase."
        case number, _ if number >= 500 or number in {408, 425, 429}:
            return TemporaryError(f"Supabase at {url} cannot answer now (HTTP {number}); try again.")
        case number, _ if answer.is_redirect:
            wrong = f"{url} answers with a redirect (HTTP {number}), which is not followed. {_URL}"
        case number, _:
            wrong = f"{url} does not look like a Supabase project (HTTP {number}). {_URL}"
    return ConfigurationError(wrong)


def _code(answer: httpx.Response) -> str:
    """The code of PostgREST or PostgreSQL in an error's body."""
    try:
        body = answer.json()
    except ValueError:
        return ""
    return str(body.get("code", "")) if isinstance(body, dict) else ""
