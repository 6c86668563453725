"""What every model family must do. A new family adds a row to `SMALLEST`."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from daemon.asr import families
from daemon.asr.errors import ModelError
from daemon.asr.transcriber import Draft, Transcriber
from daemon.local.speech import Utterance, concatenate, noise, silence
from daemon.local.tiny import BASE

SMALLEST: Mapping[str, Mapping[str, Any]] = {
    "whisper": {"model": str(BASE), "language": "mg", "device": "cpu"},
}
"""Per family the options of a model that fits into a test."""
FLAGS = {"silence", "repetition", "low-confidence", "truncated", "chunked"}


@pytest.fixture(scope="module", params=sorted(families.FAMILIES))
def model(request: pytest.FixtureRequest) -> Transcriber:
    return families.load(request.param, SMALLEST[request.param])


def test_it_tells_who_it_is(model: Transcriber) -> None:
    assert re.fullmatch("[0-9a-f]{64}", model.fingerprint)
    assert model.window_s > 0
    assert {"name", "fingerprint", "window_s", "family", "device", "dtype", "language"} <= model.describe().keys()


def test_one_draft_per_waveform_in_order_whatever_comes(model: Transcriber, market: Sequence[Utterance]) -> None:
    first, second = market[0].audio, market[1].audio
    odd = [silence(0), first, noise(0.01), second, concatenate([first] * 4), np.ones(16_000, dtype=np.float32), first]
    drafts = model.transcribe(odd)
    assert len(drafts) == len(odd)
    for draft in drafts:
        assert draft.text == " ".join(draft.text.split())
        assert set(draft.flags) <= FLAGS
        assert (draft.confidence is None) == (draft.text == "" and "silence" in draft.flags)
        assert draft.confidence is None or (math.isfinite(draft.confidence) and draft.confidence <= 0)
    assert drafts[1].text == drafts[6].text != drafts[3].text
    assert drafts[0] == drafts[2] == Draft("", None, ("silence",))
    assert "chunked" in drafts[4].flags


def test_it_says_the_same_again(model: Transcriber, market: Sequence[Utterance]) -> None:
    batch = [clip.audio for clip in market[:6]]
    assert model.transcribe(batch) == model.transcribe(batch)


def test_an_empty_batch_and_a_warm_up_are_fine(model: Transcriber) -> None:
    model.warm_up()
    assert model.transcribe([]) == []


def test_an_unknown_family_names_the_nearest() -> None:
    with pytest.raises(ModelError, match='no model family "wisper": did you mean whisper'):
        families.load("wisper", {})


def test_an_unknown_option_names_the_nearest() -> None:
    with pytest.raises(ModelError, match='no setting "langage": did you mean language'):
        families.load("whisper", {"model": str(BASE), "langage": "mg"})


def test_settings_and_families_load_no_engine() -> None:
    """`status` and `--help` must answer at once."""
    probe = (
        "import sys, daemon.asr.families, daemon.asr.metrics, daemon.asr.whisper.config as c; c.WhisperSettings('x')"
    )
    check = "; sys.exit(bool({'torch', 'transformers', 'jiwer', 'supabase', 'daemon.errors'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", probe + check], check=False).returncode == 0
