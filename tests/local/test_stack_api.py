"""The unmodified client against the stack: rows, functions, objects, roles, keys."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
from postgrest.exceptions import APIError
from storage3.exceptions import StorageApiError
from supabase import AsyncClient, acreate_client

from daemon.local.stack import LocalStack

Connection = psycopg.Connection[tuple[object, ...]]


async def test_500_rows_upsert_in_one_statement_and_a_second_time_change_nothing(supabase_client: AsyncClient) -> None:
    run = await _run(supabase_client)
    rows = [{"run_id": run, "file_name": f"clips/clip_{n:05}.wav"} for n in range(500)]
    first = await supabase_client.table("clips").upsert(rows, on_conflict="run_id,file_name").execute()
    again = await supabase_client.table("clips").upsert(rows[:3], on_conflict="run_id,file_name").execute()
    counted = await supabase_client.table("clips").select("*", count="exact").eq("run_id", run).limit(2).execute()
    assert len(first.data) == 500
    assert {row["id"] for row in again.data} <= {row["id"] for row in first.data}
    assert counted.count == 500
    assert counted.data[0]["status"] == "pending"
    assert counted.data[0]["priority"] == 0
    assert UUID(counted.data[0]["id"])


async def test_an_update_moves_updated_at_and_leaves_created_at(supabase_client: AsyncClient) -> None:
    clip = await _clip(supabase_client, await _run(supabase_client))
    changed = await supabase_client.table("clips").update({"priority": 2}).eq("id", clip["id"]).execute()
    assert _when(changed.data[0]["updated_at"]) > _when(clip["updated_at"])
    assert _when(changed.data[0]["created_at"]) == _when(clip["created_at"])


async def test_a_file_name_is_unique_within_its_run_alone(supabase_client: AsyncClient) -> None:
    run = await _run(supabase_client)
    await _clip(supabase_client, run)
    await _clip(supabase_client, await _run(supabase_client))
    with pytest.raises(APIError) as twice:
        await _clip(supabase_client, run)
    assert twice.value.code == "23505"


@pytest.mark.parametrize(
    "statement",
    [
        "insert into clips (run_id, file_name, status) select id, 'a', 'lost' from runs",
        "insert into runs (label, type) values ('x', 'song')",
        "insert into jobs (type) values ('train')",
        "insert into jobs (type, status) values ('redraft', 'lost')",
    ],
)
def test_only_the_editors_words_are_allowed(db: Connection, statement: str) -> None:
    db.execute("insert into runs (label) values ('Alahady')")
    with pytest.raises(psycopg.errors.CheckViolation):
        db.execute(statement.encode())


async def test_deleting_a_run_takes_its_clips_and_edits_along(supabase_client: AsyncClient, db: Connection) -> None:
    run = await _run(supabase_client)
    clip = await _clip(supabase_client, run)
    await supabase_client.table("clip_edits").insert({"clip_id": clip["id"], "field": "status"}).execute()
    await supabase_client.table("runs").delete().eq("id", run).execute()
    assert db.execute("select (select count(*) from clips) + (select count(*) from clip_edits)").fetchone() == (0,)


async def test_a_new_function_is_known_after_a_reload(local_stack: LocalStack, supabase_client: AsyncClient) -> None:
    with psycopg.connect(local_stack.db_url, autocommit=True) as connection:
        connection.execute("create function public.twice(n integer) returns integer language sql as 'select 2 * n'")
        try:
            with pytest.raises(APIError) as unknown:
                await supabase_client.rpc("twice", {"n": 21}).execute()
            await asyncio.to_thread(local_stack.reload_api)
            answer = await supabase_client.rpc("twice", {"n": 21}).execute()
        finally:
            connection.execute("drop function public.twice")
    assert unknown.value.code == "PGRST202"
    assert answer.data == 42


async def test_a_signed_in_person_reads_and_corrects_but_cannot_delete(
    clean_stack: LocalStack, supabase_client: AsyncClient, db: Connection
) -> None:
    clip = await _clip(supabase_client, await _run(supabase_client))
    editor = await acreate_client(clean_stack.url, clean_stack.mint("authenticated", sub=str(uuid4())))
    seen = await editor.table("clips").select("id").execute()
    saved = await editor.table("clips").update({"corrected_transcription": "Eny"}).eq("id", clip["id"]).execute()
    await editor.table("clip_edits").insert({"clip_id": clip["id"], "field": "corrected_transcription"}).execute()
    gone = await editor.table("clips").delete().eq("id", clip["id"]).execute()
    assert seen.data == [{"id": clip["id"]}]
    assert saved.data[0]["corrected_transcription"] == "Eny"
    assert gone.data == []
    assert db.execute("select count(*) from clips").fetchone() == (1,)


async def test_somebody_who_is_not_signed_in_sees_and_writes_nothing(
    clean_stack: LocalStack, supabase_client: AsyncClient
) -> None:
    run = await _run(supabase_client)
    await _clip(supabase_client, run)
    stranger = await acreate_client(clean_stack.url, clean_stack.anon_key)
    assert (await stranger.table("clips").select("*").execute()).data == []
    with pytest.raises(APIError) as refused:
        await stranger.table("runs").insert({"label": "x"}).execute()
    assert refused.value.code == "42501"


async def test_audio_goes_into_the_private_bucket_and_comes_out(
    clean_stack: LocalStack, supabase_client: AsyncClient
) -> None:
    audio, key = bytes(range(256)) * 32_768, f"{uuid4()}/clips/clip à 00001.wav"  # 8 MiB
    service = supabase_client.storage.from_("clips")
    editor = (await acreate_client(clean_stack.url, clean_stack.mint("authenticated"))).storage.from_("clips")
    stranger = (await acreate_client(clean_stack.url, clean_stack.anon_key)).storage.from_("clips")
    await editor.upload(key, audio, {"content-type": "audio/wav"})
    assert await service.download(key) == audio
    await editor.upload(key, b"shorter", {"content-type": "audio/wav", "upsert": "true"})
    assert await editor.download(key) == b"shorter"
    with pytest.raises(StorageApiError):
        await stranger.download(key)
    with pytest.raises(StorageApiError):
        await service.download("nothing/here.wav")


async def test_a_committed_row_is_heard_through_the_same_url(supabase_client: AsyncClient, db: Connection) -> None:
    subscribed, heard = asyncio.Event(), asyncio.Queue[dict[str, Any]]()
    channel = supabase_client.channel("stack")
    channel.on_system(lambda _message: subscribed.set())
    channel.on_postgres_changes("INSERT", schema="public", table="clips", callback=heard.put_nowait)
    await channel.subscribe()
    async with asyncio.timeout(60):
        await subscribed.wait()
        clip = await _clip(supabase_client, await _run(supabase_client))
        assert (await heard.get())["data"]["record"]["id"] == clip["id"]


async def test_truncate_leaves_no_row_and_no_object(clean_stack: LocalStack, supabase_client: AsyncClient) -> None:
    await _clip(supabase_client, await _run(supabase_client))
    await supabase_client.storage.from_("clips").upload("r/a.wav", b"audio")
    clean_stack.truncate()
    assert (await supabase_client.table("runs").select("id").execute()).data == []
    with pytest.raises(StorageApiError):
        await supabase_client.storage.from_("clips").download("r/a.wav")


@pytest.fixture
def http(clean_stack: LocalStack) -> Iterator[httpx.Client]:
    """A bare client on the stack's URL."""
    with httpx.Client(base_url=clean_stack.url, timeout=30) as client:
        yield client


