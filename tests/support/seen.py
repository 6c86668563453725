"""A truth of every kind for tests of the page."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from daemon.learning.ports import Version
from daemon.status.here import FeedHere, Here
from daemon.status.truth import Look, Truth
from handlers.snapshot import EditRates, EditSums

NOW = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
NASTY = "<script>alert(1)</script>"


def comparison(against: int, before: float, now: float) -> dict[str, Any]:
    return {
        "against": against,
        "clips": 200,
        "recordings": 5,
        "words": 2000,
        "live_wer": before,
        "candidate_wer": now,
        "gain_low": before - now - 0.02,
        "gain_high": before - now + 0.02,
        "confidence": 0.95,
        "guards": [{"name": "empty drafts", "live": 0.01, "candidate": 0.02, "tolerance": 0.02}],
    }


def versions() -> tuple[Version, ...]:
    made = NOW - timedelta(days=30)
    at = {"fingerprint": "f", "pinned": False, "created_at": made.isoformat(), "live_at": made.isoformat()}
    return (
        Version(1, "openai/whisper-small", kind="base", stage="retired", live_seq=1, reason=None, drafts=900, **at),
        Version(
            2,
            "trained-0002",
            kind="trained",
            stage="retired",
            live_seq=2,
            reason="better",
            detail={"comparison": comparison(1, 0.41, 0.3)},
            drafts=700,
            **at,
        ),
        Version(
            3,
            NASTY,
            kind="trained",
            stage="live",
            live_seq=3,
            reason=f"better {NASTY}",
            detail={"comparison": comparison(2, 0.3, 0.22)},
            drafts=310,
            **at,
        ),
    )


def status(**changes: Any) -> dict[str, Any]:
    return {
        "live": {"id": 3, "name": NASTY, "kind": "trained", "since": "2026-11-27T08:00:00+00:00", "drafts": 310},
        "clips": {"pending": 40, "corrected": 500, "discarded": 3},
        "queue": {"ready": 12, "claimed": 4, "drafted": 15, "retrying": 2, "failed": 1},
        "held": {"person_at_work": 3, "person_text": 3},
        "failures": [
            {"reason": "audio-missing", "state": "retrying", "clips": 2, "message": "secret_name.wav is missing"},
            {"reason": NASTY, "state": "failed", "clips": 1, "message": NASTY},
        ],
        "new_corrections": {"clips": 34, "minutes": 5.5},
        "training": {
            "new_clips": 34,
            "new_minutes": 5.5,
            "trained_clips": 100,
            "trained_minutes": 20.0,
            "recordings": 7,
            "held_out": 2,
            "asked": False,
            "active": {
                "run": 4,
                "version": 4,
                "worker": "elsewhere",
                "abandoned": False,
                "detail": {"phase": "training", "step": 43, "steps": 100, "loss": 1.234, "seconds_left": 600},
            },
            "failure": None,
            "last": None,
        },
        "candidate": None,
        "daemons": [{"worker": NASTY, "silent_s": 3.0, "state": {"version": 3, "device": "cpu", "feed": "live"}}],
    } | changes


def history() -> dict[str, Any]:
    return {
        "runs": [{"run": "r", "label": NASTY, "waiting": 18, "drafted": 15, "failed": 1, "held": 6}],
        "other_runs": 2,
        "corrections": [{"day": f"2026-11-{day}", "clips": day} for day in range(10, 28)],
        "latency": [{"day": f"2026-11-{day}", "clips": 9, "half_s": 2.5, "most_s": 11.0} for day in range(20, 28)],
    }


def rates() -> list[dict[str, Any]]:
    return [
        {
            "version": version,
            "week": week,
            "clips": 12,
            "unchanged": 3,
            "words": 100,
            "word_edits": edits,
            "characters": 500,
            "character_edits": 3 * edits,
        }
        for version, week, edits in ((1, "2026-11-02", 40), (2, "2026-11-09", 31), (3, "2026-11-23", 20))
    ]


def edits(now: int = 200, then: int = 310) -> EditRates:
    """So many of a thousand words changed, in either version, evenly over ten recordings."""
    sums = (
        EditSums(40, 10, 1000, n, words_words=100_000, words_edits=100 * n, edits_edits=n * n / 10) for n in (now, then)
    )
    return EditRates(3, 2, chosen=False, here=True, **dict(zip(("now", "then"), sums, strict=True)))


def look(age_s: float = 4.0, trouble: str = "", **changes: Any) -> Look:
    return Look(Truth(status(**changes), versions(), history(), rates(), edits(), NOW), age_s, trouble)


def here(**changes: Any) -> Here:
    feed = FeedHere("live", None, NOW - timedelta(hours=3), NOW - timedelta(seconds=20), NOW - timedelta(seconds=50))
    known: dict[str, Any] = {
        "worker": "host-1-abc",
        "started_at": NOW - timedelta(hours=5),
        "doing": "live v3, 12 pending",
        "ready": True,
        "version": 3,
        "model": {"device": "cuda:0", "memory": {"free": 60_000_000_000, "total": 80_000_000_000}},
        "feed": feed,
        "written": 210,
        "busy": frozenset({"draft"}),
    }
    return Here(**known | changes)


def evidence(clips: int = 24) -> Mapping[str, Any]:
    """Both texts of clips of two recordings, the later the worse."""
    return {
        "totals": {
            "all": {
                "clips": clips,
                "live": {"wer": 0.3, "wer_raw": 0.4, "cer": 0.1},
                "candidate": {"wer": 0.2, "wer_raw": 0.3, "cer": 0.08},
            }
        },
        "clips": [
            {
                "clip_id": f"00000000-0000-4000-8000-{number:012}",
                "recording": ("tapes/market.wav", "tapes/clinic.wav")[number % 2],
                "reference": f"Manao ahoana, {NASTY} ry namana {number}",
                "words": 20,
                "live": {"text": "manao", "errors": min(20, number + 1), "flags": []},
                "candidate": {"text": f"manao ahoana {NASTY} namana {number}", "errors": min(20, number), "flags": []},
            }
            for number in range(clips)
        ],
    }
