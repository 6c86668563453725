"""Windows as long as the clips: which they are, whose they are, and that the model is the same in them."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import WhisperForConditionalGeneration

from daemon.asr.errors import ModelError
from daemon.asr.transcriber import SAMPLE_RATE
from daemon.asr.whisper.majors import open_processor
from daemon.asr.whisper.windows import FILE, Windows, read_windows, resizable, spectrograms
from daemon.local.speech import Utterance
from daemon.local.tiny import BASE


@pytest.mark.parametrize("longest", [3.0, 30.0])
def test_a_ladder_wastes_little_and_is_short(longest: float) -> None:
    windows = Windows.right_sized(longest)
    assert windows.seconds[0] <= 1.0
    assert windows.seconds[-1] == longest
    assert len(windows.seconds) <= 18
    assert all(2 * each == round(2 * each) for each in windows.seconds)  # whole positions of 20 ms
    steps = [after - before for before, after in zip(windows.seconds, windows.seconds[1:], strict=False)]
    assert all(step == 0.5 or step <= 0.22 * after for step, after in zip(steps, windows.seconds[1:], strict=True))


@given(st.integers(1, 30 * SAMPLE_RATE))
def test_a_clip_fits_with_its_tail_into_the_shortest_window_that_takes_both(count: int) -> None:
    windows = Windows.right_sized(30.0)
    found, need = windows.samples(count), count + 0.5 * SAMPLE_RATE
    assert found >= min(need, 30 * SAMPLE_RATE)
    assert found >= count
    assert not any(need <= each * SAMPLE_RATE < found for each in windows.seconds)
    assert Windows.whole(30.0).samples(count) == 30 * SAMPLE_RATE


def test_what_is_written_beside_a_model_is_read_again(tmp_path: Path) -> None:
    assert read_windows(tmp_path, "stock", 30.0) == Windows.whole(30.0)
    for windows in (Windows.right_sized(30.0), Windows.whole(30.0), Windows((2.0, 30.0), 1.0)):
        windows.write(tmp_path)
        assert read_windows(tmp_path, "trained", 30.0) == windows
    with pytest.raises(ModelError, match=r"windows\.json of trained belongs to another model"):
        read_windows(tmp_path, "trained", 3.0)


@pytest.mark.parametrize(
    "table",
    [
        {"seconds": [], "tail_s": 0.5},
        {"seconds": [5, 2, 30], "tail_s": 0.5},
        {"seconds": [0, 30], "tail_s": 0.5},
        {"seconds": [float("nan"), 30], "tail_s": 0.5},
        {"seconds": [2, 30], "tail_s": -1},
        {"seconds": [2, 30], "tail_s": 30},
        {"seconds": ["two", 30], "tail_s": 0.5},
        {"seconds": 30, "tail_s": 0.5},
        {"seconds": [30]},
        [],
    ],
)
def test_what_no_training_wrote_is_refused(tmp_path: Path, table: object) -> None:
    (tmp_path / FILE).write_text(json.dumps(table))
    with pytest.raises(ModelError, match=r"The windows\.json of it .*: copy the model again\."):
        read_windows(tmp_path, "it", 30.0)


def test_a_spectrogram_in_a_short_window_is_the_beginning_of_that_in_a_long_one(market: Sequence[Utterance]) -> None:
    """So that rows of different windows can share a batch while training."""
    extractor = open_processor(BASE).feature_extractor
    windows = Windows.right_sized(3.0)
    seen = set()
    for clip in market:
        window = windows.samples(len(clip.audio))
        seen.add(window)
        short, whole = (spectrograms(extractor, [clip.audio], samples) for samples in (window, 3 * SAMPLE_RATE))
        frames = window // 160
        assert short.shape == (1, 80, frames)
        assert torch.equal(short, whole[..., :frames])
        assert whole[..., frames:].unique().numel() <= 1
    assert len(seen) >= 3


@pytest.mark.parametrize("frames", [100, 150, 202, 300])
def test_a_model_in_a_short_window_is_the_model_that_has_so_many_positions(frames: int) -> None:
    """Against a model that is built with the first positions alone, in values and in gradients."""
    model: Any = WhisperForConditionalGeneration.from_pretrained(BASE).eval()
    weights = dict(model.state_dict())
    name = "model.encoder.embed_positions.weight"
    weights[name] = weights[name][: frames // 2]
    config = type(model.config).from_dict(model.config.to_dict() | {"max_source_positions": frames // 2})
    short: Any = WhisperForConditionalGeneration(config).eval()
    short.load_state_dict(weights)
    features = torch.from_numpy(np.random.default_rng(frames).standard_normal((2, 80, frames)).astype(np.float32))
    tokens = torch.tensor([[1, 2, 3, 4], [4, 3, 2, 1]])
    found = []
    for each in (resizable(model), short):
        logits = each(input_features=features, decoder_input_ids=tokens).logits
        logits.square().sum().backward()
        found.append((logits.detach(), each.model.encoder.conv1.weight.grad))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.allclose(found[0][1], found[1][1], rtol=1e-4, atol=1e-5)
    assert model.config.max_source_positions == 150  # what would be saved
    assert model.state_dict()[name].shape[0] == 150


def test_a_model_that_is_gone_leaves_no_encoder_behind() -> None:
    """Nor does it take a collection, which may be long in coming: its memory is wanted for the next one."""
    model: Any = resizable(WhisperForConditionalGeneration.from_pretrained(BASE))
    encoder = weakref.ref(model.get_encoder())
    gc.collect()
    gc.disable()
    try:
        del model
        assert encoder() is None
    finally:
        gc.enable()


def test_more_frames_than_the_model_has_positions_for_are_refused() -> None:
    model = resizable(WhisperForConditionalGeneration.from_pretrained(BASE))
    with pytest.raises(RuntimeError, match="size of tensor"):
        model.get_encoder()(torch.zeros(1, 80, 302))
