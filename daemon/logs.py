"""One way for every line: our own logger, other libraries' loggers and Python's warnings end in the same renderer.

Redaction is the last thing that happens to a line, so nothing can be logged around it; records of other libraries are
redacted when they are made as well, for those that bring handlers of their own. What repeats itself too often is held
back and counted before it gets that far.

What a line is about stands in fields that bear the same name everywhere (docs/operations.md, "Reading the log"). They
are bound where a thing begins, a round, a turn or a run, and so stand on every line of it.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any, Literal, TextIO

import structlog

from daemon.rate_limit import RateLimit
from daemon.redaction import MASK, Redactor

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "json", "console"]

NOISY = (
    *("httpx", "httpcore", "h11", "hpack", "h2", "websockets", "realtime", "apscheduler", "asyncio"),
    *("supabase", "supabase_auth", "supabase_functions", "postgrest", "storage3", "urllib3", "requests", "filelock"),
    *("transformers", "datasets", "huggingface_hub", "fsspec", "torch", "accelerate", "peft", "numba", "PIL"),
    *("uvicorn", "starlette", "jinja2"),
)
"""Held at WARNING: below it some of them write keys, addresses with keys, or a line per request."""

_PRIORITY = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
"""syslog(3), which the journal reads from a ``<N>`` at the start of a line."""


def setup(
    level: Level = "info",
    format: Format = "auto",  # noqa: A002 - named as in the configuration
    secrets: Iterable[str] = (),
    *,
    env: Mapping[str, str],
    stream: TextIO | None = None,
) -> None:
    """Send every log line to `stream` (None: whatever `sys.stdout` is at that moment), without `secrets`.

    ``auto`` is JSON lines when the stream is the systemd journal, and lines for people otherwise. May be called again.
    """
    target = stream or sys.stdout
    if isinstance(target, io.TextIOWrapper):
        target.reconfigure(errors="backslashreplace")  # a clip's name must not break a line in a poor locale
    journal = is_journal(target, env)
    as_json = format == "json" or (format == "auto" and journal)
    colors = not as_json and not journal and target.isatty() and not env.get("NO_COLOR")
    redactor = Redactor(secrets)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    handler = _Handler(stream)
    handler.addFilter(handler.limit)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _Renderer(redactor, as_json=as_json, colors=colors, journal=journal),
            ],
        )
    )
    logging.setLogRecordFactory(_redacting(redactor))
    logging.captureWarnings(capture=True)
    root = logging.getLogger()
    for old in [each for each in root.handlers if isinstance(each, _Handler)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )


def settle(*, at_the_end: bool = False) -> None:
    """Tell how many lines were held back in the minutes that are over, or `at_the_end` in all of them."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _Handler):
            handler.limit.settle(at_the_end=at_the_end)


def is_journal(stream: TextIO, env: Mapping[str, str]) -> bool:
    """Whether the stream is the one that systemd connected to its journal: ``JOURNAL_STREAM`` is device:inode."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return env.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


class _Handler(logging.StreamHandler[TextIO]):
    """Looks up `sys.stdout` each time, so that lines go above a progress bar and not through it."""

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__(stream or sys.stdout)
        self._given = stream
        self.limit = RateLimit()

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = self._given or sys.stdout
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name in `logging`
        """Say so without the record, which nobody has redacted."""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"a log line of {record.name} could not be written ({sys.exc_info()[0]})\n")


class _Renderer:
    """An event as the final text. What comes out of here holds no secret."""

    def __init__(self, redactor: Redactor, *, as_json: bool, colors: bool, journal: bool) -> None:
        self._redactor = redactor
        self._journal = journal
        self._as_json = as_json
        self._render: Callable[[Any, str, MutableMapping[str, Any]], str | bytes] = (
            structlog.processors.JSONRenderer(ensure_ascii=False, default=repr)
            if as_json
            else structlog.dev.ConsoleRenderer(
                colors=colors, exception_formatter=structlog.dev.plain_traceback, pad_event_to=0
            )
        )

    def __call__(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        priority = _PRIORITY.get(str(event.get("level")), 6)
        clean = _clean(dict(event), self._hushed)
        text = self._redactor(str(self._render(logger, method, clean)))
        if self._as_json:
            text = _escaped(text, lambda character: json.dumps(character)[1:-1])
        return "\n".join(f"<{priority}>{line}" for line in text.splitlines()) if self._journal else text

    def _hushed(self, text: str) -> str:
        """Without secrets and, where JSON does not escape it later, without what a terminal would obey."""
        text = self._redactor(text)
        return text if self._as_json else _escaped(text, lambda character: repr(character)[1:-1])


def _clean(value: Any, hushed: Callable[[str], str]) -> Any:
    """Redact strings before a renderer puts escapes or colours into them."""
    match value:
        case str():
            return hushed(value)
        case dict():
            return {key: MASK if Redactor.hides(key) else _clean(item, hushed) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_clean(item, hushed) for item in value]
        case None | bool() | int() | float():
            return value
        case _:
            return hushed(repr(value))


def _escaped(text: str, escape: Callable[[str], str]) -> str:
    """Others' words may hold what moves a cursor, turns a line round, or begins one that looks like ours."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else escape(c) for c in text)


def _redacting(redactor: Redactor) -> Callable[..., logging.LogRecord]:
    def make(*arguments: Any, **named: Any) -> logging.LogRecord:
        record = logging.LogRecord(*arguments, **named)
        if isinstance(record.msg, dict):  # an event of our own logger, on its way to the renderer
            return record
        try:
            message = record.getMessage()
        except Exception:  # a library's broken format string must not hide its message
            message = f"{record.msg} {record.args}"
        record.msg, record.args = redactor(message), ()
        return record

    return make
