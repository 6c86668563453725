"""The functions themselves in the wrong hands: forged claims, and names that are put before those they mean."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from fault_record import Fault
from witness import clip_rows, team

from daemon.asr.transcriber import Draft
from daemon.clips import ClipStore
from daemon.database import Database as Functions
from daemon.errors import TemporaryError
from daemon.learning.ledger import Ledger
from daemon.local.stack import LocalStack
from daemon.ports import Claim, Drafted, Outcome
from daemon.supabase_client import AsyncClient, connect, http_client

ROLE = "ambara_daemon"
Database = psycopg.Connection[Any]
FINGERPRINT = "f" * 64
# Everything that a statement of ours names without a schema could be meant by these, were they found first.
TRAPS = """
create function pg_temp.spy() returns boolean language plpgsql as
  $$ begin raise notice 'seen by %', current_user; return true; end $$;
create temp view pg_publication_tables as select p.* from pg_catalog.pg_publication_tables p where pg_temp.spy();
create temp view pg_roles as select p.* from pg_catalog.pg_roles p where pg_temp.spy();
create temp view pg_proc as select p.* from pg_catalog.pg_proc p where pg_temp.spy();
create domain pg_temp.uuid as pg_catalog.uuid check (pg_temp.spy());
create domain pg_temp.text as pg_catalog.text check (pg_temp.spy());
create domain pg_temp.jsonb as pg_catalog.jsonb check (pg_temp.spy());
create domain pg_temp.timestamptz as pg_catalog.timestamptz check (pg_temp.spy());
create temp table clips (id pg_catalog.uuid);
create temp table draft_state (clip_id pg_catalog.uuid);
create temp table jobs (id pg_catalog.uuid);
set search_path = pg_temp, pg_catalog, public;
"""


@pytest.fixture
def db(local_stack: LocalStack) -> Iterator[Database]:
    local_stack.ensure()
    local_stack.truncate()
    with psycopg.connect(local_stack.db_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
async def client(local_stack: LocalStack, db: Database) -> AsyncIterator[AsyncClient]:
    """The daemon's own client, with the role's token."""
    async with http_client() as http:
        token = local_stack.mint(ROLE)
        yield await connect(local_stack.url, token, http, apikey=local_stack.anon_key)


@pytest.mark.fault("F20", "rogue-machine, forged claims")
async def test_a_forged_claim_writes_nothing(
    fault: Fault, local_stack: LocalStack, client: AsyncClient, db: Database
) -> None:
    """Other fences, other workers, other clips, claims that are over, and clips that a person came to first."""
    many = fault.size(full=120, short=12)
    mine = ClipStore(client, "mine")
    version, _ = await mine.register("base", FINGERPRINT, {}, go_live=True)
    async with team(local_stack) as people:
        await people.sync_extraction([{"file_name": f"clips/{n}.wav"} for n in range(many)])
        claims = await mine.claim(version, many, 600)
        assert len(claims) == many
        rows = {row["id"]: row for row in await people.clips()}
        taken, drafted, free = claims[: many // 2], claims[many // 2 : -many // 4], claims[-many // 4 :]
        for number, claim in enumerate(taken):
            row = rows[claim.clip_id]
            await [people.save, people.autosave][number % 2](row, "a person's words")
            if number % 3 == 0:
                await people.discard(row)
        assert set((await mine.submit(version, [of(claim) for claim in drafted])).values()) == {Outcome.WRITTEN}
        await people.sync_extraction([{"file_name": f"clips/{n}.wav"} for n in range(many)], label="unclaimed")
    before = clip_rows(db)
    others = [claim for claim in (unclaimed(row) for row in before.values()) if claim.clip_id not in rows]
    forged = [(mine, claim) for claim in (*taken, *drafted)]
    forged += [(mine, replace(claim, fence=fence)) for claim in (*free, *others) for fence in guesses(fault, claim)]
    forged += [(ClipStore(client, name), claim) for claim in free for name in ("yours", "", "Mine")]
    fault.random.shuffle(forged)
    written = []
    for store, claim in forged:
        outcome = (await store.submit(version, [of(claim)]))[claim.clip_id]
        written += [claim] if outcome is Outcome.WRITTEN else []
    ledger = Ledger(Functions(client), "mine")
    a_draft = (await ledger.drafts(drafted[0].clip_id))[0].id
    for claim in (*taken, *free, *others):
        written += [claim] if await ledger.restore(claim.clip_id, a_draft) else []
    fault.injected(f"{len(forged)} forged submissions, {len(taken) + len(free) + len(others)} forged restores")
    fault.holds("nothing is written", written)
    fault.holds("no clip differs", [clip for clip, row in clip_rows(db).items() if row != before[clip]])
    with pytest.raises(TemporaryError):
        await mine.submit(version + 1, [of(free[0])])
    assert set((await mine.submit(version, [of(claim) for claim in free])).values()) == {Outcome.WRITTEN}


@pytest.mark.fault("F20", "rogue-machine, shadowed names")
async def test_a_shadowed_name_gets_no_rights(
    fault: Fault, local_stack: LocalStack, client: AsyncClient, db: Database
) -> None:
    """Views, tables and types of the caller's own, of the names that the functions use, and a search path to them."""
    store = ClipStore(client, "w")
    version, _ = await store.register("base", FINGERPRINT, {}, go_live=True)
    run = db.execute("insert into runs (label) values ('r') returning id").fetchone()
    db.execute("insert into clips (run_id, file_name) select %s, n || '.wav' from generate_series(1, 3) n", run)
    claim = (await store.claim(version, 1, 600))[0]
    with psycopg.connect(local_stack.db_url, autocommit=True) as session:
        session.execute(f"set session authorization {ROLE}".encode())
        session.execute(TRAPS)
        notices: list[str] = []
        session.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
        answers = {name: called(session, name, values) for name, values in with_arguments(version, claim).items()}
        seen = {text.removeprefix("seen by ") for text in notices if text.startswith("seen by ")}
        session.execute("select '00000000-0000-0000-0000-000000000000'::uuid from pg_publication_tables")
        assert f"seen by {ROLE}" in notices, "the traps do not work"
    fault.injected(f"{len(answers)} calls under a search path of the caller's, whose names shadow the catalogue's")
    fault.holds("nothing of the caller's runs with the owner's rights", seen - {ROLE})
    assert "written" in str(answers["submit"])
    assert [answer for answer in answers.values() if isinstance(answer, psycopg.Error)] == []


