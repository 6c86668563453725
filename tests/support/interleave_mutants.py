"""The guarded write with one thing taken away, inside the session's database and only for the length of a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from interleave_ledger import Sql


@dataclass(frozen=True, slots=True)
class GuardMutant:
    """In the text of `function`, `old` becomes `new`; then `breaks` stands among what is found."""

    name: str
    function: str
    old: str
    new: str
    breaks: str
    crowd: bool = True
    """Whether a crowd finds it too, and random histories. Some things nobody does by chance."""


_SUBMIT_OWN = "s.clip_id = d.clip_id and s.worker = p_worker and s.fence = d.fence"

GUARD_MUTANTS = (
    GuardMutant("status", "ambara_draftable", "c.status = 'pending'", "true", "drafted where there was status"),
    GuardMutant(
        "corrected_transcription", "ambara_draftable", "c.corrected_transcription is null", "true",
        "drafted where there was a person's words",
    ),
    GuardMutant(
        "paragraphs", "ambara_draftable", "and c.ambara_chapter is null", "", "drafted where there was a chapter"
    ),
    GuardMutant(
        "run type", "ambara_draftable", "run.ambara_kind = 'extraction'", "true",
        "drafted where there was a reading run",
    ),
    GuardMutant(
        "pieces of a chapter", "ambara_draftable", "c.file_name like 'chunks/%'", "false",
        "drafted where there was a piece of a chapter",
    ),
    GuardMutant(
        "looked at again", "ambara_submit", "join public.ambara_draftable() w on w.clip_id = o.clip_id", "",
        "drafted where there was a piece of a chapter", crowd=False,
    ),
    GuardMutant(
        "unchanged since the claim", "ambara_submit", "and c.updated_at is not distinct from o.clip_updated_at", "",
        "drafted over a change",
    ),
    GuardMutant("fence", "ambara_submit", _SUBMIT_OWN, _SUBMIT_OWN.removesuffix(" and s.fence = d.fence"),
        "drafted under fence",
    ),
    GuardMutant(
        "worker", "ambara_submit", _SUBMIT_OWN, _SUBMIT_OWN.replace(" and s.worker = p_worker", ""),
        "drafted without a claim",
    ),
    GuardMutant(
        "claim", "ambara_submit", _SUBMIT_OWN, "s.clip_id = d.clip_id", "drafted under a claim of"
    ),
    GuardMutant("locked first", "ambara_submit", "for no key update skip locked", "",
        "waited, and not busy", crowd=False),
    GuardMutant("without waiting", "ambara_submit", "for no key update skip locked", "for no key update",
        "waited, and not busy", crowd=False),
    GuardMutant("claimed without waiting", "ambara_claim", "for no key update of c skip locked",
        "for no key update of c", "claim_while_held: waited", crowd=False),
    GuardMutant("the draft alone", "ambara_submit", "set draft_transcription = o.text",
        "set draft_transcription = o.text, status = c.status, duration_sec = coalesce(c.duration_sec, 0) + 1",
        "changed draft_transcription, duration_sec"),
)  # fmt: skip


@contextmanager
def mutated(db: Sql, mutant: GuardMutant) -> Iterator[None]:
    """The database with the function changed; afterwards it is what it was."""
    [(original,)] = db.execute(
        "select pg_get_functiondef(oid) from pg_proc where proname = %s", [mutant.function]
    ).fetchall()
    assert original.count(mutant.old) == 1, f"{mutant.function} has not exactly one {mutant.old!r}"
    db.execute(original.replace(mutant.old, mutant.new).encode())
    try:
        yield
    finally:
        db.execute(original.encode())
