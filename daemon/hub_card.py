"""The README of a model on the hub: what it is and how good it was, without a word that was not measured."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

MARK = "<!-- Written by Ambara with the model. Take this line out to keep your own text: it is then left alone. -->"
"""A README without this line is somebody's own."""

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_LANGUAGE = re.compile(r"[a-z]{2,3}")


def model_card(facts: Mapping[str, Any]) -> str:
    """README.md for a fine-tuned model; what is not among the facts is not said.

    `facts`: ``language`` (code), ``base`` (hub id; a local path is not repeated), ``version`` (number),
    ``wer_before`` and ``wer_after`` (fractions, on the same held-out clips), ``held_out_clips``,
    ``held_out_recordings``, ``trained_clips``, ``trained_minutes``.
    """
    base = str(facts.get("base", ""))
    known = base if _HUB_ID.fullmatch(base) else None
    title = f"Whisper, fine-tuned (version {int(facts['version'])})" if facts.get("version") else "Whisper, fine-tuned"
    began = f"Fine-tuned from [{known}](https://huggingface.co/{known})" if known else "Fine-tuned from a local model"
    paragraphs = [f"# {title}", began + _trained(facts) + ".", _measured(facts)]
    return "\n".join(_metadata(facts, known)) + "\n\n" + "\n\n".join([MARK, *paragraphs]) + "\n"


def _metadata(facts: Mapping[str, Any], base: str | None) -> list[str]:
    """The block that the hub reads. Every value is JSON, which YAML reads alike."""
    values: dict[str, Any] = {"library_name": "transformers", "pipeline_tag": "automatic-speech-recognition"}
    if _LANGUAGE.fullmatch(language := str(facts.get("language", ""))):
        values["language"] = [language]
    if base:
        values["base_model"] = base
    values["tags"] = ["whisper", "automatic-speech-recognition"]
    if "wer_after" in facts:
        values["metrics"] = ["wer"]
    return ["---", *(f"{name}: {json.dumps(value)}" for name, value in values.items()), "---"]


def _trained(facts: Mapping[str, Any]) -> str:
    if not facts.get("trained_clips"):
        return ""
    minutes = f" ({float(facts['trained_minutes']):.0f} minutes)" if facts.get("trained_minutes") else ""
    return f" on {int(facts['trained_clips']):,} clips{minutes} that people transcribed"


def _measured(facts: Mapping[str, Any]) -> str:
    if "wer_after" not in facts:
        return "Nobody has measured it on recordings that were kept out of the training."
    clips, recordings = facts.get("held_out_clips"), facts.get("held_out_recordings")
    where = f"{int(clips):,} clips" if clips else "clips"
    where += f" of {int(recordings):,} recordings" if recordings else ""
    before = f"{float(facts['wer_before']):.1%} before, " if "wer_before" in facts else ""
    return (
        f"Word error rate (text normalised) on {where} that were kept out of the training: "
        f"{before}{float(facts['wer_after']):.1%} after. Other recordings may well give other figures."
    )
