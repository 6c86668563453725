"""One training run from its row to its candidate: begin, freeze the data, let a child train, publish."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import structlog
from structlog.contextvars import bound_contextvars

from daemon.asr import families
from daemon.asr.errors import ModelError
from daemon.backoff import backoff, patiently
from daemon.errors import AmbaraError, PermanentError, TemporaryError
from daemon.learning.audiofolder import Frozen
from daemon.learning.freezing import ReadAudio, freeze
from daemon.learning.held_run import HeldRun
from daemon.learning.job import TrainJob
from daemon.learning.ledger import Ledger
from daemon.learning.plan import in_short, train_job, with_rehearsal
from daemon.learning.ports import ChildEnd, ChildFailed, ChildStopped, TrainingRun, Version
from daemon.learning.process import run_child
from daemon.learning.sides import decide_sides
from daemon.learning.sources import Sources
from daemon.learning.tidy import tidy
from daemon.sections import TrainingSettings
from handlers.commands import Train
from handlers.events import Event, TrainingFailed, TrainingFinished

log = structlog.get_logger(__name__)

LEASE_S = 90.0
TRIES_TOGETHER = 5
"""Of a run on several machines that ends without anybody's knowing why."""
PAUSE_S = 300.0
"""The longest before such a run is gone on with: each try reads the corrections, and waits for the others."""


