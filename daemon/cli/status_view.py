"""The status as one screen. Whatever comes out of the database is shown as text, never obeyed as markup."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from daemon.cli.plain import moment
from daemon.cli.plain import text as _text
from daemon.cli.status_edits import told
from daemon.status.words import device_memory, lasting

SILENT_S = 150.0
"""Seconds. A daemon says something every 30 s; one that missed five is not well."""
PUBLISHED = ("clips", "ambara_daemons")
PUBLISH_SQL = "alter publication supabase_realtime add table {};"

Found = Mapping[str, Any]


def show(found: Found, url: str) -> None:
    """Print the answer of `ambara_status`."""
    console = Console(highlight=False, soft_wrap=True)
    for part in screen(found, url):
        console.print(part)


def screen(found: Found, url: str) -> Iterator[RenderableType]:
    """The parts of the screen, from the top."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    table.add_row("project", _text(url))
    table.add_row("live", _live(found.get("live")))
    table.add_row("queue", _counts(found["queue"], ("ready", "claimed", "drafted", "retrying", "failed")))
    table.add_row("held", _held(found.get("held", {})))
    table.add_row("clips", _counts(found.get("clips", {}), ("pending", "corrected", "discarded")))
    table.add_row("corrections", _corrections(found.get("new_corrections", {})))
    table.add_row("training", _training(found.get("training") or {}))
    table.add_row("candidate", _candidate(found.get("candidate")))
    for number, line in enumerate(told(found["edits"]) if found.get("edits") else ()):
        table.add_row("" if number else "edits", _text(line))
    yield table
    for lines in (_failures(found.get("failures", ())), _daemons(found.get("daemons", ()))):
        yield Text()
        yield from lines
    if advice := publication_advice(found.get("published", ())):
        yield Text()
        yield Text(advice, "yellow")


def publication_advice(published: Sequence[str]) -> str | None:
    """The sentence with the SQL that makes Realtime announce what the daemon listens for; None when it does."""
    missing = [name for name in PUBLISHED if name not in published]
    if not missing:
        return None
    sql = PUBLISH_SQL.format(", ".join(f"public.{name}" for name in missing))
    return (
        f"Realtime does not announce {' and '.join(missing)}, so only the sweep finds new clips; this mends it: {sql}"
    )


def _live(live: Found | None) -> Text:
    if not live:
        return _text("no version yet: it goes live when `ambara run` has loaded its model", "yellow")
    since = moment(live.get("since"))
    return _text(f"v{live['id']}  {live['name']} ({live['kind']}), since {since}, {live['drafts']:,} drafts")


def _counts(counts: Mapping[str, int], names: Iterable[str]) -> Text:
    shown = [f"{counts[name]:,} {name}" for name in names if counts.get(name)]
    return _text(", ".join(shown) or "empty")


def _held(held: Mapping[str, int]) -> Text:
    at_work, human = held.get("person_at_work", 0), held.get("person_text", 0)
    return _text(f"{at_work:,} with a person at work, {human:,} with a text to be read aloud")


def _corrections(new: Mapping[str, float]) -> Text:
    return _text(f"{new.get('clips', 0):,} new, {new.get('minutes', 0):,.1f} minutes")


def _training(training: Found) -> Text:
    """The run that is under way, or how the last one ended."""
    if active := training.get("active"):
        detail = active.get("detail") or {}
        where = "left by its worker, goes on soon" if active.get("abandoned") else f"on {active.get('worker')}"
        return _text(", ".join([f"run {active['run']} makes v{active['version']} {where}", *_progress(detail)]))
    asked = "; asked for by a person" if training.get("asked") else ""
    last = training.get("last")
    if not last:
        return _text(f"no run yet{asked}")
    said = f"run {last['run']} (v{last['version']}) {last['status']} {moment(last.get('ended_at'))}"
    said += f", {last['clips']:,} clips" if last.get("clips") else ""
    if last["status"] == "failed":
        return _text(f"{said}: {last.get('reason') or 'no reason'}{asked}", "yellow")
    return _text(f"{said}{asked}")


def _progress(detail: Found) -> list[str]:
    """How far a run is, as far as it says."""
    parts = [str(detail["phase"])] if detail.get("phase") else []
    if detail.get("steps"):
        parts.append(f"step {detail.get('step', 0):,} of {detail['steps']:,}")
    if detail.get("loss") is not None:
        parts.append(f"loss {detail['loss']:.3f}")
    if detail.get("wer") is not None:
        parts.append(f"word error rate {detail['wer']:.1%}")
    if (left := detail.get("seconds_left")) is not None:
        parts.append(f"{lasting(left)} left")
    return parts


def _candidate(candidate: Found | None) -> Text:
    if not candidate:
        return _text("none")
    named = f"v{candidate['version']}  {candidate['name']}, since {moment(candidate.get('since'))}"
    compared = candidate.get("comparison")
    if not compared:
        return _text(f"{named}, not compared yet")
    rates = f"{compared['live_wer']:.1%} -> {compared['candidate_wer']:.1%}"
    clips = f"{compared['clips']:,} held-out clips"
    return _text(f"{named}: word error rate {rates} on {clips} against v{compared['against']}")


def _failures(failures: Sequence[Found]) -> list[Text]:
    lines = [_text("failures" if failures else "no failures", "bold")]
    for each in failures:
        again = "tried again" if each["state"] == "retrying" else "until the clip or the model changes"
        lines.append(_text(f"  {each['clips']:,} × {each['reason']} ({again}): {each.get('message') or 'no message'}"))
    return lines


def _daemons(daemons: Sequence[Found]) -> list[Text]:
    lines = [_text("daemons" if daemons else "no daemon is running: start one with `ambara run`", "bold")]
    for each in daemons:
        state, silent = each.get("state") or {}, float(each.get("silent_s") or 0)
        lines.append(_text(f"  {each['worker']}"))
        model = f"v{state['version']} on {state.get('device') or '?'}" if state.get("version") else "no model yet"
        named = f" ({state['name']})" if state.get("name") else ""
        lines.append(_text(f"    {model}{named}{device_memory(state)}, {state.get('drafted', 0)} drafted"))
        if state.get("blocked"):
            lines.append(_text(f"    not drafting: {state['blocked']}", "yellow"))
        why = f": {state['feed_reason']}" if state.get("feed_reason") else ""
        lines.append(_text(f"    feed {state.get('feed') or 'unknown'}{why}"))
        if silent > SILENT_S:
            lines.append(_text(f"    silent for {silent:.0f} s", "red"))
        else:
            lines.append(_text(f"    seen {max(silent, 0):.0f} s ago"))
    return lines
