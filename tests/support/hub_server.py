"""A hub on this machine that speaks what `huggingface_hub` speaks when it makes a repository and commits to it.

whoami-v2, repos/create, auth-check, model info, validate-yaml, preupload, the git-lfs batch with a storage that knows
no token, verify, and the commit as NDJSON. It keeps what arrives, and can cut connections in the middle of an upload.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Repo:
    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    pointers: dict[str, str] = field(default_factory=dict)
    """Path -> sha256 of those files that went through the large file storage."""
    commits: list[str] = field(default_factory=list)
    """Their messages."""

    @property
    def sha(self) -> str:
        return hashlib.sha1(repr(self.commits).encode()).hexdigest()


@dataclass
class Hub:
    url: str = ""
    tokens: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Token -> ``name`` and ``role`` of whom it belongs to."""
    repos: dict[str, Repo] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    cuts: int = 0
    """How many uploads to cut in the middle."""
    storage_saw: list[str | None] = field(default_factory=list)
    """The authorization header of every upload to the storage."""
    uploads: int = 0
    asked: list[str] = field(default_factory=list)
    answer: Callable[[str], tuple[int, str] | None] = lambda _: None
    """Status and body to give to a path in place of the right answer."""


@contextmanager
def hub_server(**tokens: str) -> Iterator[Hub]:
    """Serve a hub. `tokens`: name of a user -> a token of that user that may write."""
    hub = Hub(tokens={token: {"name": name, "role": "write"} for name, token in tokens.items()})
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Stay quiet."""

    def do_GET(self) -> None:
        self._route("GET", b"")

    def do_POST(self) -> None:
        self._route("POST", b"".join(self._body()))

    def do_PUT(self) -> None:
        """The storage: it knows signed addresses, and no token."""
        hub, oid = self.hub, self.path.rsplit("/", 1)[-1]
        hub.storage_saw.append(self.headers.get("authorization"))
        pieces = self._body()
        if hub.cuts:
            hub.cuts -= 1
            next(pieces)
            # Linger of zero: the other side gets a reset, as from a network that went away.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
            return
        content = b"".join(pieces)
        hub.uploads += 1
        assert hashlib.sha256(content).hexdigest() == oid
        hub.objects[oid] = content
        self._say(200, {})

    def _body(self) -> Iterator[bytes]:
        """The request's body, piece by piece, with a length or chunked."""
        if self.headers.get("transfer-encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("content-length", 0))
        while left:
            piece = self.rfile.read(min(left, 16_384))
            left -= len(piece)
            yield piece

    def _route(self, method: str, body: bytes) -> None:
        hub, path = self.hub, self.path.partition("?")[0]
        hub.asked.append(f"{method} {path}")
        if wrong := hub.answer(path):
            self._say(wrong[0], wrong[1])
            return
        if path == "/api/agent-harnesses":
            self._say(404, {})
            return
        who = hub.tokens.get(self.headers.get("authorization", "").removeprefix("Bearer "))
        if who is None:
            self._say(401, {"error": "Invalid username or password."})
            return
        for pattern, act in _ROUTES.items():
            if match := re.fullmatch(pattern, f"{method} {path}"):
                parsed = json.loads(body) if body and "/commit/" not in path else body
                self._say(*act(hub, who, parsed, *match.groups()))
                return
        self._say(404, {"error": f"no route {method} {path}"})

    def _say(self, status: int, content: object, code: str | None = None) -> None:
        raw = content if isinstance(content, bytes) else content.encode() if isinstance(content, str) else None
        raw = json.dumps(content).encode() if raw is None else raw
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


def _may_write(who: dict[str, Any], namespace: str) -> bool:
    return who["role"] != "read" and (who["name"] == namespace or namespace in who.get("orgs", ()))


def _guarded(act: Callable[..., tuple[Any, ...]], *, write: bool) -> Callable[..., tuple[Any, ...]]:
    """The action, if the repository is there and the caller may see or change it."""

    def guarded(hub: Hub, who: dict[str, Any], body: Any, repo: str, *rest: str) -> tuple[Any, ...]:
        namespace = repo.partition("/")[0]
        found = hub.repos.get(repo)
        if found is None or (found.private and who["name"] != namespace and namespace not in who.get("orgs", ())):
            return 404, {"error": "Repository not found"}, "RepoNotFound"
        if write and not _may_write(who, namespace):
            return 403, {"error": f"You don't have write access to {repo}"}
        return act(hub, found, body, repo, *rest)

    return guarded


def _whoami(_hub: Hub, who: dict[str, Any], _body: object) -> tuple[Any, ...]:
    orgs = [{"name": name, "roleInOrg": "write"} for name in who.get("orgs", ())]
    access = {"displayName": "test", "role": who["role"]}
    return 200, {
        "type": "user",
        "name": who["name"],
        "orgs": orgs,
        "auth": {"type": "access_token", "accessToken": access},
    }


def _create(hub: Hub, who: dict[str, Any], body: Any) -> tuple[Any, ...]:
    namespace = body["organization"] or who["name"]
    repo = f"{namespace}/{body['name']}"
    if not _may_write(who, namespace):
        return 403, {"error": f'You don\'t have the rights to create a model under the namespace "{namespace}"'}
    if repo in hub.repos:
        return 409, {"error": "You already created this model repo", "url": f"{hub.url}/{repo}"}
    hub.repos[repo] = Repo(private=body.get("visibility") == "private" or body.get("private") is True)
    return 200, {"url": f"{hub.url}/{repo}"}


def _info(_hub: Hub, found: Repo, _body: object, repo: str) -> tuple[Any, ...]:
    siblings = [{"rfilename": path} for path in found.files]
    return 200, {"_id": "1", "id": repo, "private": found.private, "siblings": siblings, "sha": found.sha, "tags": []}


def _validate(_hub: Hub, _who: object, body: Any) -> tuple[Any, ...]:
    if not re.match(r"---\n.*?\n---\n", body["content"], re.DOTALL):
        return 400, {"errors": [{"message": "no metadata"}], "warnings": []}
    return 200, {"errors": [], "warnings": []}


def _preupload(_hub: Hub, found: Repo, body: Any, _repo: str) -> tuple[Any, ...]:
    answers = []
    for each in body["files"]:
        path = each["path"]
        large = path.endswith((".safetensors", ".bin")) or each["size"] > 10_000_000
        blob = found.files.get(path)
        oid = found.pointers.get(path) or (hashlib.sha1(b"blob %d\0" % len(blob) + blob).hexdigest() if blob else None)
        answer = {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
        answers.append(answer | ({"oid": oid} if oid else {}))
    return 200, {"files": answers}


def _batch(hub: Hub, _found: Repo, body: Any, repo: str) -> tuple[Any, ...]:
    objects = []
    for each in body["objects"]:
        upload = {"href": f"{hub.url}/storage/{each['oid']}"}
        verify = {"href": f"{hub.url}/{repo}.git/info/lfs/verify"}
        new = each["oid"] not in hub.objects
        objects.append(each | ({"actions": {"upload": upload, "verify": verify}} if new else {}))
    return 200, {"transfer": "basic", "objects": objects}


def _verify(hub: Hub, _found: Repo, body: Any, _repo: str) -> tuple[Any, ...]:
    whole = len(hub.objects.get(body["oid"], b"")) == body["size"]
    return (200, {}) if whole else (422, {"error": "not what was announced"})


def _commit(hub: Hub, found: Repo, body: bytes, repo: str) -> tuple[Any, ...]:
    lines = [json.loads(line) for line in body.splitlines()]
    for line in lines:
        value = line["value"]
        match line["key"]:
            case "header":
                found.commits.append(value["summary"])
            case "file":
                found.files[value["path"]] = base64.b64decode(value["content"])
                found.pointers.pop(value["path"], None)
            case "lfsFile":
                found.files[value["path"]] = hub.objects[value["oid"]]
                found.pointers[value["path"]] = value["oid"]
            case "deletedFile":
                del found.files[value["path"]]
                found.pointers.pop(value["path"], None)
            case other:
                return 400, {"error": f"unknown key {other}"}
    return 200, {"success": True, "commitOid": found.sha, "commitUrl": f"{hub.url}/{repo}/commit/{found.sha}"}


def _raw(_hub: Hub, found: Repo, _body: object, _repo: str, path: str) -> tuple[Any, ...]:
    return (200, found.files[path]) if path in found.files else (404, {}, "EntryNotFound")


def _nothing(*_: object) -> tuple[Any, ...]:
    return 200, {}


_ID = r"([\w.-]+/[\w.-]+)"
_ROUTES: dict[str, Callable[..., tuple[Any, ...]]] = {
    "GET /api/whoami-v2": _whoami,
    "POST /api/repos/create": _create,
    "POST /api/validate-yaml": _validate,
    f"GET /api/models/{_ID}/auth-check/write": _guarded(_nothing, write=True),
    f"GET /api/models/{_ID}(?:/revision/main)?": _guarded(_info, write=False),
    f"POST /api/models/{_ID}/preupload/main": _guarded(_preupload, write=True),
    f"POST /{_ID}.git/info/lfs/objects/batch": _guarded(_batch, write=True),
    f"POST /{_ID}.git/info/lfs/verify": _guarded(_verify, write=True),
    f"POST /api/models/{_ID}/commit/main": _guarded(_commit, write=True),
    f"GET /{_ID}/raw/main/(.+)": _guarded(_raw, write=False),
}
