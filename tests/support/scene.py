"""A Supabase with people and clips, daemons behind a proxy, an audit inside, and what has to be true afterwards.

One `Scene` is one fault's world. The daemon knows the project by the proxy's address alone; people go straight.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import audit
import httpx
import psycopg
from chaos_proxy import ChaosProxy
from crowd import Crowd, crowd
from daemon_process import DaemonProcess, daemon_process
from fault_record import Fault
from history import History
from hostile_secrets import leaks
from witness import team, write_run

from daemon.local.speech import speak_corpus, wav_bytes
from daemon.local.stack import LocalStack

if TYPE_CHECKING:
    from warm_start import Nest

RUNS = tuple(str(uuid.UUID(int=0xA3BA7A << 96 | number)) for number in range(12))
"""Runs whose audio lies in one directory."""
FILES = 500
"""Clips that a run can have."""
HEALED_S = 60.0
"""After a fault no clip may wait longer."""
FEED_S = 35.0
"""After a fault Realtime has to be live again within so many seconds."""
PROMPT = {"sweep_seconds": 2, "lease_seconds": 10, "batch_clips": 8}
"""Drafting that does not keep a short test waiting. Where the promised times are shown, the defaults are used."""
SELDOM = {**PROMPT, "sweep_seconds": 600}
"""With one sweep in ten minutes it is the feed that has to see to everything."""

# In words of its own: the daemon's function for it is one of the things under test.
_UNDRAFTED = """
select c.id::text from clips c join runs r on r.id = c.run_id
where c.status = 'pending' and c.corrected_transcription is null
  and (to_jsonb(c) ->> 'paragraphs') is null and coalesce(to_jsonb(r) ->> 'type', 'extraction') = 'extraction'
  and not (c.file_name like 'chunks/%%'
    and exists (select from clips k where k.run_id = c.run_id and (to_jsonb(k) ->> 'paragraphs') is not null))
  and not exists (
    select from drafts d join model_versions v on v.id = d.version_id and v.stage = 'live'
    where d.clip_id = c.id and d.text = c.draft_transcription)
  and not (c.id::text = any (%s))
"""
_TOLD = """
select jsonb_build_object('clip', c.id, 'created', c.created_at, 'updated', c.updated_at, 'now', now(),
  'state', to_jsonb(s), 'queue', to_jsonb(q), 'live', (select to_jsonb(v) from model_versions v where v.stage = 'live'))
