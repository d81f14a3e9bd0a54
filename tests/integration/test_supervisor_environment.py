"""What the supervisor's surroundings ask of it: a watched file, and a service manager's socket. No privilege is needed."""

from __future__ import annotations

import contextlib
import re
import resource
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.patience import WAIT_S
from tests.support.sidecar import Shop, Sidecar, settings, until


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with Shop() as made:
        yield made


def successful(running: Sidecar) -> bool:
    return (
        re.search(r"^sidecar_config_last_apply_successful 1\.0$", running.observe("/metrics").text, re.MULTILINE)
        is not None
    )


def test_a_watched_file_is_read_when_its_text_changes(shop: Shop) -> None:
    """
    With SIDECAR_WATCH=1 a saved file is a new version, also of a static key; a bad one changes nothing and says so.
    """
    with Sidecar(settings(shop.url), environ={"SIDECAR_WATCH": "1"}) as running:
        running.config["explain"] = "none"
        running.write()
        until(lambda: running.get("/config")["version"] == 2, "the live key is applied")
        assert running.get("/config/versions", limit=1)["items"][0]["reason"] == "the file has changed"

        running.write(running.text + "nonsense: 1\n")
        running.until_said("the configuration is not valid; the running one stays")
        until(lambda: not successful(running), "the metric says that it failed")
        assert running.get("/config")["version"] == 2

        running.config["workers"] = 2
        running.write()
        until(running.serving, "the static key is in force")
        until(lambda: successful(running), "the metric says that it is mended")


def test_an_unwatched_file_waits_for_its_signal(shop: Shop) -> None:
    """
    Without the variable a saved file changes nothing until SIGHUP: not in three times the watch's second.
    """
    with Sidecar(settings(shop.url)) as running:
        running.config["explain"] = "none"
        running.write()
        until(lambda: running.get("/status")["uptime_s"] > 3, "time has passed")
        assert running.get("/config")["version"] == 1
        running.signal(signal.SIGHUP)
        until(lambda: running.get("/config")["version"] == 2, "SIGHUP reads it")
        assert running.get("/config/versions", limit=1)["items"][0]["reason"] == "SIGHUP"


def test_an_unclear_wish_stops_the_start(shop: Shop) -> None:
    """
    A word that says neither yes nor no is an error of use, with what to write.
    """
    running = Sidecar(settings(shop.url), environ={"SIDECAR_WATCH": "perhaps"})
    try:
        running.start(wait=False)
        assert running.process is not None
        assert running.process.wait(WAIT_S) == 2
        assert "SIDECAR_WATCH=perhaps says neither yes nor no\n  → SIDECAR_WATCH=1 watches the file" in running.log()
    finally:
        running.end()


def test_the_soft_file_limit_is_raised(shop: Shop) -> None:
    """
    Every process runs with the hard limit, and a worker says how many clients that allows.
    """
    with Sidecar(settings(shop.url), descriptors=(256, 400)) as running:
        for pid in running.pids():
            assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == (400, 400)
        assert running.said("max_connections: 10000 is more than the file limit of 400 allows; 320 hold")
        assert running.serving()


def test_the_service_manager_hears_a_whole_life(shop: Shop, tmp_path: Path) -> None:
    """
    READY=1 once it serves, RELOADING=1 and READY=1 around a reload, WATCHDOG=1 all the time, STOPPING=1 at the end.
    """
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address)
        receiver.settimeout(WAIT_S)
        environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000"}
        heard: list[str] = []

        def hear(words: str) -> None:
            while words not in heard[-1:] and not (heard and heard[-1].startswith(words)):
                heard.append(receiver.recv(4096).decode())

        with Sidecar(settings(shop.url), environ=environ) as running:
            hear("READY=1")
            assert "WATCHDOG=1" in heard
            assert heard.index("STATUS=0 of 1 workers serve, the controller is starting") < heard.index("READY=1")
            while heard.count("WATCHDOG=1") < 3:
                heard.append(receiver.recv(4096).decode())
            running.signal(signal.SIGHUP)
            hear("RELOADING=1\nMONOTONIC_USEC=")
            hear("READY=1")
            assert running.leave() == 0
            hear("STOPPING=1\nSTATUS=finishing what is in flight\nEXTEND_TIMEOUT_USEC=")
        receiver.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                heard.append(receiver.recv(4096).decode())
    assert heard.count("READY=1") == 2
    assert not heard[-1].startswith("STATUS=")
