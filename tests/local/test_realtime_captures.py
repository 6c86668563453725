"""The bridge says what the real server said: captures of the real one, replayed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from daemon.local.realtime import BridgeSettings
from tests.local.realtime_replay import Replay, read_lines
from tests.local.realtime_support import bind, serve, token

Connection = psycopg.Connection[tuple[Any, ...]]
MakeSettings = Callable[..., BridgeSettings]

_TYPES = (
    "insert into public.clips values ('00000000-0000-4000-8000-000000000001', %s, 'types.wav', "
    "E'line1\\nline2 \"q\" \\\\ \\t \u00e9 \u65e5\u672c \u2028 \U0001f600', '', null, 0.1::float8+0.2::float8, "
    "'2026-01-02 03:04:05.678901+02', '2026-01-02 03:04:05+00', "
    '\'[{"n": 1e3, "x": null, "end": 1.5, "text": "salut", "start": 0.0}]\')'
)
_ONE_TRANSACTION = (
    "begin; insert into public.clips(id,file_name) values('00000000-0000-4000-8000-000000000005','tx.wav'); "
    "update public.clips set status='s1' where file_name='tx.wav'; savepoint s; "
    "update public.clips set status='rolledback' where file_name='tx.wav'; rollback to s; "
    "delete from public.clips where file_name='tx.wav'; "
    "insert into public.clips(id,file_name) values('00000000-0000-4000-8000-000000000005','tx2.wav'); commit"
)
_STATEMENTS = {"insert into public.clips(id,run_id,file_name,draft_transcription,corrected": _TYPES,
               "begin; insert into public.clips(id,file_name)": _ONE_TRANSACTION}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        "a1_join_all_binding_shapes",
        "a2_join_presence_enabled",
        "b1_payload_replica_identity_default",
        "b2_payload_replica_identity_full",
        "b3_toast_unchanged_column_default",
        "b3_toast_unchanged_column_full",
        "b4_transactions_truncate_upsert",
        "b8_row_over_1MB_413",
        "e5_duplicate_join_raw",
        "i1_framing_vsn_1.0.0",
        "i1_framing_vsn_2.0.0",
        "i2_legacy_topic_subscription",
    ],
)
async def test_joins_and_payloads(name: str, realtime_settings: MakeSettings, realtime_db: Connection) -> None:
    async with serve(realtime_settings()) as served:
        await Replay(served, realtime_db, statements=_STATEMENTS).run(name)


async def test_bad_subscriptions(realtime_settings: MakeSettings, realtime_db: Connection) -> None:
    """Every message of the real server, but one whose end the capture does not show."""
    async with serve(realtime_settings()) as served:
        await Replay(served, realtime_db).run("e1_bad_subscriptions")


async def test_refused_handshakes(realtime_settings: MakeSettings, realtime_db: Connection) -> None:
    keys = {
        "handshake: signed with the wrong secret": token(secret="another secret that is long enough too, really"),
        "handshake: expired one hour ago": token(expires_in_s=-3600),
        "handshake: no exp claim": token(exp=None),
        "handshake: no role claim": token(role=None),
    }
    async with serve(realtime_settings()) as served:
        replay = Replay(served, realtime_db, keys=keys)
        await replay.run("d1_handshake_auth_errors", until="direct to Realtime with Host")
        # The answer to an unsupported vsn stands behind the rest in the capture.
        assert [(refusal["http"], refusal["body"]) for refusal in replay.refusals] == [("HTTP/1.1 403 Forbidden", "")]


async def test_refused_joins(realtime_settings: MakeSettings, realtime_db: Connection) -> None:
    prefix = "join with payload access_token: "
    keys = {
        f"{prefix}expired 100 s ago": token(expires_in_s=-100),
        f"{prefix}wrong secret": token(secret="another secret that is long enough too, really"),
        f"{prefix}no exp": token(exp=None),
        f"{prefix}role that does not exist in Postgres": token("nosuchrole"),
    }
    async with serve(realtime_settings()) as served:
        await Replay(served, realtime_db, keys=keys).run("d2_join_token_errors")


async def test_a_token_that_expires_while_joined(realtime_settings: MakeSettings, realtime_db: Connection) -> None:
    keys = {"service_role-jwt expiring 8 s after start": token(expires_in_s=2)}
    async with serve(realtime_settings()) as served:
        await Replay(served, realtime_db, keys=keys).run("d3_token_expires_while_connected")


async def test_pushed_tokens(realtime_settings: MakeSettings, realtime_db: Connection) -> None:
    keys = {
        "jwt-A expiring 10 s after start": token(expires_in_s=10),
        "jwt-B": token(expires_in_s=100),
        "push an expired token": token(expires_in_s=-60),
    }
    async with serve(realtime_settings()) as served:
        await Replay(served, realtime_db, keys=keys).run("d4_access_token_push")


@pytest.mark.parametrize(
    ("name", "note", "pushed"),
    [
        ("d5_access_token_push_garbage", "", ""),
        ("d5_access_token_push_no_exp", "push no exp", token(exp=None)),
        ("d5_access_token_push_wrong_secret", "push wrong secret", token(secret="another secret, long enough as well")),
    ],
)
async def test_bad_pushed_tokens(
    name: str, note: str, pushed: str, realtime_settings: MakeSettings, realtime_db: Connection
) -> None:
    async with serve(realtime_settings()) as served:
        await Replay(served, realtime_db, keys={note: pushed}).run(name)


_PENDING_ONLY = (
    "alter table clips enable row level security; "
    "create policy pending on clips for select to authenticated using (status = 'pending');"
)


@pytest.mark.parametrize(
    ("name", "setup"),
    [
        ("h2_rls_enabled_no_policy", "alter table clips enable row level security"),
        ("h3_rls_policy_pending_only", _PENDING_ONLY),
        ("h4_rls_replica_identity_full", f"{_PENDING_ONLY} alter table clips replica identity full"),
        (
            "h5_table_privileges",
            "revoke all on clips from anon, authenticated; grant select (id, status) on clips to authenticated",
        ),
    ],
)
async def test_row_security_and_privileges(
    name: str, setup: str, realtime_settings: MakeSettings, realtime_db: Connection
) -> None:
    realtime_db.execute(setup.encode())
    async with serve(realtime_settings()) as served:
        await Replay(served, realtime_db).run(name)


async def test_a_table_without_a_primary_key(realtime_settings: MakeSettings, realtime_db: Connection) -> None:
    realtime_db.execute(
        "create table nopk(v text); alter table nopk replica identity full; grant all on nopk to service_role; "
        "alter publication supabase_realtime add table nopk"
    )
    lines = read_lines("h9_table_without_primary_key")
    expected = next(json.loads(line)["frame"] for line in lines if '"record": {}' in line)
    async with serve(realtime_settings()) as served, served.client() as client:
        await client.joined(bind("INSERT", "nopk"))
        realtime_db.execute("insert into nopk values ('x')")
        assert (await client.receive())["payload"]["data"] == expected["payload"]["data"]


async def test_the_text_of_numbers(realtime_settings: MakeSettings, realtime_db: Connection) -> None:
    """The spelling of numbers on the wire, which a JSON parser would hide."""
    async with serve(realtime_settings()) as served, served.client() as client:
        await client.joined(bind("INSERT", select=["priority", "file_name", "paragraphs", "updated_at"]))
        for line in read_lines("b12_raw_number_text"):
            captured = json.loads(line)["frame"]
            record = captured["raw_text_of_record"]
            identity = json.loads("{" + record + "}")["record"]["id"]
            realtime_db.execute(
                f"insert into clips(id, file_name, priority, paragraphs, updated_at) values ('{identity}', 'n', "
                f"{captured['priority_inserted']}, '[0.0, 1.50, 1e3, 12345678901234567890.123, \"é\"]', "
                "'2026-01-02 03:04:05.1+00')".encode()
            )
            assert record in await client.receive_text()
