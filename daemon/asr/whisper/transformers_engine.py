"""Hears with `transformers`: on every device that PyTorch knows."""

from __future__ import annotations

from typing import Any

import torch

from daemon.asr.whisper.engine import SEED, Spoken
from daemon.asr.whisper.windows import resizable


class TransformersEngine:
    """A model of transformers, and its own `generate`."""

    name = "transformers"

    def __init__(self, model: Any, prompt: dict[str, str], no_speech: int | None) -> None:
        """`prompt`: what `generate` takes, language and task, or nothing for an English-only model.

        `no_speech`: the token, where the vocabulary has one.
        """
        self._model = resizable(model)
        self._prompt = prompt
        start, timestamps_off = 1, 1
        self._room = model.config.max_target_positions - (start + len(prompt) + timestamps_off)
        # Stock models carry others. What `generate` is given would do, but where it is the library's own default,
        # transformers 4 takes the model's instead.
        model.generation_config.update(max_length=None, num_beams=1, do_sample=False)
        self._end = model.generation_config.eos_token_id
        self._no_speech = no_speech
        self.dtype = str(model.dtype).removeprefix("torch.")
        self.parameters = sum(parameter.numel() for parameter in model.parameters())

    @torch.inference_mode()
    def hear(self, features: Any, temperature: float = 0.0) -> list[Spoken]:
        """See `Engine.hear`."""
        model = self._model
        encoded = model.get_encoder()(features.to(model.device, model.dtype))
        no_speech = self._no_speech_probabilities(encoded, len(features))
        recorder = _Recorder(temperature)
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
            self._spoken(tokens, log_probabilities, silent)
            for (tokens, log_probabilities), silent in zip(recorder.rows(), no_speech, strict=True)
        ]

    def _spoken(self, tokens: list[int], log_probabilities: list[float], no_speech: float | None) -> Spoken:
        finished = self._end in tokens
        spoken = tokens.index(self._end) if finished else len(tokens)
        return Spoken(tokens[:spoken], sum(log_probabilities[: spoken + finished]), finished, no_speech)

    def _no_speech_probabilities(self, encoded: Any, count: int) -> list[float | None]:
        """What the model would say first of all, before it is told the language."""
        if self._no_speech is None:
            return [None] * count
        start = torch.full((count, 1), self._model.generation_config.decoder_start_token_id, device=self._model.device)
        logits = self._model(encoder_outputs=encoded, decoder_input_ids=start, use_cache=False).logits[:, 0]
        probabilities: list[float | None] = logits.float().softmax(-1)[:, self._no_speech].tolist()
        return probabilities


class _Recorder:
    """Last of the logits processors: notes each step's token and its log-probability.

    Keeping a number per window and step instead of `output_scores` saves gigabytes: the vocabulary has 51,865 entries.
    Above temperature 0 it draws the token itself, and leaves `generate` no other choice: the one that is likeliest with
    a Gumbel noise added (Maddison et al., https://arxiv.org/abs/1411.0030). The noise is the same in each call and for
    each window, so that what a window is heard as does not hang on what else is in its batch.
    """

    def __init__(self, temperature: float) -> None:
        self._temperature = temperature
        self._dice = torch.Generator().manual_seed(SEED)
        self._tokens: list[torch.Tensor] = []
        self._log_probabilities: list[torch.Tensor] = []

    def __call__(self, _input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if not self._temperature:
            best = scores.max(-1)
            self._tokens.append(best.indices)
            self._log_probabilities.append(best.values - scores.logsumexp(-1))
            return scores
        log_probabilities = (scores.float() / self._temperature).log_softmax(-1)
        noise = torch.empty(scores.shape[-1]).exponential_(generator=self._dice).log_().neg_()
        drawn = (log_probabilities + noise.to(scores.device)).argmax(-1, keepdim=True)
        self._tokens.append(drawn[:, 0])
        self._log_probabilities.append(log_probabilities.gather(1, drawn)[:, 0])
        return torch.full_like(scores, -torch.inf).scatter(1, drawn, 0.0)

    def rows(self) -> list[tuple[list[int], list[float]]]:
        """Per window: tokens and log-probabilities of every step that the batch took."""
        tokens = torch.stack(self._tokens, 1).tolist()
        log_probabilities = torch.stack(self._log_probabilities, 1).tolist()
        return list(zip(tokens, log_probabilities, strict=True))