def called(session: Database, name: str, values: list[Any]) -> Any:
    """The answer, or what it failed with."""
    try:
        call = f"select public.ambara_{name}({', '.join(['%s'] * len(values))})"
        return session.execute(call.encode(), values).fetchall()
    except psycopg.Error as error:
        return error


def with_arguments(version: int, claim: Claim) -> dict[str, list[Any]]:
    """Calls that go through as much of the functions as there is."""
    one = {"clip_id": claim.clip_id, "fence": claim.fence}
    return {
        "status": [],
        "examine": [],
        "training": [],
        "recordings": [],
        "snapshot": [],
        "versions": [],
        "beat": ["w", "{}"],
        "fail": ["w", json.dumps([one | {"retry": "soon", "reason": "r"}])],
        "submit": ["w", version, json.dumps([one | {"text": "words", "flags": ["chunked"]}])],
        "drafts": [claim.clip_id],
        "claim": ["w", version, 10, 60],
        "decide": [json.dumps({"tape": "train"})],
        "restore": ["w", claim.clip_id, 1],
        "release": ["w"],
        "leave": ["w"],
    }


def of(claim: Claim) -> Drafted:
    return Drafted(claim, Draft("rogue text", confidence=None, flags=()))


def unclaimed(row: dict[str, Any]) -> Claim:
    return Claim(row["id"], row["run_id"], row["file_name"], None, 0, 0)


def guesses(fault: Fault, claim: Claim) -> list[int]:
    """Fences near the right one, and anywhere."""
    near = [claim.fence - 1, claim.fence + 1, 0, -claim.fence - 1]
    return [*near, fault.random.randrange(claim.fence + 2, 2**62)]
