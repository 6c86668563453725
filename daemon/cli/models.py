"""`ambara models`: the versions, the evidence for each, and a person's word over which one is live."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.cli.connected import FOLLOW, Connected, connected
from daemon.cli.context import settings_of
from daemon.cli.plain import clean
from daemon.errors import PermanentError, TemporaryError

if TYPE_CHECKING:
    from daemon.config import Settings
    from daemon.learning.ports import Version
    from daemon.learning.registry import Registry

app = typer.Typer(
    name="models",
    no_args_is_help=True,
    help="The model versions: which is live and why, the evidence for each, and the way back.",
)

Number = Annotated[int, typer.Argument(min=1, metavar="N", help="The version's number.")]
AsJson = Annotated[bool, typer.Option("--json", help="The same as JSON, for a program.")]


@app.command("list", epilog="Examples:  ambara models list   |   ambara models list --json | jq '.[] | .stage'")
def list_versions(context: typer.Context, as_json: AsJson = False) -> None:
    """Show all versions: what became of each, how good it was, and what it has drafted."""
    from daemon.cli.models_view import fact, show_list

    settings, registry = _here(context)
    versions, rates = asyncio.run(_versions(settings))
    if as_json:
        typer.echo(json.dumps([fact(each, registry, rates) for each in versions], indent=2))
    elif versions:
        show_list(versions, registry, rates)
    else:
        typer.echo("No version yet: the first goes live when `ambara run` has loaded its model.")


@app.command(epilog="Examples:  ambara models show 7   |   ambara models show 7 --clips 20")
def show(
    context: typer.Context,
    number: Number,
    clips: Annotated[int, typer.Option(min=0, help="How many of the worst held-out clips to show.")] = 5,
    as_json: AsJson = False,
) -> None:
    """Show why a version is what it is: verdict, error rates, guards, the worst clips, what was left out, settings."""
    from daemon.cli.models_view import fact, show_version, worst

    settings, registry = _here(context)
    version, rates = asyncio.run(_version(settings, number))
    evidence = registry.read_evidence(number) if version.kind == "trained" else None
    if as_json:
        found = evidence or {}
        told = {key: found.get(key) for key in ("gain", "totals")} | {"worst": worst(found, clips)}
        typer.echo(json.dumps(fact(version, registry, rates) | asdict(version) | told, indent=2))
        return
    from daemon.parts import policy_of

    show_version(version, evidence, registry, policy_of(settings).promotion, clips)


@app.command(epilog="Example:  ambara models promote 7")
def promote(context: typer.Context, number: Number) -> None:
    """Make a version live, whatever the judge says of it. A trained one has to lie on this host, and be whole."""
    settings, registry = _here(context)
    typer.echo(asyncio.run(_promote(settings, registry, number)))


@app.command(epilog="Example:  ambara models rollback")
def rollback(context: typer.Context) -> None:
    """Make the version live again that was live before, and turn the present one down. It has to lie on this host."""
    settings, registry = _here(context)
    typer.echo(asyncio.run(_rollback(settings, registry)))


@app.command(epilog="Examples:  ambara models pin 7   |   ambara models pin 7 --off")
def pin(
    context: typer.Context,
    number: Number,
    off: Annotated[bool, typer.Option("--off", help="No longer.")] = False,
) -> None:
    """Keep a version's weights for good, however many come after it."""
    settings, _ = _here(context)
    asyncio.run(_pin(settings, number, pinned=not off))
    if off:
        typer.echo(
            f"Version {number} is not pinned any more; its weights go when newer versions need no way back to it."
        )
    else:
        typer.echo(f"Version {number} is pinned: its weights are kept on every host that has them.")


def _here(context: typer.Context) -> tuple[Settings, Registry]:
    from daemon.learning.registry import Registry

    settings = settings_of(context)
    return settings, Registry(settings.state.directory.resolve() / "models")


async def _versions(settings: Settings) -> tuple[list[Version], list[dict[str, Any]]]:
    async with connected(settings) as project:
        return await project.ledger.versions(), await _rates(project)


async def _version(settings: Settings, number: int) -> tuple[Version, list[dict[str, Any]]]:
    async with connected(settings) as project:
        return _known(await project.ledger.version(number), number), await _rates(project)


async def _rates(project: Connected) -> list[dict[str, Any]]:
    """What people changed in each version's drafts; nothing where that takes the database too long."""
    try:
        return await project.ledger.edits.rates()
    except TemporaryError:
        return []


async def _promote(settings: Settings, registry: Registry, number: int) -> str:
    async with connected(settings) as project:
        version = _known(await project.ledger.version(number), number)
        before = await project.ledger.live()
        if before and before.id == number:
            return f"Version {number} is live already."
        if version.kind == "trained":
            registry.check(number)
        if not await project.ledger.promote(number, expected=None, reason="promoted by hand"):
            raise PermanentError(f"Version {number} did not go live: another was promoted at the same moment.")
        instead = f", in place of version {before.id}" if before else ""
        return f"Version {number} ({clean(version.name)}) is live{instead}. {FOLLOW}"


async def _rollback(settings: Settings, registry: Registry) -> str:
    from daemon.learning.retention import previous

    async with connected(settings) as project:
        before = await project.ledger.live()
        again = previous(await project.ledger.versions())
        if again and again.kind == "trained":
            registry.check(again.id)  # of many steps back the weights are gone: no daemon could draft any more
        version = await project.ledger.rollback("rolled back by hand")
        if version is None or before is None:
            raise PermanentError("There is no version to go back to: none that is whole was live before this one.")
        name = clean(version.name)
        return f"Version {version.id} ({name}) is live again, and version {before.id} is turned down. {FOLLOW}"


async def _pin(settings: Settings, number: int, *, pinned: bool) -> None:
    async with connected(settings) as project:
        await project.ledger.pin(number, pinned)


def _known(version: Version | None, number: int) -> Version:
    if version is None:
        raise PermanentError(f"There is no version {number}; `ambara models list` shows them.")
    return version
