"""/metrics: the same truth for Prometheus. Labels are states, statuses and reasons of a short list, never a clip's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from daemon.learning.rows import comparison, edited
from daemon.status.here import Here
from daemon.status.reasons import OTHER, slug
from daemon.status.truth import Look, Truth
from daemon.status.words import when
from handlers.edits import change

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FEED_STATES = ("connecting", "live", "deaf", "absent")
QUEUE_STATES = ("ready", "claimed", "drafted", "retrying", "failed")
CLIP_STATUSES = ("pending", "corrected", "discarded")
LANES = ("draft", "work")
MOST_REASONS = 30
"""Further ones are counted together."""
SILENT_S = 150.0

Found = Mapping[str, Any]


def metrics(look: Look, here: Here) -> bytes:
    """Everything, in Prometheus' text format. What is not known is left out, and never said to be 0."""
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    registry.register(_Collector(look, here))
    return generate_latest(registry)


class _Collector(Collector):
    def __init__(self, look: Look, here: Here) -> None:
        self._look, self._here = look, here

    def collect(self) -> Iterator[Metric]:
        """As prometheus_client asks."""
        yield from _of_this_process(self._here)
        truth = self._look.truth
        yield _gauge("database_up", "Whether the last read of the database went well.", not self._look.trouble)
        if truth:
            yield _gauge("database_read_age_seconds", "How old the figures of the database are.", self._look.age_s)
            yield from _of_the_queue(truth.status)
            yield from _of_learning(truth)
            yield from _of_the_live_version(truth)


def _of_this_process(here: Here) -> Iterator[Metric]:
    yield _gauge("ready", "Whether the model is in memory and the queue has been looked at.", here.ready)
    yield _gauge("hung", "Whether the model or the sweep hangs.", bool(here.hung))
    yield _gauge("blocked", "Whether something keeps the daemon from drafting.", bool(here.blocked))
    yield _gauge("event_loop_lag_seconds", "Worst lateness of the event loop in the last half minute.", here.lag_s)
    yield _gauge("event_loop_tasks", "Tasks of the event loop.", here.tasks)
    yield _gauge("start_timestamp_seconds", "When this daemon began.", here.started_at.timestamp())
    yield _gauges("lane_busy", "Whether a lane is at work.", "lane", {lane: lane in here.busy for lane in LANES})
    counts = {"written": here.written, "dropped": here.dropped, "failed": here.failed}
    drafts = CounterMetricFamily("ambara_drafts", "Drafts by what became of them, by this process.", labels=["outcome"])
    for outcome, count in counts.items():
        drafts.add_metric([outcome], count)
    yield drafts
    if here.version is not None:
        yield _gauge("loaded_version", "The model version in memory.", here.version)
    if memory := here.model.get("memory"):
        states = {state: memory[state] for state in ("free", "total")}
        yield _gauges(
            "device_memory_bytes",
            "Of the graphics card when the last batch was done, whoever uses it.",
            "state",
            states,
        )
    if feed := here.feed:
        states = {state: state == feed.state for state in FEED_STATES}
        yield _gauges("feed_state", "What can be expected of Realtime: one of them is 1.", "state", states)
        for name, said, moment in (
            ("feed_last_event_timestamp_seconds", "When a change of a clip was last heard.", feed.heard_at),
            ("feed_last_canary_timestamp_seconds", "When a canary last came back.", feed.proven_at),
        ):
            if moment:
                yield _gauge(name, said, moment.timestamp())


