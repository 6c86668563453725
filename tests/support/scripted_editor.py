"""Everybody who writes to `clips`, played with the unmodified Supabase client under the role that each really has.

The actions and the columns they write were read in the origin project's SQL, Python and TypeScript (March 2026).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from supabase import AsyncClient

Row = dict[str, Any]
BATCH = 500
"""Rows per statement of the extraction's upload."""


@dataclass
class Editor:
    """A person at the web editor (`authenticated`) and the scripts that fill the database (`service_role`)."""

    person: AsyncClient
    scripts: AsyncClient

    async def sync_extraction(
        self, clips: Sequence[Row], *, label: str = "sermon", audio: dict[str, bytes] | None = None, run_id: str = ""
    ) -> str:
        """Extraction: the audio first, then upserts of 500 rows. `clips` need a `file_name`. Returns the run's id."""
        run = run_id or (await self._insert(self.scripts, "runs", [{"label": label, "source": "church"}]))[0]["id"]
        for name, data in (audio or {}).items():
            await self.upload(run, name, data)
        rows = [{"run_id": run, "draft_transcription": "stock draft", "source_file": "tape.mp3", **c} for c in clips]
        for start in range(0, len(rows), BATCH):
            part = rows[start : start + BATCH]
            await self.scripts.table("clips").upsert(part, on_conflict="run_id,file_name").execute()
        return str(run)

    async def upload(self, run_id: str, file_name: str, data: bytes) -> None:
        """Put audio at the clip's place, over what was there."""
        await self.scripts.storage.from_("clips").upload(
            f"{run_id}/{file_name}", data, {"upsert": "true", "content-type": "audio/wav"}
        )

    async def reading_session(self, texts: Sequence[str]) -> list[Row]:
        """A run to be read aloud: the drafts are the script, and no audio exists."""
        run = (await self._insert(self.person, "runs", [{"label": "psalms", "type": "reading"}]))[0]["id"]
        rows = [
            {"run_id": run, "file_name": f"chunks/{i:04}.wav", "draft_transcription": text}
            for i, text in enumerate(texts)
        ]
        return await self._insert(self.person, "clips", rows)

    async def ingest_chapter(self, text: str, run_id: str | None = None) -> Row:
        """One row with paragraphs; its draft is the chapter's text."""
        run = run_id or (await self._insert(self.person, "runs", [{"label": "chapter"}]))[0]["id"]
        row = {
            "run_id": run,
            "file_name": f"chapters/{uuid4().hex}.wav",
            "draft_transcription": text,
            "paragraphs": [{"heading": None, "text": text}],
        }
        return (await self._insert(self.person, "clips", [row]))[0]

    async def insert_pieces(self, chapter: Row, texts: Sequence[str]) -> list[Row]:
        """First half of a split: the pieces, with a person's text as their draft."""
        rows = [
            {
                "run_id": chapter["run_id"],
                "file_name": f"chunks/{i:04}.wav",
                "draft_transcription": text,
                "status": "pending",
                "priority": len(texts) - i,
            }
            for i, text in enumerate(texts)
        ]
        return await self._insert(self.person, "clips", rows)

    async def mark_split(self, chapter: Row, pieces: Sequence[Row]) -> None:
        """Second half of a split: the chapter is discarded with a record in place of a correction."""
        record = {
            "_splitOrigin": True,
            "childFileNames": [piece["file_name"] for piece in pieces],
            "archivePath": f"{chapter['run_id']}/_originals/{chapter['file_name']}",
            "splitAt": _now(),
        }
        await self._update(chapter["id"], {"status": "discarded", "corrected_transcription": json.dumps(record)})

    async def merge_back(self, chapter: Row) -> None:
        """The chapter is pending again; under row level security its pieces are silently not deleted."""
        await self._update(
            chapter["id"],
            {"status": "pending", "corrected_transcription": None, "corrected_at": None, "corrected_by": None},
        )

    async def record(self, clip: Row, data: bytes) -> None:
        """Record a chunk: audio over the same path, then the read text as the correction; no `corrected_at`."""
        await self.upload(clip["run_id"], clip["file_name"], data)
        text = clip["draft_transcription"]
        await self._update(clip["id"], {"corrected_transcription": text, "status": "corrected", "duration_sec": 2.0})

    async def save(self, clip: Row, text: str) -> None:
        """Save: the correction, then in a second request its history."""
        correction = {"corrected_transcription": text, "status": "corrected"}
        await self._update(clip["id"], {**correction, "corrected_at": _now(), "corrected_by": "rasoa"})
        edit = {"clip_id": clip["id"], "editor_id": "rasoa", "field": "corrected_transcription", "new_value": text}
        await self._insert(self.person, "clip_edits", [edit])

    async def autosave(self, clip: Row, text: str) -> None:
        """What is typed so far; the status stays."""
        await self._update(clip["id"], {"corrected_transcription": text})

    async def discard(self, clip: Row) -> Row:
        """Discard. Returns the values that an undo writes back."""
        names = "status,corrected_transcription,corrected_at,corrected_by"
        before = (await self.person.table("clips").select(names).eq("id", clip["id"]).execute()).data[0]
        await self._update(clip["id"], {"status": "discarded", "corrected_at": _now(), "corrected_by": "rasoa"})
        return dict(before)

    async def undo(self, clip: Row, before: Row) -> None:
        """Undo a discard."""
        await self._update(clip["id"], before)

    async def bulk_discard(self, clips: Sequence[Row]) -> None:
        """Discard many in one statement."""
        change = {"status": "discarded", "corrected_at": _now(), "corrected_by": "rasoa"}
        await self._update_many([clip["id"] for clip in clips], change)

    async def delete_run(self, run_id: str) -> None:
        """Objects first, then the rows by cascade."""
        clips = (await self.scripts.table("clips").select("file_name").eq("run_id", run_id).execute()).data
        if clips:
            await self.scripts.storage.from_("clips").remove([f"{run_id}/{clip['file_name']}" for clip in clips])
        await self.scripts.table("runs").delete().eq("id", run_id).execute()

    async def clips(self, run_id: str | None = None) -> list[Row]:
        """Rows as the editor loads them; those of one statement, which have one time, by their names."""
        query = self.scripts.table("clips").select("*")
        if run_id:
            query = query.eq("run_id", run_id)
        query = query.order("priority", desc=True).order("created_at").order("file_name")
        return [dict(row) for row in (await query.execute()).data]

    async def _update(self, clip_id: str, change: Row) -> None:
        await self.person.table("clips").update(change).eq("id", clip_id).execute()

    async def _update_many(self, clip_ids: Sequence[str], change: Row) -> None:
        await self.person.table("clips").update(change).in_("id", list(clip_ids)).execute()

    @staticmethod
    async def _insert(client: AsyncClient, table: str, rows: Sequence[Row]) -> list[Row]:
        return [dict(row) for row in (await client.table(table).insert(list(rows)).execute()).data]


def _now() -> str:
    return datetime.now(UTC).isoformat()
