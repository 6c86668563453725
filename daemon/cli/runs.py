"""Runs that a person names on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from daemon.errors import ConfigurationError

if TYPE_CHECKING:
    from daemon.clips import ClipStore


async def named_runs(store: ClipStore, labels: Sequence[str], runs: Sequence[str]) -> list[str]:
    """The ids of the runs with these labels and ids, each once. Raises `ConfigurationError` for an unknown one."""
    chosen = list(runs)
    if unknown := set(runs) - set(await store.runs_known(runs)):
        raise ConfigurationError(f"There is no run with the id {min(unknown)}.")
    for label in labels:
        found = await store.runs_labelled(label)
        if not found:
            raise ConfigurationError(f"No run has the label {label!r}.")
        chosen += found
    return list(dict.fromkeys(chosen))
