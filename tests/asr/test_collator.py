"""What the model is given: one start token, no padding that counts, and steps that are the same in any pieces."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import WhisperForConditionalGeneration

from daemon.asr.whisper.buckets import BucketSampler
from daemon.asr.whisper.collator import IGNORED, Collator
from daemon.asr.whisper.features import packed
from daemon.asr.whisper.majors import open_processor
from daemon.asr.whisper.trainer import loss_of_a_step
from daemon.local.tiny import BASE

TEXTS = ["mividy vary roa", "loha", "mihinana voankazo telo izahay androany", "zaza marary"]


@pytest.fixture(scope="module")
def model() -> Any:
    return WhisperForConditionalGeneration.from_pretrained(BASE).eval()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    tokenizer = open_processor(BASE).tokenizer
    tokenizer.set_prefix_tokens(language="mg", task="transcribe")
    return tokenizer


@pytest.fixture(scope="module")
def collator(model: Any) -> Collator:
    return Collator(mels=80, start=model.config.decoder_start_token_id, pad=model.config.pad_token_id)


@pytest.fixture(scope="module")
def rows(tokenizer: Any) -> list[dict[str, Any]]:
    draw = np.random.default_rng(0)
    return [
        {
            "features": packed(draw.standard_normal((80, frames)).astype(np.float32)).reshape(-1),
            "frames": frames,
            "labels": np.array(tokenizer(text).input_ids, dtype=np.int32),
        }
        for text, frames in zip(TEXTS, (300, 300, 300, 300), strict=True)
    ]


def test_the_decoder_sees_exactly_one_start_token(
    model: Any, collator: Collator, rows: list[dict[str, Any]], tokenizer: Any
) -> None:
    seen: list[torch.Tensor] = []

    def look(_module: Any, _args: Any, given: dict[str, Any]) -> None:
        seen.append(given["input_ids"])

    handle = model.model.decoder.register_forward_pre_hook(look, with_kwargs=True)
    batch = collator(rows)
    model(**batch)
    handle.remove()
    start, end = model.config.decoder_start_token_id, model.config.eos_token_id
    (inputs,) = seen
    assert (inputs == start).sum(1).tolist() == [1] * len(rows)
    assert inputs[:, 0].tolist() == [start] * len(rows)
    assert not (batch["labels"] == start).any()
    for told, wanted, text in zip(inputs, batch["labels"], TEXTS, strict=True):
        said = wanted[wanted != IGNORED]
        assert said[-1] == end
        assert tokenizer.decode(said) == f"<|mg|><|transcribe|><|notimestamps|>{text}<|endoftext|>"
        assert torch.equal(told[1 : len(said)], said[:-1])  # what is to be said next is said one position later


def test_it_is_what_the_model_makes_of_labels_alone(model: Any, collator: Collator, rows: list[dict[str, Any]]) -> None:
    """Whisper shifts its labels itself where no decoder input is given: both ways must come to the same."""
    batch = collator(rows)
    given = model(**batch)
    own = model(input_features=batch["input_features"], labels=batch["labels"])
    assert torch.equal(given.loss, own.loss)


def test_a_row_counts_the_same_in_any_company(model: Any, collator: Collator, rows: list[dict[str, Any]]) -> None:
    """Padding counts for nothing, in the loss and in the gradients."""
    alone = [_gradients(model, collator, [[row]]) for row in rows]
    together = _gradients(model, collator, [rows])
    tokens = [len(row["labels"]) - 1 for row in rows]
    expected = sum(each * count for each, count in zip(alone, tokens, strict=True)) / sum(tokens)
    assert torch.allclose(together, expected, atol=1e-6)


@pytest.mark.parametrize("pieces", [[1, 3], [2, 2], [1, 1, 1, 1]])
def test_a_step_is_the_same_however_it_is_cut(
    model: Any, collator: Collator, rows: list[dict[str, Any]], pieces: list[int]
) -> None:
    """So that half the batch and twice the accumulation is no other training."""
    ends = np.cumsum(pieces)
    batches = [rows[end - size : end] for end, size in zip(ends, pieces, strict=True)]
    assert torch.allclose(_gradients(model, collator, batches), _gradients(model, collator, [rows]), atol=1e-6)


def test_labels_without_a_start_token_are_a_mistake(collator: Collator, rows: list[dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match="start token"):
        collator([rows[0], {**rows[1], "labels": rows[1]["labels"][1:]}])


def test_an_epoch_holds_every_clip_once_with_its_like() -> None:
    """Windows first, and in each the texts."""
    draw = np.random.default_rng(1)
    frames, tokens = 100 * draw.integers(1, 4, 203), draw.integers(5, 60, 203)
    sampler = BucketSampler(list(zip(frames.tolist(), tokens.tolist(), strict=True)), 8, seed=3)
    order = list(sampler)
    assert sorted(order) == list(range(203)) == list(range(len(sampler)))
    by_chance = draw.permutation(203)
    assert _padding(frames[order]) < _padding(frames[by_chance]) / 5
    assert _padding(tokens[order]) < 0.75 * _padding(tokens[by_chance])


def test_the_order_is_that_of_seed_and_epoch() -> None:
    """Not of what was drawn before: a resumed training must find the rest of its epoch."""
    lengths = [(300, length) for length in range(40)]

    def orders(seed: int) -> list[list[int]]:
        sampler = BucketSampler(lengths, 4, seed)
        found = []
        for epoch in (0, 1, 2):
            sampler.set_epoch(epoch)
            torch.rand(3)
            found.append(list(sampler))
        return found

    assert orders(1) == orders(1)
    assert len({tuple(order) for order in (*orders(1), *orders(2))}) == 6


def test_what_is_longest_comes_first_of_all() -> None:
    for seed in range(5):
        draw = np.random.default_rng(seed)
        lengths = list(zip(draw.integers(1, 9, 80).tolist(), draw.integers(5, 60, 80).tolist(), strict=True))
        assert max(lengths) in [lengths[at] for at in list(BucketSampler(lengths, 4, seed))[:4]]


@pytest.mark.parametrize("count", [1, 3, 4, 5])
def test_few_clips_are_an_epoch_too(count: int) -> None:
    assert sorted(BucketSampler([(300, 7)] * count, 4, 0)) == list(range(count))


def _gradients(model: Any, collator: Collator, batches: list[list[dict[str, Any]]]) -> torch.Tensor:
    """Of a step whose clips arrive in so many batches."""
    made = [collator(batch) for batch in batches]
    count = torch.stack([(batch["labels"] != IGNORED).sum() for batch in made]).sum()
    model.zero_grad()
    for batch in made:
        outputs = model(**batch)
        loss_of_a_step(0.0)(outputs, batch["labels"], num_items_in_batch=count).backward()
    return torch.cat([each.grad.flatten() for each in model.parameters() if each.grad is not None])


def _padding(lengths: np.ndarray[Any, Any]) -> int:
    return sum(int((batch.max() - batch).sum()) for batch in np.array_split(lengths, range(8, len(lengths), 8)))
