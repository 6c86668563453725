"""The certificate before Supabase is renewed, and between two that are good there is one that does not verify."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from daemon_process import DaemonProcess
from fault_record import Fault
from hostile_keys import Project
from scene import SELDOM, Scene
from tls_front import UNTRUSTED, TlsFront
from warm_start import Nest, settings

NOTICED_S = 35.0
"""The next question comes after 20 s at the latest, and Realtime is asked for after 15 s."""
FLAPPED_S = 55.0
"""A feed that was cut every few seconds waits a quarter of a minute before it tries again, and its beat for REST."""
SAID = {"expired": "certificate-expired", "of an unknown authority": "certificate-unknown"}
SAID["for another name"] = "certificate-name"


@pytest.mark.fault("F46", "certificate-rotation")
async def test_the_certificate_is_renewed_and_is_wrong_for_a_while(fault: Fault, scene: Scene, nest: Nest) -> None:
    """People's clips come meanwhile. The daemon sends nothing to whom it does not trust, and says why in a sentence."""
    rounds, wrong_s = fault.size(full=2, short=1), fault.size(full=20, short=2)
    wrong = list(UNTRUSTED) if fault.full else [fault.random.choice(list(UNTRUSTED))]
    fault.injected(
        f"{rounds} x the certificate is renewed, then one that is {', '.join(wrong)} for {wrong_s} s and more, "
        "then a good one; 10 inserts each time"
    )
    with TlsFront(scene.url, scene.folder) as front, _daemon(scene, nest, front) as daemon:
        await scene.live(daemon)
        for _ in range(rounds):
            lived = len(daemon.said("feed", state="live"))
            front.renewed()
            front.cut()
            await asyncio.to_thread(scene.insert, 10)
            await scene.drafted()
            await scene.live(daemon, FLAPPED_S, since=lived)
            for name in wrong:
                await _untrusted(fault, scene, daemon, front, name, wrong_s)
        scene.end(daemon)


async def _untrusted(
    fault: Fault, scene: Scene, daemon: DaemonProcess, front: TlsFront, name: str, wrong_s: float
) -> None:
    """For so long, and until both REST and Realtime have met it, nothing is sent; then all is as before."""
    present, words = UNTRUSTED[name]
    before, lived = len(_complaints(daemon, name)), len(daemon.said("feed", state="live"))
    of_feed = len(_of_feed(daemon, words))
    present(front)
    front.cut()
    await asyncio.sleep(1)  # what was under way arrives
    asked = len(scene.proxy.requests)
    await asyncio.to_thread(scene.insert, 10)
    await asyncio.sleep(wrong_s)
    said = await scene.until(lambda: len(_complaints(daemon, name)) > before, NOTICED_S)
    fault.holds("said in a sentence", [] if said else [daemon.output[-2000:]])
    said = await scene.until(lambda: len(_of_feed(daemon, words)) > of_feed, NOTICED_S)
    fault.holds("said of the feed", [] if said else [daemon.said("feed")[-3:]])
    sent = scene.proxy.requests[asked:]
    fault.holds("nothing is sent to whom it does not trust", sent)
    front.renewed()
    await scene.drafted()
    await scene.live(daemon, FLAPPED_S, since=lived)


def _complaints(daemon: DaemonProcess, name: str) -> list[str]:
    """What the daemon said of calls that met this certificate."""
    words = UNTRUSTED[name][1]
    lines = (*daemon.said("cannot observe"), *daemon.said("interrupted"))
    return [line["error"] for line in lines if line["reason"] == SAID[name] and words in line["error"]]


def _of_feed(daemon: DaemonProcess, words: str) -> list[str]:
    return [line["why"] for line in daemon.said("feed") if words in line.get("why", "")]


@contextmanager
def _daemon(scene: Scene, nest: Nest, front: TlsFront) -> Iterator[DaemonProcess]:
    """A daemon that knows the project by the terminator's address."""
    project = Project(front.url, scene.service_role_key)
    # Now and then it looks by itself as well: with Realtime away nobody rings.
    drafting = {**SELDOM, "sweep_seconds": 5}
    with nest.daemon(project, scene.folder / "daemon", env=front.env, **settings(scene, drafting=drafting)) as daemon:
        yield daemon
