"""Right-sized windows: the encoder hears a clip in a window about as long as the clip, and not in 30 s of padding.

Whisper has no mask for audio: what follows a clip in its window is silence, in the spectrogram's own floor, and the
decoder learns to stop at it. Stock weights know it as long as half a minute and may loop or go on without end where it
is short (ggml-org/whisper.cpp#137, #1855; futo-org/whisper-acft). So which windows a model may be given is part of the
model: `FILE` lies beside the weights that were trained with them, and where none is, every window is a whole one.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon.asr.errors import ModelError
from daemon.asr.transcriber import SAMPLE_RATE

FILE = "windows.json"
_SHRINK = 0.83
"""From one window to the next shorter one: on average a tenth of what is heard is padding."""
_GRAIN_S = 0.5
_SHORTEST_S = 1.0
_TAIL_S = 0.5


@dataclass(frozen=True, slots=True)
class Windows:
    """The windows that a model was trained with. A clip's window depends on the clip alone, not on its company."""

    seconds: tuple[float, ...]
    """In rising order; the last is the longest that the model has positions for."""
    tail_s: float
    """Of silence behind a clip, at least; less where the longest window leaves less."""

    @classmethod
    def whole(cls, longest_s: float) -> Windows:
        """Every clip is heard in the longest window, as stock Whisper was trained."""
        return cls((longest_s,), 0.0)

    @classmethod
    def right_sized(cls, longest_s: float) -> Windows:
        """A ladder of windows, each about a fifth longer than the one before."""
        ladder = [longest_s]
        while (shorter := min(round(ladder[-1] * _SHRINK / _GRAIN_S) * _GRAIN_S, ladder[-1] - _GRAIN_S)) >= _SHORTEST_S:
            ladder.append(shorter)
        return cls(tuple(reversed(ladder)), _TAIL_S)

    def samples(self, count: int) -> int:
        """The length of the window for a waveform of `count` samples, which fits into the longest."""
        need_s = count / SAMPLE_RATE + self.tail_s
        return round(next((each for each in self.seconds if each >= need_s), self.seconds[-1]) * SAMPLE_RATE)

    def __str__(self) -> str:
        return " to ".join(dict.fromkeys(f"{each:g}" for each in (self.seconds[0], self.seconds[-1]))) + " s"

    def write(self, folder: Path) -> None:
        """Let the model in `folder` be served with these windows."""
        table = {"seconds": list(self.seconds), "tail_s": self.tail_s}
        (folder / FILE).write_text(json.dumps(table) + "\n", encoding="utf-8")


def read_windows(folder: Path, name: str, longest_s: float) -> Windows:
    """The windows of the model in `folder`. Raises `ModelError` if what stands there is not for such a model."""
    try:
        table = json.loads((folder / FILE).read_text(encoding="utf-8"))
        found = Windows(tuple(float(each) for each in table["seconds"]), float(table["tail_s"]))
    except FileNotFoundError:
        return Windows.whole(longest_s)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"The {FILE} of {name} cannot be read: copy the model again.") from error
    if not _fits(found, longest_s):
        raise ModelError(f"The {FILE} of {name} belongs to another model: copy the model again.")
    return found


def _fits(windows: Windows, longest_s: float) -> bool:
    seconds = windows.seconds
    rising = list(seconds) == sorted(set(seconds)) and seconds[:1] > (0.0,)
    return rising and seconds[-1] == longest_s and 0 <= windows.tail_s < longest_s


def spectrograms(extractor: Any, waves: Sequence[Any], samples: int) -> Any:
    """Log-mel spectrograms in windows of so many samples: a float32 tensor, (waves, mels, frames).

    The same as the beginning of those in longer windows, as long as a tail of 200 samples is silent.
    """
    return extractor(
        list(waves), sampling_rate=SAMPLE_RATE, padding="max_length", max_length=samples, return_tensors="pt"
    ).input_features


def resizable(model: Any) -> Any:
    """Let a model of transformers take spectrograms of any even number of frames up to its own. Returns the model.

    The library's encoder wants exactly as many frames as it has positions for, and adds all of these. Here it is told
    before each pass how many there are, on a copy of the configuration, and gets the first so many. Nothing that is
    saved changes.
    """
    encoder = model.get_encoder()
    # The hooks hold the configuration alone: the encoder holds them, and is to go when the model does.
    encoder.config = config = copy.copy(encoder.config)
    stride = encoder.conv1.stride[0] * encoder.conv2.stride[0]

    def measure(_: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        features = arguments[0] if arguments else named["input_features"]
        config.max_source_positions = features.shape[-1] // stride

    def first(_: Any, __: Any, positions: Any) -> Any:
        return positions[: config.max_source_positions]

    encoder.register_forward_pre_hook(measure, with_kwargs=True)
    encoder.embed_positions.register_forward_hook(first)
    return model
