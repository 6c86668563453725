"""Settings: what is read from where, and the sentence for everything that can be wrong."""

from __future__ import annotations

import base64
import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from daemon.config import Settings, load, prepare_state
from daemon.credentials import check_url
from daemon.errors import ConfigurationError

ROOT = Path(__file__).parents[1]
KEY = "sb_secret_q7/w+x=Zz_9"
ENV = {"SUPABASE_URL": "https://abcdefgh.supabase.co", "SUPABASE_SERVICE_ROLE_KEY": KEY, "HOME": "/home/mpihaino"}


@pytest.fixture(autouse=True)
def _no_file_lies_here(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))


def token(**claims: object) -> str:
    """A JWT's shape; nobody verifies it here."""
    parts = ({"alg": "HS256"}, claims)
    coded = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*coded, "c2lnbmF0dXJl"])


def write(folder: Path, text: str) -> Path:
    file = folder / "ambara.toml"
    file.write_text(text, encoding="utf-8")
    return file


def refused(path: Path | None, env: dict[str, str]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(path, env)
    return str(caught.value)


def test_defaults_are_those_people_know() -> None:
    settings = load(None, ENV)
    assert settings.model.base == "openai/whisper-small"
    assert (settings.model.language, settings.model.task, settings.supabase.bucket) == ("mg", "transcribe", "clips")
    sizes = settings.drafting
    assert (sizes.batch_clips, sizes.batch_seconds, sizes.claim_clips) == (None, None, None), "the device decides"
    assert settings.state.directory == Path("/home/mpihaino/.local/state/ambara")


def test_the_file_is_read_and_the_environment_wins(tmp_path: Path) -> None:
    text = '[supabase]\nurl = "https://other.supabase.co"\nbucket = "b"\n'
    text += '[model]\nlanguage = "fr"\n[drafting]\nsweep_seconds = 5\n'
    file = write(tmp_path, text)
    settings = load(file, ENV)
    assert settings.supabase.url == ENV["SUPABASE_URL"]
    assert (settings.supabase.bucket, settings.model.language, settings.drafting.sweep_seconds) == ("b", "fr", 5.0)
    assert load(file, ENV | {"SUPABASE_URL": ""}).supabase.url == "https://other.supabase.co"


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load(None, ENV).model.base = "x"  # type: ignore[misc]


def test_where_the_file_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--config, then $AMBARA_CONFIG, then ./ambara.toml."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path, '[model]\nlanguage = "aa"')
    named, given = tmp_path / "named.toml", tmp_path / "given.toml"
    named.write_text('[model]\nlanguage = "bb"', encoding="utf-8")
    given.write_text('\ufeff[model]\nlanguage = "cc"', encoding="utf-8")  # as an editor with a byte order mark saves it
    env = ENV | {"AMBARA_CONFIG": str(named)}
    assert [load(p, e).model.language for p, e in ((None, ENV), (None, env), (given, env))] == ["aa", "bb", "cc"]


def test_paths_start_at_the_file_and_at_home(tmp_path: Path) -> None:
    dirs = load(write(tmp_path, '[audio.run_dirs]\na = "here"\nb = "~/there"\nc = "/abs"'), ENV).audio.run_dirs
    assert dirs == {"a": tmp_path / "here", "b": Path("/home/mpihaino/there"), "c": Path("/abs")}


@pytest.mark.parametrize(
    ("extra", "directory"),
    [
        ({"STATE_DIRECTORY": "/var/lib/ambara:/var/lib/more", "XDG_STATE_HOME": "/x"}, "/var/lib/ambara"),
        ({"XDG_STATE_HOME": "/x"}, "/x/ambara"),
    ],
)
def test_state_directory(extra: dict[str, str], directory: str) -> None:
    assert load(None, ENV | extra).state.directory == Path(directory)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[drafitng]\nx = 1", "unknown section [drafitng]; did you mean [drafting]?"),
        ("[zzz]\nx = 1", "there are [supabase], [model]"),
        ("[model]\nbaze = 'x'", "unknown key model.baze; did you mean model.base?"),
        ("[model]\nsweep_secnds = 1", "did you mean drafting.sweep_seconds?"),
        ("batch_clips = 1", "did you mean drafting.batch_clips?"),
        ("model = 3", "write [model]"),
        ("[drafting]\nbatch_clips = 'many'", "drafting.batch_clips is 'many'; it should be a valid integer."),
        ("[drafting]\nbatch_clips = 1.5", "drafting.batch_clips is 1.5"),
        ("[drafting]\nbatch_clips = true", "drafting.batch_clips is True"),
        ("[drafting]\nbatch_clips = 0", "drafting.batch_clips is 0; it should be greater than or equal to 1."),
        ("[drafting]\nlease_seconds = inf", "drafting.lease_seconds is inf"),
        ("[drafting]\nsweep_seconds = nan", "drafting.sweep_seconds is nan"),
        ("[drafting]\nclaim_clips = 4\nbatch_clips = 16", "claim_clips (4) is less than batch_clips (16)"),
        (
            "[training]\nprocesses = 2\nnodes = 3\nrendezvous = 'a:1'",
            "processes (2) on each of nodes (3) cannot share a step of batch_size times gradient_accumulation, 8",
        ),
        ("[training]\nnodes = 2", 'nodes (2) need a rendezvous, an address and a free port of this machine: "10.0.0.1'),
        ("[training]\nrendezvous = '10.0.0.1'", "training.rendezvous is '10.0.0.1'"),
        ("[training]\nrendezvous = 'a:0'", "training.rendezvous is 'a:0'"),
        ("[training]\nrendezvous = 'a:65536'", "rendezvous (a:65536) has no port of 1 to 65535"),
        ("[training]\nprocesses = 3", "processes (3) cannot share a step of batch_size times gradient_accumulation, 8"),
        ("[model]\ndevice = 'gpu'", "model.device is 'gpu'; it should be 'auto', 'cuda', 'mps' or 'cpu'."),
        ("[model]\nbase = ''", "model.base is ''"),
        ("[realtime]\nenabled = 'no'", "realtime.enabled is 'no'; it should be a valid boolean."),
        ("[audio.run_dirs]\na = 5", "audio.run_dirs.a is 5; it should be the path of a directory."),
        ("[audio.run_dirs]\na = ''", "audio.run_dirs.a"),
        ("[log]\nlevel = 'loud'", "log.level is 'loud'"),
        ("[log]\n\nlevel = =", "line 3"),
        ("[supabase]\nservice_role_key = 'abc'", "supabase.service_role_key"),
    ],
)
def test_what_is_wrong_in_the_file(tmp_path: Path, text: str, said: str) -> None:
    """One sentence that names the file, the key, what was found and what is wanted."""
    file = write(tmp_path, text)
    message = refused(file, ENV)
    assert said in message
    assert str(file) in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "text",
    [
        f"[supabase]\nkey = '{KEY}'",
        f"[supabase]\nservice_role_key = '{KEY}'",
        f"[model]\nbase = '{KEY}'",
        f"key = '{KEY}'",
        f"[model]\ntoken = '{KEY}'",
    ],
)
def test_a_secret_in_the_file_is_refused_and_not_repeated(tmp_path: Path, text: str) -> None:
    message = refused(write(tmp_path, text), ENV)
    assert "SUPABASE_SERVICE_ROLE_KEY in the environment" in message
    assert KEY not in message


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert "There is no configuration file" in refused(tmp_path / "none.toml", ENV)
    assert "cannot be read" in refused(tmp_path, ENV)
    (tmp_path / "x.toml").write_bytes(b"[model]\nbase = '\xff'")
    assert "not UTF-8" in refused(tmp_path / "x.toml", ENV)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "Set SUPABASE_URL"),
        ("abcdefgh.supabase.co", "not an http(s) address"),
        ("https://", "not an http(s) address"),
        ("https://a b.supabase.co", "not an http(s) address"),
        ("https://abc.supabase.co:99999", "not an address"),
        ("https://[::1", "not an address"),
        ("ftp://abc.supabase.co", "not an http(s) address"),
        ("postgresql://db.abc.supabase.co:5432/postgres", "database's address"),
        ("https://abc.supabase.co/rest/v1", "only https://abc.supabase.co belongs there"),
        ("https://supabase.com/dashboard/project/abc", "goes on after the host"),
        ("https://abc.supabase.co?x=1", "goes on after the host"),
        ("https://me:hush@abc.supabase.co", "a user or a password"),
        ("http://abc.supabase.co", "in clear"),
        ("http://8.8.8.8:8000", "in clear"),
        ("http://134744072", "in clear"),
    ],
)
def test_urls_that_are_refused(url: str, said: str) -> None:
    message = refused(None, ENV | {"SUPABASE_URL": url})
    assert said in message
    assert "hush" not in message


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://abc.supabase.co/", "https://abc.supabase.co"),
        (" https://db.example.org:8443 ", "https://db.example.org:8443"),
        ("http://127.0.0.1:54321", "http://127.0.0.1:54321"),
        ("http://localhost:54321/", "http://localhost:54321"),
        ("http://[::1]:80", "http://[::1]:80"),
        ("http://192.168.1.5:8000", "http://192.168.1.5:8000"),
        ("http://kong:8000", "http://kong:8000"),
    ],
)
def test_urls_that_are_taken(url: str, origin: str) -> None:
    assert check_url(url, "SUPABASE_URL") == origin


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (token(role="anon"), "is the anon key"),
        (token(role="authenticated"), "signed-in person"),
        (token(iss="supabase"), "without a role"),
        (token(role="postgres"), "a role that is not ambara_daemon"),
        (token(role="service_role", exp=1_000_000_000), "expired on 2001-09-09"),
        (token(role="service_role", exp=-1e300), "expired; use"),
        (token(role="service_role", ref="another"), "another project than abcdefgh.supabase.co"),
        ("sb_publishable_abc", "publishable key"),
        ("swordfish", "not a Supabase key"),
        ("a.b.c", "not a Supabase key"),
        ("a." + base64.urlsafe_b64encode(b"[1]").decode() + ".c", "not a Supabase key"),
        ("sb_secret_a b", "spaces"),
        ("sb_secret_ñ", "foreign"),
    ],
)
def test_keys_that_are_refused(key: str, said: str) -> None:
    message = refused(None, ENV | {"SUPABASE_SERVICE_ROLE_KEY": key})
    assert said in message
    assert key not in message
    assert "service_role" in message or "copy" in message