class Trainer:
    """Carries out `Train` on behalf of one worker."""

    def __init__(
        self,
        ledger: Ledger,
        sources: Sources,
        read: ReadAudio,
        settings: TrainingSettings,
        *,
        need_room: Callable[[Path], Awaitable[None]],
        lease_s: float = LEASE_S,
    ) -> None:
        self._ledger = ledger
        self._sources = sources
        self._registry = sources.registry
        self._read = read
        self._settings = settings
        self._need_room = need_room
        self._lease_s = lease_s
        self._work: HeldRun | None = None
        self._unknown: Counter[int] = Counter()
        """Run -> how often it ended on several machines without anybody's knowing why."""
        self._put_off = 0

    @property
    def progress(self) -> tuple[int, Mapping[str, Any]] | None:
        """The version that is being made here, and how far it is; None while nothing is."""
        return (self._work.run.version, self._work.detail) if self._work else None

    async def train(self, command: Train) -> Event | None:
        """Train to the end. None when there was nothing to do, or another worker does it.

        Raises `TemporaryError` when the database is away before the run has begun. A cancellation waits for the
        child's checkpoint and lets go of the run, so that the next start goes on with it.
        """
        await decide_sides(self._ledger, self._settings.held_out_share)
        run = await self._ledger.begin(
            bar_clips=command.bar_clips,
            bar_minutes=command.bar_minutes,
            retry_of=command.retry_of,
            lease_s=self._lease_s,
            settings=self._settings.model_dump(),
        )
        if run is None:
            return None
        work = self._work = HeldRun(self._ledger, run, self._lease_s)
        try:
            with bound_contextvars(run=run.id, version=run.version):
                log.info("training begins", attempt=run.attempts)
                return await self._see_through(work)
        finally:
            self._work = None

    async def _see_through(self, work: HeldRun) -> Event | None:
        run = work.run
        try:
            facts = await work.held(self._make(work))
        except PermanentError as error:
            log.warning("training failed", reason=error.reason, error=str(error))
            sentence, detail = str(error), {"reason": error.reason, **work.detail}
            await patiently(lambda: self._ledger.fail(run, sentence, detail), "Supabase")
            await tidy(self._ledger, self._registry)  # the next one may need the room
            return TrainingFailed()
        except BaseException as error:
            await work.let_go()
            if isinstance(error, TemporaryError) and error.reason == "machines":
                self._put_off += 1
                await asyncio.sleep(backoff(self._put_off, most_s=PAUSE_S))
            raise
        self._put_off = 0
        if facts is None:
            await work.let_go()
            return None
        name = f"trained-{run.version:04}"
        version = await patiently(lambda: self._ledger.finish(run, name, work.fingerprint, facts), "Supabase")
        log.info("training finished", stage=version.stage, reason=version.reason)
        return TrainingFinished() if version.stage == "candidate" else TrainingFailed()

    async def _make(self, work: HeldRun) -> Mapping[str, Any] | None:
        """Freeze and train. Returns the facts of the run; None if the child was stopped by somebody else."""
        version = await patiently(lambda: self._ledger.version(work.run.version), "Supabase")
        if version is None:
            raise PermanentError("The version that this run makes is gone from the database.", reason="version-gone")
        # Until it is trained, the version's fingerprint is a mark that no other run in the world has.
        folder = await asyncio.to_thread(self._registry.claim, version.id, version.fingerprint)
        live = await patiently(self._ledger.live, "Supabase") if self._settings.start_from == "live" else None
        with self._sources.using(*([live.id] if live else [])):
            return await self._make_from(live, work, folder)

    async def _make_from(self, live: Version | None, work: HeldRun, folder: Path) -> Mapping[str, Any] | None:
        base = await self._base(live)
        await self._need_room(Path(base["model"]))
        frozen = await self._freeze(work, live, folder / "data")
        await patiently(lambda: self._ledger.samples_frozen(work.run, frozen.audio), "Supabase")
        job = train_job(self._sources.family, self._settings, base, folder)
        end = await self._child(job, folder, work)
        if isinstance(end, ChildFailed) and end.reason == "other-training":
            # The settings were changed, or the data, while nobody trained: what the run is begun with now counts.
            log.warning("training begins anew", why=end.message)
            await asyncio.to_thread(self._registry.drop_checkpoints, work.run.version)
            end = await self._child(job, folder, work)
        if isinstance(end, ChildFailed):
            if self._is_of_other_machines(end, work.run):
                raise TemporaryError(end.message, reason="machines")
            raise PermanentError(end.message, reason=end.reason)
        if isinstance(end, ChildStopped):
            return None
        facts = {"settings": job.settings, "data": in_short(frozen), "training": dict(end.result)}
        await asyncio.to_thread(self._registry.publish, work.run.version, facts)
        work.fingerprint = await asyncio.to_thread(self._fingerprint, work.run.version)
        return facts

    def _is_of_other_machines(self, end: ChildFailed, run: TrainingRun) -> bool:
        """Whether the run is gone on with when it can be: what another machine does says nothing of it. Where none can
        say why it ended, that has an end."""
        if end.reason == "machines":
            return True
        if self._settings.nodes == 1 or end.reason not in ("crashed", "killed", "hung"):
            return False
        self._unknown[run.id] += 1
        return self._unknown[run.id] < TRIES_TOGETHER

    async def _child(self, job: TrainJob, folder: Path, work: HeldRun) -> ChildEnd:
        try:
            file = job.write(folder / "train.json")
        except TemporaryError as error:
            raise _lasting(error) from None
        return await run_child(file, folder / "train.log", work.heard)

    def _fingerprint(self, version: int) -> str:
        """The same that the model has wherever it is loaded. Reads every byte."""
        options = self._sources.opened(str(self._registry.folder(version) / "model"), None)
        try:
            return families.fingerprint(self._sources.family, options)
        except (ModelError, OSError) as error:
            raise PermanentError(f"What was trained cannot be read: {error}", reason="model") from None

    async def _base(self, live: Version | None) -> dict[str, Any]:
        """Where training starts from, as a directory: the child has no network to fetch it by."""
        options = self._sources.base()
        if live and live.kind == "trained":
            options = await asyncio.to_thread(self._sources.options, live)
        try:
            directory = await asyncio.to_thread(families.find, self._sources.family, options)
        except ModelError as error:
            raise PermanentError(str(error), reason="base-missing") from None
        return options | {"model": str(directory), "revision": None}

    async def _freeze(self, work: HeldRun, live: Version | None, folder: Path) -> Frozen:
        samples = await patiently(lambda: self._ledger.samples(work.run), "Supabase")
        if live and live.kind == "trained":
            samples = with_rehearsal(samples, self._settings.rehearsal)

        def heard(done: int, total: int) -> None:
            work.heard({"phase": "data", "step": done, "steps": total})

        async def attempt() -> Frozen:
            try:
                return await freeze(samples, self._read, folder, left_out=work.run.left_out, progress=heard)
            except TemporaryError as error:
                raise _lasting(error) from None

        return await patiently(attempt, "the clips' audio")


def _lasting(error: TemporaryError) -> AmbaraError:
    """Whatever the disk refuses ends the run, with the reason where people see it; it is tried again after a pause."""
    of_the_disk = error.reason in ("disk", "disk-full", "spool-unavailable")
    return PermanentError(str(error), reason=error.reason) if of_the_disk else error
