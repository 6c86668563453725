"""Log lines: their shape by destination, and that no secret gets into one, whoever writes it."""

from __future__ import annotations

import base64
import io
import json
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import structlog

from daemon import logs
from daemon.redaction import Redactor

SECRET = "q7/w+x=Zz&9~yxv?Kq"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoic2VydmljZV9yb2xlIn0.c2lnbmF0dXJl"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root, factory = logging.getLogger(), logging.getLogRecordFactory()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level
    logging.setLogRecordFactory(factory)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()


def started(form: logs.Format, level: logs.Level = "info") -> io.StringIO:
    stream = io.StringIO()
    logs.setup(level, form, [SECRET], env={}, stream=stream)
    return stream


FORMS: dict[str, Callable[[str], str]] = {
    "raw": lambda s: s,
    "url-encoded": lambda s: quote(s, safe=""),
    "url-encoded, slashes kept": quote,
    "base64": lambda s: base64.b64encode(s.encode()).decode(),
    "base64url": lambda s: base64.urlsafe_b64encode(s.encode()).decode().rstrip("="),
    "basic": lambda s: base64.b64encode(b"user:" + s.encode()).decode(),
    "basic, other offset": lambda s: base64.b64encode(b"us:" + s.encode() + b"xy").decode(),
    "json": lambda s: json.dumps({"a": s}),
    "repr": repr,
}


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("name", FORMS)
def test_a_registered_secret_in_any_shape_at_any_place(name: str, form: logs.Format) -> None:
    """Message, value, nested value, key, object, exception, foreign logger, its arguments, warning."""
    stream = started(form)
    coded = FORMS[name](SECRET)
    hidden = coded[8:-6] if name.startswith("basic") else coded  # the ends are the neighbours'
    log = structlog.get_logger("test")

    class Holder:
        def __repr__(self) -> str:
            return f"<Holder {coded}>"

    log.info(" ".join(["before", coded]), value=coded, nested={"list": [coded, (coded,)]}, thing=Holder())
    log.info("key", **{coded: 1})
    log.bind(bound=coded).warning("bound")
    with structlog.contextvars.bound_contextvars(context=coded):
        log.error("context")
    try:
        int(coded)
    except ValueError:
        log.exception("ours")
        logging.getLogger("foreign").exception("theirs")
    logging.getLogger("foreign").info("with %s", coded)
    broken = "broken %d %d"
    logging.getLogger("foreign").info(broken, coded)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn(coded, stacklevel=1)
    text = stream.getvalue()
    assert text.count("***") >= 12
    for word in ("before", "bound", "context", "ours", "theirs", "with", "broken", "UserWarning"):
        assert word in text
    assert hidden not in text


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_secret_that_a_renderer_would_escape(form: logs.Format) -> None:
    odd = "a\"b\\c'é d"
    stream = io.StringIO()
    logs.setup("info", form, [odd], env={}, stream=stream)
    structlog.get_logger().info("said " + odd, value=odd, nested=[{"x": odd}])
    assert stream.getvalue().count("***") == 3
    assert "\\c" not in stream.getvalue()


@pytest.mark.parametrize(
    ("line", "left"),
    [
        (f"key {JWT} end", "key *** end"),
        ("wss://x/websocket?apikey=abc123&vsn=1", "wss://x/websocket?***"),
        ("https://x/y?a=1&token=abc def", "https://x/y?*** def"),
        (
            "see 'https://x/y?X-Amz-Signature=abc' (and https://x/y?sig=a%2Fb)",
            "see 'https://x/y?***' (and https://x/y?***",
        ),
        ("/rest/v1/x?a=1&token=abc&X-Amz-Signature=abc", "/rest/v1/x?a=1&token=***&X-Amz-Signature=***"),
        ("/object/sign/clips/a.wav?token=abc", "/object/sign/***"),
        ('{"signedURL": "/object/upload/sign/clips/a.wav?token=abc"}', '{"signedURL": "/object/upload/sign/***"}'),
        ("Really? https://x/y is there, is it not?", "Really? https://x/y is there, is it not?"),
        (
            "GET https://x/storage/v1/object/sign/clips/r/c.wav?token=abc ok",
            "GET https://x/storage/v1/object/sign/*** ok",
        ),
        ("Authorization: Bearer abcdefghij", "Authorization: Bearer ***"),
        ("{'apikey': 'abc', 'a': 1}", "{'apikey': '***', 'a': 1}"),
        ("[(b'apikey', b'abc')]", "[(b'apikey', b'***')]"),
        ("sb_secret_abcdef", "***"),
        ("postgresql://postgres:hush@db.example:5432/postgres", "postgresql://postgres:***@db.example:5432/postgres"),
        ("3 tokens, key signature in C, bearer of news", "3 tokens, key signature in C, bearer of news"),
    ],
)
def test_what_looks_like_a_secret_is_redacted_always(line: str, left: str) -> None:
    assert Redactor()(line) == left


def test_a_field_with_the_name_of_a_secret() -> None:
    stream = started("console")
    structlog.get_logger().info("joined", apikey="abc", options={"Authorization": "hush"}, tokens=5)
    text = stream.getvalue()
    assert "abc" not in text
    assert "hush" not in text
    assert "tokens=5" in text


