"""The parts of the learning loop, built from the settings and wired to each other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from daemon import hub
from daemon.backoff import patiently
from daemon.config import Settings
from daemon.drafter import Drafter
from daemon.errors import AmbaraError
from daemon.learning.freezing import ReadAudio
from daemon.learning.judge import Judge
from daemon.learning.keeper import Keeper
from daemon.learning.ledger import Ledger
from daemon.learning.ports import Version
from daemon.learning.promoter import Promoter
from daemon.learning.registry import Registry
from daemon.learning.sources import Sources
from daemon.learning.tidy import tidy
from daemon.learning.trainer import Trainer

log = structlog.get_logger(__name__)


class Loop:
    """Everything that carries out Train, Evaluate, Promote, Reject and Swap on this host."""

    def __init__(self, settings: Settings, ledger: Ledger, loaded: Callable[[], int | None]) -> None:
        """`loaded`: tells which version is in memory."""
        self._settings = settings
        self.ledger = ledger
        self.sources = Sources(Registry(settings.state.directory.resolve() / "models"), settings.model)
        self.keeper = Keeper(ledger, self.sources, settings.retention, loaded)

    def trainer(self, read: ReadAudio) -> Trainer:
        """What carries out `Train`."""
        return Trainer(self.ledger, self.sources, read, self._settings.training, need_room=self.keeper.need_room)

    def judge(self) -> Judge:
        """What carries out `Evaluate`."""
        return Judge(self.ledger, self.sources, self._settings.promotion)

    def promoter(self, drafter: Drafter, turns: asyncio.Lock, tasks: asyncio.TaskGroup) -> Promoter:
        """What carries out `Promote`, `Reject` and `Swap`; a push to the hub goes on beside, in `tasks`."""

        def promoted(version: Version) -> None:
            if self._settings.training.push_to_hub:
                tasks.create_task(self._push(version), name="push")

        return Promoter(self.ledger, self.sources, drafter, turns, promoted, retain=self.keeper.weights)

    async def tidy(self) -> None:
        """Remove what a crash left half done. Raises nothing: a full disk is no reason not to draft."""
        await tidy(self.ledger, self.sources.registry)

    async def _push(self, version: Version) -> None:
        """Push until the hub takes it. What a person has to mend first is told once and left."""
        repo = self._settings.training.push_to_hub
        folder = self.sources.registry.folder(version.id) / "model"
        compared = version.detail.get("comparison") or {}
        facts = {
            "language": self._settings.model.language,
            "base": self._settings.model.base,
            "version": version.id,
            "wer_before": compared.get("live_wer"),
            "wer_after": compared.get("candidate_wer"),
            "held_out_clips": compared.get("clips"),
            "held_out_recordings": compared.get("recordings"),
        }
        card = hub.model_card({name: fact for name, fact in facts.items() if fact is not None})

        def push() -> str:
            return hub.push(folder, repo, None, card=card, message=f"Version {version.id}")

        try:
            with self.sources.using(version.id):
                where = await patiently(lambda: asyncio.to_thread(push), "the model hub")
            log.info("pushed", repo=repo, where=where)
        except AmbaraError as error:
            log.warning("cannot push", repo=repo, error=str(error))
        except Exception as error:  # of the hub's client, which says what it likes: no reason to end the daemon
            log.warning("cannot push", repo=repo, error=type(error).__name__)
