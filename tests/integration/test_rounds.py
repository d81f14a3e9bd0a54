"""Reload, worker replacement and SIGTERM under 500 requests a second, round after round; the upgrade is in `test_upgrade.py`."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from tests.support.load import Result, Shot
from tests.support.patience import WAIT_S
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


def test_sigterm_under_load_cuts_no_answer() -> None:
    """
    Every request that was under way at SIGTERM is answered, slow ones and uploads too; whoever comes later is let in or
    not. The exit code is 0, and no process is left.
    """
    shots = (Shot(share=0.8), Shot("/api/checkout", "POST", body=b'{"items": []}', share=0.2))
    answers = 0
    with Shop() as shop:
        shop.breaks(delay_ms=300, path="/api/checkout")
        for _ in range(ROUNDS):
            with sidecar(shop.url, workers=2) as leaving, leaving.load(RATE, shots, connections=60) as load:
                load.wait(200)
                told_at = time.monotonic()
                leaving.signal(signal.SIGTERM)
                until(lambda load=load: any(map(refused, load.failed)), "nobody is let in any more")
                load.stop()
                assert leaving.process is not None
                assert leaving.process.wait(WAIT_S) == 0
                cut = [row for row in load.failed if row.at < told_at and not refused(row)]
                assert not cut, load.said(cut)
                assert not leaving.pids()
                answers += len(load.results) - len(load.failed)
    print(f"SIGTERM: {ROUNDS} rounds, {answers} answers, none cut")


def refused(row: Result) -> bool:
    """Tell whether a request never got in: nobody listened when its connection was to be made."""
    return "refused" in row.problem.lower()