def _of_the_queue(status: Found) -> Iterator[Metric]:
    clips, queue, held = status.get("clips", {}), status.get("queue", {}), status.get("held", {})
    yield _gauges("clips", "Clips by status.", "status", {each: clips.get(each, 0) for each in CLIP_STATUSES})
    yield _gauges(
        "queue_clips",
        "Clips that may be drafted, by state.",
        "state",
        {each: queue.get(each, 0) for each in QUEUE_STATES},
    )
    held_for = {each: held.get(each, 0) for each in ("person_at_work", "person_text")}
    yield _gauges("held_clips", "Pending clips that are a person's, by reason.", "reason", held_for)
    failed = GaugeMetricFamily(
        "ambara_failed_clips", "Clips without a draft for a reason, by it.", labels=["state", "reason"]
    )
    for (state, reason), count in _failures(status).items():
        failed.add_metric([state, reason], count)
    yield failed
    daemons = [float(each.get("silent_s") or 0) for each in status.get("daemons", ())]
    yield _gauge("daemons", "Daemons that the database knows.", len(daemons))
    yield _gauge("daemons_silent", "Those that have said nothing for minutes.", sum(s > SILENT_S for s in daemons))


def _failures(status: Found) -> dict[tuple[str, str], int]:
    counts: dict[tuple[str, str], int] = {}
    for each in sorted(status.get("failures", ()), key=lambda found: -found["clips"]):
        key = (slug(each["state"]), slug(each["reason"]))
        key = key if key in counts or len(counts) < MOST_REASONS else (key[0], OTHER)
        counts[key] = counts.get(key, 0) + int(each["clips"])
    return counts


def _of_learning(truth: Truth) -> Iterator[Metric]:
    status = truth.status
    new, training = status.get("new_corrections", {}), status.get("training") or {}
    yield _gauge("versions", "Model versions.", len(truth.versions))
    yield _gauge("new_corrections", "Corrections that no training has seen.", new.get("clips") or 0)
    yield _gauge("new_corrections_seconds", "Their audio.", 60 * float(new.get("minutes") or 0))
    last, active = training.get("last") or {}, training.get("active") or {}
    yield _gauge("training_active", "Whether a training is under way, on whatever host.", bool(active))
    yield _gauge("training_failed", "Whether the last training failed.", last.get("status") == "failed")
    detail = active.get("detail") or {}
    if detail.get("steps"):
        yield _gauge("training_progress_ratio", "How much of it is done.", (detail.get("step") or 0) / detail["steps"])
    for name, said, key in (
        ("training_loss", "Its loss.", "loss"),
        ("training_remaining_seconds", "How long it will take.", "seconds_left"),
    ):
        if detail.get(key) is not None:
            yield _gauge(name, said, detail[key])


def _of_the_live_version(truth: Truth) -> Iterator[Metric]:
    if not (live := truth.status.get("live")):
        return
    yield _gauge("live_version", "The version whose drafts are wanted.", live["id"])
    yield _gauge("live_version_drafts", "Its drafts in the log.", live["drafts"])
    if since := when(live.get("since")):
        yield _gauge("live_since_timestamp_seconds", "When it went live.", since.timestamp())
    version = next((each for each in truth.versions if each.id == live["id"]), None)
    if version and (compared := comparison(version.detail.get("comparison"))):
        yield _gauge("live_word_error_ratio", "Its word error rate on held-out recordings.", compared.candidate_wer)
    found = edited(truth.edit_rates, live["id"])
    shares = {"word": found.of_words, "character": found.of_characters}
    if known := {level: share for level, share in shares.items() if share is not None}:
        yield _gauges("live_edit_ratio", "What people changed in its drafts.", "level", known)
    if found.left_alone is not None:
        yield _gauge("live_unchanged_ratio", "Its drafts that people left as they were.", found.left_alone)
    if truth.edits and (difference := change(truth.edits)):
        said = "Whether people change more in its drafts than in those of the version before, beyond chance."
        yield _gauge("live_edits_worse", said, difference.worse)


def _gauge(name: str, said: str, value: float) -> Metric:
    return GaugeMetricFamily(f"ambara_{name}", said, value=float(value))


def _gauges(name: str, said: str, label: str, values: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(f"ambara_{name}", said, labels=[label])
    for each, value in values.items():
        family.add_metric([each], float(value))
    return family
