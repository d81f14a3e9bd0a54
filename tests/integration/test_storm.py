"""A retry storm through a real worker: what those who wait get while others hammer, with and without `service.rearrivals`."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from tests.support.client import Answer, Client
from tests.support.patience import WAIT_S
from tests.support.upstream import Conn, Upstream, echo
from tests.support.worker import running_worker

CONFIG = """
upstream: {{endpoints: ["{url}"]}}
explain: full
service: {{rearrivals: {mode}}}
routes:
  - {{name: default, match: {{path: /**}}, limit: {{rate: 20/s, burst: 20}}}}
"""
HAMMERS = 8
TRIES = 60
PACE_S = 0.1  # a first try each: half of what the limit lets pass


@dataclass
class Hammers:
    """Clients that ask for the same again at once, whatever they are told."""

    asked: int = 0
    kept: threading.Event = field(default_factory=threading.Event)
    warm: threading.Event = field(default_factory=threading.Event)

    def swing(self, address: tuple[str, int], path: str, stop: threading.Event) -> None:
        with Client(address) as client:
            while not stop.is_set():
                self.note(client.ask("GET", path))

    def note(self, answer: Answer) -> None:
        self.asked += 1
        if b"kept for first tries" in answer.body:
            self.kept.set()
        if self.asked > 500:
            self.warm.set()


@contextmanager
def hammering(address: tuple[str, int]) -> Iterator[Hammers]:
    hammers, stop = Hammers(), threading.Event()
    threads = [
        threading.Thread(target=hammers.swing, args=(address, f"/same/{number}", stop)) for number in range(HAMMERS)
    ]
    for thread in threads:
        thread.start()
    try:
        yield hammers
    finally:
        stop.set()
        for thread in threads:
            thread.join(WAIT_S)


def first_tries(address: tuple[str, int]) -> int:
    """Ask for something new in an even pace; return how many were served."""
    pause, served = threading.Event(), 0
    with Client(address) as client:
        for number in range(TRIES):
            served += client.ask("GET", f"/new/{number}").status == 200
            pause.wait(PACE_S)  # the pace of a client that is in no hurry
    return served


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as made:
        yield made


def test_in_a_storm_those_who_ask_first_are_served(upstream: Upstream) -> None:
    """
    Eight clients ask again at once, far beyond the limit: who asks at half its rate is served.
    """
    upstream.use(echo)
    with (
        running_worker(CONFIG.format(url=upstream.url, mode="enforce")) as worker,
        hammering(worker.address) as hammers,
    ):
        assert hammers.kept.wait(WAIT_S), "the storm was not seen"
        assert first_tries(worker.address) >= 0.95 * TRIES


def test_without_it_the_storm_takes_all(upstream: Upstream) -> None:
    """
    The same with `rearrivals: off`: most of those who ask first find no token, so the test above can fail.
    """
    upstream.use(echo)
    with running_worker(CONFIG.format(url=upstream.url, mode="off")) as worker, hammering(worker.address) as hammers:
        assert hammers.warm.wait(WAIT_S)
        assert first_tries(worker.address) <= 0.6 * TRIES
        assert not hammers.kept.is_set()


def failing(conn: Conn) -> None:
    """Fail, and say when to return where the path asks for it."""
    while (request := conn.read()) is not None:
        said = ("Retry-After: 7",) if request.line.startswith("GET /own") else ()
        conn.answer(b"", "500 Internal Server Error", *said)


def test_in_a_storm_a_failure_of_the_api_says_when_to_return(upstream: Upstream) -> None:
    """
    A 5xx without Retry-After gets one, longer with each try; what the API says itself stays as it is.
    """
    upstream.use(failing)
    config = CONFIG.format(url=upstream.url, mode="enforce").replace("20/s, burst: 20", "100000/s, burst: 100000")
    with running_worker(config) as worker, Client(worker.address) as client:
        assert "retry-after" not in client.ask("GET", "/a").fields, "in calm an answer passes as it is"
        deadline = time.monotonic() + WAIT_S
        while "retry-after" not in (answer := client.ask("GET", "/a")).fields:
            assert time.monotonic() < deadline, "the storm was not seen"
        assert answer.status == 500
        assert 64 <= int(answer.fields["retry-after"]) <= 96
        assert client.ask("GET", "/new").fields["retry-after"] in ("1", "2")
        assert client.ask("GET", "/own").fields["retry-after"] == "7"
