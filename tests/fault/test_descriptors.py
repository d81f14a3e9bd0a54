"""Clients in crowds: the cap on connections, the last descriptors, and none at all."""

from __future__ import annotations

import contextlib
import resource
import select
import socket
import time

import pytest

from tests.support.client import Client, CutError, request
from tests.support.sidecar import until
from tests.support.upstream import Conn, Upstream, echo
from tests.support.worker import Worker, running_worker

CONFIG = "upstream: {{endpoints: ['{url}']}}\ndownstream: {{head_timeout: 2m, idle_timeout: 2m}}\n"
BEGUN = b"GET / HTTP/1.1\r\n"  # neither idle nor whole: it holds its place
LIMIT = 320


def begin(worker: Worker, count: int) -> list[Client]:
    """Connect *count* clients that have begun a request each."""
    clients = [Client(worker.address) for _ in range(count)]
    for client in clients:
        with contextlib.suppress(OSError):
            client.send(BEGUN)
    return clients


def leave(clients: list[Client]) -> None:
    for client in clients:
        client.sock.close()


def refusal(worker: Worker) -> tuple[int, int, str, bool]:
    """Connect; return what is answered unasked: status, Retry-After, reason, and whether the connection ends."""
    with Client(worker.address) as client:
        answer = client.read()
        return answer.status, int(answer.fields["retry-after"]), answer.problem["reason"], client.closed()


def served(worker: Worker) -> bool:
    try:
        with Client(worker.address) as client:
            return client.ask().status == 200
    except (OSError, CutError):
        return False


def usual_s(worker: Worker) -> float:
    """Return how long a connection and its request take on this machine now."""
    began = time.monotonic()
    for _ in range(20):
        assert served(worker)
    return (time.monotonic() - began) / 20


def test_the_cap_is_four_fifths_of_the_file_limit() -> None:
    """
    With 320 descriptors 256 clients stand, whatever the setting says; the next one gets 503 with Retry-After, and the
    first one that comes after one has left is served.
    """
    with Upstream(echo) as upstream, running_worker(CONFIG.format(url=upstream.url), descriptors=LIMIT) as worker:
        assert "is more than the file limit of 320 allows; 256 hold" in worker.errors()
        clients = begin(worker, LIMIT * 8 // 10)
        worker.wait_for(connections=256)
        status, retry_s, reason, closed = refusal(worker)
        assert (status, reason, closed) == (503, "concurrency_limited", True)
        assert 1 <= retry_s <= 2
        leave(clients[:4])
        until(lambda: served(worker), "there is room again")
        leave(clients[4:])


def test_the_last_descriptors_are_no_clients() -> None:
    """
    Where descriptors end before the cap, a client that would get one of the last is answered 503 and let go at once,
    however many come; who is connected is served, on a new connection to the API.
    """
    with Upstream(echo) as upstream, running_worker(CONFIG.format(url=upstream.url), descriptors=48) as worker:
        with Client(worker.address) as known:
            whole = request("POST", "/", b"whole")
            known.send(whole[:20])
            crowd = begin(worker, 100)
            standing = until(lambda: settled(worker, crowd), "each one stands or is turned away")
            known.send(whole[20:])
            answer = known.read()
            assert (answer.status, answer.body) == (200, b"whole")
        assert 5 < standing < 38, "descriptors ended before the cap did"
        leave(crowd)
        until(lambda: served(worker), "there is room again")


def test_the_very_last_descriptors_are_not_the_apis() -> None:
    """
    When requests in flight take what is left, the next ones get 503 with Retry-After while some descriptors are still
    free, and the endpoint's standing is as it was: afterwards everything is served.
    """
    limit = 64

    def holding(conn: Conn) -> None:
        while conn.read() is not None:
            conn.tell("asked")
            conn.wait_for_order()
            conn.answer()

    with (
        Upstream(holding) as upstream,
        running_worker(CONFIG.format(url=upstream.url), descriptors=limit) as worker,
        contextlib.ExitStack() as closing,
    ):
        clients = [closing.enter_context(Client(worker.address)) for _ in range(30)]
        worker.wait_for(connections=30)
        for client in clients:
            client.send(request("POST", "/", b"x"))
        until(lambda: len(answered(clients)) + upstream.news.qsize() == 30, "each one is asked for or refused")
        refused = {client: client.read() for client in answered(clients)}
        assert refused
        assert {(row.status, row.problem["reason"]) for row in refused.values()} == {(503, "concurrency_limited")}
        assert all(int(row.fields["retry-after"]) >= 1 for row in refused.values())
        assert worker.descriptors() <= limit - 3
        served = [client for client in clients if client not in refused]
        for _ in range(len(served) + 1):
            upstream.order()
        assert {client.read().status for client in served} == {200}
        assert served[0].ask().status == 200


def answered(clients: list[Client]) -> list[Client]:
    """Return those for whom something has come."""
    ready = select.select([client.sock for client in clients], [], [], 0)[0]
    return [client for client in clients if client.sock in ready]


def settled(worker: Worker, crowd: list[Client]) -> int:
    """Return how many of *crowd* and one stand, when all others were turned away; else 0."""
    turned_away = sum(ended(client) for client in crowd)
    standing = int(worker.ask()["connections"])
    return standing if standing + turned_away == len(crowd) + 1 else 0


def ended(client: Client) -> bool:
    """Tell whether the worker ended this connection, whatever it answered."""
    client.sock.settimeout(0.0)
    try:
        while client.sock.recv(65536):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        return True
    return True


@pytest.mark.parametrize("spare", [0, 20])
def test_running_out_of_descriptors_is_survived(spare: int) -> None:
    """
    With more clients than descriptors the worker burns no CPU, and serves within a second of their leaving.
    """
    with Upstream(echo) as upstream, running_worker(CONFIG.format(url=upstream.url)) as worker:
        usual = usual_s(worker)
        most = worker.descriptors() + spare
        _, hard = resource.prlimit(worker.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(worker.process.pid, resource.RLIMIT_NOFILE, (most, hard))
        crowd = [socket.create_connection(worker.address) for _ in range(most + 40)]
        for sock in crowd:
            with contextlib.suppress(OSError):
                sock.sendall(BEGUN)
        worker.ask()
        before, began = sum(worker.cpu_s()), time.monotonic()
        time.sleep(1.0)  # the time that is measured
        busy = (sum(worker.cpu_s()) - before) / (time.monotonic() - began)
        for sock in crowd:
            sock.close()
        resource.prlimit(worker.process.pid, resource.RLIMIT_NOFILE, (most + 20, hard))
        free_at = time.monotonic()
        until(lambda: served(worker), "it recovers")
        took_s = time.monotonic() - free_at
        assert took_s < max(1.0, 200 * usual), f"{took_s:.2f} s, a request takes {usual * 1000:.1f} ms"
        assert busy < 0.3