@pytest.mark.parametrize(
    "key",
    [
        KEY,
        token(role="service_role", ref="abcdefgh", exp=datetime(2100, 1, 1, tzinfo=UTC).timestamp()),
    ],
)
def test_keys_that_are_taken(key: str) -> None:
    """A public key beside it is of no use, and is not looked at."""
    settings = load(None, ENV | {"SUPABASE_SERVICE_ROLE_KEY": f" {key}\n", "SUPABASE_ANON_KEY": "whatever"})
    assert settings.supabase.key.get_secret_value() == settings.supabase.apikey.get_secret_value() == key
    assert settings.secrets() == (key,)


OWN = token(role="ambara_daemon", exp=datetime(2100, 1, 1, tzinfo=UTC).timestamp())


@pytest.mark.parametrize("apikey", ["sb_publishable_abc", token(role="anon", ref="abcdefgh")])
def test_a_token_of_the_daemons_own_role(apikey: str, tmp_path: Path) -> None:
    """With the public key beside it, wherever it comes from. Both are kept out of the logs."""
    file = tmp_path / "token"
    file.write_text(OWN, encoding="utf-8")
    there = {"SUPABASE_ANON_KEY": f" {apikey}\n"}
    for env in (ENV | {"SUPABASE_SERVICE_ROLE_KEY": OWN}, without_key(SUPABASE_SERVICE_ROLE_KEY_FILE=str(file))):
        settings = load(None, env | there)
        assert settings.supabase.key.get_secret_value() == OWN
        assert settings.supabase.apikey.get_secret_value() == apikey
        assert settings.secrets() == (OWN, apikey)
        assert apikey not in repr(settings) + settings.model_dump_json()


