"""What the page says, from the truth and from what this process knows. No clip's text and no file's name is in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from daemon.learning.ports import Version
from daemon.learning.rows import comparison, edited
from daemon.status import plots
from daemon.status.here import Here
from daemon.status.reasons import words as in_words
from daemon.status.truth import Look, Truth
from daemon.status.words import ago, counted, device_memory, lasting, minute, percent
from handlers.edits import change, told
from handlers.policy import Policy
from handlers.promotion import judge
from handlers.snapshot import Training
from handlers.training import bar

WELL, BUSY, TROUBLE = "well", "busy", "trouble"
WAITING = ("ready", "claimed", "retrying")
STALE_S = 90.0
"""Seconds after which the last truth is no news any more."""
SILENT_S = 150.0
"""A daemon says something every 30 s; one that missed five is not well."""

Found = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Card:
    """An answer that is read in a second."""

    question: str
    level: str
    answer: str
    details: Sequence[str] = ()
    share: float | None = None
    """How much of something is done."""


def page(look: Look, here: Here, policy: Policy, now: datetime) -> dict[str, Any]:
    """Everything that the template shows."""
    shown: dict[str, Any] = {"here": here, "age": age(look), "cards": [_alive(here, now), _listening(here, now)]}
    if (truth := look.truth) is None:
        return shown | {"known": False}
    status, training = truth.status, training_of(truth.status.get("training") or {})
    return shown | {
        "known": True,
        "cards": [
            *shown["cards"],
            _waiting(status),
            _live(status.get("live"), truth.versions, policy),
            _training(status, here, training, policy),
            _smaller(truth),
        ],
        "backlog": backlog(status),
        "runs": truth.history.get("runs"),
        "other_runs": int(truth.history.get("other_runs", 0)),
        "plots": [
            plots.error_rates(truth.versions),
            *plots.edit_rates(truth.edit_rates),
            plots.corrections(
                truth.history.get("corrections", ()), bar(training, policy.training)[0], training.new_clips, now.date()
            ),
            plots.latency(truth.history.get("latency", ())),
        ],
        "versions": [_row(each) for each in reversed(truth.versions)],
        "daemons": [_daemon(each) for each in status.get("daemons", ())],
    }


def age(look: Look) -> dict[str, str]:
    """How old the figures are, and why no newer ones are there."""
    if look.truth is None:
        return {"level": TROUBLE, "words": look.trouble or "The database has not been read yet."}
    read = f"Figures of {lasting(look.age_s)} ago"
    late = bool(look.trouble) and look.age_s > STALE_S
    return {"level": TROUBLE if late else WELL, "words": f"{read}. {look.trouble}" if look.trouble else f"{read}."}


def backlog(status: Found) -> list[tuple[str, int, str]]:
    """Pending clips by what they wait for: a name, how many, and the reason."""
    queue, held = status.get("queue", {}), status.get("held", {})
    retrying = sum(each["clips"] for each in status.get("failures", ()) if each["state"] == "retrying")
    rows = [
        ("waiting", int(queue.get("ready", 0)), "for their turn"),
        ("at work", int(queue.get("claimed", 0)), "a daemon has them now"),
        ("drafted", int(queue.get("drafted", 0)), "by the live version: a person's turn"),
        ("held", int(held.get("person_at_work", 0)), "a person is at work"),
        ("held", int(held.get("person_text", 0)), "a text to be read aloud, which is a person's"),
    ]
    for each in status.get("failures", ()):
        again = "tried again" if each["state"] == "retrying" else "failed"
        rows.append((again, int(each["clips"]), in_words(str(each["reason"]))))
    rows.append(("tried again", int(queue.get("retrying", 0)) - retrying, "no reason was given"))
    return [row for row in rows if row[1] > 0]


def training_of(found: Found) -> Training:
    """What there is to learn from, as far as it is told; who trains is looked up where it is shown."""
    names = ("new_clips", "new_minutes", "trained_clips", "trained_minutes", "recordings", "held_out")
    known: dict[str, Any] = {name: found.get(name) or 0 for name in names}
    return Training(**known)


def _alive(here: Here, now: datetime) -> Card:
    since = f"since {minute(here.started_at)} UTC, {lasting((now - here.started_at).total_seconds())}"
    if here.hung:
        return Card("Alive?", TROUBLE, f"{here.hung} hangs", (since,))
    if not here.ready:
        return Card("Alive?", BUSY, here.doing or "starting", (since,))
    details = [since, f"{counted(here.written, 'draft')} written by this daemon"]
    stuck = here.trouble or here.blocked
    return Card("Alive?", TROUBLE if stuck else WELL, stuck or "yes", details)


def _listening(here: Here, now: datetime) -> Card:
    feed = here.feed
    if feed is None:
        return Card("Listening?", BUSY, "not to Realtime: the sweep finds new clips")
    details = [
        f"since {minute(feed.since)} UTC",
        f"last change of a clip heard {ago(feed.heard_at, now)}",
        f"last canary came back {ago(feed.proven_at, now)}",
    ]
    live = feed.state == "live"
    level = WELL if live else BUSY if feed.state == "connecting" else TROUBLE
    return Card("Listening?", level, "live" if live else f"{feed.state}: {feed.reason or 'in a moment'}", details)


def _waiting(status: Found) -> Card:
    queue = status.get("queue", {})
    waiting, failed = sum(int(queue.get(state, 0)) for state in WAITING), int(queue.get("failed", 0))
    missing = sum(each["clips"] for each in status.get("failures", ()) if each["reason"] == "audio-missing")
    details = [f"{counted(int(queue.get('drafted', 0)), 'clip')} drafted and a person's turn"]
    details += [f"{counted(missing, 'clip')} without audio"] if missing else []
    details += [f"{counted(failed, 'clip')} failed"] if failed else []
    level = TROUBLE if failed or missing else BUSY if waiting else WELL
    return Card("Waiting?", level, counted(waiting, "clip") if waiting else "nothing", details)


def _live(live: Found | None, versions: Sequence[Version], policy: Policy) -> Card:
    if not live:
        return Card("Live?", BUSY, "no version yet")
    details = [f"{live['name']} ({live['kind']}), since {minute(live.get('since'))} UTC", f"{live['drafts']:,} drafts"]
    version = next((each for each in versions if each.id == live["id"]), None)
    compared = comparison(version.detail.get("comparison")) if version else None
    details.append(judge(compared, policy.promotion).words if compared else "it has not been compared with another")
    rate = f", {percent(compared.candidate_wer)} of words wrong" if compared else ""
    return Card("Live?", WELL, f"v{live['id']}{rate}", details)


def _training(status: Found, here: Here, training: Training, policy: Policy) -> Card:
    found = status.get("training") or {}
    active = found.get("active")
    if here.training:
        return _under_way(here.training[0], here.training[1], "on this host")
    if active:
        where = "left by its worker, goes on soon" if active.get("abandoned") else f"on {active.get('worker')}"
        return _under_way(active["version"], active.get("detail") or {}, where)
    clips, minutes = bar(training, policy.training)
    details = [f"{training.new_clips:,} of {clips:,} clips, or {training.new_minutes:.1f} of {minutes:.1f} minutes"]
    last = found.get("last")
    if last:
        details.append(f"the last run, of v{last['version']}, {last['status']} {minute(last.get('ended_at'))} UTC")
        details += [str(last["reason"])] if last.get("reason") else []
    failed = last is not None and last["status"] == "failed"
    answer = "no: switched off" if not policy.training.enabled else "no: waits for corrections"
    done = max(training.new_clips / max(1, clips), training.new_minutes / max(0.1, minutes))
    return Card("Training?", TROUBLE if failed else WELL, answer, details, share=min(1.0, done))


def _under_way(version: int, detail: Found, where: str) -> Card:
    step, steps, left = detail.get("step") or 0, detail.get("steps"), detail.get("seconds_left")
    details = [f"{detail.get('phase') or 'it begins'}, {where}"]
    details += [f"step {step:,} of {steps:,}"] if steps else []
    details += [f"loss {detail['loss']:.3f}"] if detail.get("loss") is not None else []
    details += [f"word error rate {percent(detail['wer'])}"] if detail.get("wer") is not None else []
    details += [f"{lasting(left)} left"] if left is not None else []
    share = min(1.0, step / steps) if steps else None
    answer = f"v{version}" + (f", {share:.0%}".replace("%", " %") if share is not None else "")
    return Card("Training?", BUSY, answer, details, share=share)


def _smaller(truth: Truth) -> Card:
    """Whether people change less in the live version's drafts than in those of the version before."""
    question = "Are corrections getting smaller?"
    if (edits := truth.edits) is None:
        return Card(question, BUSY, "no version was live before this one")
    found = change(edits)
    details = [told(edits).rpartition(": drafts of ")[2].removeprefix("drafts of ")]
    live = edited(truth.edit_rates, edits.version)
    if live.of_characters is not None and live.left_alone is not None:
        of = f"characters changed: {percent(live.of_characters)}; left as they were: {percent(live.left_alone)}"
        details.append(f"version {edits.version}, {of} of the drafts")
    if found is None:
        return Card(question, BUSY, "too few corrections to tell", details)
    answer = "yes" if found.better else "no: they grow" if found.worse else "no clear difference"
    return Card(question, TROUBLE if found.worse else WELL if found.better else BUSY, answer, details)


def _row(version: Version) -> dict[str, Any]:
    compared = comparison(version.detail.get("comparison"))
    return {
        "id": version.id,
        "name": version.name,
        "stage": version.stage,
        "since": minute(version.live_at) if version.live_at else "",
        "wer": percent(compared.candidate_wer) if compared else "",
        "before": f"v{compared.against}: {percent(compared.live_wer)}" if compared else "",
        "drafts": version.drafts,
        "reason": version.reason or "",
    }


def _daemon(found: Found) -> dict[str, Any]:
    state, silent = found.get("state") or {}, float(found.get("silent_s") or 0)
    return {
        "worker": found["worker"],
        "version": f"v{state['version']}" if state.get("version") else "",
        "device": f"{state['device']}{device_memory(state)}" if state.get("device") else "",
        "feed": state.get("feed") or "",
        "drafted": state.get("drafted", 0),
        "silent": f"{lasting(silent)} ago",
        "level": TROUBLE if silent > SILENT_S else WELL,
    }
