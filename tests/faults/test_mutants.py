"""The suite tried on itself: a daemon that is wrong in one place turns a named fault red.

The predicates of the guarded write are dropped one by one beside the fault that sees them (F18).
"""

from __future__ import annotations

from pathlib import Path

import pytest
from fault_record import Fault
from mutants import Change, Mutant, play

BEGIN = "supabase/migrations/20261123000004_learning.sql"
TABLES = "supabase/migrations/20261122000001_ambara_tables.sql"
CONNECTION = "daemon/feed/connection.py"
REGISTRY = "daemon/learning/registry.py"
DECODER = "daemon/audio_child.py"

MUTANTS = (
    Mutant(
        "no sweep",
        (Change("daemon/app.py", 'lambda: parts.ring(SweepDue()), "sweep")', 'lambda: None, "sweep")'),),
        "F43",
        "I1",
    ),
    Mutant(
        "no look after the confirmation",
        (Change(CONNECTION, "self._bell.press(SweepDue())\n        if payload.ext", "if payload.ext"),),
        "F01",
        "I1",
        "confirmation",
    ),
    Mutant(
        "one turn a sweep, as if the first page were all",
        (Change("handlers/__init__.py", "ClipsDrafted: (swap, draft)", "ClipsDrafted: (swap,)"),),
        "F10",
        "I1",
    ),
    Mutant(
        "callbacks that may fail, and nobody watches the listener",
        (
            Change(CONNECTION, "        return call\n", "        return callback\n"),
            Change(CONNECTION, "            task.add_done_callback(self._on_ended)", "            pass"),
        ),
        "F42",
        "I1",
    ),
    Mutant(
        "read the count, then begin: no lock, no unique index",
        (
            Change(BEGIN, "perform pg_advisory_xact_lock(hashtext('ambara_training'));", ""),
            Change(
                TABLES,
                "create unique index if not exists training_runs_one",
                "create index if not exists training_runs_one",
            ),
        ),
        "F21",
        "I3",
    ),
    Mutant(
        "no fence on a training run",
        (
            Change(
                BEGIN,
                "r.status = 'active' and r.worker = p_worker and r.fence = p_fence",
                "r.status = 'active'",
            ),
        ),
        "F22",
        "I5",
        "late",
    ),
    Mutant(
        "redirects are followed",
        (
            Change("daemon/supabase_client.py", "follow_redirects=False", "follow_redirects=True"),
            Change("daemon/supabase_client.py", "if response.is_redirect:", "if False:"),
        ),
        "F36",
        "0 requests",
    ),
    Mutant(
        "no limit to the frames of a file",
        (
            Change(DECODER, "if frames > max_seconds * sound.samplerate:", "if False:"),
            Change(DECODER, "if frames * sound.channels > max_seconds * SAMPLES_PER_SECOND:", "if False:"),
        ),
        "F26",
        "a typed reason",
    ),
    Mutant(
        "nothing is flushed before the manifest says that it is there",
        (
            Change(REGISTRY, "        os.fsync(file.fileno())", "        pass"),
            Change("daemon/asr/whisper/finished.py", "    sync_tree(half)\n", ""),
        ),
        "F44",
        "I5 what was published stays",
    ),
    Mutant(
        "a version is whole without a manifest",
        (Change(REGISTRY, "if stamps is None:", 'if stamps is None:\n            return folder / "model"'),),
        "F44",
        "I5 any other",
    ),
)


@pytest.mark.long
@pytest.mark.parametrize(
    "mutant",
    [pytest.param(m, id=m.name, marks=pytest.mark.fault("M" + f"{n:02}", m.name)) for n, m in enumerate(MUTANTS, 1)],
)
def test_a_mutant_is_found(fault: Fault, mutant: Mutant, tmp_path: Path) -> None:
    """Its fault fails, by the invariant that it breaks and not by an accident."""
    fault.injected(f"{mutant.fault} against a copy: {mutant.name}")
    verdict = play(mutant.copy(tmp_path), mutant.fault, test=mutant.test, seed=fault.seed)
    broken = [invariant for invariant in verdict.broken(mutant.fault) if invariant.startswith(mutant.breaks)]
    fault.observe(f"red: {mutant.fault} {broken[0] if broken else 'nothing'}")
    fault.holds("found", [] if broken else [verdict.output[-3000:]])
