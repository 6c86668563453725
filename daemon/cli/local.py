"""`ambara local`: the embedded Supabase in the background."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console

from daemon.errors import EXIT_CONFIGURATION, ConfigurationError, TemporaryError
from daemon.local import DEFAULT_PORT

if TYPE_CHECKING:
    from daemon.local.keys import Keys
    from daemon.local.record import Record

app = typer.Typer(
    name="local",
    no_args_is_help=True,
    help="An embedded Supabase on this machine: PostgreSQL, REST, Storage and Realtime behind one URL, without Docker.",
)

Folder = Annotated[Path, typer.Option("--dir", help="Folder of the stack: data, keys, logs.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")]
_DEFAULT_FOLDER = Path(".ambara/local")


@app.command(
    epilog="Examples:  ambara local up   |   ambara local up --port 0 --dir /tmp/try --ephemeral",
)
def up(
    folder: Folder = _DEFAULT_FOLDER,
    port: Port = DEFAULT_PORT,
    ephemeral: Annotated[bool, typer.Option("--ephemeral", help="Delete the data when it stops.")] = False,
) -> None:
    """Start it and wait until it serves; data stay between `down` and `up`."""
    with _explained():
        from daemon.local import background

        record, started = background.up(folder, port=port, ephemeral=ephemeral, report=_say)
    _say(f"Supabase serves on {record.url}" if started else f"Already up: {record.url}")
    _say(f'Next: eval "$(ambara local env --export{_dir_option(folder)})"')


@app.command(epilog="Example:  ambara local down")
def down(folder: Folder = _DEFAULT_FOLDER) -> None:
    """Stop everything that `up` started, also after a crash."""
    with _explained():
        from daemon.local import background

        stopped = background.down(folder)
    _say("Stopped." if stopped else f"Nothing runs in {folder}.")


@app.command(epilog='Examples:  ambara local env   |   eval "$(ambara local env --export)"')
def env(
    folder: Folder = _DEFAULT_FOLDER,
    export: Annotated[bool, typer.Option("--export", help="Shell lines with the names that Ambara reads.")] = False,
) -> None:
    """Print URL and keys, in the shape of `supabase status -o env`."""
    with _explained():
        from daemon.local.keys import Keys
        from daemon.local.record import Record

        record = Record.read(folder)
        if record is None or not record.running():
            raise TemporaryError(f"No stack runs in {folder}; start one with: ambara local up{_dir_option(folder)}")
        keys = Keys.load_or_create(folder / "keys.json")
    prefix, values = ("export ", _ambara_names(record, keys)) if export else ("", _supabase_names(record, keys))
    for name, value in values.items():
        typer.echo(f'{prefix}{name}="{value}"')


@app.command(epilog="Example:  ambara local reset")
def reset(
    folder: Folder = _DEFAULT_FOLDER,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Another port than before.")] = None,
) -> None:
    """Delete all tables and objects and start anew, with the same keys."""
    with _explained():
        from daemon.local import background

        record = background.reset(folder, port=port, report=_say)
    _say(f"Supabase serves on {record.url}, empty.")


def _supabase_names(record: Record, keys: Keys) -> dict[str, str]:
    return {
        "API_URL": record.url,
        "ANON_KEY": keys.anon_key,
        "SERVICE_ROLE_KEY": keys.service_role_key,
        "JWT_SECRET": keys.jwt_secret,
        "DB_URL": record.db_url,
    }


def _ambara_names(record: Record, keys: Keys) -> dict[str, str]:
    return {
        "SUPABASE_URL": record.url,
        "SUPABASE_SERVICE_ROLE_KEY": keys.service_role_key,
        "SUPABASE_DB_URL": record.db_url,
    }


def _dir_option(folder: Path) -> str:
    return "" if folder == _DEFAULT_FOLDER else f" --dir {folder}"


def _say(line: str) -> None:
    Console().print(line, highlight=False, soft_wrap=True, markup=False)


def _fail(message: str, code: int) -> NoReturn:
    Console(stderr=True).print(message, highlight=False, soft_wrap=True, markup=False)
    raise typer.Exit(code)


@contextmanager
def _explained() -> Iterator[None]:
    """Turn the failures that a person can meet into one sentence and an exit code."""
    try:
        yield
    except ModuleNotFoundError as error:
        _fail(f"{error.name} is missing; install the extra: pip install 'ambara[local]'", EXIT_CONFIGURATION)
    except ConfigurationError as error:
        _fail(str(error), EXIT_CONFIGURATION)
    except TemporaryError as error:
        _fail(str(error), 1)
