"""What a run is asked to do."""

from __future__ import annotations

from daemon.asr.whisper.config import TrainingSettings as WhisperTraining
from daemon.learning.plan import training_options, with_rehearsal
from daemon.learning.ports import Sample, Side
from daemon.sections import TrainingSettings


def sample(number: int, side: Side = Side.TRAIN, *, seen: bool = False) -> Sample:
    return Sample(f"{number:03}", "run", "f.wav", "tape", side, "extraction", "text", "md5", 2.0, "label", seen)


def test_every_option_is_one_that_the_family_knows() -> None:
    base = {"model": "/models/base", "language": "mg", "task": "transcribe", "device": "cpu"}
    settings = TrainingSettings(epochs=3, batch_size=8, learning_rate=1e-4, arguments={"lr_scheduler_type": "cosine"})
    made = WhisperTraining(**training_options(settings, base))
    assert (made.base, made.language, made.device) == ("/models/base", "mg", "cpu")
    assert (made.epochs, made.batch_size, made.learning_rate) == (3, 8, 1e-4)
    assert made.arguments == {"lr_scheduler_type": "cosine"}


def test_rehearsal_draws_so_many_old_clips_for_each_new_one() -> None:
    new = [sample(n) for n in range(10)]
    old = [sample(n, seen=True) for n in range(100, 200)]
    held_out = [sample(n, Side.HELD_OUT, seen=n % 2 == 0) for n in range(300, 310)]
    everything = [*new, *old, *held_out]
    drawn = with_rehearsal(everything, 2.0)
    assert {s.clip_id for s in drawn} >= {s.clip_id for s in (*new, *held_out)}
    assert sum(s.seen and s.side is Side.TRAIN for s in drawn) == 20
    assert with_rehearsal(everything[::-1], 2.0) == drawn[::-1]
    assert with_rehearsal(everything, 1000.0) == everything
    assert with_rehearsal(everything, 0.0) == [*new, *held_out]


def test_another_run_rehearses_other_clips() -> None:
    old = [sample(n, seen=True) for n in range(100, 200)]
    first, second = (with_rehearsal([*map(sample, range(new)), *old], 1.0) for new in (10, 11))
    assert {s.clip_id for s in first if s.seen} != {s.clip_id for s in second[:-1] if s.seen}
