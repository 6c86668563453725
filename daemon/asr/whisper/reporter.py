"""What a training tells while it runs, and what makes it stop."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from daemon.asr import ranks
from daemon.asr.training import Phase, Progress, TrainingError
from daemon.asr.whisper.checkpoints import keep_newest, seal

_LOSSES = 20


class StopWantedError(Exception):
    """Somebody wants the training to stop while it is trying the held-out clips."""


class Reporter(TrainerCallback):  # type: ignore[misc]
    """Tells each step, stops when asked to, seals checkpoints, and ends a training whose numbers have gone wrong."""

    def __init__(
        self, report: Callable[[Progress], None], stop: Callable[[], bool], training: str, *, judged: bool
    ) -> None:
        """`training`: what the checkpoints will say they are of."""
        self._report = report
        self._stop = stop
        self._training = training
        self._judged = judged
        self._losses: deque[float] = deque(maxlen=_LOSSES)
        self._began = (0.0, 0)
        self.stopped = False
        self.wer: float | None = None

    @property
    def loss(self) -> float | None:
        """Mean over the last steps."""
        return sum(self._losses) / len(self._losses) if self._losses else None

    def tell(self, phase: Phase, state: Any) -> None:
        """Report where the training is."""
        since, first = self._began
        done = state.global_step - first
        left = (time.monotonic() - since) / done * (state.max_steps - state.global_step) if done else None
        self._report(Progress(phase, state.global_step, state.max_steps, self.loss, self.wer, left))

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """The pace is measured from here. What was logged before an interruption counts as if there had been none."""
        self._began = (time.monotonic(), state.global_step)
        self._losses.extend(each["loss"] for each in state.log_history if "loss" in each)
        self.wer = next((each["eval_wer"] for each in reversed(state.log_history) if "eval_wer" in each), None)
        self.tell("training", state)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """After the last step the model itself is saved; a stop before it leaves a checkpoint, of all processes."""
        if state.global_step >= state.max_steps:
            control.should_save = False
            control.should_evaluate = self._judged
        elif ranks.agree(self._stop()):
            self.halt(control)
            control.should_evaluate = False

    def halt(self, control: Any) -> None:
        """End here, with a checkpoint."""
        self.stopped = True
        control.should_save = control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, float], **_: Any) -> None:
        """A step, or a look at the held-out clips, has its figures. It comes before a checkpoint is written."""
        self.wer = logs.get("eval_wer", self.wer)
        if "loss" not in logs:
            return
        # In float16 the scaler skips steps whose gradients overflow: those are no mistake.
        gradients = 0.0 if args.fp16 else logs.get("grad_norm", 0.0)
        if not (math.isfinite(logs["loss"]) and math.isfinite(gradients)):
            raise not_a_number(f"step {state.global_step}")
        self._losses.append(logs["loss"])
        self.tell("saving" if control.should_save else "training", state)

    def on_prediction_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """One more batch of held-out clips was tried."""
        self.tell("evaluating", state)
        if self._stop():
            raise StopWantedError

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        """A checkpoint is written, and becomes a whole one. Each process has put its part of chance into it."""
        ranks.wait()
        if ranks.rank():
            return
        folder = Path(args.output_dir)
        seal(folder / f"checkpoint-{state.global_step}", self._training)
        keep_newest(folder)


def not_a_number(where: str) -> TrainingError:
    """For a training that has gone wrong."""
    return TrainingError(
        "not-a-number",
        f"The training diverged at {where}: its loss, gradients or weights are no numbers. Try a lower learning rate.",
    )
