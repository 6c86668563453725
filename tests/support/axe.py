"""axe-core, which looks for what keeps people from using a page: one locked file of the npm registry."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import tarfile
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from daemon.local.node import node

PACKAGE = "axe-core@4.14.1"
SHA512 = "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
FINDINGS = (
    "axe.run().then((found) => found.violations.map((each) => "
    "`${each.impact} ${each.id}: ${each.nodes.map((node) => node.html).slice(0, 3).join(' ')}`))"
)


@cache
def source() -> str:
    """The program; skips the test where the registry is out of reach."""
    npm = node().parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    with TemporaryDirectory() as folder:
        command = [str(node()), str(npm), "pack", PACKAGE, "--ignore-scripts", "--loglevel=error"]
        done = subprocess.run(command, cwd=folder, capture_output=True, check=False, timeout=120)
        found = list(Path(folder).glob("*.tgz"))
        if done.returncode != 0 or not found:
            pytest.skip(f"{PACKAGE} from the npm registry, which does not answer")
        assert base64.b64encode(hashlib.sha512(found[0].read_bytes()).digest()).decode() == SHA512
        with tarfile.open(found[0]) as archive:
            file = archive.extractfile("package/axe.min.js")
            assert file is not None
            return file.read().decode()
