"""What people change in the live version's drafts and in those of the version before, for `ambara status`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from daemon.errors import AmbaraError
from daemon.learning.rows import Edited, edited, edits_compared
from handlers.edits import change

Found = Mapping[str, Any]
Ask = Callable[[str], Any]
"""Path of a function of the database -> what it answers. Raises `AmbaraError` where it is not known, or no answer
comes."""


def edits(status: Found, ask: Ask) -> dict[str, Any] | None:
    """For programs: ``live`` and ``before``, each a `_fact` or None, and a ``verdict``: ``better`` or ``worse`` beyond
    chance, ``no clear difference``, or None where there is too little to tell.

    None instead of all that where no version is live, or the database does not tell.
    """
    if not (live := status.get("live")):
        return None
    try:
        rates, compared = ask("rest/v1/rpc/ambara_edit_rates"), edits_compared(ask("rest/v1/rpc/ambara_edits_compared"))
    except AmbaraError:  # it was migrated before it measured corrections, or is too busy: all the rest is shown
        return None
    if compared is None:
        return {"live": _fact(live["id"], edited(rates, live["id"])), "before": None, "verdict": None}
    both, _ = compared
    found = change(both)
    verdict = found and ("worse" if found.worse else "better" if found.better else "no clear difference")
    facts = {name: _fact(of, edited(rates, of)) for name, of in (("live", both.version), ("before", both.before))}
    return {**facts, "verdict": verdict}


def _fact(version: int, found: Edited) -> dict[str, Any]:
    """Shares of 1; None where no draft of it was corrected."""
    return {
        "version": version,
        "clips": found.clips,
        "words": found.of_words,
        "characters": found.of_characters,
        "unchanged": found.left_alone,
    }


def told(found: Found) -> list[str]:
    """For people: a line for each version, the verdict behind the first."""
    verdict = found["verdict"]
    said = f"; {verdict}{' beyond chance' if verdict in ('better', 'worse') else ''}" if verdict else ""
    return [_line(found["live"]) + said, *([f"{_line(found['before'])}, before it"] if found["before"] else [])]


def _line(fact: Found) -> str:
    if fact["words"] is None:
        return f"v{fact['version']}: nobody has corrected a draft"
    return (
        f"v{fact['version']}: {fact['words']:.1%} of words, {fact['characters']:.1%} of characters changed in "
        f"{fact['clips']:,} clip{'' if fact['clips'] == 1 else 's'}, {fact['unchanged']:.1%} left as they were"
    )
