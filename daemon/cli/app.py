"""The commands, and the one place where a failure becomes a sentence and an exit code."""

from __future__ import annotations

import importlib
import inspect
import os
import traceback
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core
import typer.main

from daemon.cli.context import say_error
from daemon.errors import EXIT_CONFIGURATION, AmbaraError, ConfigurationError

EXIT_FAILED = 1
EXIT_SOFTWARE = 70
"""sysexits.h EX_SOFTWARE: nobody foresaw this."""
EXIT_INTERRUPTED = 130

COMMANDS = {
    "run": "daemon.cli.run:run",
    "re-draft": "daemon.cli.redraft:redraft",
    "export": "daemon.cli.export:export",
    "train": "daemon.cli.train:train",
    "join": "daemon.cli.join:join",
    "models": "daemon.cli.models:app",
    "drafts": "daemon.cli.drafts:drafts",
    "status": "daemon.cli.status:status",
    "why": "daemon.cli.why:why",
    "doctor": "daemon.cli.doctor:doctor",
    "migrate": "daemon.cli.migrate:migrate",
    "local": "daemon.cli.local:app",
    "demo": "daemon.cli.demo:demo",
}
"""Name on the command line -> module and function, or module and Typer app for a command with sub-commands."""


class _LateGroup(typer.core.TyperGroup):
    """Imports a command's module when that command, or the list of all, is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        return [name for name, place in COMMANDS.items() if find_spec(place.partition(":")[0])]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in self.commands:
            return self.commands[cmd_name]
        if cmd_name not in self.list_commands(ctx):
            # Now the group can suggest the nearest of all names.
            self.commands.update({name: self.get_command(ctx, name) for name in self.list_commands(ctx)})
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        self.commands[cmd_name] = _command(cmd_name, getattr(importlib.import_module(module), attribute))
        return self.commands[cmd_name]


def _command(name: str, what: typer.Typer | Callable[..., None]) -> Any:
    outer = typer.Typer(add_completion=False, rich_markup_mode="rich")
    outer.callback()(lambda: None)  # keeps it a group of one
    if isinstance(what, typer.Typer):
        outer.add_typer(what, name=name)
    else:
        outer.command(name, help=_reflowed(inspect.getdoc(what) or ""))(what)
    group = typer.main.get_command(outer)
    assert isinstance(group, typer.core.TyperGroup)
    return group.commands[name]


def _reflowed(text: str) -> str:
    """The lines of each paragraph as one, for the terminal to wrap; indented ones stay as they are."""
    paragraphs = text.split("\n\n")
    return "\n\n".join(each if each.startswith(" ") else each.replace("\n", " ") for each in paragraphs)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"ambara {version('ambara')}")
        raise typer.Exit


app = typer.Typer(
    name="ambara",
    cls=_LateGroup,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def ambara(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            "-c",
            help="Configuration file (TOML). Without it: $AMBARA_CONFIG, ./ambara.toml, /etc/ambara/ambara.toml.",
        ),
    ] = None,
    version: Annotated[  # noqa: ARG001 - its callback does the work
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    """Keeps the drafts of a speech dataset fresh: Whisper drafts pending clips as they arrive.

    The project is named by [bold]SUPABASE_URL[/bold] and [bold]SUPABASE_SERVICE_ROLE_KEY[/bold]. Begin with
    [bold]ambara demo[/bold], which needs neither.
    """
    context.obj = config


def main() -> int:
    """Run the command line. Returns the exit code."""
    try:
        app(prog_name="ambara")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else EXIT_FAILED if end.code else 0
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BaseException as error:
        return _explain(error)
    return 0


def _explain(error: BaseException) -> int:
    """Say what happened, in one sentence unless AMBARA_DEBUG asks for more. Returns the exit code."""
    leaves = list(_leaves(error))
    if os.environ.get("AMBARA_DEBUG"):
        say_error("".join(traceback.format_exception(error)).rstrip())
    for wanted, code in ((ConfigurationError, EXIT_CONFIGURATION), (AmbaraError, EXIT_FAILED)):
        for leaf in leaves:
            if isinstance(leaf, wanted):
                say_error(str(leaf))
                return code
    if any(isinstance(leaf, KeyboardInterrupt) for leaf in leaves):
        return EXIT_INTERRUPTED
    names = ", ".join(dict.fromkeys(f"{type(leaf).__name__}{_where(leaf)}" for leaf in leaves))
    say_error(f"something unforeseen happened ({names}). Set AMBARA_DEBUG=1 for the traceback.")
    return EXIT_SOFTWARE


def _where(error: BaseException) -> str:
    """The last line of this package that it came through: what a report needs, and no more than that."""
    ours = Path(__file__).parents[1]
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(ours)]
    return f" in {Path(frames[-1].filename).relative_to(ours.parent)}, line {frames[-1].lineno}" if frames else ""


def _leaves(error: BaseException) -> list[BaseException]:
    """The errors in a group of a TaskGroup, or the error itself."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in _leaves(each)]
    return [error]
