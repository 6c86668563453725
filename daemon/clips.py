"""The queue of clips and the guarded write: every statement that the daemon sends to the database.

Each is one function of `supabase/migrations`, idempotent or harmless to repeat, because after a lost answer nobody
knows whether it was carried out. `ambara_submit` is the only way in this project to write to `clips`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import httpx
from postgrest.exceptions import APIError
from pydantic import ValidationError
from storage3.exceptions import StorageApiError
from supabase import AsyncClient

from daemon.errors import ConfigurationError, TemporaryError
from daemon.ports import Claim, Drafted, Failed, ModelVersion, Outcome

SCHEMA_VERSION = 1
"""What this code needs `ambara_schema_version()` to be, at least."""

_FOREIGN = frozenset({"PGRST202", "PGRST205", "42883", "42P01"})  # function or table unknown
_DENIED = frozenset({"42501", "PGRST301", "PGRST302", "401", "403"})

MIGRATE = "Apply Ambara's migrations: `ambara migrate` with SUPABASE_DB_URL set, or `supabase db push`."


class ClipStore:
    """The database as the daemon sees it, on behalf of one worker.

    Methods raise `TemporaryError` when the database is away and `ConfigurationError` when it refuses for a reason
    that only a person can change.
    """

    def __init__(self, client: AsyncClient, worker: str) -> None:
        self._client = client
        self.worker = worker

    async def check(self, bucket: str) -> None:
        """Raise `ConfigurationError` unless the key is the service role's, and migrations and bucket are there."""
        role = await self._call("ambara_whoami")
        if role in {"anon", "authenticated"}:
            raise ConfigurationError(
                f"The key speaks for the role {role}, which may not write drafts. "
                "Set SUPABASE_SERVICE_ROLE_KEY to the project's service_role (secret) key."
            )
        found = int(await self._call("ambara_schema_version"))
        if found < SCHEMA_VERSION:
            raise ConfigurationError(
                f"The database has Ambara's schema {found}, and {SCHEMA_VERSION} is needed. {MIGRATE}"
            )
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
            raise _translate(error, "Storage") from None
        except ValidationError:  # the bucket is there, with dates in a shape that the client does not read
            pass

    async def register(
        self, name: str, fingerprint: str, detail: Mapping[str, Any], *, go_live: bool
    ) -> tuple[int, ModelVersion | None]:
        """Make a model known. Returns its version number and the version that is live now."""
        answer = await self._call(
            "ambara_register_model",
            {"p_name": name, "p_fingerprint": fingerprint, "p_detail": dict(detail), "p_go_live": go_live},
        )
        live = answer["live"]
        return int(answer["version"]), ModelVersion(**live) if live else None

    async def snapshot(self) -> tuple[int | None, int]:
        """The number of the live version, and how many clips want a draft (counting stops at 1,000)."""
        answer = await self._call("ambara_snapshot")
        return answer["live"], int(answer["ready"])

    async def claim(
        self, version: int, limit: int, lease_s: float, *, manual: bool = False, runs: Sequence[str] | None = None
    ) -> list[Claim]:
        """Claim up to `limit` clips in the editor's order. With `manual`, clips that `version` has not drafted last."""
        rows = await self._call(
            "ambara_claim",
            {
                "p_worker": self.worker,
                "p_version": version,
                "p_limit": limit,
                "p_lease_s": lease_s,
                "p_manual": manual,
                "p_runs": list(runs) if runs is not None else None,
            },
        )
        return [
            Claim(r["clip_id"], r["run_id"], r["file_name"], r["duration_sec"], int(r["fence"]), int(r["attempts"]))
            for r in rows
        ]

    async def submit(self, version: int, drafts: Sequence[Drafted]) -> dict[str, Outcome]:
        """Write drafts under the guard. Returns the outcome for each clip id."""
        rows = await self._call(
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
                    }
                    for d in drafts
                ],
            },
        )
        return {r["clip_id"]: Outcome(r["outcome"]) for r in rows}

    async def fail(self, failures: Sequence[Failed]) -> None:
        """Store why clips could not be drafted, and when to try again."""
        items = [
            {
                "clip_id": f.claim.clip_id,
                "fence": f.claim.fence,
                "permanent": f.permanent,
                "reason": f.reason,
                "message": f.message,
            }
            for f in failures
        ]
        await self._call("ambara_fail", {"p_worker": self.worker, "p_failures": items})

    async def renew(self, clip_ids: Sequence[str], lease_s: float) -> None:
        """Hold claims for another `lease_s` seconds."""
        await self._call("ambara_renew", {"p_worker": self.worker, "p_clips": list(clip_ids), "p_lease_s": lease_s})

    async def release(self, clip_ids: Sequence[str] | None = None) -> None:
        """Give back claims: those named, or all of this worker's."""
        ids = list(clip_ids) if clip_ids is not None else None
        await self._call("ambara_release", {"p_worker": self.worker, "p_clips": ids})

    async def beat(self, state: Mapping[str, Any]) -> int:
        """Say what this daemon is doing. Returns the number of the beat, which Realtime brings back."""
        return int(await self._call("ambara_beat", {"p_worker": self.worker, "p_state": dict(state)}))

    async def leave(self) -> None:
        """Take this daemon's row away."""
        await self._call("ambara_leave", {"p_worker": self.worker})

    async def count_manual(self, fingerprint: str, runs: Sequence[str]) -> int:
        """How many clips of `runs` a re-draft by this model would draft."""
        return int(await self._call("ambara_count_manual", {"p_fingerprint": fingerprint, "p_runs": list(runs)}))

    async def runs_labelled(self, label: str) -> list[str]:
        """The ids of the runs with this label. Labels are not unique."""
        try:
            answer = await self._client.table("runs").select("id").eq("label", label).order("id").limit(1000).execute()
        except (APIError, httpx.HTTPError) as error:
            raise _translate(error, "runs") from None
        return [str(cast("dict[str, Any]", row)["id"]) for row in answer.data]

    async def _call(self, function: str, arguments: Mapping[str, Any] | None = None) -> Any:
        try:
            answer = await self._client.rpc(function, dict(arguments or {})).execute()
        except (APIError, httpx.HTTPError) as error:
            raise _translate(error, function) from None
        return answer.data


def _translate(error: APIError | httpx.HTTPError, what: str) -> TemporaryError | ConfigurationError:
    """The daemon's word for a failure of the Data API. The original text may hold a URL or a row, and is not kept."""
    if isinstance(error, httpx.HTTPError):
        return TemporaryError(f"Supabase does not answer ({type(error).__name__} in {what}).", reason="database-away")
    code = str(error.code or "")
    if code in _FOREIGN:
        return ConfigurationError(f"The database does not know {what}. {MIGRATE}", reason="migration-missing")
    if code in _DENIED:
        return ConfigurationError(
            f"The database refuses {what} to this key (code {code}). "
            "Set SUPABASE_SERVICE_ROLE_KEY to the project's service_role (secret) key.",
            reason="key-refused",
        )
    return TemporaryError(
        f"The database could not carry out {what} (code {code or 'unknown'}).", reason="database-error"
    )
