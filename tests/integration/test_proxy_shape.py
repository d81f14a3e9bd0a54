"""Routes that shape, and priorities, through a real worker: who waits, for how long, and on what their waiting has no effect."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from tests.support.client import Client, request
from tests.support.link import Controller
from tests.support.patience import WAIT_S
from tests.support.upstream import Conn, Upstream, echo
from tests.support.worker import Worker, running_worker

CONFIG = """
upstream: {{endpoints: ["{url}"], response_timeout: 5m}}
drain: {{grace: 5m}}
service: {{concurrency: {{max: 4}}}}
routes:
  - name: paced
    match: {{path: /paced/**}}
    limit: {{rate: 20/s, burst: 1, mode: shape, max_wait: 1m}}
  - name: slow
    match: {{path: /slowly}}
    limit: {{rate: 2/s, burst: 1, mode: shape, max_wait: 1m}}
  - name: narrow
    match: {{path: /narrow}}
    limit: {{rate: 3/h, burst: 1, mode: shape, max_wait: 1h, max_queue: 1}}
  - name: keyed
    match: {{path: /keyed}}
    limit: {{per_client: {{rate: 3/h, burst: 1, key: "header:x-api-key"}}, mode: shape, max_wait: 1h}}
  - name: health
    match: {{path: /healthz}}
    priority: probe
  - name: batch
    match: {{path: /batch}}
    priority: low
  - name: default
    match: {{path: /**}}
    limit: {{rate: 1000/s, burst: 1000, cost: 400}}
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
        if made.process.poll() is None:
            made.wait_for(connections=0, in_flight=0)


def settled(client: Client) -> None:
    """Return when the worker has read everything that was sent to it before."""
    client.ask("GET", "/barrier")


def test_what_exceeds_the_limit_waits_and_is_served(worker: Worker) -> None:
    """
    Six requests at 20/s and burst 1: none is refused, and the last one has its answer after a quarter of a second at least.
    """
    clients = [Client(worker.address) for _ in range(6)]
    begun = time.monotonic()
    for client in clients:
        client.send(request("GET", "/paced/a"))
    assert [client.read().status for client in clients] == [200] * 6
    assert time.monotonic() - begun >= 0.24
    for client in clients:
        client.sock.close()


def test_the_wait_is_no_latency_of_the_api(worker: Worker) -> None:
    """
    What the controller is told of the API's latency and of our own overhead has no wait in it: of three half seconds.
    """
    with Controller(worker.runtime) as controller, Client(worker.address) as client:
        for _ in range(4):
            assert client.ask("GET", "/slowly").status == 200
        tick = controller.tick_with("slow", 4)
        latency_s, duration_s = tick.routes["slow"].latency[0], tick.routes["slow"].durations["GET 200"][0]
        assert duration_s >= 0.7
        assert latency_s <= duration_s / 2
        assert tick.overhead[0] <= duration_s / 2


def test_a_body_waits_with_its_request(worker: Worker, upstream: Upstream) -> None:
    """
    A small one and one that is larger than any buffer arrive whole after the wait.
    """
    with Client(worker.address) as client:
        assert client.ask("GET", "/paced/a").status == 200
        for size in (10, 300_000):
            body = bytes(range(256)) * (size // 256 + 1)
            answer = client.ask("POST", "/paced/a", body)
            assert (answer.status, answer.body) == (200, body)


def test_a_bounded_queue_refuses_and_a_client_that_leaves_frees_its_place(worker: Worker) -> None:
    """
    One passes, one waits, the third is refused at once; when the waiting one goes, the next one may wait in its place.
    """
    with Client(worker.address) as third:
        assert third.ask("GET", "/narrow").status == 200
        for _ in range(2):
            with Client(worker.address) as waiting:
                waiting.send(request("GET", "/narrow"))
                worker.wait_for(connections=2)
                settled(third)
                assert third.ask("GET", "/narrow").status == 429
                waiting.reset()
            worker.wait_for(connections=1)


def test_draining_refuses_who_waits(worker: Worker) -> None:
    """
    A request that has not begun is told to come back on a new connection; the worker then leaves.
    """
    with Client(worker.address) as other, Client(worker.address) as waiting:
        assert waiting.ask("GET", "/narrow").status == 200
        waiting.send(request("GET", "/narrow"))
        settled(other)
        worker.tell(do="drain")
        answer = waiting.read()
        assert (answer.status, answer.problem["reason"]) == (503, "draining")
        assert answer.fields["connection"] == "close"
    assert worker.process.wait(WAIT_S) == 0


def test_clients_wait_for_their_own_tokens(worker: Worker) -> None:
    """
    One that exceeds its own limit waits, another one does not: it is served while the first one has no answer.
    """
    with Client(worker.address) as busy, Client(worker.address) as other:
        assert busy.ask("GET", "/keyed", b"", "x-api-key: busy").status == 200
        busy.send(request("GET", "/keyed", b"", "x-api-key: busy"))
        assert other.ask("GET", "/keyed", b"", "x-api-key: other").status == 200
        busy.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            busy.sock.recv(1)


def test_an_expensive_request_takes_its_cost(worker: Worker) -> None:
    """
    Two requests of 400 tokens fit into a burst of 1000, a third one is told when its tokens come.
    """
    with Client(worker.address) as client:
        answers = [client.ask("GET", "/x") for _ in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 429]
        assert answers[0].fields["ratelimit"] == '"route";r=1;t=1'
        assert answers[2].fields["retry-after"] == "1"


def test_low_priority_is_refused_first_and_probes_never(worker: Worker, upstream: Upstream) -> None:
    """
    Of four permits low may use three; with all four taken a health check still has its answer.
    """
    gate = threading.Event()

    def hang(conn: Conn) -> None:
        while (asked := conn.read()) is not None:
            if "/slow" in asked.line or "/batch" in asked.line:
                gate.wait(WAIT_S)
            conn.answer(b"ok")

    upstream.use(hang)
    clients = [Client(worker.address) for _ in range(4)]
    for client in clients[:3]:
        client.send(request("GET", "/batch"))
    worker.wait_for(in_flight=3)
    with Client(worker.address) as late, Client(worker.address) as probe:
        assert late.ask("GET", "/batch").problem["reason"] == "concurrency_limited"
        clients[3].send(request("GET", "/slow"))
        worker.wait_for(in_flight=4)
        assert late.ask("GET", "/other").problem["reason"] == "concurrency_limited"
        assert probe.ask("GET", "/healthz").status == 200
    gate.set()
    assert [client.read().status for client in clients] == [200] * 4
    for client in clients:
        client.sock.close()
