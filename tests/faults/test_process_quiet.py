"""What a daemon must not do: flood the log, grow, or speak to anybody but the project."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

import psycopg
import pytest
from chaos_proxy import Fault as Net
from daemon_process import DaemonProcess
from fault_record import Fault
from footprint import Footprint
from scene import FILES, RUNS, Scene
from warm_start import Nest
from witness import drafted_more_than_once, scalar, until

from daemon.cli.status import fetch

LINES_A_MINUTE = 1000
FLAPPED_S = 70.0
"""A feed that was cut every few seconds waits for up to half a minute before it tries again."""
REFUSALS_S = 600.0
"""Guard: thousands of refusals take their time."""


@pytest.mark.fault("F33", "log-flood")
async def test_clips_that_cannot_be_drafted_do_not_flood_the_log(
    fault: Fault,
    scene: Scene,
    nest: Nest,
) -> None:
    """Every one of them is counted all the same, and a good one behind them is drafted."""
    clips = fault.size(full=5000, short=400)
    fault.injected(f"{clips} clips of one file that is not audio, then 10 good ones")
    fault.observe(f"10^5 clips scaled to {clips}: what counts is the lines of a minute")
    folder = scene.folder / "run" / "clips"
    (folder / "hostile_0.wav").write_bytes(fault.random.randbytes(4096))
    for number in range(1, FILES):
        (folder / f"hostile_{number}.wav").hardlink_to(folder / "hostile_0.wav")
    with psycopg.connect(scene.stack.db_url, autocommit=True) as db:
        db.execute("insert into runs (id, label) select id, 'flood' from unnest(%s::uuid[]) id", [list(RUNS[:10])])
        rows = db.execute(
            "insert into clips (run_id, file_name, draft_transcription, duration_sec) "
            "select (%s::uuid[])[1 + n / %s], format('clips/hostile_%%s.wav', n %% %s), 'stock draft', 2 "
            "from generate_series(0, %s - 1) n returning id::text",
            [list(RUNS[:10]), FILES, FILES, clips],
        ).fetchall()
        scene.without_audio |= {row[0] for row in rows}
        scene.insert_at_once(10)
        with nest.in_scene(scene, "daemon", drafting={}) as daemon:
            refused = "select count(*) from draft_state where reason is not null"
            await until(lambda: scalar(db, refused) == clips, "every clip is refused", guard_s=REFUSALS_S, pause_s=0.5)
            fault.holds("lines a minute", [n] if (n := _worst_minute(daemon)) > LINES_A_MINUTE else [])
            fault.observe(f"{_worst_minute(daemon)} lines in the worst minute")
            shown = sum(each["clips"] for each in fetch(scene.stack.url, scene.service_role_key)["failures"])
            fault.holds("all counted", [shown] if shown != clips else [])
            await scene.drafted()
            named = await scene.until(lambda: _named(daemon) >= clips, 30)
            fault.holds("all in the log", [] if named else [_named(daemon)])
            scene.end(daemon)


@pytest.mark.fault("I7", "fifty-small-faults")
async def test_a_daemon_does_not_grow(fault: Fault, scene: Scene, nest: Nest) -> None:
    """I7: fifty small faults leave nothing behind in the daemon."""
    faults = fault.size(full=50, short=4)
    fault.injected(f"{faults} small faults: paused for 1 s, connections reset, REST refused for 1 s, answers lost")
    with nest.in_scene(scene, "daemon") as daemon:
        small = _small_faults(scene, daemon)
        await _suffer(scene, daemon, small)  # each once: whatever is made only once is there now
        await scene.live(daemon, FLAPPED_S)
        before, tasks = Footprint.of(daemon.child.pid), await _tasks(scene)
        for _ in range(faults // len(small)):
            await _suffer(scene, daemon, fault.random.sample(small, len(small)))
        await scene.live(daemon, FLAPPED_S)
        now, tasks_now = Footprint.of(daemon.child.pid), await _tasks(scene)
        fault.observe(f"memory {before.rss_mb:.0f} -> {now.rss_mb:.0f} MB, files {before.files} -> {now.files}")
        fault.observe(f"connections {before.connections} -> {now.connections}")
        fault.observe(f"tasks {tasks} -> {tasks_now}")
        fault.holds("I7 no growth", before.grown(now))
        fault.holds("I7 tasks", [(tasks, tasks_now)] if tasks_now > tasks + 2 else [])
        fault.holds("I7 children", [now.children] if now.children > 1 else [])
        with psycopg.connect(scene.stack.db_url, autocommit=True) as db:
            fault.holds("each clip once", [n] if (n := drafted_more_than_once(db)) else [])
        scene.end(daemon)


Small = Callable[[], Awaitable[None]]


def _small_faults(scene: Scene, daemon: DaemonProcess) -> Sequence[Small]:
    async def paused() -> None:
        daemon.pause()
        await asyncio.sleep(1)
        daemon.go_on()

    async def reset() -> None:
        scene.proxy.reset()

    async def refused() -> None:
        scene.proxy.put(Net.REFUSE, "rest")
        await asyncio.sleep(1)
        scene.proxy.put(Net.NONE, "rest")

    async def lost() -> None:
        scene.proxy.lose_answers(2, 1.0, scene.fault.random)

    return [paused, reset, refused, lost]


async def _suffer(scene: Scene, daemon: DaemonProcess, small: Sequence[Small]) -> None:
    """One after the other, each with clips that come meanwhile and are drafted."""
    for each in small:
        await asyncio.to_thread(scene.insert, 4)
        await each()
        await scene.drafted()
    scene.proxy.lose_answers(0, 0.0, scene.fault.random)


async def _tasks(scene: Scene) -> int:
    """What the next beat says of the daemon's tasks, while it has nothing to do."""

    def beat() -> tuple[str, int]:
        shown = fetch(scene.stack.url, scene.service_role_key)["daemons"][0]
        return str(shown["seen_at"]), int(shown["state"]["tasks"])

    since, _ = beat()
    await until(lambda: beat()[0] > since, "another beat", pause_s=0.5)
    return beat()[1]


def _named(daemon: DaemonProcess) -> int:
    """Clips whose refusal stands in the log, as one of a number."""
    return sum(sum(line["reasons"].values()) for line in daemon.said("clips not drafted"))


def _worst_minute(daemon: DaemonProcess) -> int:
    """Lines in the minute that had the most; of a shorter time, as many as a minute of it would have had."""
    times = [datetime.fromisoformat(at).timestamp() for at in re.findall(r'"timestamp": "([^"]+)"', daemon.output)]
    most = max(sum(start <= at < start + 60 for at in times) for start in times)
    lasted = times[-1] - times[0]
    return most if lasted >= 60 else round(len(times) / max(lasted, 1) * 60)
