"""A certificate that does not verify is said in one sentence with what mends it, by every command and by no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from daemon_process import ambara, write_config
from doctor_bench import faults, look, made, under
from hostile_keys import Project
from tls_front import UNTRUSTED, TlsFront

from daemon import certificates
from daemon.audio import BucketAudio
from daemon.clips import ClipStore
from daemon.doctor import project as checks
from daemon.doctor.rounds import PROJECT
from daemon.errors import EXIT_CONFIGURATION, ConfigurationError, TemporaryError
from daemon.supabase_client import connect, http_client

REASONS = {
    "expired": certificates.EXPIRED,
    "of an unknown authority": certificates.UNKNOWN,
    "for another name": certificates.WRONG_NAME,
}


@pytest.fixture
def front(clean_stack: Any, tmp_path: Path) -> Iterator[TlsFront]:
    with TlsFront(clean_stack.url, tmp_path) as made:
        yield made


@pytest.fixture
def _trusting(front: TlsFront, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in front.env.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("_trusting")
@pytest.mark.parametrize("name", UNTRUSTED)
async def test_rest_storage_and_files_say_the_same(name: str, clean_stack: Any, front: TlsFront) -> None:
    """And nothing reaches the other side; with a good one all of them work."""
    present, words = UNTRUSTED[name]
    key = clean_stack.service_role_key
    async with http_client() as http:
        store = ClipStore(await connect(front.url, key, http), "w")
        await store.snapshot()
        accepted = front.accepted
        present(front)
        front.cut()
        audio = BucketAudio(front.url, key)
        for ask in (store.snapshot, lambda: store.check_bucket("clips"), lambda: _read(audio)):
            with pytest.raises(TemporaryError, match="does not verify") as caught:
                await ask()
            assert caught.value.reason == REASONS[name]
            assert words in str(caught.value)
        assert front.accepted == accepted
        front.renewed()
        await store.snapshot()
        await audio.close()


async def _read(audio: BucketAudio) -> None:
    async with audio.open("r", "clips/a.wav"):
        pass


@pytest.mark.usefixtures("_trusting")
@pytest.mark.parametrize("name", UNTRUSTED)
async def test_the_doctor_says_what_mends_it(name: str, clean_stack: Any, front: TlsFront, tmp_path: Path) -> None:
    settings = under(made(clean_stack, tmp_path), clean_stack.service_role_key, front.url)
    assert faults(await look(settings, checks=PROJECT[:3])) == {}
    UNTRUSTED[name][0](front)
    found = await look(settings, checks=PROJECT[:3])
    assert faults(found) == {"address": checks.CERTIFIED[REASONS[name]]}
    assert UNTRUSTED[name][1] in found["address"].found


def test_run_and_doctor_of_whom_nobody_told_the_authority(clean_stack: Any, front: TlsFront, tmp_path: Path) -> None:
    write_config(tmp_path)
    project = Project(front.url, clean_stack.service_role_key)
    done = ambara(project, tmp_path, "run")
    assert done.returncode == EXIT_CONFIGURATION
    assert done.stderr.startswith("ambara: The certificate of SUPABASE_URL does not verify (")
    assert done.stderr.endswith(f"name a file that holds its certificate in {certificates.FILE_VARIABLE}.\n")
    assert done.stderr.count("\n") == 1
    done = ambara(project, tmp_path, "status")
    assert done.returncode == EXIT_CONFIGURATION
    assert certificates.FILE_VARIABLE in done.stderr
    done = ambara(project, tmp_path, "doctor")
    assert f"    export {certificates.FILE_VARIABLE}=" in done.stdout
    assert front.accepted == 0
    assert ambara(project, tmp_path, "status", **front.env).returncode == 0


def test_authorities_that_cannot_be_read(clean_stack: Any, tmp_path: Path) -> None:
    write_config(tmp_path)
    nowhere = str(tmp_path / "nowhere.pem")
    done = ambara(clean_stack, tmp_path, "run", SSL_CERT_FILE=nowhere)
    assert done.returncode == EXIT_CONFIGURATION
    assert done.stderr == (
        f"ambara: SSL_CERT_FILE names '{nowhere}', which cannot be read as certificates (No such file or directory): "
        "correct it, or leave it out.\n"
    )


def test_what_is_no_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "authority.pem"
    file.write_text("-----BEGIN")
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with pytest.raises(ConfigurationError, match=r"cannot be read as certificates \(no certificate\)"):
        certificates.trusted()
