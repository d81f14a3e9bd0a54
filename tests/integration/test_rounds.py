"""Reload and worker replacement under 500 requests a second, round after round (the upgrade is in `test_upgrade.py`)."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.support.rounds import RATE, ROUNDS, none_failed
from tests.support.sidecar import Shop, Sidecar, gone, kill, sidecar, until


@pytest.fixture(scope="module")
def running() -> Iterator[Sidecar]:
    """A sidecar of two workers."""
    with Shop() as shop, sidecar(shop.url, workers=2) as made:
        yield made


def test_no_request_fails_while_the_file_is_reloaded(running: Sidecar) -> None:
    """
    A new text is a new version, and another number of workers replaces them all; no request fails.
    """
    with running.load(RATE) as load:
        load.wait(100)
        for number in range(ROUNDS):
            version, old = running.get("/config")["version"], running.workers()
            running.config["service"]["limit"]["burst"] = 9000 + number
            running.config["workers"] = 3 - running.config["workers"]
            running.write()
            running.signal(signal.SIGHUP)
            until(lambda version=version: running.get("/config")["version"] == version + 1, "the version is active")
            until(lambda old=old: all(map(gone, old)) and running.serving(), "other workers serve")
            load.wait(100)
    none_failed(load, "reload")


def test_no_request_fails_while_workers_are_replaced(running: Sidecar) -> None:
    """
    A worker that gets SIGTERM is replaced while it drains; no request fails.
    """
    with running.load(RATE) as load:
        load.wait(100)
        for _ in range(ROUNDS):
            victim = running.workers()[0]
            kill(victim, signal.SIGTERM)
            until(lambda victim=victim: gone(victim) and running.serving(), "another worker serves")
            load.wait(100)
    none_failed(load, "worker replacement")
