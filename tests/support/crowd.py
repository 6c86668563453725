"""People at the editor and scripts around it, who play every writer of `clips` and remember what they were told."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
from history import History
from postgrest.exceptions import APIError
from scripted_editor import Editor, Row
from storage3.exceptions import StorageApiError
from supabase import AsyncClient, AsyncClientOptions, acreate_client

from daemon.local.speech import speak_corpus, wav_bytes

REFUSED = (httpx.HTTPError, APIError, StorageApiError)
"""A person sees a red toast, and tries again later."""
PATIENCE_S = 60
"""So long a person waits for an answer that an outage has swallowed: longer than any outage after which what was asked
is carried out all the same. The client itself would wait for two minutes."""
STUBBORN = 200
"""Guard: so often somebody tries to delete a run."""


class RememberingEditor(Editor):
    """An editor whose every statement stands in the ledger."""

    def __init__(self, person: AsyncClient, scripts: AsyncClient, history: History) -> None:
        super().__init__(person, scripts)
        self.history = history

    async def _update(self, clip_id: str, change: Row) -> None:
        with self.history.statement("update", change, [clip_id]):
            await super()._update(clip_id, change)

    async def _update_many(self, clip_ids: Sequence[str], change: Row) -> None:
        with self.history.statement("update", change, clip_ids):
            await super()._update_many(clip_ids, change)

    async def _insert(self, client: AsyncClient, table: str, rows: Sequence[Row]) -> list[Row]:  # type: ignore[override]
        """What people insert is theirs as it is, the draft as well."""
        made = await super()._insert(client, table, rows)
        for row in made if table == "clips" else ():
            with self.history.statement("insert", row, [str(row["id"])]):
                pass
        return made

    async def sync(self, names: Sequence[str], audio: bytes) -> tuple[str, list[str]]:
        """An extraction of a new run. Returns the run and its clips; without an answer nobody was told anything."""
        run = await self.sync_extraction([{"file_name": name} for name in names], audio=dict.fromkeys(names, audio))
        made = [str(row["id"]) for row in await self.clips(run)]
        with self.history.statement("insert", {}, made):
            return run, made

    async def delete(self, run: str, clips: Sequence[str]) -> None:
        """Delete a run, which a person sees through: where the answer is an error, it is done again."""
        for _ in range(STUBBORN):
            with suppress(*REFUSED), self.history.statement("delete", {}, clips):
                await self.delete_run(run)
                return
            await asyncio.sleep(0.5)


class Crowd:
    """Several people at once; each has clips of their own, so that nobody overwrites a colleague."""

    def __init__(self, editor: RememberingEditor, dice: random.Random, *, pause_s: float) -> None:
        self._editor = editor
        self._dice = dice
        self._pause_s = pause_s
        self._audio = wav_bytes(speak_corpus("A", 1, seed=507)[0].audio)
        self.acts = 0
        """What they did and were told is done."""
        self.refused = 0
        """What an outage cost them."""

    async def work(self, people: int, clips: Sequence[Row], until: asyncio.Event) -> None:
        """Let so many people work on `clips` until `until` is set, and finish what they are at."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(people):
                dice = random.Random(self._dice.random())
                tasks.create_task(self._person(dice, list(clips[number::people]), until))

    async def _person(self, dice: random.Random, mine: list[Row], until: asyncio.Event) -> None:
        acts = [
            *(self._save, self._type, self._discard, self._change_mind, self._many),
            *(self._chapter, self._read_aloud, self._extract),
        ]
        while not until.is_set() and mine:
            try:
                await dice.choice(acts)(dice, mine)
                self.acts += 1
            except REFUSED:
                self.refused += 1
                await asyncio.sleep(0.2)
            await asyncio.sleep(self._pause_s * dice.random() * 2)

    async def _save(self, dice: random.Random, mine: list[Row]) -> None:
        await self._editor.save(dice.choice(mine), f"people's words {dice.random()}")

    async def _type(self, dice: random.Random, mine: list[Row]) -> None:
        clip = dice.choice(mine)
        for length in range(3, 12, 4):
            await self._editor.autosave(clip, "people's words"[:length])
            await asyncio.sleep(self._pause_s)

    async def _discard(self, dice: random.Random, mine: list[Row]) -> None:
        await self._editor.discard(dice.choice(mine))

    async def _change_mind(self, dice: random.Random, mine: list[Row]) -> None:
        clip = dice.choice(mine)
        before = await self._editor.discard(clip)
        await asyncio.sleep(self._pause_s)
        await self._editor.undo(clip, before)

    async def _many(self, dice: random.Random, mine: list[Row]) -> None:
        await self._editor.bulk_discard(dice.sample(mine, min(3, len(mine))))

    async def _chapter(self, dice: random.Random, _mine: list[Row]) -> None:
        chapter = await self._editor.ingest_chapter("In the beginning")
        pieces = await self._editor.insert_pieces(chapter, ["In the", "beginning"])
        await asyncio.sleep(self._pause_s)
        await self._editor.mark_split(chapter, pieces)
        if dice.random() < 0.5:
            await self._editor.merge_back(chapter)

    async def _read_aloud(self, dice: random.Random, _mine: list[Row]) -> None:
        rows = await self._editor.reading_session(["psalm one", "psalm two"])
        if dice.random() < 0.5:
            await self._editor.record(rows[0], b"RIFF")

    async def _extract(self, dice: random.Random, _mine: list[Row]) -> None:
        """A run comes, is perhaps sent again over what is there, and perhaps goes."""
        names = [f"clips/clip_{number:05}.wav" for number in range(2)]
        run, clips = await self._editor.sync(names, self._audio)
        await asyncio.sleep(self._pause_s)
        if dice.random() < 0.5:
            await self._editor.sync_extraction([{"file_name": name} for name in names], run_id=run)
        if dice.random() < 0.5:
            await self._editor.delete(run, clips)


@asynccontextmanager
async def crowd(stack: Any, history: History, dice: random.Random, *, pause_s: float) -> AsyncIterator[Crowd]:
    """People and scripts with the unmodified client, straight at the project's own address."""
    patient = AsyncClientOptions(postgrest_client_timeout=PATIENCE_S)
    person = await acreate_client(stack.url, stack.anon_key, patient)
    token = stack.mint("authenticated", sub=str(uuid.UUID(int=dice.getrandbits(128))))
    person.postgrest.auth(token)
    person.storage.session.headers["Authorization"] = f"Bearer {token}"
    patient = AsyncClientOptions(postgrest_client_timeout=PATIENCE_S)  # one of its own: a client writes into it
    scripts = await acreate_client(stack.url, stack.service_role_key, patient)
    try:
        yield Crowd(RememberingEditor(person, scripts, history), dice, pause_s=pause_s)
    finally:
        await person.realtime.close()
        await scripts.realtime.close()
