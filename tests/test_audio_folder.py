"""Local run directories, and the names that may not reach a disk or a server."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import traceback
from pathlib import Path

import pytest

from daemon.audio import AudioSource, BucketAudio, FirstOf, FolderAudio, MissingAudio
from daemon.errors import AmbaraError, PermanentError, TemporaryError

RUN = "0b9a8c3e-5a38-4e0a-8a51-6d8a7c1d2e3f"
SECRET = b"outside the root"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """`root/RUN/clips/a.wav` with `inside`, beside files that no clip may name."""
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "top" / "secret").parent.mkdir()
    (tmp_path / "top" / "secret").write_bytes(SECRET)
    clips = tmp_path / "top" / RUN / "clips"
    clips.mkdir(parents=True)
    (clips / "a.wav").write_bytes(b"inside")
    (clips / "Ny feo, 1 (2) é.wav").write_bytes(b"inside")
    (clips / "link.wav").symlink_to(tmp_path / "secret")
    (clips / "near.wav").symlink_to("a.wav")
    (clips / "dangling.wav").symlink_to("nowhere")
    (clips / "loop.wav").symlink_to("loop.wav")
    (clips / "up").symlink_to(tmp_path)
    (clips / "folder.wav").mkdir()
    os.mkfifo(clips / "pipe.wav")
    (clips / "null.wav").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(clips)  # the path of a socket is at most 107 bytes long
        server.bind("socket.wav")
        os.chdir(here)
    return tmp_path / "top"


async def read(source: AudioSource, file_name: str, run_id: str = RUN) -> bytes:
    async with source.open(run_id, file_name) as file:
        return file.read()


async def reason(source: AudioSource, file_name: str, run_id: str = RUN) -> str:
    with pytest.raises(AmbaraError) as caught:
        await read(source, file_name, run_id)
    assert isinstance(caught.value, PermanentError) == (caught.value.reason in {"audio-path", "audio-too-large"})
    return caught.value.reason


REFUSED_EVERYWHERE = [
    "",
    ".",
    "..",
    "/",
    "//",
    "../secret",
    "../../secret",
    "clips/../../secret",
    "clips/../../../secret",
    "clips/..",
    "clips/.",
    "./clips/a.wav",
    "clips/./a.wav",
    "clips/../clips/a.wav",
    "clips//a.wav",
    "/clips/a.wav",
    "clips/a.wav/",
    "/etc/passwd",
    "//etc/passwd",
    "/proc/self/environ",
    "clips\\a.wav",
    "..\\..\\secret",
    "%2e%2e/secret",
    "%2E%2E%2Fsecret",
    "..%2fsecret",
    "%252e%252e%252fsecret",
    "clips%2f..%2f..%2fsecret",
    "%2fetc%2fpasswd",
    "clips/a.wav%00",
    "clips/a.wav\0",
    "clips/a.wav\0.txt",
    "clips/a\nwav",
    "clips/a.wav\r\nX: y",
    "clips/\x1b[31ma.wav",
    "clips/\x7f.wav",
    "clips/\x85.wav",
    "clips/\u2028.wav",
    "clips/\udc80.wav",
    "clips/" + "a" * 256,
    "clips/" + "é" * 128,
]
REFUSED_IN_A_FOLDER = [
    "clips/link.wav",
    "clips/near.wav",
    "clips/dangling.wav",
    "clips/loop.wav",
    "clips/null.wav",
    "clips/up/secret",
    "clips/up/top/secret",
    "clips/folder.wav",
    "clips/pipe.wav",
    "clips/socket.wav",
    "clips/a.wav/b.wav",
    "/".join(["clips"] + ["up"] * 3),
]


@pytest.mark.parametrize("name", REFUSED_EVERYWHERE + REFUSED_IN_A_FOLDER)
async def test_a_folder_refuses_the_name(root: Path, name: str) -> None:
    assert await reason(FolderAudio(root=root), name) == "audio-path"
    assert await reason(FolderAudio({RUN: root / RUN}), name) == "audio-path"


async def test_a_bucket_refuses_the_names_before_it_connects() -> None:
    connections: list[object] = []

    async def count(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        writer.close()

    async with await asyncio.start_server(count, "127.0.0.1", 0) as server:
        bucket = BucketAudio(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "key")
        for name in REFUSED_EVERYWHERE:
            assert await reason(bucket, name) == "audio-path", name
        for run_id in ("", "..", "a/b", "../clips", "%2e%2e", "a\nb"):
            assert await reason(bucket, "clips/a.wav", run_id) == "audio-path", run_id
        assert connections == []
        assert await reason(bucket, "clips/a.wav") == "storage-unavailable"
        assert len(connections) == 1
        await bucket.close()


@pytest.mark.parametrize("run_id", ["", ".", "..", f"{RUN}/clips", f"../top/{RUN}", f"%2e%2e/top/{RUN}", f"{RUN}\0"])
async def test_a_run_is_one_segment(root: Path, run_id: str) -> None:
    assert await reason(FolderAudio(root=root), "a.wav", run_id) == "audio-path"


async def test_no_message_repeats_a_name(root: Path) -> None:
    """A name may carry terminal codes and line breaks into a journal."""
    for name in ["clips/\x1b]0;evil", "clips/evil\n", "clips/evil.wav", "clips/evil/" + "a" * 300]:
        with pytest.raises(AmbaraError) as caught:
            await read(FolderAudio(root=root), name)
        assert "evil" not in "".join(traceback.format_exception_only(caught.value))


@pytest.mark.parametrize("name", ["clips/a.wav", "clips/Ny feo, 1 (2) é.wav"])
async def test_a_clip_is_found_by_run_and_by_root(root: Path, name: str) -> None:
    assert await read(FolderAudio(root=root), name) == b"inside"
    assert await read(FolderAudio({RUN: root / RUN}), name) == b"inside"
    assert await read(FolderAudio({RUN: root / RUN}, root=root / "elsewhere"), name) == b"inside"


async def test_the_directory_itself_may_be_a_link(root: Path, tmp_path: Path) -> None:
    """The operator chose the directory; strangers chose the names below it."""
    (tmp_path / "shortcut").symlink_to(root / RUN)
    assert await read(FolderAudio({RUN: tmp_path / "shortcut"}), "clips/a.wav") == b"inside"


async def test_a_run_that_is_a_link_below_the_root_is_refused(root: Path) -> None:
    (root / "linked").symlink_to(root / RUN)
    assert await reason(FolderAudio(root=root), "clips/a.wav", "linked") == "audio-path"


async def test_what_is_not_there_is_missing(root: Path) -> None:
    assert await reason(FolderAudio(root=root), "clips/b.wav") == "audio-missing"
    assert await reason(FolderAudio(root=root), "other/a.wav") == "audio-missing"
    assert await reason(FolderAudio(root=root), "a.wav", "another-run") == "audio-missing"
    assert await reason(FolderAudio(root=root / "unmounted"), "clips/a.wav") == "audio-missing"
    assert await reason(FolderAudio({"another-run": root}), "clips/a.wav") == "audio-missing"


async def test_a_large_file_is_refused(root: Path) -> None:
    assert await read(FolderAudio(root=root, max_bytes=6), "clips/a.wav") == b"inside"
    assert await reason(FolderAudio(root=root, max_bytes=5), "clips/a.wav") == "audio-too-large"


async def test_a_swapped_link_never_leads_outside(root: Path, tmp_path: Path) -> None:
    """A directory and a file are swapped for links to the outside and back, while they are read."""
    clips, kept = root / RUN / "clips", root / RUN / "kept"
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.wav").write_bytes(SECRET)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            clips.rename(kept)
            clips.symlink_to(outside)
            clips.unlink()
            kept.rename(clips)
            (clips / "new").symlink_to(outside / "a.wav")
            (clips / "new").replace(clips / "a.wav")
            (clips / "new").write_bytes(b"inside")
            (clips / "new").replace(clips / "a.wav")

    thread = threading.Thread(target=swap)
    thread.start()
    seen: dict[str, int] = {}
    try:
        for _ in range(1_500):
            try:
                answer = (await read(FolderAudio(root=root), "clips/a.wav")).decode()
            except AmbaraError as error:
                answer = error.reason
            seen[answer] = seen.get(answer, 0) + 1
    finally:
        stop.set()
        thread.join()
    assert set(seen) <= {"inside", "audio-path", "audio-missing"}
    assert len(seen) > 1, "nothing was swapped under a read"


async def test_what_was_opened_is_what_is_read(root: Path) -> None:
    """Replacing the name after the check changes nothing for the reader."""
    async with FolderAudio(root=root).open(RUN, "clips/a.wav") as file:
        path = root / RUN / "clips" / "a.wav"
        path.unlink()
        path.symlink_to(root / "secret")
        assert file.read() == b"inside"


async def test_nothing_stays_open(root: Path) -> None:
    folder = FolderAudio(root=root, max_bytes=6)
    before = descriptors()
    (root / RUN / "clips" / "large.wav").write_bytes(bytes(7))
    for name in ["clips/a.wav", "clips/large.wav", "clips/b.wav", "nowhere/b.wav", *REFUSED_IN_A_FOLDER]:
        try:
            await read(folder, name)
        except AmbaraError:
            continue
    assert descriptors() == before


def descriptors() -> list[str]:
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


async def test_the_first_that_has_it_gives_it(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "clips"
    other.mkdir(parents=True)
    (other / "a.wav").write_bytes(b"other")
    (other / "b.wav").write_bytes(b"other")
    both = FirstOf([FolderAudio(root=root), FolderAudio({RUN: tmp_path / "other"})])
    assert await read(both, "clips/a.wav") == b"inside"
    assert await read(both, "clips/b.wav") == b"other"
    assert await reason(both, "clips/c.wav") == "audio-missing"
    assert await reason(both, "clips/link.wav") == "audio-path"
    assert await reason(FirstOf([]), "clips/a.wav") == "audio-missing"
    await both.close()


async def test_the_readers_own_failure_is_no_reason_to_look_further(root: Path) -> None:
    both = FirstOf([FolderAudio(root=root), FolderAudio(root=root)])
    with pytest.raises(MissingAudio):
        async with both.open(RUN, "clips/a.wav"):
            raise MissingAudio
    with pytest.raises(TemporaryError):
        async with both.open(RUN, "clips/a.wav"):
            raise TemporaryError("elsewhere")
