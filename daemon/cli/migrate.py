"""`ambara migrate`: Ambara's tables and functions, into the project's database."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from daemon.errors import ConfigurationError


def migrate(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be applied, and change nothing.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Apply also what is recorded as applied: puts back what was taken away.")
    ] = False,
    print_sql: Annotated[
        bool, typer.Option("--print", help="Write the SQL, for an SQL editor, and connect nowhere.")
    ] = False,
) -> None:
    """Add Ambara's tables and functions to the database of SUPABASE_DB_URL.

    Nothing that people use is changed, and a second run changes nothing. The record is the one of the Supabase CLI,
    so `supabase db push` and this command agree. The address is in the project's settings, under Database; prefer
    the direct connection or the session pooler.

    [bold]Examples[/bold]

        SUPABASE_DB_URL=postgresql://postgres:…@db.abcdefgh.supabase.co:5432/postgres ambara migrate

        ambara migrate --dry-run

        ambara migrate --print > ambara.sql
    """
    from daemon import migrate as migrations

    if print_sql:
        typer.echo(migrations.script(), nl=False)
        return
    db_url = os.environ.get(migrations.DB_URL_VARIABLE, "").strip()
    if not db_url:
        raise ConfigurationError(
            f"Set {migrations.DB_URL_VARIABLE} to the database's address (postgresql://…), "
            "or paste the output of `ambara migrate --print` into the project's SQL editor."
        )
    if dry_run:
        names, none, verb = migrations.pending(db_url, again=again), "Nothing to apply.", "would apply"
    else:
        done = migrations.apply(db_url, _warn, again=again)
        names, none, verb = done, "Nothing to apply: the database is up to date.", "applied"
    for name in names:
        typer.echo(f"{verb} {name}")
    if not names:
        typer.echo(none)


def _warn(warning: str) -> None:
    typer.echo(f"warning: {warning}", err=True)
