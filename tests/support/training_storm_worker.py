"""A daemon's learning loop as a process: ``python training_storm_worker.py NAME ambara.toml``.

Counting, deciding, beginning, freezing, the child, publishing and finishing are the daemon's own, over the
unmodified client; the family is that of `training_storm_family`, and a clip's audio is made from its name.
"""

from __future__ import annotations

import asyncio
import os
import sys
from functools import partial
from pathlib import Path

import numpy as np
import training_storm_family as quick

from daemon.asr.transcriber import SAMPLE_RATE, Waveform
from daemon.config import Settings, load
from daemon.database import Database
from daemon.errors import AmbaraError
from daemon.learning import judge, trainer
from daemon.learning.ledger import Ledger
from daemon.learning.loop import Loop
from daemon.learning.process import run_child
from daemon.learning.trainer import Trainer
from daemon.parts import policy_of
from daemon.supabase_client import connect, http_client
from handlers import training as decisions
from handlers.snapshot import Learning, Snapshot

LOOK_S = 0.2
LEASE_S = 6.0
"""In place of a minute and a half."""
COOLDOWN_MINUTES = 0.01
"""In place of a quarter of an hour."""
QUICK = {"cooldown_minutes": COOLDOWN_MINUTES, "min_new_minutes": 1e6, "growth": 0, "enabled": True}
"""Training settings; corrections are counted by clips alone, and the bar stays where it is."""


async def read(run: str, file_name: str) -> Waveform:
    """Half a second of noise, another for each file of each run."""
    noise = np.random.default_rng(list((run + file_name).encode())).standard_normal(SAMPLE_RATE // 2)
    return (noise * 0.1).astype(np.float32)


def prepare() -> None:
    """Let this process learn with the quick family."""
    quick.install()
    program = partial(run_child, program=(quick.__file__,))
    trainer.run_child = judge.run_child = program  # type: ignore[assignment]
    decisions.LEAST_COOLDOWN = COOLDOWN_MINUTES


async def look(settings: Settings, loop: Loop, work: Trainer) -> object:
    """One look at the corrections, and what follows from it. Returns what came of it."""
    found, candidate = await loop.ledger.observe()
    snapshot = Snapshot(live=1, loaded=1, ready=0, learning=Learning(found, candidate, hour=12))
    for command in decisions.train(snapshot, policy_of(settings)):
        return await work.train(command)  # type: ignore[arg-type]
    return None


async def main(worker: str, config: Path) -> None:
    """Learn until killed."""
    prepare()
    settings = load(config, os.environ)
    async with http_client() as http:
        client = await connect(settings.supabase.url, settings.supabase.key.get_secret_value(), http)
        loop = Loop(settings, Ledger(Database(client), worker), lambda: None)
        await loop.tidy()
        work = Trainer(
            loop.ledger, loop.sources, read, settings.training, need_room=loop.keeper.need_room, lease_s=LEASE_S
        )
        while True:
            try:
                await look(settings, loop, work)
            except AmbaraError as error:
                sys.stderr.write(f"{error.reason}: {error}\n")
            await asyncio.sleep(LOOK_S)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