from clips c left join draft_state s on s.clip_id = c.id left join draft_queue q on q.clip_id = c.id
where c.id::text = any (%s)
"""
LAST_WORDS = 8000


@dataclass
class Scene:
    """See above. Make it with `a_scene`."""

    stack: LocalStack
    folder: Path
    proxy: ChaosProxy
    nest: Nest
    history: History
    fault: Fault
    without_audio: set[str]
    """Clips that cannot be drafted, by the test's own doing."""
    _inserted: int = 0
    _lived: set[int] = field(default_factory=set)
    """Processes whose feed has been waited for: it was no healing then."""

    @property
    def url(self) -> str:
        """What a daemon takes for SUPABASE_URL."""
        return self.proxy.url

    @property
    def service_role_key(self) -> str:
        """The project's key."""
        return self.stack.service_role_key

    @contextmanager
    def daemon(self, name: str = "daemon", *, cold: bool = False, **sections: Any) -> Iterator[DaemonProcess]:
        """A daemon that is ready. `sections` of its settings; `ready=False`, `env` as in `daemon_process`.

        `cold`: a process from nothing, which takes seconds of a processor.
        """
        audio = {"run_dirs": dict.fromkeys(RUNS, self.folder / "run")}
        begin = daemon_process if cold else self.nest.daemon
        with begin(self, self.folder / name, **{"audio": audio, "drafting": PROMPT, **sections}) as running:
            try:
                yield running
            except BaseException as error:
                error.add_note(f"The last words of {name}:\n{running.output[-LAST_WORDS:]}")
                raise

    def insert(self, count: int, *, run: int | None = None) -> list[str]:
        """Commit so many new clips, however often it takes. Returns their ids, which stand in the ledger."""
        made: list[str] = []
        for _ in range(count):
            number = self._inserted
            self._inserted += 1
            made.append(self._insert_one(RUNS[number // FILES if run is None else run], number % FILES))
        return made

    def insert_at_once(self, count: int) -> list[str]:
        """Many new clips in few statements, as the extraction sends them."""
        made: list[str] = []
        while count > 0:
            run, first = divmod(self._inserted, FILES)
            part = min(count, FILES - first)
            names = [f"clips/clip_{number:05}.wav" for number in range(first, first + part)]
            with psycopg.connect(self.stack.db_url, autocommit=True) as db:
                _add_run(db, RUNS[run])
                rows = db.execute(
                    "insert into clips (run_id, file_name, draft_transcription, duration_sec) "
                    "select %s, n, 'stock draft', 2 from unnest(%s::text[]) n returning id::text",
                    [RUNS[run], names],
                ).fetchall()
            made += [row[0] for row in rows]
            self._inserted += part
            count -= part
        with self.history.statement("insert", {"duration_sec": 2}, made):
            pass
        return made

    async def upload(self, count: int) -> list[str]:
        """New clips whose audio lies in the bucket alone, as the extraction brings them. Returns their ids."""
        audio = wav_bytes(speak_corpus("A", 1, seed=506)[0].audio)
        async with team(self.stack) as editor:
            names = [f"clips/bucket_{number:05}.wav" for number in range(count)]
            run = await editor.sync_extraction([{"file_name": n} for n in names], audio=dict.fromkeys(names, audio))
            made = [str(row["id"]) for row in await editor.clips(run)]
        with self.history.statement("insert", {}, made):
            return made

    def undrafted(self) -> set[str]:
        """Clips that want a draft by the live version and have none. Raises while the database does not answer."""
        with psycopg.connect(self.stack.db_url, autocommit=True, connect_timeout=2) as db:
            return {row[0] for row in db.execute(_UNDRAFTED, [list(self.without_audio)]).fetchall()}

    async def drafted(self, within_s: float = HEALED_S, name: str = "I1 every clip drafted") -> None:
        """Wait until every clip that wants a draft now has had one, and record I1; the fault is over now.

        People who are at work make others want one meanwhile: those are for the next look.
        """
        still: set[str] | None = None

        def none_left() -> bool:
            nonlocal still
            self.stack.ensure()  # the embedded API server may end with its database, and some time after it
            try:
                wanting = self.undrafted()
            except psycopg.OperationalError:
                return False
            still = wanting if still is None else still & wanting
            return not still

        with self.fault.healing():
            await self.until(none_left, within_s)
        self.fault.holds(name, ["the database does not answer"] if still is None else self._told(still))

    def _told(self, clips: set[str]) -> list[str]:
        """What the database knows of clips that have no draft."""
        if not clips:
            return []
        with psycopg.connect(self.stack.db_url, autocommit=True) as db:
            return [str(row) for row in db.execute(_TOLD, [list(clips)]).fetchall()]

    def longest_wait(self) -> float:
        """Seconds from a clip's coming to its first draft, of the one that waited longest."""
        query = (
            "select coalesce(max(extract(epoch from d.at - c.created_at)), 0)::float8 from clips c "
            "join (select clip_id, min(created_at) as at from drafts group by 1) d on d.clip_id = c.id"
        )
        with psycopg.connect(self.stack.db_url) as db:
            row = db.execute(query).fetchone()
        return float(row[0]) if row else 0.0

    async def live(self, daemon: DaemonProcess, within_s: float = FEED_S, *, since: int = 0) -> None:
        """Wait until the daemon's feed is live, `since`: more often than so many times."""

        def is_live() -> bool:
            said = daemon.said("feed")
            return bool(said) and said[-1]["state"] == "live" and len(daemon.said("feed", state="live")) > since

        with self.fault.healing() if daemon.child.pid in self._lived else nullcontext():
            await self.until(is_live, within_s)
        self._lived.add(daemon.child.pid)
        self.fault.holds("feed live", [] if is_live() else [daemon.said("feed")[-3:]])

    async def until(self, condition: Callable[[], object], within_s: float) -> bool:
        """Wait for something, at most so long. Returns whether it came."""
        deadline = time.monotonic() + within_s
        while not condition():
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.1)
        return True

    def realtime(self, action: str = "", **parameters: Any) -> dict[str, Any]:
        """Let the Realtime bridge misbehave, or only look at it; see `daemon.local.realtime.faults`."""
        control = f"{self.stack.url}/_local/realtime/faults"
        body = {"json": {"action": action, **parameters}} if action else {}
        answer = httpx.request(
            "POST" if action else "GET",
            control,
            headers={"apikey": self.service_role_key},
            trust_env=False,
            timeout=10,
            **body,
        )
        return dict(answer.raise_for_status().json())

    @asynccontextmanager
    async def people(self, clips: Sequence[str], count: int, *, pause_s: float) -> AsyncIterator[Crowd]:
        """So many people at work on these clips, until the end of the block; then they finish what they are at."""
        with psycopg.connect(self.stack.db_url, autocommit=True) as db:
            query = "select to_jsonb(c) from clips c where id::text = any (%s)"
            rows = [row[0] for row in db.execute(query, [list(clips)]).fetchall()]
        done = asyncio.Event()
        at_work = crowd(self.stack, self.history, self.fault.random, pause_s=pause_s)
        async with at_work as working, asyncio.TaskGroup() as tasks:
            tasks.create_task(working.work(count, rows, done))
            try:
                yield working
            finally:
                done.set()

    def end(self, *daemons: DaemonProcess) -> None:
        """Record what has to hold after every fault: I2, I4, I6, and I8 of daemons that should still run."""
        self.kept()
        self.silent(*daemons)
        self.same(*daemons)

    def kept(self) -> None:
        """Record I2 and I4: every word of a person is as it was acknowledged, and no draft came late."""
        with psycopg.connect(self.stack.db_url, autocommit=True) as db:
            self.fault.holds("I2 people's words", self.history.broken(db))
            self.fault.holds("I4 no late draft", audit.violations(db))

    def silent(self, *daemons: DaemonProcess) -> None:
        """Record I6: the key stands in no output, in no file of a daemon's, and on no command line."""
        pids = [daemon.child.pid for daemon in daemons if daemon.running]
        texts = {f"daemon {number}": daemon.output for number, daemon in enumerate(daemons)}
        folders = {self.folder / "state", *(daemon.folder for daemon in daemons)}
        paths = [folder for folder in folders if folder.exists()]
        self.fault.holds("I6 no key", leaks(self.service_role_key, texts=texts, paths=paths, pids=pids))

    def same(self, *daemons: DaemonProcess) -> None:
        """Record I8: no daemon has ended."""
        ended = [daemon.output[-2000:] for daemon in daemons if not daemon.running]
        self.fault.holds("I8 never ended", ended)

    def _insert_one(self, run: str, number: int) -> str:
        name = f"clips/clip_{number:05}.wav"
        while True:
            try:
                with psycopg.connect(self.stack.db_url, autocommit=True, connect_timeout=2) as db:
                    _add_run(db, run)
                    row = db.execute(
                        "insert into clips (run_id, file_name, draft_transcription, duration_sec) "
                        "values (%s, %s, 'stock draft', 2) on conflict (run_id, file_name) "
                        "do update set file_name = excluded.file_name returning id::text",
                        [run, name],
                    ).fetchone()
            except psycopg.OperationalError:
                time.sleep(0.2)
                continue
            assert row is not None
            with self.history.statement("insert", {"duration_sec": 2}, [row[0]]):
                return str(row[0])


@contextmanager
def a_scene(stack: LocalStack, nest: Nest, folder: Path, fault: Fault) -> Iterator[Scene]:
    """A scene on an empty database, with the audit at work."""
    write_run(folder / "run", speak_corpus("A", 20, seed=505), FILES)
    with ChaosProxy(stack.url) as proxy:
        with psycopg.connect(stack.db_url, autocommit=True) as db:
            audit.install(db)
        try:
            yield Scene(stack, folder, proxy, nest, History(folder / "history.jsonl"), fault, set())
        finally:
            stack.ensure()
            with psycopg.connect(stack.db_url, autocommit=True) as db:
                audit.remove(db)


def _add_run(db: psycopg.Connection[Any], run: str) -> None:
    db.execute("insert into runs (id, label) values (%s, 'load') on conflict do nothing", [run])