def test_a_request_without_a_key_is_refused_at_the_gate(http: httpx.Client) -> None:
    answer = http.get("/rest/v1/clips")
    assert answer.status_code == 401
    assert answer.json()["message"] == "No API key found in request"


def test_a_key_that_is_no_token_expired_or_of_another_signer_is_refused(
    local_stack: LocalStack, http: httpx.Client
) -> None:
    expired = local_stack.mint("service_role", exp=int(time.time()) - 60)
    forged = local_stack.service_role_key[:-4] + "AAAA"
    for key in ("nonsense", expired, forged):
        answer = http.get("/rest/v1/clips", headers={"apikey": key, "Authorization": f"Bearer {key}"})
        assert (answer.status_code, answer.json()["message"]) == (401, "Invalid API key")


def test_a_good_key_with_an_expired_session_is_refused_by_the_api(local_stack: LocalStack, http: httpx.Client) -> None:
    expired = local_stack.mint("authenticated", exp=int(time.time()) - 60)
    headers = {"apikey": local_stack.anon_key, "Authorization": f"Bearer {expired}"}
    answer = http.get("/rest/v1/clips", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "PGRST303")


def test_the_key_alone_gives_its_role_as_header_and_in_the_query(local_stack: LocalStack, http: httpx.Client) -> None:
    key = local_stack.service_role_key
    row = {"label": "key alone"}
    assert http.post("/rest/v1/runs", json=row, headers={"apikey": key}).status_code == 201
    answer = http.get("/rest/v1/runs", params={"select": "label", "apikey": key, "label": "eq.key alone"})
    assert answer.json() == [row]


def test_storage_takes_the_bearer_token_alone(local_stack: LocalStack, http: httpx.Client) -> None:
    headers = {"Authorization": f"Bearer {local_stack.service_role_key}"}

    def chunks() -> Iterator[bytes]:
        yield from (b"a" * 70_000 for _ in range(10))

    sent = http.post("/storage/v1/object/clips/r/a%20b.wav", content=chunks(), headers=headers)
    got = http.get("/storage/v1/object/clips/r/a%20b.wav", headers=headers)
    assert sent.status_code == 200
    assert got.content == b"a" * 700_000


async def _run(client: AsyncClient) -> str:
    return str((await client.table("runs").insert({"label": "Alahady"}).execute()).data[0]["id"])


async def _clip(client: AsyncClient, run: str) -> dict[str, str]:
    rows = (await client.table("clips").insert({"run_id": run, "file_name": "clips/clip_00001.wav"}).execute()).data
    return dict(rows[0])


def _when(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    assert moment.tzinfo is not None
    return moment
