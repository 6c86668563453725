"""`ambara doctor`: everything that the daemon needs, looked at once, with what mends each fault."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from daemon.cli.context import config_path, settings_of
from daemon.errors import EXIT_CONFIGURATION, ConfigurationError

if TYPE_CHECKING:
    from rich.console import Console

    from daemon.config import Settings
    from daemon.doctor import Finding

MOST = 60
"""The highest exit code that counts faults: 70 and 78 mean something else."""


def doctor(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="The findings as JSON, for a program.")] = False,
) -> None:
    """Check everything that `ambara run` needs, and say what mends each fault: a command or SQL to copy.

    The project (address, key, role, tables, functions, row security, publication, Realtime, bucket, clock) and this
    host (packages, model, language, device, disk, hub). Nothing is changed; a row in ambara_daemons comes and goes
    for Realtime. With SUPABASE_DB_URL set, also which migrations are not applied.

    Ends with the number of faults, at most 60; with 78 when the settings themselves cannot be used.

    [bold]Examples[/bold]

        ambara doctor

        ambara doctor --json | jq '.[] | select(.verdict == "fault")'
    """
    try:
        settings = settings_of(context, logging=False)
    except ConfigurationError as error:
        _show_all([_unusable(context, error)], as_json=as_json)
        raise typer.Exit(EXIT_CONFIGURATION) from None
    findings = asyncio.run(_examine(settings, as_json=as_json))
    if as_json:
        _show_all(findings, as_json=True)
    faults = sum(each.verdict == "fault" for each in findings)
    if not as_json:
        typer.echo("\nno fault" if not faults else f"\n{faults} fault{'s' if faults > 1 else ''}")
    raise typer.Exit(min(faults, MOST))


async def _examine(settings: Settings, *, as_json: bool) -> list[Finding]:
    """All findings; a person sees each as it comes, because Realtime may take 20 s."""
    from daemon import logs
    from daemon.doctor import examine
    from daemon.migrate import DB_URL_VARIABLE

    # What the feed logs is in the findings as well; only what nobody foresaw is worth a line.
    logs.setup("error", settings.log.format, settings.secrets(), env=os.environ, stream=sys.stderr)
    console, findings = _console(), []
    debug = bool(os.environ.get("AMBARA_DEBUG"))
    async for finding in examine(settings, os.environ.get(DB_URL_VARIABLE, "").strip(), debug=debug):
        findings.append(finding := _to_be_typed(finding))
        if not as_json:
            _show(console, finding)
    return findings


def _unusable(context: typer.Context, error: ConfigurationError) -> Finding:
    """The one finding where there are no settings to go by."""
    from daemon.config import find
    from daemon.credentials import read_key
    from daemon.doctor.finding import Finding, Verdict
    from daemon.redaction import Redactor

    try:
        known = [read_key(os.environ)]
    except ConfigurationError:
        known = []
    said = Redactor(known)(str(error))
    variable = re.search(r"SUPABASE_\w+", said)
    file = find(config_path(context), os.environ)
    remedy = f"export {variable[0]}=…" if variable else f"${{EDITOR:-vi}} {file or 'ambara.toml'}"
    return _to_be_typed(Finding("settings", said, Verdict.FAULT, remedy))


def _to_be_typed(finding: Finding) -> Finding:
    """With its remedy as it is on a machine where Ambara is a service, if this is one."""
    from dataclasses import replace

    from daemon.doctor.service import VARIABLE, as_installed

    if finding.remedy is None or VARIABLE not in os.environ:
        return finding
    return replace(finding, remedy=as_installed(finding.remedy))


def _show_all(findings: list[Finding], *, as_json: bool) -> None:
    if as_json:
        from dataclasses import asdict

        typer.echo(json.dumps([asdict(each) for each in findings], indent=2))
        return
    console = _console()
    for each in findings:
        _show(console, each)


def _console() -> Console:
    from rich.console import Console

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a poor locale has no such marks
    return Console(highlight=False, soft_wrap=True)


def _show(console: Console, finding: Finding) -> None:
    """A mark, what was checked, what was found; below it, to be copied as it is, what mends it."""
    from daemon.cli.plain import text

    mark, style = {"well": ("✓", "green"), "fault": ("✗", "bold red")}.get(finding.verdict, ("-", "dim"))
    console.print(text(f"{mark} ", style) + text(f"{finding.check:<18}", "bold") + text(finding.found))
    for line in (finding.remedy or "").splitlines():
        console.print(text(f"    {line}", "cyan"))
