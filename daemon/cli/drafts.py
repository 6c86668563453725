"""`ambara drafts`: every draft that a clip ever had, and the way back to one of them."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer
from rich.console import Console
from rich.table import Table

from daemon.cli.connected import connected
from daemon.cli.context import settings_of
from daemon.cli.plain import moment, text
from daemon.errors import PermanentError

if TYPE_CHECKING:
    from daemon.config import Settings
    from daemon.learning.rows import LoggedDraft
    from daemon.supabase_client import AsyncClient

STAYS = "Daemons leave it alone until another version goes live."


def drafts(
    context: typer.Context,
    clip: Annotated[UUID, typer.Argument(help="The clip's id.", metavar="CLIP")],
    restore: Annotated[int | None, typer.Option(help="Give the clip the draft with this number back.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The drafts as JSON, for a program.")] = False,
) -> None:
    """Show the log of a clip's drafts, the newest first, or give the clip one of them back.

    A draft comes back only where a draft may be written: never over a person's words. It stays until another version
    goes live.

    [bold]Examples[/bold]

        ambara drafts 3f0c2b1e-…

        ambara drafts 3f0c2b1e-… --restore 4711
    """
    settings = settings_of(context)
    if restore is not None:
        asyncio.run(_restore(settings, str(clip), restore))
        done = {"clip": str(clip), "restored": restore}
        typer.echo(json.dumps(done) if as_json else f"Draft {restore} is clip {clip}'s draft again. {STAYS}")
        return
    found = asyncio.run(_log(settings, str(clip)))
    if as_json:
        typer.echo(json.dumps([asdict(each) for each in found], indent=2))
    elif found:
        _show(found)
    else:
        typer.echo(f"The log has no draft of clip {clip}.")


async def _log(settings: Settings, clip: str) -> list[LoggedDraft]:
    async with connected(settings) as project:
        return await project.ledger.drafts(clip)


async def _restore(settings: Settings, clip: str, draft: int) -> None:
    """Restore under the guard. Raises `PermanentError` with the reason where nothing was changed."""
    async with connected(settings) as project:
        found = await project.ledger.drafts(clip)
        if all(each.id != draft for each in found):
            known = ", ".join(str(each.id) for each in found[:10]) or "none"
            raise PermanentError(f"Clip {clip} has no draft {draft}, and nothing was changed; its drafts: {known}.")
        if not await project.ledger.restore(clip, draft):
            raise PermanentError(f"Nothing was changed: {await _why_not(project.client, clip)}.")


async def _why_not(client: AsyncClient, clip: str) -> str:
    """What stands where the draft would go, in words."""
    import httpx
    from postgrest.exceptions import APIError

    from daemon.database import translate

    try:
        query = client.table("clips").select("status,corrected_transcription").eq("id", clip)
        rows: Any = (await query.execute()).data
    except (APIError, httpx.HTTPError) as error:
        raise translate(error, "clips") from None
    match rows:
        case []:
            return "the clip is gone"
        case [{"status": "discarded"}]:
            return "a person has discarded this clip"
        case [{"status": "corrected"}]:
            return "a person has corrected this clip, and their words stay"
        case [{"corrected_transcription": str()}]:
            return "a person is at work on this clip, and their words stay"
    return "the clip's text is to be read aloud, or somebody is writing to it at this moment"


def _show(found: list[LoggedDraft]) -> None:
    table = Table("draft", "version", "made", "log-probability", "flags", "text")
    for each in found:
        confidence = "" if each.confidence is None else f"{each.confidence:.2f}"
        flags = text(", ".join(each.flags))
        table.add_row(str(each.id), str(each.version), moment(each.created_at), confidence, flags, text(each.text))
    Console(highlight=False).print(table)