@pytest.mark.parametrize(
    ("key", "apikey", "said"),
    [
        (OWN, "", "set SUPABASE_ANON_KEY to the anon (publishable) key of the project's API settings as well"),
        (OWN, "  ", "which the project's gateway does not know"),
        (OWN, "sb_secret_abc", "SUPABASE_ANON_KEY is the secret key"),
        (OWN, token(role="service_role"), "SUPABASE_ANON_KEY is the secret key"),
        (OWN, token(role="authenticated"), "SUPABASE_ANON_KEY is not a public key"),
        (OWN, "swordfish", "SUPABASE_ANON_KEY is not a public key"),
        (OWN, "sb_publishable_a b", "SUPABASE_ANON_KEY holds spaces"),
        (token(role="ambara_daemon", exp=1_000_000_000), "", "expired on 2001-09-09; sign another token"),
        (token(role="ambara_daemon", ref="another"), "", "another project"),
    ],
)
def test_tokens_of_the_own_role_that_are_refused(key: str, apikey: str, said: str) -> None:
    message = refused(None, ENV | {"SUPABASE_SERVICE_ROLE_KEY": key, "SUPABASE_ANON_KEY": apikey})
    assert said in message
    assert key not in message
    assert not apikey.strip() or apikey not in message


def test_the_key_never_shows_itself() -> None:
    settings = load(None, ENV)
    for shown in (repr(settings), str(settings), f"{settings.supabase}", settings.model_dump_json()):
        assert KEY not in shown


