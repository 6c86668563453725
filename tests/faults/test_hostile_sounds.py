"""Where nobody speaks no words may be put into anybody's mouth, and no loop may pass for a transcript."""

from __future__ import annotations

import pytest
from fault_record import Fault
from hostile_sounds import loops, nobody, silences

from daemon.asr import families
from daemon.asr.transcriber import Draft
from daemon.local.speech import speak_corpus
from daemon.local.tiny import BASE

MOST = 1
"""Of 30 sounds so many may get a draft without a flag."""


@pytest.mark.fault("F28", "silence-and-loops")
def test_nothing_is_made_up(fault: Fault) -> None:
    """By the carried model, with the guards of every model. Each time other noises, tunes and words."""
    times = fault.size(full=8, short=2)
    fault.injected(f"{times} times 20 of silence, noise and music, and 10 provokers of loops")
    fault.observe("the small carried Whisper stands for larger ones")
    model = families.load("whisper", {"model": str(BASE), "device": "cpu"})
    invented, endless, unflagged = [], [], []
    empty = 0
    for _ in range(times):
        looped = loops(speak_corpus("A", 20, seed=fault.random.randrange(10_000)), fault.random)
        sounds = silences() | nobody(fault.random) | looped
        assert len(sounds) == 30
        for name, draft in zip(sounds, model.transcribe(list(sounds.values())), strict=True):
            invented += [(name, draft.text)] if name in silences() and draft.text else []
            endless += [name] if len(draft.text) > 1_000 else []
            unflagged += [(name, draft.text)] if draft.text and not _warned(draft) else []
            empty += not draft.text
    fault.holds("0 drafts on digital silence", invented)
    fault.holds("<= 1 of 30 unflagged", unflagged if len(unflagged) > MOST * times else [])
    fault.holds("no endless draft", endless)
    fault.observe(f"of {30 * times}: {empty} empty, {len(unflagged)} neither empty nor flagged")


def _warned(draft: Draft) -> bool:
    """A flag that tells a person to look twice; that a clip was long is none."""
    return bool(set(draft.flags) - {"chunked"})
