"""The queue of clips and the guarded write: every statement that the daemon sends to the database.

Each is one function of `supabase/migrations`, idempotent or harmless to repeat, because after a lost answer nobody
knows whether it was carried out. `ambara_submit` is the daemon's only way to write to `clips`; a person's wish to
have an older draft back takes the same guarded way (`ambara_restore`), and `ambara_give_back_priorities` undoes what
it did to priorities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import httpx
from postgrest.exceptions import APIError
from pydantic import ValidationError
from storage3.exceptions import StorageApiError
from supabase import AsyncClient

from daemon.database import MIGRATE, UNREADABLE, Database, not_supabase, translate
from daemon.errors import ConfigurationError, TemporaryError
from daemon.ports import Claim, Drafted, Failed, ModelVersion, Outcome

SCHEMA_VERSION = 10
"""What this code needs `ambara_schema_version()` to be, at least."""

MENDED_CLIPS = 10_000
"""Clips that one call of `mend_queue` takes in at most: about a second for the database."""
WALKED_CLIPS = 2_000
"""Clips that one call of `mend_clips` looks at."""
GIVEN_BACK_CLIPS = 500
"""Clips that one call of `give_back_priorities` writes at most: people may want them meanwhile."""


class ClipStore:
    """The database as the daemon sees it, on behalf of one worker.

    Methods raise `TemporaryError` when the database is away and `ConfigurationError` when it refuses for a reason
    that only a person can change.
    """

    def __init__(self, client: AsyncClient, worker: str, *, useful_first: bool = False) -> None:
        """`useful_first`: let the priority of clips follow from how unsure the model was of their drafts."""
        self._client = client
        self._database = Database(client)
        self.worker = worker
        self.useful_first = useful_first

    async def check(self, bucket: str) -> None:
        """Raise `ConfigurationError` unless the key is the service role's, and migrations and bucket are there."""
        role = await self._database.call("ambara_whoami", {}, str)
        if role in {"anon", "authenticated"}:
            raise ConfigurationError(
                f"The key speaks for the role {role}, which may not write drafts. "
                "Set SUPABASE_SERVICE_ROLE_KEY to the project's service_role (secret) key."
            )
        found = await self._database.call("ambara_schema_version", {}, int)
        if found < SCHEMA_VERSION:
            raise ConfigurationError(
                f"The database has Ambara's schema {found}, and {SCHEMA_VERSION} is needed. {MIGRATE}"
            )
        await self.check_bucket(bucket)

    async def check_bucket(self, bucket: str) -> None:
        """Raise `ConfigurationError` unless the bucket is there."""
        try:
            await self._client.storage.get_bucket(bucket)
        except StorageApiError as error:
            if str(error.status) != "404":
                raise TemporaryError("Supabase Storage does not answer as it should.", reason="storage-away") from None
            raise ConfigurationError(
                f"There is no bucket {bucket!r}: create it (private) in Supabase under Storage, or name another as "
                "bucket under [supabase].",
                reason="bucket-missing",
            ) from None
        except httpx.HTTPError as error:
            raise translate(error, "Storage") from None
        except ValidationError:  # the bucket is there, with dates in a shape that the client does not read
            pass
        except UNREADABLE:
            raise not_supabase("Storage") from None

    async def register(
        self, name: str, fingerprint: str, detail: Mapping[str, Any], *, go_live: bool
    ) -> tuple[int, ModelVersion | None]:
        """Make a model known. Returns its version number and the version that is live now."""
        return await self._database.call(
            "ambara_register_model",
            {"p_name": name, "p_fingerprint": fingerprint, "p_detail": dict(detail), "p_go_live": go_live},
            lambda a: (int(a["version"]), ModelVersion(**a["live"]) if a["live"] else None),
        )

    async def snapshot(self) -> tuple[int | None, int]:
        """The number of the live version, and how many clips want a draft (counting stops at 1,000)."""
        return await self._database.call("ambara_snapshot", {}, lambda a: (a["live"], int(a["ready"])))

    async def claim(
        self, version: int, limit: int, lease_s: float, *, manual: bool = False, runs: Sequence[str] | None = None
    ) -> list[Claim]:
        """Claim up to `limit` clips: those never drafted first, each group in the editor's order.

        With `manual`, clips that `version` has not drafted last.
        """
        return await self._database.call(
            "ambara_claim",
            {
                "p_worker": self.worker,
                "p_version": version,
                "p_limit": limit,
                "p_lease_s": lease_s,
                "p_manual": manual,
                "p_runs": list(runs) if runs is not None else None,
            },
            lambda rows: [_claim(row) for row in rows],
        )

    async def claim_newest(self, version: int, limit: int, lease_s: float) -> tuple[int | None, list[Claim]]:
        """Claim up to `limit` clips that were never drafted, of the newest few: of a long queue they are the end.

        Returns the number of the live version with them. Nothing is claimed unless that is `version`.
        """
        return await self._database.call(
            "ambara_claim_newest",
            {"p_worker": self.worker, "p_version": version, "p_limit": limit, "p_lease_s": lease_s},
            lambda a: (a["live"], [_claim(row) for row in a["clips"]]),
        )

    async def submit(self, version: int, drafts: Sequence[Drafted]) -> dict[str, Outcome]:
        """Write drafts under the guard, and priorities with them. Returns the outcome for each clip id."""
        return await self._database.call(
            "ambara_submit",
            {
                "p_worker": self.worker,
                "p_version": version,
                "p_drafts": [
                    {
                        "clip_id": d.claim.clip_id,
                        "fence": d.claim.fence,
                        "text": d.draft.text,
                        "confidence": d.draft.confidence,
                        "flags": list(d.draft.flags),
                        "uncertainty": d.draft.uncertainty if self.useful_first else None,
                    }
                    for d in drafts
                ],
            },
            lambda rows: {row["clip_id"]: Outcome(row["outcome"]) for row in rows},
        )

    async def fail(self, failures: Sequence[Failed], *, manual: bool = False) -> None:
        """Store why clips could not be drafted, and when to try again. With `manual`, only why."""
        items = [
            {
                "clip_id": f.claim.clip_id,
                "fence": f.claim.fence,
                "retry": f.retry.value,
                "reason": f.reason,
                "message": f.message,
            }
            for f in failures
        ]
        await self._database.call(
            "ambara_fail", {"p_worker": self.worker, "p_failures": items, "p_manual": manual}, int
        )

    async def renew(self, clip_ids: Sequence[str], lease_s: float) -> None:
        """Hold claims for another `lease_s` seconds."""
        await self._database.call(
            "ambara_renew", {"p_worker": self.worker, "p_clips": list(clip_ids), "p_lease_s": lease_s}, int
        )

    async def release(self, clip_ids: Sequence[str] | None = None) -> None:
        """Give back claims: those named, or all of this worker's."""
        ids = list(clip_ids) if clip_ids is not None else None
        await self._database.call("ambara_release", {"p_worker": self.worker, "p_clips": ids}, int)

    async def mend_queue(self) -> int:
        """Have the queue take in clips that it has missed, for triggers can be switched off. Returns how many."""
        return await self._database.call("ambara_mend_queue", {"p_limit": MENDED_CLIPS}, int)

    async def mend_clips(self, bucket: str, after: str | None) -> tuple[int, str | None]:
        """Put right what the queues say of the next clips behind `after`. Returns how often it was wrong, and the clip
        to go on behind."""
        page = {"p_bucket": bucket, "p_after": after, "p_limit": WALKED_CLIPS}
        return await self._database.call("ambara_mend_clips", page, lambda a: (int(a["wrong"]), a["after"]))

    async def give_back_priorities(self) -> int:
        """Give some clips back the priority that they had before a draft set it, unless somebody has changed it since.

        Returns how many were looked at; 0 when there are no more.
        """
        return await self._database.call("ambara_give_back_priorities", {"p_limit": GIVEN_BACK_CLIPS}, int)

    async def follow_redraft(self) -> None:
        """Show an editor that has cards how far the live version is with what others had drafted, and end cards that
        nobody would end."""
        await self._database.call("ambara_redraft_card", {}, lambda _: None)

    async def card(self, status: str, percent: int | None, message: str) -> None:
        """Show an editor that has cards how far this worker is: `status` is running, done or failed. Every two minutes,
        at least. `percent` None: as it was."""
        await self._database.call(
            "ambara_manual_card",
            {"p_worker": self.worker, "p_status": status, "p_progress": percent, "p_message": message},
            lambda _: None,
        )

    async def beat(self, state: Mapping[str, Any]) -> int:
        """Say what this daemon is doing. Returns the number of the beat, which Realtime brings back."""
        return await self._database.call("ambara_beat", {"p_worker": self.worker, "p_state": dict(state)}, int)

    async def leave(self) -> None:
        """Take this daemon's row away."""
        await self._database.call("ambara_leave", {"p_worker": self.worker}, lambda _: None)

    async def count_manual(self, fingerprint: str, runs: Sequence[str]) -> int:
        """How many clips of `runs` a re-draft by this model would draft."""
        return await self._database.call(
            "ambara_count_manual", {"p_fingerprint": fingerprint, "p_runs": list(runs)}, int
        )

    async def runs_labelled(self, label: str) -> list[str]:
        """The ids of the runs with this label. Labels are not unique."""
        return await self._runs("label", [label])

    async def runs_known(self, ids: Sequence[str]) -> list[str]:
        """Those of `ids` that are runs."""
        return await self._runs("id", ids)

    async def _runs(self, column: str, values: Sequence[str]) -> list[str]:
        try:
            query = self._client.table("runs").select("id").in_(column, list(values))
            rows: Any = (await query.order("id").limit(1000).execute()).data
            return [str(row["id"]) for row in rows]
        except (APIError, httpx.HTTPError) as error:
            raise translate(error, "runs") from None
        except UNREADABLE:
            raise not_supabase("runs") from None


def _claim(row: Mapping[str, Any]) -> Claim:
    return Claim(
        clip_id=row["clip_id"],
        run_id=row["run_id"],
        file_name=row["file_name"],
        duration_s=None if row["duration_sec"] is None else float(row["duration_sec"]),  # "NaN" is told as a text
        fence=int(row["fence"]),
        attempts=int(row["attempts"]),
    )
