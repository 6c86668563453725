"""Whatever ends it, systemd starts it again and nothing is missed; but for what a person has to set right."""

from __future__ import annotations

import os
import signal
import time

from booted import KEY, Installed, lines_of, shell, until
from booted_work import drafted, new_clips
from witness import Database

from daemon.local.keys import mint

KILLS = 8


def test_killed_while_it_drafts(service: Installed, rows: Database) -> None:
    clips = new_clips(rows, 300)
    until(lambda: drafted(rows), "the first drafts")
    killed = service.pid
    os.kill(killed, signal.SIGKILL)
    clips += new_clips(rows, 20)
    until(lambda: service.active() and service.pid != killed, "another daemon")
    until(lambda: drafted(rows) == len(clips), "every clip drafted")
    assert service.show("NRestarts") != "0"


def test_the_watchdog_ends_one_that_stands_still(service: Installed, rows: Database) -> None:
    service.drop_in(WatchdogSec="10s")
    shell("systemctl restart ambara")
    before, hanging = service.now(), service.pid
    os.kill(hanging, signal.SIGSTOP)
    clips = new_clips(rows, 20)
    until(lambda: service.active() and service.pid != hanging, "another daemon")
    assert "Watchdog timeout" in shell(f"journalctl -u ambara -o cat --no-pager --after-cursor='{before}'")
    until(lambda: drafted(rows) == len(clips), "every clip drafted")


def test_the_watchdog_leaves_one_alone_whose_supabase_is_away(service: Installed) -> None:
    """A dependency that is away is no reason to be killed."""
    service.drop_in(WatchdogSec="10s")
    shell("systemctl restart ambara")
    pid, before = service.pid, service.now()
    # The gateway stands still: connections are taken and nothing is answered.
    shell("pkill -STOP -f daemon.local.gateway")
    try:
        until(lambda: "away" in service.show("StatusText"), "it notices")
        time.sleep(25)
        assert service.pid == pid
    finally:
        shell("pkill -CONT -f daemon.local.gateway")
    until(lambda: "away" not in service.show("StatusText"), "it is back")
    assert service.pid == pid
    assert "Watchdog timeout" not in shell(f"journalctl -u ambara -o cat --no-pager --after-cursor='{before}'")


def test_a_crash_loop_never_gives_up(service: Installed, rows: Database) -> None:
    """Far more ends than systemd's own limit, five within ten seconds, would let pass."""
    service.drop_in(RestartSec="100ms")
    shell("systemctl restart ambara")
    began = time.monotonic()
    for _ in range(KILLS):
        dead = until(lambda: service.pid, "a process")
        os.kill(dead, signal.SIGKILL)
        until(lambda: service.pid not in (0, dead), "the next")  # noqa: B023
    print(f"{KILLS} ends in {time.monotonic() - began:.1f} s")  # noqa: T201 - for -s
    assert service.show("StartLimitIntervalUSec") == "0", "there is no limit, however slow this machine is"
    until(service.active, "ready in the end")
    clips = new_clips(rows, 5)
    until(lambda: drafted(rows) == len(clips), "every clip drafted")


def test_settings_that_cannot_be_used_keep_it_down(service: Installed) -> None:
    before = service.now()
    service.settings(drafting={"batch_clips": "sixteen"})
    shell("systemctl restart ambara", expect=1)
    until(lambda: service.show("ActiveState") == "failed", "down")
    restarts = service.show("NRestarts")
    assert service.show("ExecMainStatus") == "78"
    time.sleep(8)  # longer than RestartSec
    assert (service.show("ActiveState"), service.show("NRestarts")) == ("failed", restarts)
    assert "batch_clips" in shell("systemctl status ambara", expect=3)
    assert "Traceback" not in shell(f"journalctl -u ambara -o cat --no-pager --after-cursor='{before}'")


def test_a_key_that_ends_and_the_next(service: Installed, rows: Database, jwt_secret: str) -> None:
    """The token ends while it works: it says so, a start with it stays down, and another key brings all back."""
    began = time.monotonic()
    shell("systemctl restart ambara")
    lives_s = 30 + 3 * (time.monotonic() - began)
    KEY.write_text(mint(jwt_secret, "service_role", exp=int(time.time() + lives_s)))
    shell("systemctl restart ambara")
    clips = new_clips(rows, 5)
    until(lambda: drafted(rows) == len(clips), "drafted with the key that ends")
    until(lambda: "refuses the key" in service.show("StatusText"), "its line says so")
    shell("systemctl restart ambara", expect=1)
    assert (service.show("ActiveState"), service.show("ExecMainStatus")) == ("failed", "78")
    assert "expired" in shell("systemctl status ambara", expect=3)
    clips += new_clips(rows, 5)
    key, restart = lines_of("docs/operations.md", "### Another key")
    shell(key, given=mint(jwt_secret, "service_role") + "\n")
    shell(restart)
    until(lambda: drafted(rows) == len(clips), "every clip drafted")
