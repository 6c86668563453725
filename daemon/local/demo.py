"""The demo's story: a team's day in a minute, played against the embedded Supabase and a real daemon."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from daemon.errors import TemporaryError
from daemon.local.resident import running_daemon
from daemon.local.speech import Utterance, speak_corpus, wav_bytes
from daemon.local.stack import LocalStack
from daemon.supabase_client import AsyncClient, connect, http_client

DRAFTED_WITHIN_S = 120.0
SEED = 20_261

Row = dict[str, Any]


class Show(Protocol):
    """Where the demo tells what it does."""

    def phase(self, title: str) -> None:
        """A new part begins."""

    def say(self, line: str) -> None:
        """Something happened."""

    def progress(self, drafted: int, total: int) -> None:
        """So many of the eligible clips have their draft."""


@dataclass
class Clip:
    """One row of the story, and what became of it."""

    id: str
    file_name: str
    written_by: str
    eligible: bool
    before: Row
    inserted_at: str
    reference: str = ""
    """What was really said; empty where nothing was."""
    after: Row = field(default_factory=dict)
    draft: Row = field(default_factory=dict)
    """The daemon's log of its draft."""

    @property
    def touched(self) -> bool:
        """Whether any column but `updated_at` differs from what its writer left."""
        return {**self.before, "updated_at": 0} != {**self.after, "updated_at": 0}

    @property
    def well(self) -> bool:
        """What had to happen, and nothing else."""
        if not self.eligible:
            return not self.touched
        people = {k: v for k, v in self.before.items() if k not in {"draft_transcription", "updated_at"}}
        return bool(self.draft) and all(self.after[k] == v for k, v in people.items())


@dataclass
class Story:
    """What happened."""

    clips: list[Clip] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Note how long a phase takes."""
        began = time.monotonic()
        yield
        self.seconds[phase] = round(time.monotonic() - began, 2)

    def spoken(self) -> list[Clip]:
        """The drafted clips in which somebody speaks."""
        return [clip for clip in self.clips if clip.draft and clip.reference]

    def word_error_rate(self) -> float:
        """WER of the drafts, pooled over words."""
        from daemon.asr.metrics import word_error_rate

        spoken = self.spoken()
        return word_error_rate([c.reference for c in spoken], [c.draft["text"] for c in spoken])

    def record(self) -> dict[str, Any]:
        """The story as JSON."""
        return {
            "clips": {
                clip.id: {
                    "file_name": clip.file_name,
                    "written_by": clip.written_by,
                    "eligible": clip.eligible,
                    "inserted_at": clip.inserted_at,
                    "drafted_at": clip.draft.get("created_at"),
                    "text": clip.draft.get("text"),
                    "confidence": clip.draft.get("confidence"),
                    "flags": clip.draft.get("flags"),
                    "reference": clip.reference,
                    "touched": clip.touched,
                }
                for clip in self.clips
            },
            "wer": round(self.word_error_rate(), 4),
            "seconds": self.seconds,
            "well": all(clip.well for clip in self.clips),
        }


async def play(clips: int, folder: Path, show: Show) -> Story:
    """Play the whole story in `folder`. Nothing is left running, however it ends."""
    story = Story()
    show.phase(f"Speaking {clips} clips (espeak-ng reads Malagasy words with ten voices)")
    with story.timed("speech"):
        spoken = await asyncio.to_thread(speak_corpus, "A", clips, SEED)
    show.phase("Starting an embedded Supabase (PostgreSQL, REST, Storage, Realtime)")
    with story.timed("supabase"):
        stack = await asyncio.to_thread(LocalStack.start, folder / "supabase", report=show.say)
    try:
        async with http_client() as http:
            client = await connect(stack.url, stack.service_role_key, http)
            show.phase("Starting the daemon (it says READY when the model is hot)")
            began = time.monotonic()
            async with running_daemon(stack, folder):
                story.seconds["daemon"] = round(time.monotonic() - began, 2)
                with story.timed("drafting"):
                    await _act(client, spoken, story, show)
                await _look_back(client, story)
                show.phase("Stopping")
    finally:
        with story.timed("stopping"):
            await asyncio.to_thread(stack.down)
    return story


async def _act(client: AsyncClient, spoken: Sequence[Utterance], story: Story, show: Show) -> None:
    """The writers write; then wait for the drafts."""
    some, rest = spoken[: len(spoken) // 2], spoken[len(spoken) // 2 :]
    show.phase("A script uploads a recording cut into clips; people are at work beside it")
    await _extraction(client, story, "sermon", some)
    await _people(client, story, spoken)
    show.say(f"{len(some)} clips to draft, {sum(not c.eligible for c in story.clips)} that belong to a person")
    await _drafted(client, story, show)
    show.phase("A second recording arrives, clip by clip")
    run = await _insert(client, "runs", {"label": "reading of the week"})
    for number, utterance in enumerate(rest):
        await _extracted(client, story, run["id"], f"clips/clip_{number:05}.wav", utterance)
    await _drafted(client, story, show)


async def _extraction(client: AsyncClient, story: Story, label: str, utterances: Sequence[Utterance]) -> None:
    run = await _insert(client, "runs", {"label": label, "source": "tape.mp3"})
    for number, utterance in enumerate(utterances):
        await _extracted(client, story, run["id"], f"clips/clip_{number:05}.wav", utterance)


async def _extracted(client: AsyncClient, story: Story, run: str, name: str, utterance: Utterance) -> None:
    await client.storage.from_("clips").upload(f"{run}/{name}", wav_bytes(utterance.audio))
    row = {"run_id": run, "file_name": name, "source_file": "tape.mp3", "duration_sec": round(utterance.seconds, 2)}
    await _clip(client, story, "extraction", row, eligible=True, reference=utterance.text)


async def _people(client: AsyncClient, story: Story, spoken: Sequence[Utterance]) -> None:
    """Rows that hold a person's words, each of the kind that a careless daemon would overwrite."""
    run = (await _insert(client, "runs", {"label": "at work"}))["id"]
    typing = {"run_id": run, "file_name": "clips/typing.wav", "corrected_transcription": spoken[0].text[:4]}
    await _clip(client, story, "a person who is typing", typing)
    saved = {"run_id": run, "file_name": "clips/saved.wav", "corrected_transcription": spoken[1].text}
    await _clip(client, story, "a person who saved", saved | {"status": "corrected", "corrected_by": "rasoa"})
    await _clip(
        client, story, "a person who discarded", {"run_id": run, "file_name": "clips/gone.wav", "status": "discarded"}
    )
    text = f"{spoken[2].text} {spoken[3].text}"
    chapter = {
        "run_id": run,
        "file_name": "chapters/1.wav",
        "draft_transcription": text,
        "paragraphs": [{"text": text}],
    }
    await _clip(client, story, "a chapter", chapter)
    piece = {"run_id": run, "file_name": "chunks/0000.wav", "draft_transcription": spoken[2].text}
    await _clip(client, story, "a piece of a chapter", piece)
    reading = (await _insert(client, "runs", {"label": "psalms", "type": "reading"}))["id"]
    script = {"run_id": reading, "file_name": "chunks/0000.wav", "draft_transcription": spoken[4].text}
    await _clip(client, story, "a text to be read aloud", script)


