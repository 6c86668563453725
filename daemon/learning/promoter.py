"""Puts a version in the place of another, in the database and in memory, without a gap.

A candidate is loaded, warmed up and tried beside the hot model before the database hears of it; then the database
changes its mind, and the model changes between two turns of drafting. What was claimed under the old version is
finished by the old model and drafted again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import soundfile
import structlog

from daemon.asr.errors import out_of_memory
from daemon.asr.metrics import character_error_rate
from daemon.asr.transcriber import Transcriber
from daemon.drafter import Drafter
from daemon.errors import AmbaraError, PermanentError, TemporaryError, machine_trouble
from daemon.learning.audiofolder import Entry, held_out
from daemon.learning.ledger import Ledger
from daemon.learning.ports import Version
from daemon.learning.sources import Sources
from handlers.commands import Promote, Reject, RollBack, Swap
from handlers.events import Event, ModelPromoted, ModelRejected, ModelSwapped, SweepDue

log = structlog.get_logger(__name__)

TRIED_ALIKE = 0.34
"""Character error rate, against what the judge heard, below which a candidate speaks as it did there. Sums of a batch
come out differently on a GPU, so not every letter has to agree."""


class Promoter:
    """Carries out `Promote`, `Reject`, `RollBack` and `Swap`. `turns` is held by whoever drafts: models change
    between turns."""

    def __init__(
        self,
        ledger: Ledger,
        sources: Sources,
        drafter: Drafter,
        turns: asyncio.Lock,
        promoted: Callable[[Version], None],
        *,
        retain: Callable[[], Awaitable[None]],
    ) -> None:
        """`promoted` hears of each promotion; `retain` then removes what nobody will want back."""
        self._ledger = ledger
        self._sources = sources
        self._drafter = drafter
        self._turns = turns
        self._promoted = promoted
        self._retain = retain
        self._one_at_a_time = asyncio.Lock()
        self.trouble: str | None = None
        """Why the live version is not in memory, in words."""

    async def promote(self, command: Promote) -> Event | None:
        """Make a candidate live. One that does not load, or does not say what it said to the judge, is turned down."""
        version = await self._ledger.version(command.version)
        if version is None:
            return None
        try:
            async with self._one_at_a_time:
                return await self._with_model(version, lambda model: self._go_live(command, version, model))
        except PermanentError as error:
            await self._ledger.reject(version.id, f"it passed the judge and cannot serve: {error}")
            log.warning("rejected", why=str(error))
            return ModelRejected()

    async def reject(self, command: Reject) -> Event:
        """Turn a candidate down."""
        await self._ledger.reject(command.version, command.reason)
        log.info("rejected", why=command.reason)
        return ModelRejected()

    async def roll_back(self, command: RollBack) -> Event:
        """Make live again what was live before, unless somebody was first; then the same questions again."""
        version = await self._ledger.rollback_from(command.version, command.reason)
        if version is None:
            return SweepDue()
        log.warning("rolled back", to=version.id, why=command.reason)
        return ModelPromoted()

    async def swap(self, command: Swap) -> Event | None:
        """Take into memory what somebody else made live. None: this host cannot; `trouble` says why."""
        version = await self._ledger.version(command.version)
        if version is None:
            return SweepDue()

        async def use(model: Transcriber) -> Event:
            await self._use(model, version)
            return ModelSwapped()

        try:
            # A promotion under way may put this version into memory, or make another live: there is no room for both.
            async with self._one_at_a_time:
                live = await self._ledger.live()
                if live is None or live.id != version.id:
                    return SweepDue()
                if self._drafter.version == version.id:
                    self.trouble = None
                    return ModelSwapped()
                return await self._with_model(version, use)
        except PermanentError as error:
            if self.trouble != str(error):
                log.warning("cannot serve the live version", why=str(error))
            self.trouble = str(error)
            return None

    async def _go_live(self, command: Promote, version: Version, model: Transcriber) -> Event:
        await self._try(version, model)
        if not await self._ledger.promote(version.id, expected=command.against, reason=command.reason):
            return SweepDue()  # another version is live by now: the comparison says nothing any more
        log.info("promoted", over=command.against, why=command.reason)
        await self._use(model, version)
        self._promoted(version)
        await self._retain()
        return ModelPromoted()

    async def _with_model(self, version: Version, then: Callable[[Transcriber], Awaitable[Event]]) -> Event:
        """Load a version beside the hot model, or in its place where memory does not hold both; then do something.

        Raises `PermanentError` if it does not load; the hot model then serves on.
        """
        with self._sources.using(version.id):
            return await self._with_loaded(version, then)

    async def _with_loaded(self, version: Version, then: Callable[[Transcriber], Awaitable[Event]]) -> Event:
        make = await self._sources.maker(version)
        try:
            model = await self._drafter.prepare(make)
        except Exception as error:  # of whatever library it is: the hot model serves on
            if not _no_room(error):
                raise (error if isinstance(error, AmbaraError) else _failing(error)) from None
        else:
            return await then(model)
        # Outside the handler: an error holds what had been loaded.
        log.warning("no room for two models: drafting waits until the new one is loaded")
        return await self._alone(version, then)

    async def _alone(self, version: Version, then: Callable[[Transcriber], Awaitable[Event]]) -> Event:
        before = self._drafter.version
        async with self._turns:
            await self._drafter.unload()
            model = await self._load(version)
            old = await self._ledger.version(before) if model is None and before else None
            # Where that does not load either, the next look finds nothing in memory, and tries again.
            again = await self._load(old) if old else None
            if again:
                self._drafter.version = before
        if model is None and old and not again:
            raise TemporaryError("Not even the model that was there fits into memory.", reason="out-of-memory")
        if model is None:
            raise PermanentError("It does not fit into this device's memory.", reason="model")
        return await then(model)

    async def _load(self, version: Version) -> Transcriber | None:
        """Load where nothing is. None if that fails."""
        try:
            return await self._drafter.load(await self._sources.maker(version))
        except Exception as error:
            if isinstance(error, TemporaryError) and not _no_room(error):
                raise
            log.warning("the version does not fit", version=version.id, error=type(error).__name__)
            return None

    async def _use(self, model: Transcriber, version: Version) -> None:
        async with self._turns:
            await self._drafter.use(model, version.id)
        self.trouble = None
        log.info("model swapped", **model.describe())

    async def _try(self, version: Version, model: Transcriber) -> None:
        """Let it hear one held-out clip again. Raises `PermanentError` unless it says about what the judge heard."""
        registry = self._sources.registry

        def hear() -> tuple[str, str] | None:
            evidence = registry.read_evidence(version.id)
            heard = {clip["clip_id"]: clip["candidate"] for clip in evidence["clips"]} if evidence else {}
            # Words that were drawn, where the likeliest went astray, may be others today: those clips bear a flag.
            said = {clip: found["text"] for clip, found in heard.items() if not found["flags"]}
            data = registry.folder(version.id) / "data"
            clip = next((entry for entry in _held_out(data) if said.get(entry.clip_id)), None)
            if clip is None:
                return None
            wave, _ = soundfile.read(data / clip.file, dtype="float32")
            return said[clip.clip_id], model.transcribe([wave])[0].text

        try:
            heard = await self._drafter.beside(hear)
        except Exception as error:  # the model's, the device's, or of a file that is not what it was
            raise _failing(error) from None
        if heard and character_error_rate([heard[0]], [heard[1]]) > TRIED_ALIKE:
            raise PermanentError("It says something else than it said to the judge.", reason="model")


def _held_out(data: Path) -> list[Entry]:
    try:
        return held_out(data)
    except ValueError:  # a person may have moved it away
        return []


def _failing(error: BaseException) -> AmbaraError:
    """The version's fault, unless it is the machine's: then it is tried again."""
    return machine_trouble(error) or PermanentError(
        f"It fails on this device ({type(error).__name__}).", reason="model"
    )


def _no_room(error: BaseException) -> bool:
    return out_of_memory(error) or (isinstance(error, AmbaraError) and error.reason == "out-of-memory")
