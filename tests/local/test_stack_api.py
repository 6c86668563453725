"""The unmodified client against the stack: rows, functions, objects, roles, keys."""

from __future__ import annotations

import time
from uuid import UUID

import httpx
import psycopg
import pytest
from postgrest.exceptions import APIError
from supabase import AsyncClient, AsyncClientOptions, acreate_client
from storage3.exceptions import StorageApiError


async def test_a_row_goes_in_and_comes_out(supabase_client: AsyncClient) -> None:
    run = (await supabase_client.table("runs").insert({"label": "Alahady"}).execute()).data[0]
    rows = [{"run_id": run["id"], "file_name": f"clips/clip_{n:05}.wav"} for n in range(500)]
    inserted = (await supabase_client.table("clips").upsert(rows, on_conflict="run_id,file_name").execute()).data
    assert len(inserted) == 500
    await supabase_client.table("clips").upsert(rows[:3], on_conflict="run_id,file_name").execute()
    answer = await supabase_client.table("clips").select("*", count="exact").eq("run_id", run["id"]).limit(2).execute()
    assert answer.count == 500
    assert answer.data[0]["status"] == "pending"
    assert answer.data[0]["draft_transcription"] is None
    assert UUID(answer.data[0]["id"])
