"""`ambara train`: fine-tuning as the daemon does it, on a data set that a person names. It knows no database."""

from __future__ import annotations

import os
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from daemon.asr.whisper.config import TrainingSettings
from daemon.cli.context import settings_of
from daemon.errors import ConfigurationError

DEFAULTS = TrainingSettings()


class Device(StrEnum):
    """What PyTorch computes on; ``auto`` is the first of the others that is there."""

    AUTO = "auto"
    CUDA = "cuda"
    MPS = "mps"
    CPU = "cpu"


def train(
    context: typer.Context,
    data: Annotated[
        Path | None, typer.Option("-d", "--data", help="The data set, as `ambara export` writes it.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Where the model goes: into the directory model/ in it.")
    ] = None,
    base_model: Annotated[
        str | None, typer.Option(help="Directory or hub id to start from.", show_default=DEFAULTS.base)
    ] = None,
    epochs: Annotated[
        float | None,
        typer.Option(min=0.001, max=10_000, help="Times through the data.", show_default=f"{DEFAULTS.epochs:g}"),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, max=512, help="Clips on the device at once.", show_default=f"{DEFAULTS.batch_size}"),
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option("--lr", min=1e-9, max=1, help="Learning rate.", show_default=f"{DEFAULTS.learning_rate:g}"),
    ] = None,
    language: Annotated[
        str | None, typer.Option(help="Code or English name, as Whisper knows it.", show_default=DEFAULTS.language)
    ] = None,
    device: Annotated[Device | None, typer.Option(help="What to compute on.", show_default=DEFAULTS.device)] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a training that was stopped, or push one that is finished.")
    ] = False,
    push_to_hub: Annotated[
        str | None,
        typer.Option(metavar="USER/NAME", help="Push the model to this repository; a new one is private."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and write nothing but the base into its cache.")
    ] = False,
    now: Annotated[
        bool, typer.Option("--now", help="Instead of all this: ask the running daemon to train now.")
    ] = False,
) -> None:
    """Fine-tune a Whisper on the audiofolder DATA, into OUTPUT/model.

    DATA/train/metadata.csv has the columns file_name and transcription. At the end the base and the new model hear
    DATA/test: word error rates before and after. Ctrl-C leaves a checkpoint, from which --resume goes on. No database
    is needed, except for --now.

    [bold]Examples[/bold]

        ambara train -d data -o models/mg-2 --dry-run

        ambara train -d data -o models/mg-2 --epochs 5 --lr 2e-5 --device cuda

        HF_TOKEN=hf_… ambara train -d data -o models/mg-2 --resume --push-to-hub noa/whisper-mg

        ambara train --now
    """
    chosen = {
        "base": base_model,
        "epochs": epochs,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "language": language,
        "device": device.value if device else None,
    }
    options: dict[str, Any] = {name: value for name, value in chosen.items() if value is not None}
    if now:
        if options or data or output or resume or dry_run or push_to_hub:
            raise ConfigurationError("--now asks the running daemon, which has its own settings: give it alone.")
        from daemon.cli.train_now import ask

        typer.echo(ask(settings_of(context)))
        return
    if data is None or output is None:
        raise ConfigurationError(
            "Name the data set and where the model goes, as in `ambara train -d DATA -o OUTPUT`, "
            "or ask the running daemon with `ambara train --now`."
        )
    from daemon import logs
    from daemon.cli.train_job import Job

    logs.setup("warning", env=os.environ)
    job = Job(data, output, options=asdict(TrainingSettings(**options)), resume=resume, repo=push_to_hub)
    job.check()
    if dry_run:
        job.foretell()
    else:
        job.carry_out()
