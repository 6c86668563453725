"""The commands that the README shows exist, with the options that it shows."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list[tuple[str, str]]:
    """(document, text) of every fenced block in a language."""
    return [
        (document.name, block)
        for document in DOCUMENTS
        for block in re.findall(rf"```{language}\n(.*?)```", document.read_text(), re.DOTALL)
    ]


def commands() -> list[str]:
    """Every `ambara …` and `make …` that a shell block holds, without comments, variables and pipes."""
    found = []
    for _, block in blocks("sh"):
        for line in block.splitlines():
            for part in re.split(r"\||&&|;|\$\(", line.partition(" #")[0]):
                words = [w for w in part.strip().rstrip(')"').split() if not re.match(r"[A-Z_]+=|sudo$", w)]
                if words and words[0] in {"ambara", "make"}:
                    found.append(" ".join(words))
    return sorted(set(found))


@cache
def help_of(*names: str) -> str:
    run = subprocess.run(
        [sys.executable, "-m", "daemon", *names, "--help"],
        capture_output=True,
        text=True,
        check=False,
        env={"COLUMNS": "200", "NO_COLOR": "1", "PATH": "/usr/bin:/bin", "HOME": str(Path.home())},
        cwd=ROOT,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("ambara")])
def test_the_command_exists_with_its_options(command: str) -> None:
    words = shlex.split(command.replace("'", ""))[1:]
    names = [words[0]] + ([words[1]] if words[0] in {"local", "models"} else [])
    known = help_of(*names)
    for word in words:
        if word.startswith("-"):
            assert re.search(rf"(^|[\s,]){re.escape(word.partition('=')[0])}\b", known), f"{names} has no {word}"


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("make")])
def test_the_target_exists(command: str) -> None:
    run = subprocess.run([*shlex.split(command), "-n"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def test_the_readme_opens_with_the_two_commands() -> None:
    readme = (ROOT / "README.md").read_text()
    first = re.search(r"```sh\n(.*?)```", readme, re.DOTALL)
    assert first is not None
    assert [line.split("#")[0].strip() for line in first[1].splitlines()] == ["make demo", "make test"]
    assert readme.index("make demo") < 800


def test_the_table_of_handlers_is_the_one_that_decides() -> None:
    from handlers import DECISIONS, events

    table = (ROOT / "README.md").read_text().partition("| after this event |")[2].partition("\n\n")[0]
    told = {}
    for row in table.splitlines()[2:]:
        names, decisions = row.strip("|").split("|")
        said = re.findall(r"[a-z_]+", re.split(r"[:(]", decisions)[0])
        told |= dict.fromkeys(re.findall(r"`(\w+)`", names), said)
    every = DECISIONS[events.SweepDue]
    decided = {event.__name__: [decision.__name__ for decision in row] for event, row in DECISIONS.items()}
    assert told | {"SweepDue": [decision.__name__ for decision in every]} == decided
    assert told["SweepDue"] == ["all"]


@pytest.mark.parametrize(("document", "block"), blocks("toml"))
def test_the_settings_are_accepted(document: str, block: str, tmp_path: Path) -> None:
    from daemon.config import load

    tomllib.loads(block)
    file = tmp_path / "ambara.toml"
    file.write_text(block)
    load(file, {"SUPABASE_URL": "http://127.0.0.1:1", "SUPABASE_SERVICE_ROLE_KEY": "sb_secret_x", "HOME": "/tmp"})


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_and_named_files_exist(document: Path) -> None:
    text = document.read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    named = re.findall(r"`((?:daemon|handlers|tests|supabase|systemd|benchmarks|docs)/[\w./-]+\w)`", text)
    for place in links:
        assert (document.parent / place).exists(), place
    for place in named:
        assert (ROOT / place).exists(), place
