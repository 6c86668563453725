"""Several machines train as one, by the command in the documents: here they are two agents of one machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from audiofolders import write_side

from daemon.local.sockets import free_port
from daemon.local.speech import speak_corpus
from daemon.local.tiny import BASE

GUARD_S = 300
ROOT = Path(__file__).parents[1]


def test_two_machines_train_as_one(tmp_path: Path) -> None:
    """The first reports, judges and writes the model; both end well."""
    clips = speak_corpus("B", 22, seed=51)
    write_side(tmp_path / "data", "train", clips[:17])
    data = write_side(tmp_path / "data", "test", clips[17:])
    out, port = tmp_path / "out", str(free_port())
    learn = ("--base-model", str(BASE), "--epochs", "4", "--batch-size", "4", "--device", "cpu")
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("SUPABASE_", "AMBARA_", "HF_"))}
    env = bare | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "120", "PYTHONPATH": str(ROOT)}
    agents = [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--node-rank", str(rank)),
                *("--nproc-per-node", "1", "--master-addr", "127.0.0.1", "--master-port", port),
                *("-m", "daemon", "train", "-d", str(data), "-o", str(out), *learn),
            ],
            env=env,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [agent.communicate(timeout=GUARD_S) for agent in agents]
    finally:
        for agent in agents:
            agent.kill()
            agent.wait()
    assert [agent.returncode for agent in agents] == [0, 0], said
    assert "The model is in" in said[0][0]
    assert said[1][0].strip() == ""
    assert json.loads((out / "result.json").read_text())["processes"] == 2
    assert (out / "model" / "model.safetensors").is_file()
