"""The demo's acts: clips arrive, people correct, the daemon learns and drafts again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from daemon.errors import TemporaryError
from daemon.learning.rows import comparison
from daemon.local.demo.people import add_people
from daemon.local.demo.story import Clip, Round, Row, Story, rate
from daemon.local.demo.tapes import Tape, speak_tapes
from daemon.local.resident import page_of, running_daemon
from daemon.local.speech import wav_bytes
from daemon.local.stack import LocalStack
from daemon.supabase_client import AsyncClient, connect, http_client
from handlers.policy import PromotionPolicy
from handlers.promotion import Outcome, judge

DRAFTED_WITHIN_S = 180.0
TRAINED_WITHIN_S = 900.0
PAGE = 1000

LEARNING = """
[drafting]
sweep_seconds = 3

[status]
port = 0

[training]
min_new_clips = 48
growth = 0.83
held_out_share = 0.3
epochs = 50
batch_size = 16
gradient_accumulation = 1
learning_rate = 1e-3
spec_augment = false
arguments = { adam_beta2 = 0.98 }
"""
"""A small model learns in less than a minute, with larger steps than a stock Whisper would bear."""


class Show(Protocol):
    """Where the demo tells what it does."""

    def phase(self, title: str) -> None:
        """A new part begins."""

    def say(self, line: str) -> None:
        """Something happened."""

    def progress(self, what: str, done: int, total: int) -> None:
        """So far is it."""


async def play(rounds: int, waiting: int, folder: Path, show: Show) -> Story:
    """Play so many rounds in `folder`. Nothing is left running, however it ends.

    Raises `TemporaryError` if something that had to happen did not.
    """
    story = Story()
    show.phase("Speaking two worlds of Malagasy sentences (espeak-ng, twelve voices)")
    with story.timed("speech"):
        tapes = await asyncio.to_thread(speak_tapes, rounds, waiting)
    show.phase("Starting an embedded Supabase (PostgreSQL, REST, Storage, Realtime)")
    with story.timed("supabase"):
        stack = await asyncio.to_thread(LocalStack.start, folder / "supabase", report=show.say)
    try:
        async with http_client() as http:
            team = _Team(await connect(stack.url, stack.service_role_key, http), story, show)
            show.phase("Starting the daemon (it says READY when the model is hot)")
            began = time.monotonic()
            async with running_daemon(stack, folder, LEARNING):
                story.seconds["daemon"] = round(time.monotonic() - began, 2)
                show.say(f"its page, as long as this lasts: {page_of(folder)}")
                with story.timed("drafting"):
                    await team.upload(tapes)
                for number in range(1, rounds + 1):
                    with story.timed(f"round {number}"):
                        await team.round(number)
                await team.look()
                show.phase("Stopping")
    finally:
        with story.timed("stopping"):
            await asyncio.to_thread(stack.down)
    return story


class _Team:
    """The people of the story, and what they see of the daemon's work."""

    def __init__(self, client: AsyncClient, story: Story, show: Show) -> None:
        self._client = client
        self._story = story
        self._show = show

    async def upload(self, tapes: Sequence[Tape]) -> None:
        """The extraction uploads tapes cut into clips, people's own rows stand beside; all that may be is drafted."""
        self._show.phase(f"A script uploads {len(tapes)} tapes cut into clips; people are at work beside it")
        for tape in tapes:
            run = (await self._insert("runs", {"label": tape.name, "source": tape.name}))["id"]
            for number, utterance in enumerate(tape.clips):
                name = f"clips/clip_{number:05}.wav"
                await self._client.storage.from_("clips").upload(f"{run}/{name}", wav_bytes(utterance.audio))
                made = await self._insert(
                    "clips",
                    {
                        "run_id": run,
                        "file_name": name,
                        "source_file": tape.name,
                        "duration_sec": round(utterance.seconds, 2),
                        "draft_transcription": "stock draft",
                        "priority": 1 if tape.round else 0,
                    },
                )
                clip = Clip(made["id"], name, "extraction", True, made, tape.name, tape.round, utterance.text)
                self._story.clips.append(clip)
        self._story.clips += await add_people(self._insert, tapes)
        self._show.say(f"{len(self._eligible())} clips to draft, {len(self._story.people())} that belong to a person")
        await self._drafted(await self._live())

    async def round(self, number: int) -> None:
        """People correct some tapes; wait for the better model and for its drafts."""
        began = time.monotonic()
        story, before, known = self._story, await self._live(), await self._newest()
        corrected = [clip for clip in story.clips if clip.round == number]
        self._show.phase(f"Round {number}: people correct {len(corrected)} clips")
        for clip in corrected:
            await self._correct(clip)
        version = await self._trained(after=known, over=before)
        live = version["id"] if version["stage"] == "live" else before
        await self._drafted(live)
        await self.look()
        waiting = story.waiting()
        story.rounds.append(
            Round(
                number=number,
                corrections=sum(clip.round is not None and clip.round <= number for clip in story.clips),
                before=before,
                version=version["id"],
                stage=version["stage"],
                reason=version["reason"] or "",
                held_out=version["detail"].get("comparison") or {},
                waiting_before=round(rate(waiting, before), 4),
                waiting_after=round(rate(waiting, live), 4),
                pending=len(self._eligible()),
                redrafted=sum(clip.draft_of(version["id"]) is not None for clip in self._eligible()),
                seconds=round(time.monotonic() - began, 1),
            )
        )

    async def look(self) -> None:
        """Read every row and every draft again."""
        rows = {row["id"]: row for row in await self._all("clips")}
        drafts = await self._all("drafts")
        for clip in self._story.clips:
            clip.after = rows[clip.id]
            clip.drafts = [draft for draft in drafts if draft["clip_id"] == clip.id]

    async def _correct(self, clip: Clip) -> None:
        change = {
            "corrected_transcription": clip.reference,
            "status": "corrected",
            "corrected_at": datetime.now(UTC).isoformat(),
            "corrected_by": "rasoa",
        }
        answer: Any = await self._client.table("clips").update(change).eq("id", clip.id).execute()
        clip.row, clip.eligible, clip.written_by = dict(answer.data[0]), False, "a person who corrected it"

    async def _trained(self, *, after: int, over: int) -> Row:
        """Wait for a version that is newer than `after`, and for its verdict against `over`."""
        deadline = time.monotonic() + TRAINED_WITHIN_S
        judging = False
        while time.monotonic() < deadline:
            found: Any = await self._client.table("model_versions").select("*").gt("id", after).order("id").execute()
            version = next(iter(found.data), None)
            if version and version["stage"] == "candidate":
                if not judging:
                    self._show.say(f"version {version['id']} is compared with version {over} on held-out tapes")
                judging = True
            if version and (version["stage"] in {"live", "rejected"} or _rests(version)):
                self._show.say(f"version {version['id']} is {version['stage']}: {version['reason'] or 'no verdict'}")
                return dict(version)
            await self._tell_of_training()
            await asyncio.sleep(0.5)
        raise TemporaryError(f"No version was trained and judged within {TRAINED_WITHIN_S:.0f} s.")

    async def _tell_of_training(self) -> None:
        found: Any = await self._client.table("training_runs").select("*").eq("status", "active").execute()
        for run in found.data:
            detail = run["detail"]
            if detail.get("steps"):
                self._show.progress(f"run {run['id']}: {detail['phase']}", detail["step"], detail["steps"])

    async def _drafted(self, version: int) -> None:
        """Wait until every eligible clip has a draft of this version."""
        wanted = {clip.id for clip in self._eligible()}
        deadline = time.monotonic() + DRAFTED_WITHIN_S
        while True:
            drafts = await self._all("drafts", version_id=version)
            drafted = wanted & {row["clip_id"] for row in drafts}
            self._show.progress(f"drafted by version {version}", len(drafted), len(wanted))
            if drafted == wanted:
                return
            if time.monotonic() > deadline:
                raise TemporaryError(f"{len(wanted - drafted)} clips had no draft after {DRAFTED_WITHIN_S:.0f} s.")
            await asyncio.sleep(0.3)

    def _eligible(self) -> list[Clip]:
        return [clip for clip in self._story.clips if clip.eligible]

    async def _live(self) -> int:
        found: Any = await self._client.table("model_versions").select("id").eq("stage", "live").execute()
        return int(found.data[0]["id"])

    async def _newest(self) -> int:
        """Of all versions: one of an earlier round may rest."""
        found: Any = await self._client.table("model_versions").select("id").order("id", desc=True).limit(1).execute()
        return int(found.data[0]["id"])

    async def _insert(self, table: str, row: Row) -> Row:
        answer: Any = await self._client.table(table).insert(row).execute()
        return dict(answer.data[0])

    async def _all(self, table: str, **equal: int) -> list[Row]:
        rows: list[Row] = []
        while True:
            query = self._client.table(table).select("*").order("id").range(len(rows), len(rows) + PAGE - 1)
            for column, value in equal.items():
                query = query.eq(column, value)
            page: Any = (await query.execute()).data
            rows += page
            if len(page) < PAGE:
                return rows


def _rests(version: Row) -> bool:
    """Whether a candidate stays one: its comparison has said that there is too little to tell."""
    compared = comparison(version["detail"].get("comparison")) if version["stage"] == "candidate" else None
    return compared is not None and judge(compared, PromotionPolicy()).outcome is Outcome.TOO_LITTLE
