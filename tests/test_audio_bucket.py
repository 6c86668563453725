"""The private bucket, against a server on loopback that answers byte for byte what a test tells it."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile

from daemon.audio import AudioReader, BucketAudio, FirstOf, FolderAudio
from daemon.decode import Decoder
from daemon.errors import AmbaraError, ConfigurationError, PermanentError

KEY = "sb_secret_3fd8Hq0pXl2mVt7w"
RUN = "0b9a8c3e-5a38-4e0a-8a51-6d8a7c1d2e3f"
Send = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass(slots=True)
class Origin:
    """A server: `answer` is what every request gets; `heads` is what came."""

    url: str = ""
    answer: bytes | Send = b""
    heads: list[str] = field(default_factory=list)


@asynccontextmanager
async def serving() -> AsyncIterator[Origin]:
    origin = Origin()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            origin.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
            if isinstance(origin.answer, bytes):
                writer.write(origin.answer)
                await writer.drain()
            else:
                await origin.answer(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0) as server:
        origin.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield origin


@pytest.fixture
async def origin() -> AsyncIterator[Origin]:
    async with serving() as made:
        yield made


def reply(body: bytes = b"", status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "Connection: close", "", ""]
    return "\r\n".join(lines).encode() + body


def told(status: str, **body: object) -> bytes:
    return reply(json.dumps(body).encode(), status, "Content-Type: application/json")


@asynccontextmanager
async def bucket_at(origin: Origin, **options: object) -> AsyncIterator[BucketAudio]:
    bucket = BucketAudio(origin.url, KEY, **options)  # type: ignore[arg-type]
    yield bucket
    await bucket.close()


async def read(bucket: BucketAudio, file_name: str = "clips/clip_00001.wav") -> bytes:
    async with bucket.open(RUN, file_name) as file:
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        return file.read()


async def failure(origin: Origin, **options: object) -> str:
    """The reason of the failure, after a look for secrets in everything that a log could show of it."""
    async with bucket_at(origin, **options) as bucket:
        with pytest.raises(AmbaraError) as caught:
            await read(bucket)
        shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + repr(bucket)
    for secret in (KEY, KEY[10:], origin.url, origin.url.rsplit(":", 1)[1], "clip_00001", "token=", RUN):
        assert secret not in shown
    assert isinstance(caught.value, PermanentError) == (caught.value.reason in {"audio-path", "audio-too-large"})
    return caught.value.reason


async def test_the_object_arrives_whole(origin: Origin) -> None:
    content = os.urandom(1_000_003)
    origin.answer = reply(content)
    async with bucket_at(origin) as bucket:
        assert await read(bucket) == content
    (head,) = origin.heads
    line, *headers = head.split("\r\n")
    assert line == f"GET /storage/v1/object/clips/{RUN}/clips/clip_00001.wav HTTP/1.1"
    lower = {header.lower() for header in headers}
    assert {f"apikey: {KEY}".lower(), f"authorization: bearer {KEY}".lower(), "accept-encoding: identity"} <= lower


async def test_each_segment_is_percent_encoded(origin: Origin) -> None:
    origin.answer = reply(b"x")
    async with bucket_at(origin, bucket="my clips") as bucket:
        await read(bucket, "a b/é?x=1#y&z;100%.wav")
    path = origin.heads[0].split()[1]
    assert path == f"/storage/v1/object/my%20clips/{RUN}/a%20b/%C3%A9%3Fx%3D1%23y%26z%3B100%25.wav"


async def test_the_file_has_no_name(origin: Origin, tmp_path: Path) -> None:
    """Nothing is left behind, not even by a killed process."""
    origin.answer = reply(b"private speech")
    async with bucket_at(origin, spool=tmp_path) as bucket, bucket.open(RUN, "a.wav") as file:
        assert os.fstat(file.fileno()).st_nlink == 0
        assert names_in(tmp_path) == []


def names_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


MISSING = [
    told("400 Bad Request", statusCode="404", error="not_found", message="Object not found"),
    told("404 Not Found", statusCode="404", error="not_found", message="Object not found"),
    told("400 Bad Request", statusCode=404, error="Not found", message="The resource was not found"),
    told("400 Bad Request", statusCode="404", code="NoSuchKey", error="NoSuchKey", message="Object not found"),
    told("404 Not Found", message="Object not found"),
]


@pytest.mark.parametrize("answer", MISSING)
async def test_a_missing_object_is_an_ordinary_state(origin: Origin, answer: bytes) -> None:
    origin.answer = answer
    assert await failure(origin) == "audio-missing"


FAILURES = {
    "no bucket": (
        told("400 Bad Request", statusCode="404", error="Bucket not found", message="Bucket not found"),
        "bucket-missing",
    ),
    "no bucket, by code": (told("404 Not Found", statusCode="404", code="NoSuchBucket", message="?"), "bucket-missing"),
    "401": (told("401 Unauthorized", message="no"), "storage-denied"),
    "403": (reply(b"no", "403 Forbidden"), "storage-denied"),
    "403 told in a 400": (
        told("400 Bad Request", statusCode="403", error="Unauthorized", message="new row violates"),
        "storage-denied",
    ),
    "403 told by number alone": (
        told("400 Bad Request", statusCode="403", code="AccessDenied", message="?"),
        "storage-denied",
    ),
    "bad token": (
        told("400 Bad Request", statusCode="400", error="InvalidJWT", message="jwt expired"),
        "storage-denied",
    ),
    "bad key of an object": (
        told("400 Bad Request", statusCode="400", error="InvalidKey", message=f"Invalid key: {RUN}/clip_00001"),
        "audio-path",
    ),
    "another server's 404": (reply(b"<h1>Not Found</h1>", "404 Not Found"), "storage-unavailable"),
    "a gateway's 404": (told("404 Not Found", message="no Route matched with those values"), "storage-unavailable"),
    "a list": (reply(b"[1]", "400 Bad Request"), "storage-unavailable"),
    "429": (reply(b"", "429 Too Many Requests"), "storage-unavailable"),
    "503 told in a 400": (
        told("400 Bad Request", statusCode="503", error="SlowDown", message="?"),
        "storage-unavailable",
    ),
    "500": (reply(KEY.encode(), "500 Internal Server Error"), "storage-unavailable"),
    "544": (told("544 ", statusCode="544", message="timed out"), "storage-unavailable"),
    "206": (reply(b"part", "206 Partial Content"), "storage-unavailable"),
    "204": (b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n", "storage-unavailable"),
    "endless error": (reply(b"{" * 100_000, "400 Bad Request"), "storage-unavailable"),
    "deep error": (reply(b"[" * 8_000, "400 Bad Request"), "storage-unavailable"),
    "no HTTP, and an echo": (f"You sent {KEY}\r\n\r\n".encode(), "storage-unavailable"),
    "nothing": (b"", "storage-unavailable"),
    "cut in the head": (b"HTTP/1.1 200 OK\r\nContent-Le", "storage-unavailable"),
    "cut in the body": (reply(bytes(500_000))[:300_000], "storage-unavailable"),
    "cut in a chunk": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nabc",
        "storage-unavailable",
    ),
    "compressed, unasked": (
        reply(gzip.compress(bytes(10_000_000)), "200 OK", "Content-Encoding: gzip"),
        "storage-unavailable",
    ),
}


@pytest.mark.parametrize("name", FAILURES)
async def test_a_failure_has_its_reason(origin: Origin, name: str) -> None:
    origin.answer, expected = FAILURES[name]
    assert await failure(origin) == expected


@pytest.mark.parametrize(
    "status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent", "304 -"]
)
async def test_a_redirect_reaches_nobody(origin: Origin, status: str) -> None:
    """A followed redirect would carry the key to the other origin, even through a client that follows redirects."""
    async with serving() as other, httpx.AsyncClient(follow_redirects=True) as client:
        origin.answer = reply(b"", status, f"Location: {other.url}/x?token=1")
        assert await failure(origin) == "storage-redirect"
        assert await failure(origin, client=client) == "storage-redirect"
        assert other.heads == []
    assert len(origin.heads) == 2


async def test_a_server_that_is_not_there(origin: Origin) -> None:
    async with serving() as gone:
        pass
    assert await failure(gone) == "storage-unavailable"


@pytest.mark.parametrize(("status", "expected"), [(200, "audio-too-large"), (400, "storage-unavailable")])
async def test_a_server_that_never_stops_is_left(origin: Origin, status: int, expected: str) -> None:
    """As soon as the limit is passed, for a file and for an error."""
    written = 0

    async def pour(writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(f"HTTP/1.1 {status} Said\r\n\r\n".encode())
        while True:
            writer.write(bytes(1 << 16))
            await writer.drain()
            written += 1 << 16

    origin.answer = pour
    async with asyncio.timeout(30):
        assert await failure(origin, max_bytes=2_000_000) == expected
    assert written < 50_000_000


async def test_the_limit_is_inclusive(origin: Origin) -> None:
    origin.answer = reply(bytes(1_000))
    assert await failure(origin, max_bytes=999) == "audio-too-large"
    async with bucket_at(origin, max_bytes=1_000) as bucket:
        assert len(await read(bucket)) == 1_000


async def test_a_dripping_server_meets_the_deadline(origin: Origin) -> None:
    """Every byte comes in time for the read timeout; together they would take for ever."""
    dripped = asyncio.Event()

    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while True:
            writer.write(b".")
            await writer.drain()
            dripped.set()
            await asyncio.sleep(0.05)

    origin.answer = drip
    async with asyncio.timeout(30):
        assert await failure(origin, deadline_s=1.0) == "storage-unavailable"
    assert dripped.is_set()


async def test_a_silent_server_meets_the_timeout(origin: Origin) -> None:
    release = asyncio.Event()

    async def wait(_: asyncio.StreamWriter) -> None:
        await release.wait()

    origin.answer = wait
    async with httpx.AsyncClient(timeout=0.3) as client, asyncio.timeout(30):
        assert await failure(origin, client=client) == "storage-unavailable"
    release.set()


async def test_a_full_disk_is_a_temporary_state(origin: Origin, tmp_path: Path) -> None:
    origin.answer = reply(b"x")
    assert await failure(origin, spool=tmp_path / "nowhere") == "spool-unavailable"


async def test_only_the_own_client_is_closed(origin: Origin) -> None:
    origin.answer = reply(b"x")
    async with httpx.AsyncClient() as client:
        async with bucket_at(origin, client=client) as bucket:
            await read(bucket)
        assert not client.is_closed
    own = BucketAudio(origin.url, KEY)
    await own.close()
    with pytest.raises(RuntimeError, match="closed"):
        await read(own)


@pytest.mark.parametrize("key", ["", "a b", "a\n", "clé", "a\x00b"])
async def test_a_key_that_no_header_can_carry_is_refused_unseen(key: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        BucketAudio("https://abc.supabase.co", key)
    assert not key or key not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "abc.supabase.co",
        "ftp://abc",
        "https://",
        "https://u:p@abc",
        "https://abc?x=1",
        "https://a b",
        "https://abc#x",
    ],
)
async def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        BucketAudio(url, KEY)
    assert KEY not in str(caught.value)


async def test_from_a_name_to_a_waveform(origin: Origin, tmp_path: Path) -> None:
    """The folder first, then the bucket, then the decoder; each refusal keeps its reason."""
    file = io.BytesIO()
    soundfile.write(file, np.full((44_100, 2), 0.25), 44_100, format="FLAC")
    local = tmp_path / RUN / "clips" / "local.wav"
    local.parent.mkdir(parents=True)
    local.write_bytes(file.getvalue())
    origin.answer = reply(file.getvalue())
    source = FirstOf([FolderAudio(root=tmp_path), BucketAudio(origin.url, KEY)])
    async with AudioReader(source, Decoder(max_seconds=1800)) as reader:
        for name, requests in (("clips/local.wav", 0), ("clips/remote.wav", 1)):
            wave = await reader.read(RUN, name)
            assert wave.shape == (16_000,)
            assert wave[8_000] == pytest.approx(0.25, abs=1e-3)
            assert len(origin.heads) == requests
        origin.answer = reply(b"")
        with pytest.raises(PermanentError) as caught:
            await reader.read(RUN, "clips/remote.wav")
        assert caught.value.reason == "audio-empty"
