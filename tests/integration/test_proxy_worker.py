"""A worker among its clients and endpoints: who leaves, who is one too many, whose turn it is, and how it ends itself."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from tests.support.client import Client, CutError, request
from tests.support.patience import WAIT_S, quickest_s
from tests.support.ports import closed_port
from tests.support.upstream import Conn, Upstream
from tests.support.worker import Worker, running_worker

CONFIG = """
upstream: {{endpoints: ["{url}"], response_timeout: 5m}}
downstream: {{head_timeout: 5m, body_timeout: 5m, idle_timeout: 5m}}
"""


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as made:
        yield made


@pytest.fixture(scope="module")
def worker(upstream: Upstream) -> Iterator[Worker]:
    with running_worker(CONFIG.format(url=upstream.url)) as made:
        yield made
        made.wait_for(connections=0, in_flight=0)


# --- the client ------------------------------------------------------------------------------------------------------


def test_a_client_that_leaves_cancels_its_request(worker: Worker, upstream: Upstream) -> None:
    """
    A client that leaves before the answer ends its upstream request within a second.
    """

    def waiting(conn: Conn) -> None:
        conn.read()
        conn.tell("read")
        conn.tell(conn.wait_for_end())

    def took_s(leave: Callable[[Client], None]) -> float:
        with Client(worker.address) as client:
            client.send(request("POST", "/", b"x"))
            assert upstream.next_news() == "read"
            begun = time.monotonic()
            leave(client)
            assert upstream.next_news() in ("end", "reset")
            return time.monotonic() - begun

    upstream.use(waiting)
    assert quickest_s(lambda: took_s(lambda client: client.sock.close()), 1.0) < 1.0
    assert quickest_s(lambda: took_s(lambda client: client.reset()), 1.0) < 1.0


def test_a_client_that_leaves_a_stalled_upload_cancels_it(worker: Worker, upstream: Upstream) -> None:
    """
    While nothing is read from a client, because the upstream takes nothing, it is still seen within a second to be gone.
    """

    def stalled(conn: Conn) -> None:
        conn.read_head()
        conn.tell("head")
        conn.wait_for_order()
        conn.tell(conn.wait_for_end())

    def took_s() -> float:
        client = Client(worker.address)
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 500000000\r\n\r\n")
        assert upstream.next_news() == "head"
        client.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.send(b"x" * 100_000_000)
        begun = time.monotonic()
        client.reset()
        worker.wait_for(in_flight=0, connections=0)
        took_s = time.monotonic() - begun
        upstream.order()
        assert upstream.next_news() in ("end", "reset")
        return took_s

    upstream.use(stalled)
    assert quickest_s(took_s, 1.0) < 1.0


# --- several endpoints -----------------------------------------------------------------------------------------------


def test_endpoints_are_taken_in_turn() -> None:
    """
    Two endpoints serve half of the requests each.
    """
    with Upstream() as one, Upstream() as two:
        config = f"upstream: {{endpoints: ['{one.url}', '{two.url}']}}\n"
        with running_worker(config) as worker, Client(worker.address) as client:
            assert [client.ask().status for _ in range(10)] == [200] * 10
        assert (one.seen.qsize(), two.seen.qsize()) == (5, 5)


def test_a_dead_endpoint_costs_no_request() -> None:
    """
    While one of two endpoints refuses connections, the other one serves every request, also those that must not be repeated.
    """
    with closed_port() as dead, Upstream() as alive:
        config = f"upstream: {{endpoints: ['http://127.0.0.1:{dead}', '{alive.url}']}}\n"
        with running_worker(config) as worker, Client(worker.address) as client:
            assert [client.ask("POST", "/", b"x").status for _ in range(10)] == [200] * 10


def test_a_name_is_resolved() -> None:
    """
    An endpoint may be a name.
    """
    with Upstream() as upstream:
        config = f"upstream: {{endpoints: ['http://localhost:{upstream.port}']}}\n"
        with running_worker(config) as worker, Client(worker.address) as client:
            assert client.ask("POST", "/", b"x").body == b"x"


# --- the worker ------------------------------------------------------------------------------------------------------


def test_connections_beyond_the_cap_are_refused() -> None:
    """
    At `max_connections` the longest idle one makes room; when none is idle the new one gets 503 and the end.
    """

    def holding(conn: Conn) -> None:
        while conn.read() is not None:
            conn.tell("asked")
            conn.wait_for_order()
            conn.answer()

    with Upstream(holding) as upstream:
        config = f"upstream: {{endpoints: ['{upstream.url}']}}\ndownstream: {{max_connections: 2}}\n"
        with running_worker(config) as worker:
            idle, busy = Client(worker.address), Client(worker.address)
            busy.send(request())
            assert upstream.next_news() == "asked"
            worker.wait_for(connections=2)
            with Client(worker.address) as third:
                assert idle.closed()
                third.send(request())
                assert upstream.next_news() == "asked"
                with Client(worker.address) as fourth:
                    answer = fourth.read()
                    assert (answer.status, answer.fields["retry-after"]) == (503, "2")
                    assert fourth.closed()
                upstream.order()
                upstream.order()
                assert (busy.read().status, third.read().status) == (200, 200)
            busy.sock.close()


def test_draining_ends_idle_connections_and_finishes_the_others() -> None:
    """
    A drain ends what is idle, lets the request in flight end with `Connection: close`, then the worker exits with 0.
    """

    def holding(conn: Conn) -> None:
        while conn.read() is not None:
            conn.tell("asked")
            conn.wait_for_order()
            conn.answer(b"late")

    with Upstream(holding) as upstream, running_worker(f"upstream: {{endpoints: ['{upstream.url}']}}\n") as worker:
        with Client(worker.address) as idle, Client(worker.address) as busy:
            busy.send(request())
            assert upstream.next_news() == "asked"
            worker.tell(do="drain")
            worker.wait_for(ready=False)
            assert idle.closed()
            upstream.order()
            answer = busy.read()
            assert (answer.body, answer.fields["connection"]) == (b"late", "close")
        assert worker.process.wait(timeout=WAIT_S) == 0


def test_what_never_got_to_the_api_is_given_back() -> None:
    """
    A request that still waits for a connection at the end of the grace time is refused as `draining`, with the word that it
    may come again at once; one that the API has seen is cut.
    """

    def hanging(conn: Conn) -> None:
        conn.read()
        conn.tell("asked")
        conn.wait_for_end()

    with Upstream(hanging) as upstream, full_backlog() as closed:
        config = (
            "drain: {grace: 1s}\nroutes: [{name: default, match: {path: /**}, response_timeout: 1h}]\n"
            f"upstream: {{endpoints: ['{upstream.url}', '{closed}'], connect_timeout: 1h}}\n"
        )
        with running_worker(config) as worker:
            clients = [Client(worker.address) for _ in range(2)]
            for client in clients:
                client.send(request())
            assert upstream.next_news() == "asked"
            worker.wait_for(in_flight=2)
            worker.tell(do="drain")
            ends = {end_of(client) for client in clients}
            assert worker.process.wait(WAIT_S) == 0
    assert ends == {(503, "draining", "close", "1"), "cut"}


@contextlib.contextmanager
def full_backlog() -> Iterator[str]:
    """Give the URL of a socket that accepts nobody any more."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listening, socket.socket() as first:
        first.connect(listening.getsockname())
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def end_of(client: Client) -> object:
    """Return how a request ended: the refusal's status, reason and fields, or that it was cut."""
    with client:
        try:
            answer = client.read()
        except CutError:
            return "cut"
    return answer.status, answer.problem["reason"], answer.fields["connection"], answer.fields["retry-after"]


def test_a_worker_ends_with_its_supervisor() -> None:
    """
    When the heartbeat ends, the worker exits at once: no orphan is left.
    """
    with running_worker("upstream: {endpoints: ['http://127.0.0.1:1']}\n") as worker:
        worker.heart.shutdown(socket.SHUT_RDWR)
        assert worker.process.wait(timeout=WAIT_S) == 0
