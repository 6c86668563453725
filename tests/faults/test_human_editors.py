"""People at the editor, with the unmodified client, against machines that draft and draft again."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import audit
import psycopg
import pytest
from crowd import crowd
from daemon_process import daemon_process
from fault_record import Fault
from history import History
from scripted_editor import Editor, Row
from supabase import acreate_client
from witness import scalar, team, until, waiting, write_run

from daemon.asr.transcriber import Draft
from daemon.clips import ClipStore
from daemon.local.speech import speak_corpus
from daemon.ports import Drafted, Outcome

Sql = psycopg.Connection[Any]
RUN = "00000000-0000-4000-8000-000000000018"
GoLive = Callable[[], Awaitable[None]]


class Machines:
    """Several daemons' stores that draft whatever there is, in the time that a model would take."""

    def __init__(self, stores: Sequence[ClipStore], dice: random.Random) -> None:
        self._stores = stores
        self._dice = dice
        self._over = asyncio.Event()
        self.outcomes: Counter[Outcome] = Counter()
        self.version = 0

    async def go_live(self) -> None:
        """Another model: every draft is stale."""
        name = f"model {self._dice.random()}"
        self.version, live = await self._stores[0].register(name, name, {}, go_live=True)
        assert live is not None
        assert live.id == self.version

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """They draft during the block, and finish what they are at."""
        await self.go_live()
        async with asyncio.TaskGroup() as tasks:
            for store in self._stores:
                tasks.create_task(self._work(store))
            try:
                yield
            finally:
                self._over.set()

    async def _work(self, store: ClipStore) -> None:
        while not self._over.is_set():
            version = self.version
            claims = await store.claim(version, 16, 60)
            await asyncio.sleep(0.05 + self._dice.random() * 0.25)
            drafts = [
                Drafted(claim, Draft(audit.stamp(store.worker, claim.fence, "machine"), confidence=-0.2, flags=()))
                for claim in claims
            ]
            while drafts:
                outcomes = await store.submit(version, drafts)
                self.outcomes.update(outcomes.values())
                drafts = [each for each in drafts if outcomes[each.claim.clip_id] is Outcome.BUSY]


@asynccontextmanager
async def machines(stack: Any, count: int, dice: random.Random) -> AsyncIterator[Machines]:
    """So many, each with a client of its own."""
    clients = [await acreate_client(stack.url, stack.service_role_key) for _ in range(count)]
    try:
        yield Machines([ClipStore(client, f"worker-{number}") for number, client in enumerate(clients)], dice)
    finally:
        for client in clients:
            await client.realtime.close()


async def edit(editor: Editor, dice: random.Random, clip: Row) -> Row:
    """One edit. Returns what has to stand in the row from then on."""
    text = f"a person's words {dice.random()}"
    match dice.choice(["save", "autosave", "discard", "change of mind", "many", "record"]):
        case "save":
            await editor.save(clip, text)
            return {"status": "corrected", "corrected_transcription": text, "corrected_by": "rasoa"}
        case "autosave":
            await editor.autosave(clip, text)
            return {"corrected_transcription": text}
        case "discard":
            await editor.discard(clip)
            return {"status": "discarded", "corrected_by": "rasoa"}
        case "change of mind":
            await editor.undo(clip, await editor.discard(clip))
            await editor.save(clip, text)
            return {"status": "corrected", "corrected_transcription": text, "corrected_by": "rasoa"}
        case "many":
            await editor.bulk_discard([clip])
            return {"status": "discarded", "corrected_by": "rasoa"}
        case _:
            await editor.record(clip, b"RIFF")
            return {"status": "corrected", "corrected_transcription": clip["draft_transcription"], "duration_sec": 2.0}


@pytest.mark.fault("F18", "human-vs-draft")
async def test_eight_people_against_three_machines(fault: Fault, clean_stack: Any, db: Sql) -> None:
    people, edits = 8, fault.size(full=25, short=8)
    fault.injected(f"{people} people x {edits} edits of clips that 3 machines have claimed, with versions going live")
    told: dict[str, Row] = {}
    async with AsyncExitStack() as stack:
        stack.enter_context(audit.audited(db))
        editors = [await stack.enter_async_context(team(clean_stack)) for _ in range(people)]
        names = [{"file_name": f"clips/{number:04}.wav"} for number in range(people * edits)]
        clips = await editors[0].clips(await editors[0].sync_extraction(names))
        before = {row["id"]: row for row in clips}
        working = await stack.enter_async_context(machines(clean_stack, 3, fault.random))

        async def person(editor: Editor, mine: list[Row], dice: random.Random) -> None:
            while mine:
                claimed = {
                    row[0] for row in db.execute("select clip_id::text from draft_state where worker is not null")
                }
                clip = next((clip for clip in mine if clip["id"] in claimed), mine[0])
                mine.remove(clip)
                told[clip["id"]] = await edit(editor, dice, clip)
                if dice.random() < 0.1:
                    await working.go_live()

        async with working.at_work(), asyncio.TaskGroup() as tasks:
            for number, editor in enumerate(editors):
                tasks.create_task(person(editor, clips[number::people], random.Random(fault.random.random())))
        rows = {row["id"]: row for row in await editors[0].clips()}
        changed = [i for i, row in rows.items() if any(row[k] != v for k, v in kept(before[i], told[i]).items())]
        fault.holds(f"I2 {len(told)} of {people * edits} edits intact", changed)
        fault.holds("I4 no late draft", audit.violations(db))
        crossed = audit.counts(db)["interleavings"]
        fault.holds("edits met drafts", [] if crossed else ["no edit came between a claim and its draft"])
    outcomes = working.outcomes
    fault.observe(f"{crossed} edits came between claim and draft; {outcomes[Outcome.WRITTEN]} drafts written")


