"""What the model makes of a batch; a piece of a long clip is a batch of one."""

from __future__ import annotations

import structlog

from daemon.asr.chunking import cut
from daemon.asr.transcriber import SAMPLE_RATE, Waveform
from daemon.loading import TOLERANCE, Batch
from daemon.ports import Drafted, Ears, Failed, Heard, Retry

log = structlog.get_logger(__name__)

PAUSE_WITHIN_S = 15
"""A piece of a long clip ends at the quietest moment of its last so many seconds."""


def pieces_of(wave: Waveform, batch_seconds: float) -> list[Waveform]:
    """A clip as what may be on the device at a time: in one piece, unless it is long."""
    return cut(wave, round(TOLERANCE * batch_seconds * SAMPLE_RATE), PAUSE_WITHIN_S * SAMPLE_RATE)


async def hear(ears: Ears, batch: Batch) -> Heard:
    """Transcribe a batch, and one by one when the batch fails: one bad clip must not take others with it.

    Raises the device's own error when it fails on anything.
    """
    try:
        drafts = await ears.transcribe([wave for _, wave in batch])
    except Exception as error:
        if len(batch) > 1:
            log.warning("batch failed", clips=len(batch), error=type(error).__name__)
        else:
            log.warning("clip failed", clip=batch[0][0].clip_id, error=type(error).__name__)
            # Is it the clip, or the device? A broken device fails on this too, and ends the process.
            await ears.probe()
            message = f"The model fails on this clip ({type(error).__name__})."
            return [], [Failed(batch[0][0], Retry.LATER, "model-fails", message)]
        drafted: list[Drafted] = []
        failures: list[Failed] = []
        for item in batch:
            one, bad = await hear(ears, [item])
            drafted += one
            failures += bad
        return drafted, failures
    return [Drafted(claim, draft) for (claim, _), draft in zip(batch, drafts, strict=True)], []
