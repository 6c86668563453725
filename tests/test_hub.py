"""A model onto the hub and back out of it, through the real library and over real sockets."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
import structlog
from hub_server import Hub, Repo, hub_server

from daemon import hub as to_hub
from daemon.errors import AmbaraError, ConfigurationError, TemporaryError
from daemon.hub_card import MARK
from daemon.local.tiny import BASE

TOKEN = "hf_SwordfishOfNoaSwordfishOfNoa"
MINE = "noa/whisper-mg"
FACTS = {"language": "mg", "base": "openai/whisper-small", "version": 7, "wer_before": 0.41, "wer_after": 0.287}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub that knows Noa; large files go by the large file protocol, because xet has servers of its own."""
    with hub_server(noa=TOKEN) as server:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.url)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "stored-token"))
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder, with everything beside it that must never leave the house."""
    place = tmp_path / "model"
    shutil.copytree(BASE, place)
    for name in ("optimizer.pt", "training_args.bin", "pytorch_model.bin", "clip.wav", "train.log", "metadata.csv"):
        (place / name).write_bytes(b"not for the hub")
    (place / "checkpoints").mkdir()
    (place / "checkpoints" / "model.safetensors").write_bytes(b"half")
    secret = tmp_path / "secret.json"
    secret.write_text("{}")
    (place / "link.json").symlink_to(secret)
    return place


def contents(folder: Path) -> dict[str, bytes]:
    return {str(each.relative_to(folder)): each.read_bytes() for each in sorted(folder.rglob("*")) if each.is_file()}


def sentence(kind: type[AmbaraError], act: Callable[[], object], *tokens: str) -> str:
    """The error of `act`: one sentence, without a token anywhere in what a traceback would print of it."""
    with pytest.raises(kind) as caught:
        act()
    said = str(caught.value)
    assert "\n" not in said
    assert said.endswith(".")
    printed = "".join(traceback.format_exception(caught.value))
    assert all(token not in printed for token in (TOKEN, *tokens))
    return said


def test_check_then_push(hub: Hub, folder: Path) -> None:
    """Byte for byte, weights through the large file storage, private, in one commit, and the folder is as it was."""
    before = contents(folder)
    assert to_hub.check(MINE, TOKEN) == MINE
    assert hub.repos[MINE].private
    url = to_hub.push(folder, MINE, TOKEN, card=to_hub.model_card(FACTS), message="Version 7")
    made = hub.repos[MINE]
    assert url == f"{hub.url}/{MINE}/commit/{made.sha}"
    assert made.commits == ["Version 7"]
    model = {name: raw for name, raw in contents(BASE).items() if name.endswith((".safetensors", ".json", ".txt"))}
    assert "model.safetensors" in model
    assert {name: raw for name, raw in made.files.items() if name != "README.md"} == model
    assert made.pointers == {"model.safetensors": hashlib.sha256(model["model.safetensors"]).hexdigest()}
    assert made.files["README.md"].decode() == to_hub.model_card(FACTS)
    assert contents(folder) == before
    assert hub.storage_saw == [None]  # the token stays with the hub


def test_a_second_push_of_the_same_is_harmless(hub: Hub, folder: Path) -> None:
    first = to_hub.push(folder, MINE, TOKEN, card=to_hub.model_card(FACTS))
    files = dict(hub.repos[MINE].files)
    assert to_hub.push(folder, MINE, TOKEN, card=to_hub.model_card(FACTS)) == first
    assert (hub.repos[MINE].files, len(hub.repos[MINE].commits), hub.uploads) == (files, 1, 1)


def test_weights_in_other_pieces_go_and_a_persons_readme_stays(hub: Hub, folder: Path) -> None:
    """What transformers would load in place of the new weights is taken away; what a person put there is not."""
    old = dict.fromkeys(["model-00001-of-00002.safetensors", "model.safetensors.index.json"], b"old")
    theirs = {"README.md": b"# Our model", "samples.txt": b"hello"}
    hub.repos[MINE] = Repo(private=False, files=old | theirs)
    to_hub.push(folder, MINE, TOKEN, card=to_hub.model_card(FACTS))
    files = hub.repos[MINE].files
    assert {name: files.get(name) for name in (*old, *theirs)} == dict.fromkeys(old) | theirs
    assert len(hub.repos[MINE].commits) == 1
    assert not hub.repos[MINE].private  # its owner made it public


def test_our_own_readme_is_renewed(hub: Hub, folder: Path) -> None:
    for version in (1, 2):
        to_hub.push(folder, MINE, TOKEN, card=to_hub.model_card(FACTS | {"version": version}))
    assert b"version 2" in hub.repos[MINE].files["README.md"]


def test_check_says_that_a_repository_is_public(hub: Hub) -> None:
    hub.repos[MINE] = Repo(private=False)
    with structlog.testing.capture_logs() as logged:
        assert to_hub.check(MINE, TOKEN) == MINE
    assert [each["repo"] for each in logged if "public" in each["event"]] == [MINE]
    assert not hub.repos[MINE].private
    hub.repos["noa/private"] = Repo(private=True)
    with structlog.testing.capture_logs() as logged:
        to_hub.check("noa/private", TOKEN)
    assert logged == []
    to_hub.push(BASE, "noa/private", TOKEN, private=False)
    assert hub.repos["noa/private"].private  # never the other way


def test_the_token_of_the_environment_and_the_stored_one(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert "HF_TOKEN" in sentence(ConfigurationError, lambda: to_hub.check(MINE, None))
    assert hub.asked == []
    (tmp_path / "stored-token").write_text(TOKEN)
    assert to_hub.check(MINE, None) == MINE
    monkeypatch.setenv("HF_TOKEN", "hf_wrongwrongwrongwrongwrong")
    assert "refuses the token" in sentence(ConfigurationError, lambda: to_hub.check(MINE, None))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert to_hub.check(MINE, "") == MINE


@pytest.mark.parametrize("token", ["hf_wrongwrongwrongwrongwrong", "hf_with space", "hf_ünïcode", "hf_new\nline"])
def test_a_wrong_token(hub: Hub, folder: Path, token: str) -> None:
    for act in (lambda: to_hub.check(MINE, token), lambda: to_hub.push(folder, MINE, token)):
        assert "token" in sentence(ConfigurationError, act, token)
    assert hub.repos == {}


def test_a_token_that_may_only_read(hub: Hub) -> None:
    hub.tokens[TOKEN]["role"] = "read"
    assert "may only read" in sentence(ConfigurationError, lambda: to_hub.check(MINE, TOKEN))
    assert hub.repos == {}


@pytest.mark.parametrize("repo", ["mendrika/whisper", "mendrika/secret", "mendrika/not-there"])
def test_a_repository_of_somebody_else(hub: Hub, folder: Path, repo: str) -> None:
    """A public one, which may be read; a private one; and a place for a new one."""
    hub.repos["mendrika/whisper"] = Repo(private=False)
    hub.repos["mendrika/secret"] = Repo(private=True)
    for act in (lambda: to_hub.check(repo, TOKEN), lambda: to_hub.push(folder, repo, TOKEN)):
        assert f"may not write to {repo}" in sentence(ConfigurationError, act)
    assert all(not each.files for each in hub.repos.values())
    assert hub.uploads == 0


def test_an_organisations_repository(hub: Hub) -> None:
    hub.tokens[TOKEN]["orgs"] = ["feo"]
    assert to_hub.check("feo/whisper", TOKEN) == "feo/whisper"


@pytest.mark.parametrize(
    "repo", ["whisper", "a/b/c", "https://huggingface.co/noa/x", "noa/", "noa/a--b", "noa/x.git", ""]
)
def test_what_is_no_repository(hub: Hub, repo: str) -> None:
    assert "user/name" in sentence(ConfigurationError, lambda: to_hub.check(repo, TOKEN))
    assert hub.repos == {}


def test_a_hub_that_is_down(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:1")
    for act in (lambda: to_hub.check(MINE, TOKEN), lambda: to_hub.push(folder, MINE, TOKEN)):
        assert "does not answer" in sentence(TemporaryError, act)


def test_a_hub_that_takes_the_connection_and_says_nothing(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{mute.getsockname()[1]}")
        monkeypatch.setattr(to_hub, "ANSWER_S", 0.2)
        assert "does not answer" in sentence(TemporaryError, lambda: to_hub.check(MINE, TOKEN))


@pytest.mark.parametrize(
    ("path", "number", "body", "kind"),
    [
        ("create", 503, "", TemporaryError),
        ("whoami-v2", 429, "", TemporaryError),
        ("whoami-v2", 200, "<html>hello</html>", ConfigurationError),
        ("create", 402, '{"error": "Private storage limit reached"}', ConfigurationError),
        ("create", 400, f'{{"error": "no {TOKEN}"}}', ConfigurationError),
        ("commit/main", 409, "", TemporaryError),
        ("commit/main", 412, '{"error": "A commit has happened since"}', TemporaryError),
        ("commit/main", 413, '{"error": "too large"}', ConfigurationError),
    ],
)
def test_other_answers(hub: Hub, folder: Path, path: str, number: int, body: str, kind: type[AmbaraError]) -> None:
    hub.answer = lambda asked: (number, body) if asked.endswith(path) else None

    def both() -> None:
        to_hub.check(MINE, TOKEN)
        to_hub.push(folder, MINE, TOKEN)

    said = sentence(kind, both)
    assert "Private storage limit reached" in said or number != 402
    assert all(not each.commits for each in hub.repos.values())


def test_a_connection_cut_in_the_middle_of_the_upload(
    hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The library tries again by itself; when that is not enough the next push goes on."""
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    caplog.set_level(logging.DEBUG)
    before, hub.cuts = contents(folder), 1_000_000
    assert "trying again is safe" in sentence(TemporaryError, lambda: to_hub.push(folder, MINE, TOKEN))
    assert len(waits) > 1
    assert (hub.repos[MINE].commits, hub.repos[MINE].files, hub.objects) == ([], {}, {})
    hub.cuts = 2
    to_hub.push(folder, MINE, TOKEN)
    assert (hub.cuts, hub.uploads, len(hub.repos[MINE].commits)) == (0, 1, 1)
    assert hub.repos[MINE].files["model.safetensors"] == before["model.safetensors"]
    assert contents(folder) == before
    assert TOKEN not in caplog.text


