"""The device's side: windows of audio in, tokens and their log-probabilities out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from daemon.asr.transcriber import SAMPLE_RATE, Waveform


@dataclass(frozen=True, slots=True)
class Heard:
    """What the model made of one window."""

    text: str
    log_probability: float
    """Sum over the generated tokens, the end token included where it came."""
    tokens: int
    """How many that are; at least 1."""
    finished: bool
    """Whether the end token came before the decoder was full."""
    no_speech: float | None
    """Probability of Whisper's no-speech token, where the model has one."""


class Listener:
    """A Whisper on its device. Decodes greedily, so equal audio gives equal text."""

    def __init__(self, model: Any, processor: Any, prompt: dict[str, str], batch_size: int) -> None:
        """`prompt` is what `generate` takes: language and task, or nothing for an English-only model."""
        self._model = model
        self._processor = processor
        self._prompt = prompt
        self._batch_size = batch_size
        start, timestamps_off = 1, 1
        self._room = model.config.max_target_positions - (start + len(prompt) + timestamps_off)
        # Stock models carry others. What `generate` is given would do, but where it is the library's own default,
        # transformers 4 takes the model's instead.
        model.generation_config.update(max_length=None, num_beams=1, do_sample=False)
        self._end = model.generation_config.eos_token_id
        self._no_speech = _no_speech_token(processor.tokenizer)

    def hear(self, windows: Sequence[Waveform]) -> list[Heard]:
        """Transcribe waveforms of at most one window each, in batches.

        A batch that does not fit into the device's memory is halved, for the rest of this call; the device's error
        comes out when a single window does not fit.
        """
        heard: list[Heard] = []
        size, emptied = self._batch_size, False
        while len(heard) < len(windows):
            batch = windows[len(heard) : len(heard) + size]
            try:
                heard += self._hear_batch(batch)
                continue
            except (RuntimeError, MemoryError) as error:
                if len(batch) == 1 or not out_of_memory(error):
                    raise
            # Only here, outside the handler, are the failed batch's tensors free.
            size = len(batch) // 2
            if not emptied and torch.cuda.is_available():
                torch.cuda.empty_cache()
                emptied = True
        return heard

    @torch.inference_mode()
    def _hear_batch(self, windows: Sequence[Waveform]) -> list[Heard]:
        model = self._model
        features = self._processor.feature_extractor(list(windows), sampling_rate=SAMPLE_RATE, return_tensors="pt")
        encoded = model.get_encoder()(features.input_features.to(model.device, model.dtype))
        no_speech = self._no_speech_probabilities(encoded, len(windows))
        recorder = _Recorder()
        model.generate(
            encoder_outputs=encoded,
            max_new_tokens=self._room,
            num_beams=1,
            do_sample=False,
            return_timestamps=False,
            logits_processor=[recorder],
            **self._prompt,
        )
        return [
            self._heard(tokens, log_probabilities, silent)
            for (tokens, log_probabilities), silent in zip(recorder.rows(), no_speech, strict=True)
        ]

    def _heard(self, tokens: list[int], log_probabilities: list[float], no_speech: float | None) -> Heard:
        finished = self._end in tokens
        spoken = tokens.index(self._end) if finished else len(tokens)
        said = spoken + finished
        text = self._processor.tokenizer.decode(tokens[:spoken], skip_special_tokens=True)
        return Heard(text, sum(log_probabilities[:said]), said, finished, no_speech)

    def _no_speech_probabilities(self, encoded: Any, count: int) -> list[float | None]:
        """What the model would say first of all, before it is told the language."""
        if self._no_speech is None:
            return [None] * count
        start = torch.full((count, 1), self._model.generation_config.decoder_start_token_id, device=self._model.device)
        logits = self._model(encoder_outputs=encoded, decoder_input_ids=start, use_cache=False).logits[:, 0]
        probabilities: list[float | None] = logits.float().softmax(-1)[:, self._no_speech].tolist()
        return probabilities


class _Recorder:
    """Last of the logits processors: notes each step's best token and its log-probability, and changes nothing.

    Keeping a number per window and step instead of `output_scores` saves gigabytes: the vocabulary has 51,865 entries.
    """

    def __init__(self) -> None:
        self._tokens: list[torch.Tensor] = []
        self._log_probabilities: list[torch.Tensor] = []

    def __call__(self, _input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        best = scores.max(-1)
        self._tokens.append(best.indices)
        self._log_probabilities.append(best.values - scores.logsumexp(-1))
        return scores

    def rows(self) -> list[tuple[list[int], list[float]]]:
        """Per window: tokens and log-probabilities of every step that the batch took."""
        tokens = torch.stack(self._tokens, 1).tolist()
        log_probabilities = torch.stack(self._log_probabilities, 1).tolist()
        return list(zip(tokens, log_probabilities, strict=True))


def out_of_memory(error: BaseException) -> bool:
    """Whether the device, or the CPU's allocator, had no room."""
    message = str(error).lower()
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and ("out of memory" in message or "can't allocate memory" in message)
    )


def _no_speech_token(tokenizer: Any) -> int | None:
    vocabulary = tokenizer.get_vocab()
    # Older vocabularies call it by its first name.
    found: int | None = vocabulary.get("<|nospeech|>", vocabulary.get("<|nocaptions|>"))
    return found
