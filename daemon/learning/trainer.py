"""One training run from its row to its candidate: begin, freeze the data, let a child train, publish."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog
from structlog.contextvars import bound_contextvars

from daemon.asr import families
from daemon.asr.errors import ModelError
from daemon.backoff import patiently
from daemon.errors import AmbaraError, PermanentError, TemporaryError, first_error
from daemon.learning.audiofolder import Frozen
from daemon.learning.freezing import ReadAudio, freeze
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
GOODBYE_S = 3.0


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
        self._work: _Run | None = None

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
        work = self._work = _Run(self._ledger, run, self._lease_s)
        try:
            with bound_contextvars(run=run.id, version=run.version):
                log.info("training begins", attempt=run.attempts)
                return await self._see_through(work)
        finally:
            self._work = None

    async def _see_through(self, work: _Run) -> Event | None:
        run = work.run
        try:
            facts = await work.held(self._make(work))
        except PermanentError as error:
            log.warning("training failed", reason=error.reason, error=str(error))
            sentence, detail = str(error), {"reason": error.reason, **work.detail}
            await patiently(lambda: self._ledger.fail(run, sentence, detail), "Supabase")
            await tidy(self._ledger, self._registry)  # the next one may need the room
            return TrainingFailed()
        except BaseException:
            await work.let_go()
            raise
        if facts is None:
            await work.let_go()
            return None
        name = f"trained-{run.version:04}"
        version = await patiently(lambda: self._ledger.finish(run, name, work.fingerprint, facts), "Supabase")
        log.info("training finished", stage=version.stage, reason=version.reason)
        return TrainingFinished() if version.stage == "candidate" else TrainingFailed()

    async def _make(self, work: _Run) -> Mapping[str, Any] | None:
        """Freeze and train. Returns the facts of the run; None if the child was stopped by somebody else."""
        version = await patiently(lambda: self._ledger.version(work.run.version), "Supabase")
        if version is None:
            raise PermanentError("The version that this run makes is gone from the database.", reason="version-gone")
        # Until it is trained, the version's fingerprint is a mark that no other run in the world has.
        folder = await asyncio.to_thread(self._registry.claim, version.id, version.fingerprint)
        live = await patiently(self._ledger.live, "Supabase") if self._settings.start_from == "live" else None
        with self._sources.using(*([live.id] if live else [])):
            return await self._make_from(live, work, folder)

    async def _make_from(self, live: Version | None, work: _Run, folder: Path) -> Mapping[str, Any] | None:
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
                raise TemporaryError(end.message, reason=end.reason)
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
        unknown = self._settings.nodes > 1 and end.reason in ("crashed", "killed")
        return end.reason == "machines" or (unknown and run.attempts < TRIES_TOGETHER)

    async def _child(self, job: TrainJob, folder: Path, work: _Run) -> ChildEnd:
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

    async def _freeze(self, work: _Run, live: Version | None, folder: Path) -> Frozen:
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


class _Run:
    """A run that this worker holds: renews its lease and tells its progress, and gives up when another has it."""

    def __init__(self, ledger: Ledger, run: TrainingRun, lease_s: float) -> None:
        self._ledger = ledger
        self._lease_s = lease_s
        self.run = run
        self.detail: dict[str, Any] = {"phase": "data"}
        self.fingerprint = ""
        """Of what came of it, once that is known."""

    def heard(self, progress: Mapping[str, Any]) -> None:
        """The newest figures; they reach the database with the next renewal."""
        self.detail |= progress

    async def held(self, work: Awaitable[Mapping[str, Any] | None]) -> Mapping[str, Any] | None:
        """Do the work while the lease is kept. None if the run was lost to another worker."""
        result: Mapping[str, Any] | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                keeper = tasks.create_task(self._keep())
                result = await work
                keeper.cancel()
        except* _LostError:
            log.warning("another worker has the run now")
        except* AmbaraError as group:
            raise first_error(group) from None
        except* OSError as group:  # what each step does not foresee of the disk
            log.warning("the disk fails the training", error=repr(group.exceptions[0]))
            raise PermanentError("The state directory cannot be used: look after its disk.", reason="disk") from None
        return result

    async def let_go(self) -> None:
        """End the lease now, so that whoever comes next does not wait for it."""
        with suppress(AmbaraError, TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                await self._ledger.let_go(self.run)

    async def _keep(self) -> None:
        told, since = dict[str, Any](), time.monotonic()
        while True:
            await asyncio.sleep(1.0)
            # A person who looks wants to see it move; the lease alone would be satisfied with less.
            pause = min(5.0, self._lease_s / 3) if self.detail != told else self._lease_s / 3
            if time.monotonic() - since < pause:
                continue
            told, since = dict(self.detail), time.monotonic()
            try:
                mine = await self._ledger.progress(self.run, told, self._lease_s)
            except TemporaryError as error:
                log.warning("cannot tell of the training", error=str(error))
                continue
            if not mine:
                raise _LostError


def _lasting(error: TemporaryError) -> AmbaraError:
    """Whatever the disk refuses ends the run, with the reason where people see it; it is tried again after a pause."""
    of_the_disk = error.reason in ("disk", "disk-full", "spool-unavailable")
    return PermanentError(str(error), reason=error.reason) if of_the_disk else error


class _LostError(Exception):
    """The run is another worker's."""
