"""A worker and its controller: what it tells, and what it does when it is told."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar import clock
from sidecar.facts import Action, Directive, Scope
from sidecar.link.frames import (
    Ack,
    BreakerOpen,
    BreakerReset,
    Commit,
    Decided,
    Directives,
    Drain,
    Hello,
    Prepare,
    Sample,
    Tick,
    Trip,
)
from sidecar.link.runtime import BootConfig, write_boot
from tests.support.client import Client, request
from tests.support.link import Controller
from tests.support.patience import WAIT_S
from tests.support.upstream import Conn, Upstream, echo
from tests.support.worker import Worker, running_worker, start_worker

CONFIG = """
upstream: {{endpoints: ["{url}"], response_timeout: 5m}}
routes:
  - name: items
    match: {{path: /items/**}}
    breaker: {{consecutive: 3, open: 250s}}
  - name: default
    match: {{path: /**}}
"""
LIMITED = """
upstream: {{endpoints: ["{url}"]}}
routes:
  - name: default
    match: {{path: /**}}
    limit: {{per_client: {{rate: 0.001/s, burst: 1}}}}
"""


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as made:
        yield made


@pytest.fixture
def worker(upstream: Upstream) -> Iterator[Worker]:
    upstream.use(echo)
    with running_worker(CONFIG.format(url=upstream.url)) as made:
        yield made


@pytest.fixture
def controller(worker: Worker) -> Iterator[Controller]:
    with Controller(worker.runtime) as made:
        yield made


@pytest.fixture
def client(worker: Worker) -> Iterator[Client]:
    with Client(worker.address) as made:
        yield made


def failing(conn: Conn) -> None:
    while (asked := conn.read()) is not None:
        conn.answer(b"no", "500 Internal Server Error" if "/bad" in asked.line else "200 OK")


def test_every_request_is_counted_once(controller: Controller, client: Client, upstream: Upstream) -> None:
    """
    The ticks add up: arrivals, outcomes, statuses, endpoint, client, and refused requests on the route `_none`.
    """
    upstream.use(failing)
    for path in ("/items/1", "/items/2", "/items/3/bad", "/items/4"):
        client.ask("GET", path)
    for _ in range(8):  # of eight answers one tells what it cost
        client.ask()
    client.send(b"GET / HTTP/1.1\r\n\r\n")
    client.read()

    hello = controller.next(Hello)
    tick = controller.tick_with("items", 4)
    last = tick if "_none" in tick.routes else controller.tick_with("_none", 1)

    items, nowhere = tick.routes["items"], last.routes["_none"]
    assert (hello.worker, hello.config_version) == (0, 0)
    assert items.outcomes == {"success": 3, "failure": 1}
    assert items.statuses == {"200": [3, 0], "500": [1, 1]}
    assert items.endpoints == {f"127.0.0.1:{upstream.port}": [4, 1]}
    assert items.paths == {"/items/{id}": [3, 0], "/items/{id}/bad": [1, 1]}
    assert [(row[0], row[2], row[3]) for row in items.clients] == [("127.0.0.1", 4, 1)]
    assert sum(count for _, count in items.latency[1]) == 4
    assert (nowhere.arrivals, nowhere.ended) == (1, {"bad_request": 1})
    assert sum(count for _, count in last.overhead[1]) > 0


def test_requests_without_a_first_byte_are_told_with_their_age(
    controller: Controller, client: Client, upstream: Upstream
) -> None:
    """
    A request that waits for its answer is in flight and waiting; after its first byte it only is in flight.
    """

    def in_two_steps(conn: Conn) -> None:
        conn.read()
        conn.wait_for_order()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
        conn.wait_for_order()
        conn.send(b"k")

    upstream.use(in_two_steps)
    client.send(request("GET", "/items/1"))
    states = []
    for _ in range(2):
        before = len(states)
        while len(states) == before:
            row = controller.next(Tick).routes.get("items")
            waiting = row is not None and sum(count for _, count in row.waiting)
            if row is not None and row.in_flight == 1 and waiting == 1 - before:
                states.append((row.in_flight, waiting))
        upstream.order()

    assert client.read().body == b"ok"
    assert states == [(1, 1), (1, 0)]


def test_a_config_is_prepared_committed_and_swapped_under_load(
    controller: Controller, worker: Worker, upstream: Upstream
) -> None:
    """
    A new version takes over between two requests: no request of a steady load fails, and the new limit rules after.
    """
    stop, statuses = threading.Event(), []

    def load() -> None:
        with Client(worker.address) as client:
            while not stop.is_set():
                statuses.append(client.ask("GET", "/items/1").status)

    thread = threading.Thread(target=load)
    thread.start()
    for version in range(1, 4):
        controller.send(Prepare(version, CONFIG.format(url=upstream.url)))
        assert controller.next(Ack) == Ack(0, "prepare", version, "")
        controller.send(Commit(version))
        assert controller.next(Ack) == Ack(0, "commit", version, "")
    stop.set()
    thread.join()
    controller.send(Prepare(4, LIMITED.format(url=upstream.url)))
    controller.send(Commit(4))
    assert [controller.next(Ack).phase for _ in range(2)] == ["prepare", "commit"]

    with Client(worker.address) as client:
        limited = [client.ask().status for _ in range(3)]

    assert set(statuses) == {200}
    assert limited == [200, 429, 429]
    assert worker.wait_for(config_version=4)


def test_a_bad_config_is_refused_and_changes_nothing(controller: Controller, client: Client) -> None:
    """
    A text that does not compile is answered with every error, and cannot be committed.
    """
    controller.send(Prepare(7, "upstream: {endpoints: [nonsense]}\nunknown: 1\n"))
    problem = controller.next(Ack).problem
    controller.send(Commit(7))
    refused = controller.next(Ack)
    controller.send(Commit(8))

    assert "unknown" in problem
    assert "endpoints" in problem
    assert (refused.phase, bool(refused.problem)) == ("commit", True)
    assert "8" in controller.next(Ack).problem
    assert client.ask().status == 200


def test_directives_are_obeyed(controller: Controller, client: Client) -> None:
    """
    An isolation of one client refuses it with 429, its decision can be explained, and its end lets the client pass.
    """
    scope = Scope.client("items", "127.0.0.1")
    isolation = Directive("isolation-5", scope, Action.ISOLATE, clock.now() + 3600, share_ratio=0.0, incident="12")
    controller.send(Directives((isolation,)))
    while (answer := client.ask("GET", "/items/1?secret=1", b"", "X-Secret: 2")).status == 200:
        continue
    decided = controller.next(Decided)
    controller.send(Directives(()))
    while client.ask("GET", "/items/1").status != 200:
        continue

    assert (answer.status, answer.problem["reason"]) == (429, "client_throttled")
    assert decided.id == answer.problem["decision"]
    assert (decided.rule, decided.incident, decided.path) == ("isolation-5", "12", "/items/{id}")


def test_a_breaker_opens_and_closes_when_told(controller: Controller, client: Client) -> None:
    """
    Another worker's trip opens the breaker here too; a reset by hand closes it.
    """
    controller.send(BreakerOpen("items", clock.now() + 3600, "7 failures in a row"))
    while (answer := client.ask("GET", "/items/1")).status == 200:
        continue
    controller.send(BreakerReset("items"))
    while client.ask("GET", "/items/1").status != 200:
        continue

    assert (answer.status, answer.problem["reason"]) == (503, "breaker_open")


def test_a_trip_is_told_at_once(controller: Controller, client: Client, upstream: Upstream) -> None:
    """
    Failures that trip the breaker reach the controller as a trip, before the next tick counts them.
    """
    upstream.use(failing)

    statuses = [client.ask("GET", "/items/1/bad").status for _ in range(4)]
    trip = controller.next(Trip)

    assert statuses == [500, 500, 500, 503]
    assert (trip.route, trip.rule) == ("items", "consecutive")


def test_decisions_and_samples_are_bounded_and_redacted(
    controller: Controller, worker: Worker, client: Client, upstream: Upstream
) -> None:
    """
    Of hundreds of refusals a second at most fifty are told, and the others are counted; samples show names of fields, never
    values or queries.
    """
    controller.send(Prepare(1, LIMITED.format(url=upstream.url)))
    controller.send(Commit(1))
    worker.wait_for(config_version=1)
    begun = time.monotonic()
    client.send(request("GET", "/path/123?token=hidden", b"", "X-Secret: hidden") * 300)
    for _ in range(300):
        client.read()
    seconds = time.monotonic() - begun
    worker.tell(do="drain")
    client.sock.close()

    frames = controller.rest()

    told = [frame for frame in frames if isinstance(frame, Decided)]
    last = [frame for frame in frames if isinstance(frame, Tick)][-1]
    samples = [frame for frame in frames if isinstance(frame, Sample)]
    assert 0 < len(told) <= 50 * (2 + seconds)  # the beginning and the end of a second each have their fifty
    assert (len(told) + last.untold, last.dropped) == (299, 0)  # nothing is lost on a link that is read
    assert 0 < len(samples) <= 5 * (2 + seconds)
    assert samples[0].path == "/path/{id}"
    assert "x-secret" in samples[0].fields
    assert "hidden" not in repr(frames)


def test_the_last_counts_are_told_before_the_end(
    controller: Controller, client: Client, worker: Worker, upstream: Upstream
) -> None:
    """
    A worker that drains loses no count: its last tick has every request, also one that ended while it drained.
    """

    def holding(conn: Conn) -> None:
        while (asked := conn.read()) is not None:
            if "/held" in asked.line:
                conn.wait_for_order()
            conn.answer()

    upstream.use(holding)
    for _ in range(5):
        client.ask("GET", "/items/1")
    client.send(request("GET", "/items/held"))
    worker.wait_for(in_flight=1)
    controller.send(Drain(0.0, 300.0))
    worker.wait_for(ready=False)
    upstream.order()
    assert client.read().status == 200
    client.sock.close()

    ticks = [frame for frame in controller.rest() if isinstance(frame, Tick) and "items" in frame.routes]

    assert ticks[-1].routes["items"].outcomes == {"success": 6}
    assert worker.process.wait(timeout=WAIT_S) == 0


def test_a_worker_boots_from_the_boot_file(upstream: Upstream) -> None:
    """
    Without a controller a new worker runs the active version with the directives in force, not the file.
    """
    upstream.use(echo)
    with tempfile.TemporaryDirectory() as directory:
        runtime = Path(directory) / "run"
        runtime.mkdir(mode=0o700)
        held = Directive("override-service", Scope.service(), Action.ISOLATE, clock.now() + 3600, share_ratio=0.0)
        write_boot(runtime, BootConfig(9, LIMITED.format(url=upstream.url), "hash", (held,)))
        with start_worker(CONFIG.format(url=upstream.url), Path(directory)) as worker:
            worker.wait_for(ready=True, config_version=9)
            with Client(worker.address) as client:
                answer = client.ask()

    assert (answer.status, answer.problem["reason"]) == (503, "overridden")
