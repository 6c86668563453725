"""Every setting, as one frozen value, from one TOML file and the environment.

`load` looks at nothing but its arguments and the file; the environment is read nowhere else. Secrets come from the
environment or a credentials file, never from the TOML. The sample with all keys is ``systemd/ambara.toml``.
"""

from __future__ import annotations

import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from daemon.complaints import check_names, sentence
from daemon.credentials import URL_VARIABLE, check_key, check_url, read_key
from daemon.errors import ConfigurationError

PLACES = (Path("ambara.toml"), Path("/etc/ambara/ambara.toml"))
"""Where the file is looked for when neither ``--config`` nor ``AMBARA_CONFIG`` names one; the first wins."""

_Text = Annotated[str, StringConstraints(min_length=1, max_length=500)]


def _place(value: object, info: ValidationInfo) -> object:
    """A path as people write it: ``~/`` is the home, and a relative one starts at the file that names it."""
    if not isinstance(value, str):
        return value
    if not value.strip():
        raise ValueError("it is empty, and should name a directory")
    base, home = (info.context or {}).get("base", Path()), (info.context or {}).get("home", Path.home())
    return home / value[2:] if value.startswith("~/") else base / value


_Place = Annotated[Path, BeforeValidator(_place), Field(strict=False)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class SupabaseSettings(_Section):
    """The project. `key` never shows itself in `repr` or `str`."""

    url: str
    key: SecretStr
    bucket: _Text = "clips"


class ModelSettings(_Section):
    """The model that drafts."""

    family: _Text = "whisper"
    base: _Text = "openai/whisper-small"
    revision: _Text | None = None
    language: _Text = "mg"
    task: Literal["transcribe", "translate"] = "transcribe"
    device: Literal["auto", "cuda", "mps", "cpu"] = "auto"
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"


class DraftingSettings(_Section):
    """How much is drafted at a time."""

    batch_clips: Annotated[int, Field(ge=1, le=512)] = 16
    batch_seconds: Annotated[float, Field(ge=30, le=7200, allow_inf_nan=False)] = 240.0
    claim_clips: Annotated[int, Field(ge=1, le=1000)] = 64
    batches_per_turn: Annotated[int, Field(ge=1, le=1000)] = 8
    lease_seconds: Annotated[float, Field(ge=10, le=3600, allow_inf_nan=False)] = 45.0
    sweep_seconds: Annotated[float, Field(ge=1, le=3600, allow_inf_nan=False)] = 30.0
    fetches: Annotated[int, Field(ge=1, le=64)] = 8

    @model_validator(mode="after")
    def _a_claim_fills_a_batch(self) -> Self:
        if self.claim_clips < self.batch_clips:
            raise ValueError(f"claim_clips ({self.claim_clips}) is less than batch_clips ({self.batch_clips})")
        return self


class AudioSettings(_Section):
    """Where audio is besides the bucket, and how much of it one clip may be."""

    run_dirs: Mapping[str, _Place] = Field(default_factory=dict)
    max_minutes: Annotated[float, Field(gt=0, le=600, allow_inf_nan=False)] = 30.0
    max_mebibytes: Annotated[int, Field(ge=1, le=4096)] = 200


class RealtimeSettings(_Section):
    """Whether changes are listened for. Without it the sweep finds them."""

    enabled: bool = True
    canary_seconds: Annotated[float, Field(ge=5, le=3600, allow_inf_nan=False)] = 60.0


class StateSettings(_Section):
    """What outlives a restart."""

    directory: _Place


class LogSettings(_Section):
    """What is logged, and how it looks."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


class Settings(_Section):
    """All of it."""

    supabase: SupabaseSettings
    model: ModelSettings = ModelSettings()
    drafting: DraftingSettings = DraftingSettings()
    audio: AudioSettings = AudioSettings()
    realtime: RealtimeSettings = RealtimeSettings()
    state: StateSettings
    log: LogSettings = LogSettings()

    def secrets(self) -> tuple[str, ...]:
        """What no log line may show."""
        return (self.supabase.key.get_secret_value(),)


def load(path: Path | None, env: Mapping[str, str]) -> Settings:
    """Read the settings. `path`: the file to read instead of those that `env` and `PLACES` name.

    Raises `ConfigurationError`, one sentence about the first thing that is wrong.
    """
    file = find(path, env)
    table = _read(file) if file else {}
    name = str(file) if file else "the settings"
    check_names(table, _sections(), name)
    supabase = dict(table.get("supabase", {}))
    if env.get(URL_VARIABLE, "").strip():
        supabase["url"] = check_url(env[URL_VARIABLE], URL_VARIABLE)
    elif isinstance(url := supabase.get("url", ""), str):
        if not url:
            raise ConfigurationError(
                f"Set {URL_VARIABLE} to the project's address, such as https://abcdefgh.supabase.co."
            )
        supabase["url"] = check_url(url, f"supabase.url in {name}")
    supabase["key"] = SecretStr(read_key(env))
    state = {"directory": _default_state(env)} | table.get("state", {})
    places = {"base": file.parent if file else Path(), "home": _home(env)}
    try:
        settings = Settings.model_validate(table | {"supabase": supabase, "state": state}, context=places)
    except ValidationError as error:
        raise ConfigurationError(sentence(error, table, name)) from None
    check_key(settings.supabase.key.get_secret_value(), settings.supabase.url)
    return settings


def find(path: Path | None, env: Mapping[str, str]) -> Path | None:
    """The configuration file: `path`, else ``$AMBARA_CONFIG``, else the first of `PLACES` that exists, else none."""
    if named := path or (Path(env["AMBARA_CONFIG"]) if env.get("AMBARA_CONFIG") else None):
        return named
    return next((place for place in PLACES if place.exists()), None)


def prepare_state(directory: Path) -> Path:
    """Make the state directory (mode 0700) and try to write there. Returns it absolute."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory) as probe:
            probe.write(b"\0")
    except OSError as error:
        raise ConfigurationError(
            f"The state directory {directory} cannot be written ({error.strerror}); "
            "give it to the daemon's user, or name another as directory under [state]."
        ) from None
    return directory.resolve()


def _default_state(env: Mapping[str, str]) -> Path:
    if given := env.get("STATE_DIRECTORY"):
        return Path(given.split(":")[0])
    if base := env.get("XDG_STATE_HOME"):
        return Path(base) / "ambara"
    return _home(env) / ".local" / "state" / "ambara"


def _home(env: Mapping[str, str]) -> Path:
    return Path(env.get("HOME") or Path.home())


def _sections() -> dict[str, tuple[str, ...]]:
    """The keys that the file may have, by section."""
    kinds = {name: field.annotation for name, field in Settings.model_fields.items()}
    return {
        name: tuple(key for key in kind.model_fields if kind.model_fields[key].annotation is not SecretStr)
        for name, kind in kinds.items()
        if isinstance(kind, type) and issubclass(kind, _Section)
    }


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigurationError(f"There is no configuration file {file}.") from None
    except OSError as error:
        raise ConfigurationError(f"The configuration file {file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"The configuration file {file} is not UTF-8 text.") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{file} is not TOML: {error}.") from None