def without_key(**more: str) -> dict[str, str]:
    return {name: value for name, value in ENV.items() if name != "SUPABASE_SERVICE_ROLE_KEY"} | more


def test_the_key_comes_from_a_file(tmp_path: Path) -> None:
    """systemd's credential, or a named file; the environment's own key wins."""
    credential, named = tmp_path / "supabase_service_role_key", tmp_path / "named"
    credential.write_text("sb_secret_credential\n", encoding="utf-8")
    named.write_text("sb_secret_named\n", encoding="utf-8")
    directory, file = {"CREDENTIALS_DIRECTORY": str(tmp_path)}, {"SUPABASE_SERVICE_ROLE_KEY_FILE": str(named)}
    found = [
        load(None, env).secrets()[0] for env in (without_key(**directory), without_key(**directory, **file), ENV | file)
    ]
    assert found == ["sb_secret_credential", "sb_secret_named", KEY]


def test_no_key_anywhere(tmp_path: Path) -> None:
    assert "Set SUPABASE_SERVICE_ROLE_KEY" in refused(None, without_key(CREDENTIALS_DIRECTORY=str(tmp_path)))
    assert "cannot be read" in refused(None, without_key(SUPABASE_SERVICE_ROLE_KEY_FILE=str(tmp_path / "none")))
    (tmp_path / "empty").touch()
    assert "is empty" in refused(None, without_key(SUPABASE_SERVICE_ROLE_KEY_FILE=str(tmp_path / "empty")))


def test_the_state_directory_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    made = prepare_state(tmp_path / "a" / "state")
    assert made.stat().st_mode & 0o777 == 0o700
    assert list(made.iterdir()) == []
    assert prepare_state(made) == made


def test_a_state_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for hopeless in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/ambara")):
        with pytest.raises(ConfigurationError, match="cannot be written"):
            prepare_state(hopeless)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_state_directory_of_somebody_else(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ConfigurationError, match="cannot be written"):
        prepare_state(tmp_path)


SAMPLE = (ROOT / "systemd" / "ambara.toml").read_text(encoding="utf-8")
SET_LINE = re.compile(r"^# (\w+|[\w-]+|\"[\w-]+\") = ", re.MULTILINE)


def test_the_sample_changes_nothing_until_it_is_edited(tmp_path: Path) -> None:
    assert load(write(tmp_path, SAMPLE), ENV) == load(None, ENV)


def test_the_sample_shows_every_key_with_its_default(tmp_path: Path) -> None:
    """All lines taken out of their comments: only what has no fixed default differs, and no key is missing."""
    shown = load(write(tmp_path, SET_LINE.sub(r"\1 = ", SAMPLE)), ENV)

    def facts(settings: Settings) -> dict[str, Any]:
        dumped = settings.model_dump()
        return {f"{s}.{k}": value for s, keys in dumped.items() for k, value in keys.items()}

    defaults, sample = facts(load(None, ENV)), facts(shown)
    changed = {name for name in defaults if defaults[name] != sample[name]}
    sizes = {"drafting.batch_clips", "drafting.batch_seconds", "drafting.claim_clips"}
    assert changed == {"model.revision", "state.directory", "audio.run_dirs", "promotion.anchor"} | sizes
    named = set(SET_LINE.findall(SAMPLE)) | {"key", "apikey", "run_dirs"}
    assert {name.partition(".")[2] for name in defaults} <= named
