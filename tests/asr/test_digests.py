"""A large file is not read twice for one load, and never taken for what it was before."""

from __future__ import annotations

import os
import time
from hashlib import sha256
from pathlib import Path

import pytest

from daemon.asr import digests


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was hashed."""
    done: list[str] = []
    inner = digests.file_digest

    def counted(file: object, kind: str) -> object:
        done.append(str(getattr(file, "name", "")))
        return inner(file, kind)  # type: ignore[arg-type]

    monkeypatch.setattr(digests, "file_digest", counted)
    return done


def _settled(path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file that was written a while ago, as this process's clock has it."""
    path.write_bytes(data)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 10)
    return sha256(data).hexdigest()


def test_what_is_settled_is_read_once_a_minute(
    tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "weights"
    expected = _settled(file, b"abc", monkeypatch)
    assert [digests.digest(file) for _ in range(3)] == [expected] * 3
    assert len(reads) == 1
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 61)
    assert digests.digest(file) == expected
    assert len(reads) == 2


def test_what_was_just_written_is_read_each_time(tmp_path: Path, reads: list[str]) -> None:
    file = tmp_path / "weights"
    for data in (b"abc", b"abd", b"abe"):
        file.write_bytes(data)
        assert digests.digest(file) == sha256(data).hexdigest()
    assert digests.digest(file) == sha256(b"abe").hexdigest()
    assert len(reads) == 4


def test_no_time_that_is_set_back_hides_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "weights"
    _settled(file, b"abc", monkeypatch)
    before = file.stat()
    digests.digest(file)
    time.sleep(0.05)
    file.write_bytes(b"abd")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    assert digests.digest(file) == sha256(b"abd").hexdigest()


def test_another_file_of_the_same_name_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    _settled(one, b"abc", monkeypatch)
    _settled(other, b"abd", monkeypatch)
    digests.digest(one)
    other.replace(one)
    assert digests.digest(one) == sha256(b"abd").hexdigest()
    with pytest.raises(FileNotFoundError):
        digests.digest(other)


def test_it_remembers_no_more_than_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(100):
        _settled(tmp_path / str(number), bytes([number]), monkeypatch)
        digests.digest(tmp_path / str(number))
    assert len(digests._known) == digests._MOST
