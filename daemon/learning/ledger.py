"""What was trained, on which words, and which version is live: the book-keeping of the learning loop.

Each method is one function of `supabase/migrations` (or several pages of it), and may be repeated after a lost answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from daemon.database import Database
from daemon.errors import PermanentError
from daemon.learning import rows
from daemon.learning.edits import EditBook
from daemon.learning.ports import Sample, Side, TrainingRun, Version
from daemon.learning.rows import LoggedDraft, Recording
from handlers.snapshot import Candidate, Comparison, Training

PAGE = 500
"""Rows asked for at once: an API server cuts an answer at 1,000."""


class Ledger:
    """The learning loop's side of the database, on behalf of one worker.

    Methods raise `TemporaryError` when the database is away and `ConfigurationError` when it refuses.
    """

    def __init__(self, database: Database, worker: str, bucket: str = "clips") -> None:
        self._database = database
        self._bucket = bucket
        self.worker = worker
        self.edits = EditBook(database, bucket)

    async def observe(self) -> tuple[Training, Candidate | None]:
        """Count what there is to learn from. The candidate's `here` is always False: only the host knows."""
        return await self._database.call(
            "ambara_training",
            {"p_bucket": self._bucket},
            lambda row: (rows.training(row), rows.candidate(row["candidate"])),
        )

    async def recordings(self) -> list[Recording]:
        """All recordings with at least one correction that may be trained on."""
        return await self._database.call("ambara_recordings", {}, lambda found: [rows.recording(row) for row in found])

    async def decide(self, sides: Mapping[str, Side]) -> None:
        """Give recordings their sides. One that has a side keeps it."""
        given = {key: side.value for key, side in sides.items()}
        await self._database.call("ambara_decide", {"p_sides": given}, int)

    async def begin(
        self,
        *,
        bar_clips: int,
        bar_minutes: float,
        lease_s: float,
        settings: Mapping[str, Any],
        retry_of: int | None = None,
    ) -> TrainingRun | None:
        """Begin a run, or take over a run whose lease has ended.

        A run begins if enough is new, if a person has asked, or if the run `retry_of` failed and none came after it.
        Only recordings with a side count and are trained on. None: no reason to begin, or another worker is training.
        """
        arguments = {
            "p_worker": self.worker,
            "p_bar_clips": bar_clips,
            "p_bar_minutes": bar_minutes,
            "p_lease_s": lease_s,
            "p_settings": dict(settings),
            "p_bucket": self._bucket,
            "p_retry_of": retry_of,
        }
        return await self._database.call("ambara_begin_training", arguments, rows.training_run)

    async def samples(self, run: TrainingRun) -> list[Sample]:
        """What the run counted, by clip id. `text` is None where the clip is no longer corrected with those words."""
        return await self._pages("ambara_samples", {"p_run": run.id})

    async def samples_frozen(self, run: TrainingRun, audio: Mapping[str, str]) -> None:
        """Note the sha256 of the audio that was trained on, by clip id."""
        items = list(audio.items())
        for start in range(0, len(items), PAGE):
            part = dict(items[start : start + PAGE])
            await self._database.call("ambara_samples_frozen", {**self._holding(run), "p_audio": part}, int)

    async def exportable(self, runs: Sequence[str]) -> tuple[list[Sample], dict[str, int]]:
        """The corrected clips of extraction or reading runs, and by reason how many were left out.

        A recording that nobody has decided about stands on the training side.
        """
        arguments = {"p_runs": list(runs)}
        left_out = await self._database.call("ambara_left_out", arguments, _counts)
        return await self._pages("ambara_exportable", arguments), left_out

    async def progress(self, run: TrainingRun, detail: Mapping[str, Any], lease_s: float) -> bool:
        """Renew the lease and store how far the run is. False: the run is no longer this worker's."""
        arguments = {**self._holding(run), "p_detail": dict(detail), "p_lease_s": lease_s}
        return await self._database.call("ambara_training_progress", arguments, bool)

    async def finish(self, run: TrainingRun, name: str, fingerprint: str, detail: Mapping[str, Any]) -> Version:
        """End the run with a candidate, or with a rejected version where the same weights are known already.

        Raises `PermanentError` (``run-lost``) if the run is no longer this worker's.
        """
        arguments = {
            **self._holding(run),
            "p_name": name,
            "p_fingerprint": fingerprint,
            "p_detail": dict(detail),
        }
        found = await self._database.call("ambara_finish_training", arguments, _version_or_none)
        if found is None:
            raise PermanentError(f"Run {run.id} is no longer this worker's: another has it.", reason="run-lost")
        return found

    async def fail(self, run: TrainingRun, message: str, detail: Mapping[str, Any]) -> None:
        """End the run without a candidate; `message` is one sentence for a person. Nothing, if it is another's."""
        arguments = {**self._holding(run), "p_message": message, "p_detail": dict(detail)}
        await self._database.call("ambara_fail_training", arguments, bool)

    async def let_go(self, run: TrainingRun) -> None:
        """End the lease now, so that whoever comes next goes on at once."""
        await self._database.call("ambara_let_go", self._holding(run), bool)

    async def ask_training(self) -> None:
        """A person wants training now; forgotten when a run begins."""
        await self._database.call("ambara_ask_training", {}, _nothing)

    async def evaluated(self, version: int, comparison: Comparison) -> None:
        """Store with a version how it compares with the live one."""
        arguments = {"p_version": version, "p_comparison": rows.comparison_row(comparison)}
        await self._database.call("ambara_evaluated", arguments, bool)

    async def promote(self, version: int, *, expected: int | None, reason: str) -> bool:
        """Make a version live in place of `expected` (None: of whatever is live, as a person's choice).

        False: another version went live meanwhile. Raises `PermanentError` if the version has no weights of its own.
        """
        arguments = {"p_version": version, "p_expected": expected, "p_reason": reason}
        outcome = await self._database.call("ambara_promote", arguments, dict)
        if outcome["refused"]:
            raise PermanentError(str(outcome["refused"]), reason="cannot-go-live")
        return bool(outcome["live"] == version)

    async def reject(self, version: int, reason: str) -> None:
        """Turn a version down, unless it is live or still being trained."""
        await self._database.call("ambara_reject", {"p_version": version, "p_reason": reason}, bool)

    async def rollback(self, reason: str) -> Version | None:
        """Make live what was live before; the version rolled back from is turned down. None: there was none before."""
        return await self._database.call("ambara_rollback", {"p_reason": reason}, _version_or_none)

    async def rollback_from(self, version: int, reason: str) -> Version | None:
        """As `rollback`, if `version` is live and was promoted for being better. None: nothing was changed."""
        arguments = {"p_version": version, "p_reason": reason}
        return await self._database.call("ambara_rollback_from", arguments, _version_or_none)

    async def pin(self, version: int, pinned: bool) -> None:
        """Keep a version's weights for good, or no longer. Raises `PermanentError` if there is no such version."""
        arguments = {"p_version": version, "p_pinned": pinned}
        if not await self._database.call("ambara_pin", arguments, bool):
            raise PermanentError(
                f"There is no version {version}; `ambara models list` shows them.", reason="no-version"
            )

    async def versions(self) -> list[Version]:
        """All versions, the oldest first."""
        return await self._versions({})

    async def version(self, number: int) -> Version | None:
        """One version."""
        return next(iter(await self._versions({"p_version": number})), None)

    async def live(self) -> Version | None:
        """The version that is live."""
        return next(iter(await self._versions({"p_stage": "live"})), None)

    async def in_use(self) -> set[int]:
        """The versions that daemons, on whatever host, have in memory."""
        return await self._database.call("ambara_in_use", {}, lambda found: {int(each) for each in found})

    async def forget_drafts(self, days: float, after: int | None, limit: int) -> tuple[int, int | None]:
        """Forget drafts older than so many days that nobody needs, of the next `limit` behind the draft `after`.

        Returns how many, and the draft to go on behind; None when all were looked at.
        """
        arguments = {"p_days": days, "p_after": after, "p_limit": limit}
        return await self._database.call(
            "ambara_forget_drafts", arguments, lambda found: (int(found["forgotten"]), found["after"])
        )

    async def forget_samples(self, limit: int) -> int:
        """Forget up to `limit` samples of runs that failed, which a later run counted again."""
        return await self._database.call("ambara_forget_samples", {"p_limit": limit}, int)

    async def drafts(self, clip_id: str) -> list[LoggedDraft]:
        """Every draft that a clip ever had, the newest first."""
        return await self._database.call(
            "ambara_drafts", {"p_clip": clip_id}, lambda found: [rows.logged_draft(row) for row in found]
        )

    async def restore(self, clip_id: str, draft_id: int) -> bool:
        """Give a clip an older draft back; it is not drafted over until another version goes live.

        False: there is no such draft, the clip may not be drafted (a person came first), or somebody holds its row.
        """
        arguments = {"p_worker": self.worker, "p_clip": clip_id, "p_draft": draft_id}
        return await self._database.call("ambara_restore", arguments, bool)

    def _holding(self, run: TrainingRun) -> dict[str, Any]:
        return {"p_worker": self.worker, "p_run": run.id, "p_fence": run.fence}

    async def _versions(self, arguments: Mapping[str, Any]) -> list[Version]:
        return await self._database.call(
            "ambara_versions", arguments, lambda found: [rows.version(row) for row in found]
        )

    async def _pages(self, function: str, arguments: Mapping[str, Any]) -> list[Sample]:
        found: list[Sample] = []
        while True:
            page = {**arguments, "p_after": found[-1].clip_id if found else None, "p_limit": PAGE}
            more = await self._database.call(function, page, lambda part: [rows.sample(row) for row in part])
            found += more
            if len(more) < PAGE:
                return found


def _counts(found: Mapping[str, Any]) -> dict[str, int]:
    return {reason: int(count) for reason, count in found.items()}


def _version_or_none(row: Mapping[str, Any] | None) -> Version | None:
    return rows.version(row) if row else None


def _nothing(_: object) -> None:
    return None
