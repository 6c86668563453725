"""Clips in the project's private Storage bucket."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import httpx

from daemon.audio_reasons import refuse
from daemon.audio_source import MAX_BYTES, MissingAudio, safe_segments
from daemon.certificates import distrust, trusted
from daemon.errors import AmbaraError, ConfigurationError, TemporaryError

_CHUNK_BYTES = 1 << 18
_MAX_ERROR_BYTES = 1 << 13
_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=60.0)
"""Whoever reads bounds how much at a time; a slow batch on the device must not cost the next one a handshake a file."""


class BucketAudio:
    """Streams `{bucket}/{run_id}/{file_name}` into a nameless temporary file.

    The file has no name from its birth on, so nothing is left behind, whatever ends the process.

    Args:
        url: the project's address, such as ``https://abc.supabase.co``.
        key: the key with whose rights is read. It is sent to `url` alone and stands in no message.
        apikey: what the project's gateway wants to see, where that is not `key` itself.
        bucket: the bucket's name.
        max_bytes: the longest file.
        spool: the directory of the temporary files; the system's by default.
        client: a client to share; it stays open. Without one, a client is made and closed by `close`.
        deadline_s: wall-clock time for one file, which ends a server that drips.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        apikey: str | None = None,
        bucket: str = "clips",
        max_bytes: int = MAX_BYTES,
        spool: Path | None = None,
        client: httpx.AsyncClient | None = None,
        deadline_s: float = 300.0,
    ) -> None:
        self._base = f"{_checked_url(url)}/storage/v1/object/{quote(bucket, safe='')}"
        self._headers = {
            "apikey": _checked_key(apikey or key),
            "Authorization": f"Bearer {_checked_key(key)}",
            "Accept-Encoding": "identity",
        }
        self._max_bytes = max_bytes
        self._spool = spool
        self._own = client is None
        self._client = client or httpx.AsyncClient(
            verify=trusted(), timeout=httpx.Timeout(20.0, connect=5.0), limits=_LIMITS, follow_redirects=False
        )
        self._deadline_s = deadline_s

    @asynccontextmanager
    async def open(self, run_id: str, file_name: str) -> AsyncIterator[BinaryIO]:
        """Download one object. See `AudioSource.open`.

        The reasons of a `TemporaryError` are ``audio-missing``, ``bucket-missing``, ``storage-denied``,
        ``storage-redirect``, ``storage-unavailable``, ``spool-unavailable`` and those of `daemon.certificates`.
        """
        url = "/".join([self._base, *(quote(segment, safe="") for segment in safe_segments(run_id, file_name))])
        file = await asyncio.to_thread(self._spool_file)
        try:
            await self._download(url, file)
            yield file
        finally:
            await asyncio.to_thread(file.close)

    async def close(self) -> None:
        """Close the client, if it is our own."""
        if self._own:
            await self._client.aclose()

    def _spool_file(self) -> BinaryIO:
        try:
            return tempfile.TemporaryFile("w+b", buffering=0, dir=self._spool)
        except OSError as error:
            raise _no_room(error) from None

    async def _download(self, url: str, file: BinaryIO) -> None:
        # The text of a client error can hold the address or, for a malformed header, the key: it is not passed on.
        try:
            async with (
                asyncio.timeout(self._deadline_s),
                self._client.stream("GET", url, headers=self._headers, follow_redirects=False) as response,
            ):
                await self._receive(response, file)
        except TimeoutError:
            raise _unavailable("the download took too long") from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            if doubt := distrust(error):
                raise TemporaryError(doubt[0], reason=doubt[1]) from None
            raise _unavailable(type(error).__name__) from None

    async def _receive(self, response: httpx.Response, file: BinaryIO) -> None:
        if response.status_code != 200:
            raise _failure(response.status_code, await _head(response))
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise _unavailable("it compressed the file, unasked")
        size = 0
        async for chunk in response.aiter_raw(_CHUNK_BYTES):
            size += len(chunk)
            if size > self._max_bytes:
                refuse("audio-too-large")
            await asyncio.to_thread(_write, file, chunk)


def _write(file: BinaryIO, chunk: bytes) -> None:
    rest = memoryview(chunk)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        raise _no_room(error) from None


def _no_room(error: OSError) -> TemporaryError:
    return TemporaryError(
        f"The temporary directory takes no audio ({os.strerror(error.errno or 0)}): make room there.",
        reason="spool-unavailable",
    )


async def _head(response: httpx.Response) -> dict[str, Any]:
    """The beginning of an error's body as JSON, or nothing."""
    body = b""
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > _MAX_ERROR_BYTES:
            return {}
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _failure(status: int, body: dict[str, Any]) -> AmbaraError:
    """Storage answers 400 to nearly everything, and tells the real status and code in the body."""
    if 300 <= status < 400:
        return TemporaryError(
            "Storage answered with a redirect, which is not followed: check SUPABASE_URL.", reason="storage-redirect"
        )
    told = str(body.get("statusCode", ""))
    status = int(told) if told.isdecimal() and len(told) == 3 else status
    words = {str(body.get(field, "")).lower() for field in ("code", "error", "message")}
    if words & {"nosuchbucket", "bucket not found"}:
        return TemporaryError(
            "The Storage bucket does not exist: create it, or correct its name in the configuration.",
            reason="bucket-missing",
        )
    if status in (401, 403) or words & {"invalidjwt", "invalid jwt", "invalid compact jws", "unauthorized"}:
        return TemporaryError(
            "Storage refuses the service key: check SUPABASE_SERVICE_ROLE_KEY and the policies of the bucket.",
            reason="storage-denied",
        )
    if words & {"nosuchkey", "not_found", "object not found", "the resource was not found"}:
        return MissingAudio()
    if "invalidkey" in words:
        refuse("audio-path")
    return _unavailable(f"status {status}")


def _unavailable(what: str) -> TemporaryError:
    return TemporaryError(
        f"Storage does not deliver the audio ({what}): it is asked again; if this goes on, check SUPABASE_URL and the "
        "network.",
        reason="storage-unavailable",
    )


def _checked_url(url: str) -> str:
    try:
        parts = httpx.URL(url)
    except (httpx.InvalidURL, TypeError):
        parts = httpx.URL()
    plain = _is_token(url) and not (parts.userinfo or parts.query or parts.fragment)
    if not (plain and parts.scheme in ("http", "https") and parts.host):
        raise ConfigurationError(
            "SUPABASE_URL is not the address of a project: it looks like https://abc.supabase.co.", reason="url"
        )
    return url.rstrip("/")


def _checked_key(key: str) -> str:
    if not _is_token(key):
        raise ConfigurationError(
            "SUPABASE_SERVICE_ROLE_KEY is empty or holds characters that no key has: copy it again.", reason="key"
        )
    return key


def _is_token(text: str) -> bool:
    """Printable ASCII without spaces: what fits into a header or an address as it is."""
    return text != "" and text.isascii() and text.isprintable() and " " not in text
