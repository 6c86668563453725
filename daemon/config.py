"""Every setting, as one frozen value, from one TOML file and the environment.

`load` looks at nothing but its arguments and the file; the environment is read nowhere else. Secrets come from the
environment or a credentials file, never from the TOML. The sample with all keys is ``systemd/ambara.toml``.
"""

from __future__ import annotations

import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretStr, ValidationError

from daemon.complaints import check_names, sentence
from daemon.credentials import URL_VARIABLE, check_apikey, check_key, check_url, read_apikey, read_key
from daemon.errors import ConfigurationError
from daemon.sections import (
    AudioSettings,
    DraftingSettings,
    LogSettings,
    ModelSettings,
    PromotionSettings,
    RealtimeSettings,
    RetentionSettings,
    Section,
    StateSettings,
    StatusSettings,
    SupabaseSettings,
    TrainingSettings,
)

PLACES = (Path("ambara.toml"), Path("/etc/ambara/ambara.toml"))
"""Where the file is looked for when neither ``--config`` nor ``AMBARA_CONFIG`` names one; the first wins."""


class Settings(Section):
    """All of it."""

    supabase: SupabaseSettings
    model: ModelSettings = ModelSettings()
    drafting: DraftingSettings = DraftingSettings()
    audio: AudioSettings = AudioSettings()
    realtime: RealtimeSettings = RealtimeSettings()
    training: TrainingSettings = TrainingSettings()
    promotion: PromotionSettings = PromotionSettings()
    state: StateSettings
    retention: RetentionSettings = RetentionSettings()
    status: StatusSettings = StatusSettings()
    log: LogSettings = LogSettings()

    def secrets(self) -> tuple[str, ...]:
        """What no log line may show."""
        return tuple({self.supabase.key.get_secret_value(): None, self.supabase.apikey.get_secret_value(): None})


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
    key = read_key(env)
    apikey = read_apikey(env, key)
    supabase |= {"key": SecretStr(key), "apikey": SecretStr(apikey)}
    state = {"directory": _default_state(env)} | table.get("state", {})
    places = {"base": file.parent if file else Path(), "home": _home(env)}
    try:
        settings = Settings.model_validate(table | {"supabase": supabase, "state": state}, context=places)
    except ValidationError as error:
        raise ConfigurationError(sentence(error, table, name)) from None
    check_key(key, settings.supabase.url)
    if apikey != key:
        check_apikey(apikey)
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
        if isinstance(kind, type) and issubclass(kind, Section)
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
