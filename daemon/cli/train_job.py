"""One training for a person: what is wrong is found before hours are spent, and what is done is not lost."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from daemon.cli import train_view as view
from daemon.cli.context import say_error
from daemon.cli.train_checks import check_data, check_output, explained
from daemon.cli.train_signals import Stop, heeded
from daemon.errors import AmbaraError

if TYPE_CHECKING:
    from daemon.asr.training import Progress, TrainingResult
    from daemon.cli.train_rates import Measured

FAMILY = "whisper"
AGAIN = "The same command with --resume"


@dataclass(frozen=True, slots=True)
class Job:
    """What a person asked for."""

    data: Path
    out: Path
    options: Mapping[str, Any]
    """The family's training settings, all of them."""
    resume: bool
    repo: str | None
    """Repository on the hub to push to."""

    @property
    def model(self) -> Path:
        """Where the model is when it is finished."""
        return self.out / "model"

    def check(self) -> None:
        """Look at what can be seen at once. Raises `ConfigurationError`."""
        check_data(self.data)
        check_output(self.out, resume=self.resume)

    def foretell(self) -> None:
        """Say what `carry_out` would do. Raises `AmbaraError`."""
        from daemon.asr import families

        with explained(), view.shown() as show:
            plan = families.plan(FAMILY, self.options, self.data, report=show.progress)
        view.show_plan(plan, self.out, self.options["base"])

    def carry_out(self) -> None:
        """Train, compare and push. Raises `AmbaraError`, and `typer.Exit` where everything is said already.

        Of several processes that `torchrun` has started, all train and the first does the rest.
        """
        if int(os.environ.get("RANK", "0")):
            with heeded() as stop:
                self._train(lambda _: None, stop)
            return
        if self.repo:
            from daemon import hub

            hub.check(self.repo, None)
        with heeded() as stop, view.shown() as show:
            result = self._train(show.progress, stop)
            measured = "" if result.stopped or stop() else self.measured(show, stop)
        if result.stopped:
            at = f"after step {result.step:,}, with a checkpoint" if result.step else "before the first step"
            view.say(f"Stopped {at}. {AGAIN} goes on.")
            raise typer.Exit(stop.code)
        view.show_result(result, self.options["batch_size"])
        if not stop():
            view.show_rates(measured, self.options["base"])
        view.say(f"The model is in {self.model}. Draft with it: ambara re-draft -m {_quoted(self.model)} -l LABEL")
        if stop():
            view.say(f"Stopped before the rest was done. {AGAIN} does it.")
            raise typer.Exit(stop.code)
        if self.repo:
            self._push(self.repo, self._card(result, measured))

    def _train(self, report: Callable[[Progress], None], stop: Stop) -> TrainingResult:
        from daemon.asr import families

        with explained():
            return families.train(
                FAMILY, self.options, self.data, self.out, report=report, stop=stop, resume=self.resume
            )

    def measured(self, show: view.Show, stop: Stop) -> Measured | str:
        """How good the finished model is beside its base, or a sentence that says why that is not known."""
        from daemon.cli import train_rates as rates

        of = (self.options["base"], str(self.data.resolve()))
        if known := rates.kept(self.out, of):
            return known
        opened = {name: self.options[name] for name in ("revision", "language", "task", "device")}
        base, model = ({**opened, "model": name} for name in (self.options["base"], str(self.model)))
        try:
            found = rates.measure(self.data, FAMILY, base, model, show.comparison, stop)
            if found:
                rates.keep(found, self.out, of)
        except Exception as error:  # whatever it is, the model is there, and worth more than this table
            said = " ".join(str(error).split())[:300] or type(error).__name__
            return f"The model could not be compared with its base: {said}"
        return found or "No clip of test was heard: nobody knows how good the model is."

    def _push(self, repo: str, card: str) -> None:
        from daemon import hub

        try:
            where = hub.push(self.model, repo, None, card=card)
        except (AmbaraError, KeyboardInterrupt) as error:
            say_error(str(error) or "Interrupted.")
            say_error(
                f"The model is safe in {self.model}. {AGAIN} pushes it, or: hf upload {repo} {_quoted(self.model)} ."
            )
            raise typer.Exit(1 if isinstance(error, AmbaraError) else 128 + signal.SIGINT) from None
        view.say(f"Pushed: {where}")

    def _card(self, result: TrainingResult, measured: Measured | str) -> str:
        from daemon.hub import model_card

        facts = {
            "language": self.options["language"],
            "base": self.options["base"],
            "trained_clips": result.clips,
            "trained_minutes": result.seconds / 60,
        }
        if not isinstance(measured, str):
            facts |= {
                "wer_before": measured.before.wer,
                "wer_after": measured.after.wer,
                "held_out_clips": measured.clips,
            }
        return model_card(facts)


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
