"""What `ambara run` says when a person has to change something first: one sentence, exit 78, no secret."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest
from daemon_process import ambara, daemon_process, write_config

from daemon import migrate
from daemon.cli.app import EXIT_FAILED
from daemon.clips import SCHEMA_VERSION
from daemon.errors import EXIT_CONFIGURATION
from daemon.local.keys import mint
from daemon.local.sockets import free_port
from daemon.local.stack import LocalStack


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """An address and a key that are not the stack's."""

    url: str
    service_role_key: str


@pytest.fixture(scope="module")
def project(stack: Any) -> Any:
    stack.ensure()
    return stack


@contextmanager
def web_server(status: int, **headers: str) -> Iterator[str]:
    """A server that is no Supabase: it answers everything with a page, and moves everybody on who follows."""

    class Page(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"<h1>It works!</h1>")

        do_GET = do_POST = answer  # noqa: N815 - the names of the base class

        def log_message(self, *_: object) -> None:
            """Keep still."""

    server = HTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def refusal(project: Any, folder: Path, *options: str, **sections: Any) -> str:
    """The one sentence of `ambara run` with these settings, after everything else that it must not say."""
    write_config(folder, **sections)
    done = ambara(project, folder, "run", *options)
    said = done.stdout + done.stderr
    assert done.returncode == EXIT_CONFIGURATION, said
    assert done.stderr.startswith("ambara: ")
    assert done.stderr.endswith((".\n", "?\n"))
    assert done.stderr.count("\n") == 1, done.stderr
    assert "Traceback" not in said
    assert project.service_role_key not in said
    return done.stderr


def test_nobody_listens_at_the_address(project: Any, tmp_path: Path) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    said = refusal(Elsewhere(nobody, project.service_role_key), tmp_path)
    assert f"There is no Supabase at {nobody}" in said
    assert "Check SUPABASE_URL" in said


@pytest.mark.parametrize("status", [200, 404, 405])
def test_a_web_server_that_is_no_supabase(status: int, project: Any, tmp_path: Path) -> None:
    with web_server(status) as url:
        assert "SUPABASE_URL" in refusal(Elsewhere(url, project.service_role_key), tmp_path)


def test_a_redirect_is_not_followed(project: Any, tmp_path: Path) -> None:
    with web_server(200) as target, web_server(301, Location=target) as url:
        assert "redirect" in refusal(Elsewhere(url, project.service_role_key), tmp_path)


KEYS: dict[str, tuple[Callable[[Any], str], str]] = {
    "signed by another project": (
        lambda _: mint("another-secret-of-32-characters!!", "service_role"),
        "refuses the key",
    ),
    "anon": (lambda project: project.anon_key, "anon key"),
    "signed in": (lambda project: project.mint("authenticated"), "signed-in person"),
    "publishable": (lambda _: "sb_publishable_0123456789", "publishable key"),
    "an unknown role": (lambda project: project.mint("postgres_exporter"), "SUPABASE_SERVICE_ROLE_KEY"),
    "expired": (lambda project: project.mint("service_role", exp=1_700_000_000), "expired"),
    "no key at all": (lambda _: "swordfish", "not a Supabase key"),
}


@pytest.mark.parametrize("key", KEYS)
def test_a_wrong_key(key: str, project: Any, tmp_path: Path) -> None:
    make, says = KEYS[key]
    assert says in refusal(Elsewhere(project.url, make(project)), tmp_path)


@pytest.fixture
def without_migrations(local_stack: LocalStack) -> Iterator[LocalStack]:
    """The stack as it is before `ambara migrate`."""
    with psycopg.connect(local_stack.db_url, autocommit=True) as db:
        db.execute("drop function public.ambara_schema_version(); drop function public.ambara_whoami()")
    local_stack.reload_api()
    yield local_stack
    restore(local_stack)
    local_stack.reload_api()


def restore(stack: LocalStack) -> None:
    """The migrations once more: each is safe to run twice."""
    with psycopg.connect(stack.db_url, autocommit=True) as db:
        db.execute(migrate.script().encode())


def test_missing_migrations(without_migrations: LocalStack, tmp_path: Path) -> None:
    assert "ambara migrate" in refusal(without_migrations, tmp_path)


def test_old_migrations(local_stack: LocalStack, tmp_path: Path) -> None:
    """The daemon was upgraded before the schema: no waiting helps, not even under a service manager."""
    older = SCHEMA_VERSION - 1
    answer = f"create or replace function public.ambara_schema_version() returns int language sql as 'select {older}'"
    with psycopg.connect(local_stack.db_url, autocommit=True) as db, ExitStack() as after:
        after.callback(restore, local_stack)
        db.execute(answer.encode())
        said = refusal(local_stack, tmp_path, "--wait")
    assert f"has Ambara's schema {older}, and {SCHEMA_VERSION} is needed" in said
    assert "`ambara migrate`" in said


def test_a_missing_bucket(project: Any, tmp_path: Path) -> None:
    said = refusal(project, tmp_path, supabase={"bucket": "recordings"})
    assert "no bucket 'recordings'" in said
    assert "create it" in said


def test_a_model_that_is_no_whisper(project: Any, tmp_path: Path) -> None:
    other = tmp_path / "bert"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "bert"}', encoding="utf-8")
    assert "Whisper" in refusal(project, tmp_path, model={"base": str(other)})


def test_a_model_that_is_not_there(project: Any, tmp_path: Path) -> None:
    assert str(tmp_path / "nowhere") in refusal(project, tmp_path, model={"base": str(tmp_path / "nowhere")})


def test_a_hub_that_does_not_answer(project: Any, tmp_path: Path) -> None:
    """Nothing in the settings is wrong: a person hears of it, and under a service manager the daemon asks again."""
    away = {"HF_ENDPOINT": f"http://127.0.0.1:{free_port()}", "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hub")}
    model = {"base": "noa/whisper-none"}
    write_config(tmp_path, model=model)
    done = ambara(project, tmp_path, "run", **away)
    assert done.returncode == EXIT_FAILED, done.stdout + done.stderr
    assert done.stderr.startswith("ambara: The model hub cannot be reached and noa/whisper-none is not in its cache")
    with daemon_process(
        project, tmp_path, ready=False, env=away | {"NOTIFY_SOCKET": str(tmp_path / "nobody")}, model=model
    ) as daemon:
        daemon.wait_for("waiting", what="the model", times=2)


def test_a_graphics_card_that_is_not_there(project: Any, tmp_path: Path) -> None:
    """Not yet, perhaps, while a machine boots; and PyTorch looks once: a service manager has to start it again."""
    write_config(tmp_path, model={"device": "mps"})
    done = ambara(project, tmp_path, "run")
    assert (done.returncode, "no device mps" in done.stderr) == (EXIT_FAILED, True), done.stderr


def test_a_language_that_the_tokenizer_does_not_know(project: Any, tmp_path: Path) -> None:
    assert "tlh" in refusal(project, tmp_path, model={"language": "tlh"})


def test_a_state_directory_that_cannot_be_written(project: Any, tmp_path: Path) -> None:
    """Below a regular file: that stops root as well."""
    (tmp_path / "file").touch()
    said = refusal(project, tmp_path, state={"directory": str(tmp_path / "file" / "state")})
    assert "state directory" in said
    assert "[state]" in said