def test_foreign_handlers_get_redacted_records() -> None:
    """Some libraries bring a handler of their own, which never meets the renderer."""
    started("json")
    seen = io.StringIO()
    logger = logging.getLogger("stubborn")
    logger.propagate = False
    logger.addHandler(logging.StreamHandler(seen))
    logger.warning("with %s", SECRET)
    assert seen.getvalue() == "with ***\n"


def test_json_lines_carry_level_logger_time_and_context() -> None:
    stream = started("json")
    with structlog.contextvars.bound_contextvars(worker="w1"):
        structlog.get_logger("daemon.x").info("drafted", clips=3, name="café")
    logging.getLogger("library").warning("careful: %s", "x")
    ours, theirs = (json.loads(line) for line in stream.getvalue().splitlines())
    assert ours["event"] == "drafted"
    assert (ours["clips"], ours["name"], ours["worker"]) == (3, "café", "w1")
    assert (ours["level"], ours["logger"]) == ("info", "daemon.x")
    assert ours["timestamp"].endswith("Z")
    assert (theirs["event"], theirs["level"], theirs["logger"]) == ("careful: x", "warning", "library")


def test_level_and_noisy_libraries() -> None:
    stream = started("json", "debug")
    structlog.get_logger().debug("ours")
    for name in ("httpx", "websockets.client", "hpack.hpack", "realtime._async.client", "apscheduler.executors"):
        logging.getLogger(name).info("chatter")
        logging.getLogger(name).debug("chatter")
    logging.getLogger("httpx").warning("heard")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["ours", "heard"]
    quiet = started("json", "warning")
    structlog.get_logger().info("not this")
    assert quiet.getvalue() == ""


def test_set_up_twice_writes_each_line_once() -> None:
    first = started("json")
    second = started("json")
    structlog.get_logger().info("once")
    assert first.getvalue() == ""
    assert len(second.getvalue().splitlines()) == 1


PROGRAM = """
import logging, os, structlog
from daemon import logs
env = dict(os.environ)
if env.get("AS_JOURNAL"):
    status = os.fstat(1)
    env["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"
logs.setup(secrets=["hush"], env=env)
structlog.get_logger().info("said")
structlog.get_logger().error("failed")
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("x").exception("hush é")
"""


def said(**env: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | env,
        cwd=Path(__file__).parents[1],
        capture_output=True,
        check=True,
    )
    assert done.stderr == b""
    return done.stdout.decode(env.get("PYTHONIOENCODING", "utf-8"))


def test_the_journal_gets_json_with_priorities() -> None:
    """One line per event, even with a traceback in it."""
    lines = said(AS_JOURNAL="1").splitlines()
    assert [line[:3] for line in lines] == ["<6>", "<3>", "<3>"]
    assert [json.loads(line[3:])["event"] for line in lines] == ["said", "failed", "*** é"]
    assert "ZeroDivisionError" in json.loads(lines[2][3:])["exception"]


def test_a_pipe_that_is_not_the_journal_gets_plain_lines() -> None:
    """JOURNAL_STREAM is inherited by children whose output goes elsewhere."""
    text = said(JOURNAL_STREAM="1:2")
    assert "said" in text
    assert "ZeroDivisionError" in text
    assert not text.startswith(("<", "{"))
    assert "\x1b" not in text


def test_a_poor_locale_does_not_lose_lines() -> None:
    assert r"*** \xe9" in said(PYTHONIOENCODING="ascii")


def test_a_terminal_gets_colours() -> None:
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "w", closefd=True) as terminal:
        logs.setup(env={}, stream=terminal)
        structlog.get_logger().info("said")
        coloured = os.read(ours, 4096)
        logs.setup(env={"NO_COLOR": "1"}, stream=terminal)
        structlog.get_logger().info("said")
        plain = os.read(ours, 4096)
    os.close(ours)
    assert b"\x1b[" in coloured
    assert b"\x1b[" not in plain


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_signed_address_gets_into_a_line(form: logs.Format) -> None:
    """Of whichever store, wherever it stands, at the level at which most is said."""
    stream = started(form, "debug")
    signed = {
        "https://x.supabase.co/storage/v1/object/sign/clips/r/c.wav?token=hush": "hush",
        "https://x.s3.amazonaws.com/c.wav?X-Amz-Credential=AKIA&X-Amz-Expires=60&X-Amz-Signature=5eed": "5eed",
        "https://storage.googleapis.com/c.wav?Expires=60&GoogleAccessId=a&Signature=c0de": "c0de",
        "https://x.blob.core.windows.net/c.wav?se=2026&sig=b10b": "b10b",
        "https://cdn.example/c.wav?verify=1764-f00d": "f00d",
        "wss://x.supabase.co/realtime/v1/websocket?apikey=cafe&vsn=1.0.0": "cafe",
    }
    log = structlog.get_logger("test")
    for address in signed:
        log.info(" ".join(["fetched", address, "at once"]), where=address, nested=[{"at": (address,)}])
        logging.getLogger("foreign").debug('HTTP Request: GET %s "HTTP/1.1 200 OK"', address)
        try:
            int(address)
        except ValueError:
            log.exception("failed")
    text = stream.getvalue()
    assert [mark for mark in signed.values() if mark in text] == []
    assert text.count("at once") == text.count("200 OK") == len(signed)