async def _clip(
    client: AsyncClient, story: Story, writer: str, row: Row, *, eligible: bool = False, reference: str = ""
) -> None:
    made = await _insert(client, "clips", {"draft_transcription": "stock draft", **row})
    story.clips.append(Clip(made["id"], made["file_name"], writer, eligible, made, made["created_at"], reference))


async def _insert(client: AsyncClient, table: str, row: Row) -> Row:
    answer: Any = await client.table(table).insert(row).execute()
    return dict(answer.data[0])


async def _drafted(client: AsyncClient, story: Story, show: Show) -> None:
    """Wait until every eligible clip has its draft."""
    wanted = {clip.id for clip in story.clips if clip.eligible}
    deadline = time.monotonic() + DRAFTED_WITHIN_S
    while True:
        answer: Any = await client.table("drafts").select("clip_id").limit(1000).execute()
        drafted = wanted & {row["clip_id"] for row in answer.data}
        show.progress(len(drafted), len(wanted))
        if drafted == wanted:
            return
        if time.monotonic() > deadline:
            raise TemporaryError(f"{len(wanted - drafted)} clips had no draft after {DRAFTED_WITHIN_S:.0f} s.")
        await asyncio.sleep(0.2)


async def _look_back(client: AsyncClient, story: Story) -> None:
    rows: Any = (await client.table("clips").select("*").limit(1000).execute()).data
    drafts: Any = (await client.table("drafts").select("*").order("id").limit(1000).execute()).data
    after = {row["id"]: row for row in rows}
    draft = {row["clip_id"]: row for row in drafts}
    for clip in story.clips:
        clip.after, clip.draft = after[clip.id], draft.get(clip.id, {})
