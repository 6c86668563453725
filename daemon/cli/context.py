"""What every command shares: the settings that `--config` and the environment give it."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from daemon.errors import ConfigurationError

if TYPE_CHECKING:
    from daemon.config import Settings


def settings_of(context: typer.Context, *, logging: bool = True) -> Settings:
    """Read the settings and, unless `logging` is off, let the log lines go where they say.

    Raises `ConfigurationError`.
    """
    from daemon.config import load

    settings = load(config_path(context), os.environ)
    if logging:
        from daemon import logs

        logs.setup(settings.log.level, settings.log.format, settings.secrets(), env=os.environ)
    return settings


def config_path(context: typer.Context) -> Path | None:
    """The file of `--config`, if one was given."""
    path = context.find_root().obj
    return path if isinstance(path, Path) else None


def say_error(message: str) -> None:
    """One sentence on stderr, without secrets; the markup of a terminal is left to the terminal.

    To the journal it is an error like any other, so that whoever reads that finds why the command has ended.
    """
    import structlog

    from daemon import logs
    from daemon.credentials import read_key
    from daemon.redaction import Redactor

    known = [value for name, value in os.environ.items() if name.startswith("SUPABASE_") and name.endswith("_KEY")]
    with suppress(ConfigurationError):
        known.append(read_key(os.environ))  # it may stand in a file
    if logs.is_journal(sys.stderr, os.environ):
        logs.setup("info", "json", known, env=os.environ, stream=sys.stderr)
        structlog.get_logger("daemon").error("ended", error=message)
    else:
        sys.stderr.write(f"ambara: {Redactor(known)(message)}\n")
