"""From a row of `model_versions` to the files that it stands for on this host."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import structlog

from daemon.asr import families
from daemon.asr.errors import ModelError
from daemon.asr.transcriber import Transcriber
from daemon.errors import PermanentError, machine_trouble
from daemon.learning.ports import Version
from daemon.learning.registry import Registry
from daemon.sections import ModelSettings

log = structlog.get_logger(__name__)

_PLAIN = "transformers"


class Sources:
    """Knows where each version's weights are, and how a model is opened here."""

    def __init__(self, registry: Registry, model: ModelSettings) -> None:
        self.registry = registry
        self._model = model
        self._used: Counter[int] = Counter()

    @property
    def family(self) -> str:
        """The family of every model here."""
        return self._model.family

    @property
    def in_use(self) -> set[int]:
        """The versions whose files somebody in this process reads, or lets a child read."""
        return set(+self._used)

    @contextmanager
    def using(self, *versions: int) -> Iterator[None]:
        """Keep the files of these versions for so long, whatever becomes of them meanwhile."""
        self._used.update(versions)
        try:
            yield
        finally:
            self._used.subtract(versions)

    def options(self, version: Version) -> dict[str, Any]:
        """What `families.load` takes for this version. Reads every byte of a trained one: call it in a thread.

        Raises `PermanentError` if this host has it not, or not whole.
        """
        if version.kind == "trained":
            options = self.opened(str(self.registry.check(version.id)), None)
            options["converted"] = str(self.registry.converted(version.id))
            return options | ({"engine": _PLAIN} if self._judged_plain(version.id) else {})
        return self.opened(version.name, self._model.revision if version.name == self._model.base else None)

    def _judged_plain(self, version: int) -> bool:
        """Whether the verdict on a version is of transformers: the faster engine's words are others, if few."""
        return self._model.engine == "auto" and self._judged_with(version) == _PLAIN

    def _judged_with(self, version: int) -> str | None:
        """The engine that the verdict on a version is of."""
        models = (self.registry.read_evidence(version) or {}).get("models", {})
        engine: str | None = models.get("candidate", {}).get("engine")
        return engine

    def opened(self, model: str, revision: str | None) -> dict[str, Any]:
        """Options for a directory or hub id, opened as this host opens all models."""
        return self._model.model_dump(exclude={"family", "base"}) | {"model": model, "revision": revision}

    def base(self) -> dict[str, Any]:
        """Options for the base model of the settings."""
        return self.opened(self._model.base, self._model.revision)

    async def maker(self, version: Version) -> Callable[[], Transcriber]:
        """A function that loads this version. Raises `PermanentError`, now or when it is called."""
        options = await asyncio.to_thread(self.options, version)

        def make() -> Transcriber:
            model = self.make(options)
            if version.kind == "trained" and model.fingerprint != version.fingerprint:
                raise PermanentError(
                    f"The folder of version {version.id} holds another model, or [model] language or task has changed "
                    "since it was trained: set them back, or choose another version with `ambara models promote`.",
                    reason="model-other",
                )
            judged, serves = self._judged_with(version.id), model.describe().get("engine")
            if judged and judged != serves:
                log.warning("not the engine that it was judged with", version=version.id, judged=judged, serves=serves)
            return model

        return make

    def make(self, options: Mapping[str, Any]) -> Transcriber:
        """Load a model. Raises `PermanentError` if it cannot serve, `TemporaryError` if the machine fails."""
        try:
            return families.load(self.family, options)
        except ModelError as error:
            raise PermanentError(str(error), reason="model") from None
        except Exception as error:
            raise machine_trouble(error) or error from None