def test_a_folder_without_a_model(hub: Hub, folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "no weights" in sentence(ConfigurationError, lambda: to_hub.push(folder, MINE, TOKEN))
    assert "cannot be read" in sentence(ConfigurationError, lambda: to_hub.push(tmp_path / "gone", MINE, TOKEN))
    assert hub.asked == []


def test_offline(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in sentence(ConfigurationError, lambda: to_hub.check(MINE, TOKEN))


def test_a_process_of_its_own_finds_the_hub_by_the_environment(hub: Hub, folder: Path, tmp_path: Path) -> None:
    """And imports nothing of the hub's library before it is needed."""
    program = (
        "import sys\nfrom pathlib import Path\nfrom daemon import hub\n"
        "assert 'huggingface_hub' not in sys.modules\n"
        f"print(hub.push(Path(sys.argv[1]), hub.check({MINE!r}, None), None))"
    )
    env = os.environ | {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)],
        env=env,
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1].startswith(f"{hub.url}/{MINE}/commit/")
    assert TOKEN not in done.stdout + done.stderr
    assert "model.safetensors" in hub.repos[MINE].pointers


def test_the_card_says_what_was_measured_and_no_more() -> None:
    card = to_hub.model_card(FACTS | {"held_out_clips": 120, "held_out_recordings": 9, "trained_clips": 1400})
    for said in (
        'language: ["mg"]',
        'base_model: "openai/whisper-small"',
        'library_name: "transformers"',
        'tags: ["whisper", "automatic-speech-recognition"]',
        "41.0% before, 28.7% after",
        "120 clips of 9 recordings",
        "1,400 clips that people transcribed",
        MARK,
    ):
        assert said in card
    bare = to_hub.model_card({"base": "/srv/ambara/models/0003/model", "language": "mg]\nx: y"})
    assert "/srv" not in bare
    assert "x: y" not in bare
    assert "before" not in bare
    assert "Nobody has measured it" in bare
