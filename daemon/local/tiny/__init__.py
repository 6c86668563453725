"""A Whisper of 1.2 MB that really learns: the demo's and the tests' model, trained on synthetic speech."""

from __future__ import annotations

from pathlib import Path

BASE = Path(__file__).parent / "base"
"""The carried model, in the layout of `save_pretrained`. `provenance.json` in it says how it was made."""
