"""A project's address that begins to send its callers to another origin, and stops."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from daemon_process import DaemonProcess, daemon_process
from fault_record import Fault
from hostile_redirect import elsewhere, signpost
from hostile_secrets import leaks
from witness import drafted_by_machine, insert_clips, team, until

from daemon.local.speech import speak_corpus, wav_bytes
from daemon.local.stack import LocalStack

HEALED_S = 60.0
SERVICES = ("rest", "storage", "realtime")


def sentences(daemon: DaemonProcess, since: int) -> list[str]:
    """The log lines since an offset that speak of it."""
    return [line for line in daemon.output[since:].splitlines() if "redirect" in line]


@pytest.mark.fault("F36", "redirect")
async def test_a_redirect_reaches_nobody(fault: Fault, local_stack: LocalStack, tmp_path: Path) -> None:
    """Of each service alone, and of all at once: nobody comes, the log says why, and work goes on afterwards."""
    local_stack.ensure()
    local_stack.truncate()
    alone = [(302, ("rest",)), (307, ("storage",)), (308, ("realtime",))]
    rounds = [*alone, (302, SERVICES), (307, SERVICES), (308, SERVICES)][: fault.size(full=6, short=4)]
    fault.injected(f"302, 307, 308 to another origin on REST, Storage and Realtime, {len(rounds)} times")
    spoken = speak_corpus("A", 1, seed=505)[0]
    run = str(uuid4())
    with elsewhere() as other, signpost(local_stack, other) as project:
        sections = {"drafting": {"sweep_seconds": 1}, "log": {"level": "debug"}}
        with (
            psycopg.connect(local_stack.db_url, autocommit=True) as db,
            daemon_process(project, tmp_path, **sections) as daemon,
        ):
            async with team(local_stack) as editor:
                audio = {f"clips/{number}.wav": wav_bytes(spoken.audio) for number in range(len(rounds))}
                db.execute("insert into runs (id, label) values (%s, 'redirected')", [run])
                for name, content in audio.items():
                    await editor.upload(run, name, content)
            await until(lambda: daemon.said("feed", state="live"), "the feed is live")
            mute = []
            for number, (status, services) in enumerate(rounds):
                since, before = len(daemon.output), len(project.sent_away)
                live = len(daemon.said("feed", state="live"))
                project.away = dict.fromkeys(services, status)
                if "realtime" in services:
                    project.cut()
                insert_clips(db, run, [f"clips/{number}.wav"])
                await until(lambda: len(project.sent_away) > before, f"{services} asked and sent away")  # noqa: B023
                await asyncio.sleep(0.5)  # whoever follows, follows at once
                fault.holds("0 requests reach the other origin", other.heard)
                await until(lambda: sentences(daemon, since), "said in the log", guard_s=20)  # noqa: B023
                mute += [] if sentences(daemon, since) else [(status, services)]
                project.away = {}
                if not fault.full:  # or after half a minute, which the full form waits for
                    db.execute("update draft_state set retry_at = now() where reason is not null")
                with fault.healing():
                    await until(lambda: len(drafted_by_machine(db)) == number + 1, "drafted", guard_s=HEALED_S)  # noqa: B023
                    if "realtime" in services:
                        await until(lambda: len(daemon.said("feed", state="live")) > live, "live again", guard_s=35)  # noqa: B023
            fault.holds("said in a sentence", mute)
            fault.holds("healed <= 60 s", [])
            found = leaks(project.service_role_key, texts={"log": daemon.output}, pids=[daemon.child.pid])
            fault.holds("I6 no key", found)
            fault.holds("I8 never ended", [] if daemon.running else [daemon.output])
    fault.observe(f"{len(project.sent_away)} requests were sent away, {len(other.heard)} arrived there")
