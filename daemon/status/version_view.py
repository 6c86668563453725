"""What the page of one version says: the verdict, recording by recording, and clips where somebody asks for words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from daemon.learning.ports import Version
from daemon.learning.rows import comparison
from daemon.status.diff import word_diff
from daemon.status.words import minute, percent
from handlers.policy import PromotionPolicy
from handlers.promotion import judge

SHOWN = 10
"""Clips at each end."""

Found = Mapping[str, Any]


def version_page(
    version: Version, evidence: Found | None, policy: PromotionPolicy, *, transcripts: bool
) -> dict[str, Any]:
    """Everything that the template shows. Without `transcripts` no text and no file's name is in it."""
    compared = comparison(version.detail.get("comparison"))
    clips = list((evidence or {}).get("clips", ()))
    told: dict[str, Any] = {
        "version": version,
        "made": minute(version.created_at),
        "since": minute(version.live_at) if version.live_at else "",
        "transcripts": transcripts,
        "verdict": judge(compared, policy).words if compared else "It has not been compared with a live version.",
        "against": compared.against if compared else None,
        "guards": [
            (guard.name, percent(guard.live), percent(guard.candidate), guard.candidate <= guard.live + guard.tolerance)
            for guard in (compared.guards if compared else ())
        ],
        "figures": _figures((evidence or {}).get("totals") or {}),
        "recordings": recordings(clips, named=transcripts),
        "evidence_here": evidence is not None,
    }
    if transcripts:
        ordered = sorted(clips, key=_badness)
        told["best"] = [_clip(each) for each in ordered[:SHOWN]]
        told["worst"] = [_clip(each) for each in ordered[: -SHOWN - 1 : -1]]
    return told


def recordings(clips: Sequence[Found], *, named: bool) -> list[dict[str, Any]]:
    """Word error rate of both versions on each recording, the one that lost most first."""
    pooled: dict[str, list[int]] = {}
    for clip in clips:
        sums = pooled.setdefault(str(clip["recording"]), [0, 0, 0, 0])
        for index, count in enumerate((1, clip["words"], clip["live"]["errors"], clip["candidate"]["errors"])):
            sums[index] += count
    rows = []
    for number, (name, (count, words, live, this)) in enumerate(sorted(pooled.items()), start=1):
        before, now = live / max(1, words), this / max(1, words)
        rows.append(
            {
                "name": name if named else f"recording {number}",
                "clips": count,
                "words": words,
                "before": percent(before),
                "now": percent(now),
                "gain": f"{(before - now) * 100:+.1f}",
                "better": now <= before,
                "_gain": before - now,
            }
        )
    return sorted(rows, key=lambda row: row["_gain"])


def _figures(totals: Found) -> list[tuple[str, str, str]]:
    names = {"wer": "words", "wer_raw": "words as written", "cer": "characters"}
    rows = []
    for group, found in totals.items():
        of = "" if group == "all" else f", {group} ({found['clips']:,} clips)"
        rows += [
            (f"{name}{of}", percent(found["live"][key]), percent(found["candidate"][key]))
            for key, name in names.items()
        ]
    return rows


def _badness(clip: Found) -> tuple[float, int, str]:
    errors = clip["candidate"]["errors"]
    return errors / max(1, clip["words"]), errors, str(clip["clip_id"])


def _clip(clip: Found) -> dict[str, Any]:
    return {
        "id": clip["clip_id"],
        "recording": clip["recording"],
        "errors": clip["candidate"]["errors"],
        "before": clip["live"]["errors"],
        "words": clip["words"],
        "diff": word_diff(clip["reference"], clip["candidate"]["text"]),
    }
