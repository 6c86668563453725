"""Parts that `ambara run` and `ambara re-draft` build alike from the settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from uuid import UUID

import structlog

from daemon.asr import families
from daemon.asr.errors import DeviceAwayError, HubAwayError, ModelError
from daemon.asr.transcriber import Transcriber
from daemon.audio import AudioReader, BucketAudio, FirstOf, FolderAudio
from daemon.clips import ClipStore
from daemon.config import Settings
from daemon.decode import Decoder
from daemon.errors import ConfigurationError, PermanentError, TemporaryError, machine_trouble
from daemon.ports import LARGEST_CLAIM, PipelineSettings
from daemon.sections import AudioSettings, DraftingSettings, ModelSettings, SupabaseSettings
from handlers.policy import DraftingPolicy, Policy, PromotionPolicy, TrainingPolicy

log = structlog.get_logger(__name__)

ON_A_CARD = 4
"""So many times as much goes through the model together on a graphics card: its decoder reads all weights for each
token, however many clips are in the batch."""


def audio_reader(supabase: SupabaseSettings, audio: AudioSettings, runs: Mapping[str, Path]) -> AudioReader:
    """Reads clips from the directories of `runs` (run id -> directory) first, then from the bucket."""
    max_bytes = audio.max_mebibytes << 20
    bucket = BucketAudio(
        supabase.url,
        supabase.key.get_secret_value(),
        apikey=supabase.apikey.get_secret_value(),
        bucket=supabase.bucket,
        max_bytes=max_bytes,
    )
    folder = FolderAudio(runs, max_bytes=max_bytes)
    return AudioReader(FirstOf([folder, bucket]), Decoder(max_seconds=audio.max_minutes * 60))


async def run_directories(store: ClipStore, run_dirs: Mapping[str, Path]) -> dict[str, Path]:
    """Run ids for the run ids and labels of `run_dirs`.

    Raises `ConfigurationError` where a label does not stand for one run alone: the audio of one would be taken for
    the other's, because both have a ``clips/clip_00001.wav``.
    """
    found: dict[str, Path] = {}
    for name, directory in run_dirs.items():
        ids = [name] if _is_uuid(name) else await store.runs_labelled(name)
        if not ids:
            log.warning("no run has this label", label=name, directory=str(directory))
        if len(ids) > 1:
            raise ConfigurationError(one_run(len(ids), directory))
        found |= dict.fromkeys(ids, directory)
    return found


def one_run(count: int, directory: Path) -> str:
    """What to say when a directory is given for several runs."""
    return f"{directory} holds the audio of one run, and {count} runs are meant: name the run by its id."


def model_maker(model: ModelSettings) -> Callable[[], Transcriber]:
    """A function that loads the model; call it in the thread that will own it.

    It raises `ConfigurationError`; `TemporaryError` where another try may help, and `PermanentError` where it takes
    another process: PyTorch looks for devices once.
    """

    def make() -> Transcriber:
        options = model.model_dump(exclude={"family", "base"})
        try:
            return families.load(model.family, {"model": model.base, **options})
        except HubAwayError as error:
            raise TemporaryError(str(error), reason="hub") from None
        except DeviceAwayError as error:
            raise PermanentError(str(error), reason="device") from None
        except ModelError as error:
            raise ConfigurationError(str(error), reason="model") from None
        except Exception as error:
            raise machine_trouble(error) or error from None

    return make


def pipeline_settings(drafting: DraftingSettings, model: Mapping[str, object]) -> PipelineSettings:
    """The sizes of a turn of drafting. What is not set fits the device of the `model`, which are its facts."""
    usual, times = PipelineSettings(), ON_A_CARD if str(model.get("device")).startswith("cuda") else 1
    batch = drafting.batch_clips or min(usual.batch_clips * times, drafting.claim_clips or LARGEST_CLAIM)
    return PipelineSettings(
        batch_clips=batch,
        batch_seconds=drafting.batch_seconds or usual.batch_seconds * times,
        claim_clips=drafting.claim_clips or max(usual.claim_clips * times, min(4 * batch, LARGEST_CLAIM)),
        lease_s=drafting.lease_seconds,
        fetches=drafting.fetches,
    )


def policy_of(settings: Settings) -> Policy:
    """Every threshold of the decisions, from the settings."""
    training, promotion = settings.training, settings.promotion
    return Policy(
        drafting=DraftingPolicy(batches_per_turn=settings.drafting.batches_per_turn),
        training=TrainingPolicy(
            enabled=training.enabled,
            min_new_clips=training.min_new_clips,
            min_new_minutes=training.min_new_minutes,
            growth=training.growth,
            cooldown_minutes=training.cooldown_minutes,
            hours=training.window(),
        ),
        promotion=PromotionPolicy(
            min_gain=promotion.min_gain,
            min_clips=promotion.min_clips,
            min_recordings=promotion.min_recordings,
            roll_back=promotion.rollback == "auto",
        ),
    )


def changed(old: Settings, new: Settings) -> tuple[list[str], list[str]]:
    """Keys that differ, as ``section.key``: those that `policy_of` hands on, and those that only a start takes up."""
    differing = [
        (section, key)
        for section in type(old).model_fields
        for key in type(getattr(old, section)).model_fields
        if getattr(getattr(old, section), key) != getattr(getattr(new, section), key)
    ]
    at_once: list[str] = []
    at_a_start: list[str] = []
    for section, key in differing:
        value = getattr(getattr(new, section), key)
        part = getattr(old, section).model_copy(update={key: value})
        one = old.model_copy(update={section: part})
        (at_once if policy_of(one) != policy_of(old) else at_a_start).append(f"{section}.{key}")
    return at_once, at_a_start


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
