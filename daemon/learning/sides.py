"""Sides for recordings that have none yet, stored before anybody learns or judges by them."""

from __future__ import annotations

from daemon.learning.ledger import Ledger
from daemon.learning.ports import Side
from handlers.holdout import assign


async def decide_sides(ledger: Ledger, share: float) -> bool:
    """Give every corrected recording of the project its side, about `share` of them held out.

    Returns whether there are both sides now; with a single recording there are not. Raises as `Ledger.recordings`.
    """
    recordings = await ledger.recordings()
    decided = {recording.key: recording.side is Side.HELD_OUT for recording in recordings if recording.side}
    new = assign(decided, (recording.key for recording in recordings), share)
    if new:
        await ledger.decide({key: Side.HELD_OUT if out else Side.TRAIN for key, out in new.items()})
    return len({*decided.values(), *new.values()}) == 2