def kept(before: Row, change: Row) -> Row:
    """What people and scripts write, as it has to be."""
    ours = {"draft_transcription", "updated_at", "corrected_at"}
    return {name: value for name, value in {**before, **change}.items() if name not in ours}


async def work_until_redrafted(
    fault: Fault, stack: Any, db: Sql, history: History, rows: list[Row], people: int, go_live: GoLive
) -> None:
    """People at work on drafted clips; in the middle of it a version goes live, until all are drafted again."""
    with history.statement("insert", {"duration_sec": rows[0]["duration_sec"]}, [row["id"] for row in rows]):
        pass
    over = asyncio.Event()
    before = int(scalar(db, "select count(*) from drafts"))
    async with crowd(stack, history, fault.random, pause_s=0.01) as working, asyncio.TaskGroup() as tasks:
        tasks.create_task(working.work(people, rows, over))
        await until(lambda: working.acts > people, "people at work")
        await go_live()
        with fault.healing():
            await until(lambda: waiting(db) == 0, "everything drafted again", guard_s=240)
        over.set()
    again = int(scalar(db, "select count(*) from drafts")) - before
    fault.holds("drafted again", [] if again else ["nothing was"])
    fault.observe(f"{working.acts} acts, {history.count()} statements, {again} clips drafted again meanwhile")


def judged(fault: Fault, db: Sql, history: History) -> None:
    """Nothing of a person has changed, and no draft came late."""
    fault.holds("I2 people's words", history.broken(db))
    fault.holds("I4 no late draft", audit.violations(db))
    fault.observe(f"{audit.counts(db)['interleavings']} claims crossed by a person")


@pytest.mark.fault("F19", "human-vs-redraft")
async def test_edits_while_everything_is_drafted_again(fault: Fault, clean_stack: Any, db: Sql, tmp_path: Path) -> None:
    count, people = fault.size(full=1000, short=150), 6
    fault.injected(f"{people} people edit while {count} clips are drafted again by a version that goes live")
    history = History(tmp_path / "history.jsonl")
    with audit.audited(db):
        async with team(clean_stack) as editor, machines(clean_stack, 3, fault.random) as working:
            names = [{"file_name": f"clips/{number:04}.wav"} for number in range(count)]
            rows = await editor.clips(await editor.sync_extraction(names))
            async with working.at_work():
                await until(lambda: waiting(db) == 0, "the first drafts")
                await work_until_redrafted(fault, clean_stack, db, history, rows, people, working.go_live)
        judged(fault, db, history)


@pytest.mark.long
@pytest.mark.fault("F19", "human-vs-redraft-daemon")
async def test_edits_while_a_real_daemon_drafts_everything_again(
    fault: Fault, clean_stack: Any, db: Sql, tmp_path: Path
) -> None:
    count, people = 1000, 6
    fault.injected(f"{people} people edit while a daemon drafts {count} clips again")
    fault.observe("substitute: the same weights go live under a new number")
    names = write_run(tmp_path / "run", speak_corpus("A", 20, seed=519), count)
    db.execute("insert into runs (id, label) values (%s, 'again')", [RUN])
    history = History(tmp_path / "history.jsonl")
    drafting = {"sweep_seconds": 2, "lease_seconds": 10}
    with audit.audited(db):
        with daemon_process(clean_stack, tmp_path, drafting=drafting, audio={"run_dirs": {RUN: tmp_path / "run"}}):
            async with team(clean_stack) as editor:
                await editor.sync_extraction([{"file_name": n, "duration_sec": 2.0} for n in names], run_id=RUN)
                rows = await editor.clips(RUN)
            await until(lambda: waiting(db) == 0, "the first drafts", guard_s=240)

            async def go_live() -> None:
                with db.transaction():
                    mine = scalar(db, "select id from model_versions where stage = 'live'")
                    other = scalar(db, "select ambara_register_model('other', 'other', '{}', false) ->> 'version'")
                    for version in (other, mine):
                        db.execute("select ambara_promote(%s::bigint, null, 'again')", [version])

            await work_until_redrafted(fault, clean_stack, db, history, rows, people, go_live)
        judged(fault, db, history)
