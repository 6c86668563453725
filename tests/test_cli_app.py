"""The command line as people meet it: real processes, exit codes, one sentence instead of a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.cli import app
from daemon.errors import EXIT_CONFIGURATION, ConfigurationError, PermanentError, TemporaryError

NESTED = ExceptionGroup("g", [ValueError(), ExceptionGroup("h", [TemporaryError("a"), ConfigurationError("b")])])
LINE = 1 + Path(app.__file__).read_text().splitlines().index('        app(prog_name="ambara")')
"""Through which everything comes."""
UNFORESEEN = (
    f"ambara: something unforeseen happened (KeyError in daemon/cli/app.py, line {LINE}). "
    "Set AMBARA_DEBUG=1 for the traceback.\n"
)


def ambara(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("SUPABASE_", "AMBARA_"))}
    return subprocess.run(
        [sys.executable, "-m", "daemon", *arguments],
        env=bare | {"COLUMNS": "120"} | env,
        cwd=Path(__file__).parent,  # where no ambara.toml lies
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_help_names_every_command() -> None:
    done = ambara("--help")
    assert done.returncode == 0
    for name in app.COMMANDS:
        assert f"│ {name} " in done.stdout


@pytest.mark.parametrize("name", ["run", "re-draft", "status", "doctor", "migrate", "demo"])
def test_help_of_each_command_has_examples(name: str) -> None:
    done = ambara(name, "--help")
    assert done.returncode == 0
    assert f"ambara {name}" in done.stdout
    assert "Examples" in done.stdout


def test_version() -> None:
    assert ambara("--version").stdout == "ambara 0.1.0\n"


def test_a_mistyped_command_is_answered_with_the_nearest() -> None:
    done = ambara("re-darft")
    assert done.returncode == 2
    assert "re-draft" in done.stderr


def test_in_the_journal_the_last_word_is_an_error_like_any_other() -> None:
    """JSON with its priority, on one line; a sentence for people everywhere else."""
    program = (
        "import os, sys\n"
        "status = os.fstat(2)\n"
        "os.environ['JOURNAL_STREAM'] = f'{status.st_dev}:{status.st_ino}'\n"
        "from daemon.cli import app\n"
        "sys.argv = ['ambara', 'run']\n"
        "sys.exit(app.main())"
    )
    env = {name: value for name, value in os.environ.items() if not name.startswith(("SUPABASE_", "AMBARA_"))}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=env | {"SUPABASE_URL": "hush hush", "SUPABASE_SERVICE_ROLE_KEY": "sb_secret_hush"},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == EXIT_CONFIGURATION
    priority, line = done.stderr[:3], json.loads(done.stderr[3:])
    assert (priority, line["event"], line["level"]) == ("<3>", "ended", "error")
    assert "SUPABASE_URL" in line["error"]
    assert "sb_secret" not in done.stderr


@pytest.mark.parametrize("arguments", [("--help",), ("status", "--help"), ("status",)])
def test_nothing_heavy_is_imported_for_a_quick_answer(arguments: tuple[str, ...]) -> None:
    program = (
        "import sys\n"
        "from daemon.cli import app\n"
        "app.main()\n"
        "heavy = {'torch', 'transformers', 'supabase', 'realtime', 'apscheduler', 'psycopg', 'numpy', 'datasets'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    env = os.environ | {"SUPABASE_URL": "http://127.0.0.1:1", "SUPABASE_SERVICE_ROLE_KEY": "sb_secret_x"}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=env,
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigurationError("Set the thing."), 78, "ambara: Set the thing.\n"),
        (TemporaryError("It is away."), 1, "ambara: It is away.\n"),
        (PermanentError("It is broken."), 1, "ambara: It is broken.\n"),
        (NESTED, 78, "ambara: b\n"),
        (ExceptionGroup("g", [TemporaryError("a")]), 1, "ambara: a\n"),
        (BaseExceptionGroup("g", [KeyboardInterrupt()]), 130, ""),
        (KeyboardInterrupt(), 130, ""),
        (KeyError("sb_secret_abc"), 70, UNFORESEEN),
    ],
)
def test_one_sentence_and_an_exit_code_for_every_failure(
    error: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.delenv("AMBARA_DEBUG", raising=False)
    monkeypatch.setattr(app, "app", fail)
    assert app.main() == code
    assert capsys.readouterr().err == said


def test_a_traceback_on_request_without_the_key(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    key = "swordfish-of-the-project"

    def fail(**_: object) -> None:
        raise KeyError(key)

    monkeypatch.setenv("AMBARA_DEBUG", "1")
    monkeypatch.setenv("SUPABASE_SERVICE_ROLE_KEY", key)
    monkeypatch.setattr(app, "app", fail)
    assert app.main() == 70
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert "KeyError" in said
    assert key not in said


@pytest.mark.parametrize(
    ("command", "env", "said"),
    [
        (("run",), {}, "Set SUPABASE_URL"),
        (("status",), {"SUPABASE_URL": "https://abc.supabase.co"}, "Set SUPABASE_SERVICE_ROLE_KEY"),
        (
            ("re-draft", "-m", "x", "-l", "y"),
            {"SUPABASE_URL": "https://abc.supabase.co", "SUPABASE_SERVICE_ROLE_KEY": "hush"},
            "not a Supabase key",
        ),
        (("run",), {"AMBARA_CONFIG": "/nowhere/ambara.toml"}, "no configuration file"),
    ],
)
def test_wrong_settings_end_with_78_and_a_sentence(command: tuple[str, ...], env: dict[str, str], said: str) -> None:
    done = ambara(*command, **env)
    assert done.returncode == 78
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "hush" not in done.stderr + done.stdout


def test_config_option(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[modle]\nx = 1", encoding="utf-8")
    done = ambara("--config", str(tmp_path / "a.toml"), "status")
    assert (done.returncode, "did you mean [model]?" in done.stderr) == (78, True)


def test_migrate_without_an_address_points_to_print() -> None:
    done = ambara("migrate")
    assert (done.returncode, done.stdout) == (78, "")
    assert "SUPABASE_DB_URL" in done.stderr
    printed = ambara("migrate", "--print").stdout
    assert "create table if not exists public.drafts" in printed
    assert printed.rstrip().endswith("notify pgrst, 'reload schema';")


def test_migrate_applies(blank_database: str) -> None:
    import psycopg

    from daemon import migrate
    from daemon.local.origin import origin_sql

    with psycopg.connect(blank_database) as connection:
        connection.execute(origin_sql(minimal=True).encode())
    would, did, again = (
        ambara("migrate", *extra, SUPABASE_DB_URL=blank_database) for extra in (("--dry-run",), (), ())
    )
    assert [done.returncode for done in (would, did, again)] == [0, 0, 0]
    assert would.stdout.replace("would apply", "applied") == did.stdout
    assert did.stdout.count("applied") == len(migrate.migrations())
    assert "up to date" in again.stdout
