"""Versions and their evidence on a screen. What comes out of the database or the evidence is shown as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from daemon.cli.plain import clean, moment, text
from daemon.learning.reasons import LEFT_OUT
from daemon.learning.rows import comparison, edited
from handlers.promotion import judge

if TYPE_CHECKING:
    from daemon.learning.ports import Version
    from daemon.learning.registry import Registry
    from handlers.policy import PromotionPolicy
    from handlers.snapshot import Comparison

Found = Mapping[str, Any]


def fact(version: Version, registry: Registry, rates: Sequence[Found]) -> dict[str, Any]:
    """A line of the list, for programs. `rates`: as `EditBook.rates`."""
    changed = edited(rates, version.id)
    compared = comparison(version.detail.get("comparison"))
    return {
        "number": version.id,
        "name": version.name,
        "kind": version.kind,
        "stage": version.stage,
        "live_at": version.live_at,
        "wer_before": compared.live_wer if compared else None,
        "wer_after": compared.candidate_wer if compared else None,
        "against": compared.against if compared else None,
        "drafts": version.drafts,
        "corrected": changed.clips,
        "edit_rate": changed.of_words,
        "edit_rate_characters": changed.of_characters,
        "unchanged": changed.left_alone,
        "pinned": version.pinned,
        "here": is_here(version, registry),
        "reason": version.reason,
    }


def is_here(version: Version, registry: Registry) -> bool | None:
    """Whether this host has the folder of a trained version; None where there is none to have."""
    return registry.whole(version.id) if version.kind == "trained" else None


def show_list(versions: Sequence[Version], registry: Registry, rates: Sequence[Found]) -> None:
    """All versions, a line each."""
    table = Table(
        "version", "name", "stage", "live since", "word error rate", "drafts", "people changed", "pinned", "here"
    )
    for each in versions:
        compared = comparison(each.detail.get("comparison"))
        here = {True: "yes", False: "no", None: ""}[is_here(each, registry)]
        since = moment(each.live_at) if each.live_at else ""
        pinned = "yes" if each.pinned else ""
        style = "bold" if each.stage == "live" else ""
        gate = _rates(compared) if compared else ""
        changed = edited(rates, each.id)
        people = "" if changed.of_words is None else f"{changed.of_words:.1%} of words in {changed.clips:,}"
        row = (text(each.name), each.stage, since, gate, f"{each.drafts:,}", people, pinned, here)
        table.add_row(str(each.id), *row, style=style)
    Console(highlight=False).print(table)


def show_version(
    version: Version, evidence: Found | None, registry: Registry, policy: PromotionPolicy, clips: int
) -> None:
    """Everything that is known of one version."""
    console = Console(highlight=False, soft_wrap=True)
    live = f", live since {moment(version.live_at)}" if version.live_at and version.stage == "live" else ""
    console.print(text(f"Version {version.id}: {version.name} ({version.kind}), {version.stage}{live}", "bold"))
    facts = [f"made {moment(version.created_at)}", f"{version.drafts:,} drafts in the log"]
    facts += ["pinned"] if version.pinned else []
    facts += ["its folder is not on this host"] if is_here(version, registry) is False else []
    console.print(text(", ".join(facts)))
    if version.reason:
        console.print(text(f"Why: {version.reason}"))
    if compared := comparison(version.detail.get("comparison")):
        console.print(text(f"Verdict by this host's settings, against version {compared.against}:"))
        console.print(text(f"  {judge(compared, policy).words}"))
        console.print(_figures(compared, (evidence or {}).get("totals") or {}))
    else:
        console.print("It has not been compared with a live version.")
    if shown := worst(evidence or {}, clips):
        console.print(_clips(shown))
    _trained(version.detail, console)


def worst(evidence: Found, count: int) -> list[dict[str, Any]]:
    """The held-out clips on which the version makes most errors, by the share of the words and then by their number."""
    clips = [dict(clip) for clip in evidence.get("clips", ())]
    clips.sort(key=lambda clip: (-clip["candidate"]["errors"] / max(1, clip["words"]), -clip["candidate"]["errors"]))
    return clips[:count]


def _rates(compared: Comparison) -> str:
    return f"{compared.live_wer:.1%} -> {compared.candidate_wer:.1%}"


def _figures(compared: Comparison, totals: Found) -> Table:
    """Error rates and guards, the live version's beside its own."""
    table = Table(
        "", f"version {compared.against}", "this one", "let pass", title="Held-out clips", title_justify="left"
    )
    table.add_row("word error rate", f"{compared.live_wer:.1%}", f"{compared.candidate_wer:.1%}", "")
    for group, found in totals.items():
        of = "" if group == "all" else f", {clean(group)} ({found['clips']:,} clips)"
        names = {"wer_raw": "as written", "cer": "characters"} | ({} if group == "all" else {"wer": "words"})
        for key, name in names.items():
            row = (f"{found[side][key]:.1%}" for side in ("live", "candidate"))
            table.add_row(text(f"error rate, {name}{of}"), *row, "")
    for guard in compared.guards:
        most = guard.live + guard.tolerance
        style = "" if guard.candidate <= most else "red"
        table.add_row(text(guard.name), f"{guard.live:.1%}", f"{guard.candidate:.1%}", f"{most:.1%}", style=style)
    return table


def _clips(clips: Sequence[Found]) -> Table:
    table = Table("clip", "what", "errors", "text", title="The worst clips", title_justify="left", show_lines=True)
    for clip in clips:
        who = ("person", "before", "this one")
        errors = ("", clip["live"]["errors"], f"{clip['candidate']['errors']} of {clip['words']}")
        said = (clip["reference"], clip["live"]["text"], clip["candidate"]["text"])
        table.add_row(
            text(clip["clip_id"]), "\n".join(who), "\n".join(map(str, errors)), Text("\n").join(map(text, said))
        )
    return table


def _trained(detail: Found, console: Console) -> None:
    """What it was trained on and how, as far as the version remembers."""
    data = detail.get("data") or {}
    left_out = data.get("left_out") or {}
    if left_out:
        console.print("Left out of training:")
        for reason, count in sorted(left_out.items(), key=lambda item: (-item[1], item[0])):
            console.print(text(f"  {count:,} clip{'' if count == 1 else 's'} {LEFT_OUT.get(reason, reason)}"))
    for title, known in (("Data", data), ("Training", detail.get("training") or {})):
        flat = [f"{name} {value}" for name, value in _flat(known).items() if not name.startswith("left_out")]
        if flat:
            console.print(text(f"{title}: {', '.join(flat)}"))
    if detail.get("base"):
        console.print(text(f"Trained from {detail['base']}"))


def _flat(known: Found, before: str = "") -> dict[str, Any]:
    """Nested values by a dotted name; long lists stay out of it."""
    flat: dict[str, Any] = {}
    for name, value in known.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{before}{name}.")
        elif isinstance(value, str | int | float):
            flat[f"{before}{name}"] = f"{value:.4g}" if isinstance(value, float) else value
    return flat
