"""What goes wrong upstream or at the client, through a real worker: every row of the reasons' table that needs sockets."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from tests.support.client import Client, CutError, request
from tests.support.upstream import Conn, Upstream, echo
from tests.support.worker import Worker, running_worker

CONFIG = """
upstream: {{endpoints: ["{url}"], response_timeout: 400ms, idle_timeout: 700ms, connect_timeout: 300ms}}
downstream: {{head_timeout: 400ms, idle_timeout: 600ms, body_timeout: 400ms}}
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


@pytest.fixture
def client(worker: Worker, upstream: Upstream) -> Iterator[Client]:
    upstream.use(echo)
    with Client(worker.address) as made:
        yield made


# --- the upstream ----------------------------------------------------------------------------------------------------


def answering(data: bytes) -> object:
    def script(conn: Conn) -> None:
        while conn.read() is not None:
            conn.send(data)

    return script


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 099 No\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA b: c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\x00c\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_a_malformed_answer_is_a_502(client: Client, upstream: Upstream, data: bytes) -> None:
    """
    An answer that breaks the protocol is never forwarded: the client gets 502 and keeps its connection.
    """
    upstream.use(answering(data))  # type: ignore[arg-type]

    answer = client.ask()

    assert (answer.status, answer.problem["reason"]) == (502, "upstream_protocol_error")
    upstream.use(echo)
    assert client.ask().status == 200


def test_a_reset_before_the_answer_is_a_502(client: Client, upstream: Upstream) -> None:
    """
    An upstream that resets a new connection instead of answering: 502 at once.
    """

    def resetting(conn: Conn) -> None:
        conn.read()
        conn.reset()

    upstream.use(resetting)

    answer = client.ask("POST", "/", b"x")

    assert (answer.status, answer.problem["reason"]) == (502, "upstream_reset")


def test_no_answer_in_time_is_a_504(client: Client, upstream: Upstream) -> None:
    """
    An upstream that says nothing for `response_timeout` after the whole request: 504, and its connection is ended.
    """
    upstream.use(lambda conn: conn.tell((conn.read(), conn.wait_for_end())))
    begun = time.monotonic()

    answer = client.ask()

    assert (answer.status, answer.problem["reason"]) == (504, "upstream_timeout")
    assert 0.4 <= time.monotonic() - begun < 0.9
    assert upstream.next_news()[1] in ("end", "reset")  # type: ignore[index]


def test_nobody_listening_is_a_fast_502(worker: Worker) -> None:
    """
    A refused connection is answered at once with 502, and the next request is tried anew.
    """
    with Upstream() as upstream:
        url = upstream.url
    with running_worker(CONFIG.format(url=url)) as alone, Client(alone.address) as client:
        begun = time.monotonic()
        answer = client.ask()
        assert (answer.status, answer.problem["reason"]) == (502, "upstream_connect_failed")
        assert time.monotonic() - begun < 0.5
        with Upstream(port=int(url.rpartition(":")[2])):
            assert client.ask("POST", "/", b"back").body == b"back"


def test_a_connection_that_is_not_accepted_is_a_504() -> None:
    """
    A full accept queue answers nothing: after `connect_timeout` the client gets 504.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listening, socket.socket() as first:
        first.connect(listening.getsockname())
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with running_worker(CONFIG.format(url=url)) as worker, Client(worker.address) as client:
            begun = time.monotonic()
            answer = client.ask()
            assert (answer.status, answer.problem["reason"]) == (504, "upstream_connect_timeout")
            assert 0.3 <= time.monotonic() - begun < 0.9


def test_a_name_without_address_is_a_502() -> None:
    """
    An endpoint whose name has no address is a 502 that says so when it may explain.
    """
    config = "explain: full\n" + CONFIG.format(url="http://nowhere.invalid:80")
    with running_worker(config) as worker, Client(worker.address) as client:
        answer = client.ask()

    assert answer.status in (502, 504)
    assert answer.problem["reason"] in ("upstream_connect_failed", "upstream_connect_timeout")


@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n"],
)
@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_cut_answer_is_cut_for_the_client(client: Client, upstream: Upstream, head: bytes, how: str) -> None:
    """
    An upstream that ends within a body: the client sees an incomplete message, never a clean end.
    """

    def cutting(conn: Conn) -> None:
        conn.read()
        conn.send(head + b"abc")
        conn.wait_for_order()
        if how == "reset":
            conn.reset()

    upstream.use(cutting)
    client.send(request())
    client.read_head()
    upstream.order()

    with pytest.raises(CutError):
        client._exactly(100)


def test_a_cut_answer_without_length_is_reset_for_a_1_0_client(client: Client, upstream: Upstream) -> None:
    """
    Only a reset tells a client of HTTP/1.0 that a body without length is not whole.
    """

    def cutting(conn: Conn) -> None:
        conn.read()
        conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc")
        conn.wait_for_order()

    upstream.use(cutting)
    client.send(b"GET / HTTP/1.0\r\n\r\n")
    client.read_head()
    upstream.order()

    with pytest.raises(CutError) as cut:
        client.read_to_end()
    assert cut.value.reset


def test_silence_within_an_answer_cuts_it(client: Client, upstream: Upstream) -> None:
    """
    An upstream that stops within a body is given up after `idle_timeout`; the client sees the cut.
    """

    def stopping(conn: Conn) -> None:
        conn.read()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
        conn.wait_for_end()

    upstream.use(stopping)
    client.send(request())

    with pytest.raises(CutError):
        client.read()


def test_bytes_beyond_an_answer_discard_the_connection(client: Client, upstream: Upstream) -> None:
    """
    What an upstream sends beyond its answer is never taken for the next one.
    """

    def chatty(conn: Conn) -> None:
        if conn.read() is not None:
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
            conn.wait_for_end()

    upstream.use(chatty)
    before = upstream.accepted

    assert [client.ask().body for _ in range(3)] == [b"ok"] * 3
    assert upstream.accepted - before == 3


# --- the pool --------------------------------------------------------------------------------------------------------


def one_answer_each(conn: Conn) -> None:
    if conn.read() is not None:
        conn.answer()  # looks like keep-alive
        conn.wait_for_order()
        conn.close()
        conn.tell("closed")


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_stale_connections_never_surface(client: Client, upstream: Upstream, method: str) -> None:
    """
    Thirty connections in a row that the upstream closed while they were idle cost no request.
    """
    upstream.use(one_answer_each)

    for _ in range(30):
        assert client.ask(method, "/", b"x" if method == "POST" else b"").status == 200
        upstream.order()
        assert upstream.next_news() == "closed"


def ending_when_asked_again(conn: Conn) -> None:
    conn.read()
    conn.answer()
    conn.read()
    conn.tell("ended")


def test_an_idempotent_request_is_retried_once(client: Client, upstream: Upstream) -> None:
    """
    A reused connection that ends without a byte of an answer costs a GET nothing: it goes out once more, on a new one.
    """
    upstream.use(ending_when_asked_again)

    assert [client.ask().status for _ in range(3)] == [200] * 3
    assert upstream.next_news() == "ended"


def test_a_post_is_never_sent_twice(client: Client, upstream: Upstream) -> None:
    """
    The same ending costs a POST a 502, and the upstream has seen it exactly once.
    """
    upstream.use(ending_when_asked_again)
    client.ask("GET", "/first")

    answer = client.ask("POST", "/second", b"x")

    assert (answer.status, answer.problem["reason"]) == (502, "upstream_reset")
    assert upstream.next_news() == "ended"
    assert [upstream.next_request().line for _ in range(2)] == ["GET /first HTTP/1.1", "POST /second HTTP/1.1"]
    assert upstream.seen.empty()


def test_the_first_post_of_a_client_gets_a_new_connection(worker: Worker, upstream: Upstream) -> None:
    """
    A client that just came may not lose its first, unrepeatable request to a connection that goes stale this moment.
    """
    upstream.use(echo)
    with Client(worker.address) as first:
        first.ask()
    before = upstream.accepted

    with Client(worker.address) as second:
        statuses = [second.ask("POST", "/", b"x").status, second.ask("POST", "/", b"x").status]

    assert statuses == [200, 200]
    assert upstream.accepted - before == 1


# --- the client ------------------------------------------------------------------------------------------------------


def test_a_client_that_leaves_cancels_its_request(worker: Worker, upstream: Upstream) -> None:
    """
    A client that leaves before the answer ends its upstream request within a second.
    """

    def waiting(conn: Conn) -> None:
        conn.read()
        conn.tell("read")
        conn.tell(conn.wait_for_end())

    upstream.use(waiting)
    for leave in (lambda client: client.sock.close(), lambda client: client.reset()):
        with Client(worker.address) as client:
            client.send(request("POST", "/", b"x"))
            assert upstream.next_news() == "read"
            begun = time.monotonic()
            leave(client)
            assert upstream.next_news() in ("end", "reset")
            assert time.monotonic() - begun < 1.0


def test_a_client_that_leaves_a_stalled_upload_cancels_it(upstream: Upstream) -> None:
    """
    While nothing is read from a client, because the upstream takes nothing, it is still seen within a second to be gone.
    """

    def stalled(conn: Conn) -> None:
        conn.read_head()
        conn.tell("head")
        conn.wait_for_order()
        conn.tell(conn.wait_for_end())

    upstream.use(stalled)
    config = f"upstream: {{endpoints: ['{upstream.url}']}}\n"
    with running_worker(config) as worker, Client(worker.address) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 500000000\r\n\r\n")
        assert upstream.next_news() == "head"
        client.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.send(b"x" * 100_000_000)
        begun = time.monotonic()
        client.reset()
        worker.wait_for(in_flight=0, connections=0)
        assert time.monotonic() - begun < 1.5
        upstream.order()
        assert upstream.next_news() in ("end", "reset")


def test_a_slow_head_is_a_408(client: Client) -> None:
    """
    A head that is not complete in `head_timeout`, however steadily it drips, gets 408 and the end.
    """
    client.sock.settimeout(0.05)
    begun = time.monotonic()
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n")
    received = b""
    while not received and time.monotonic() - begun < 3:
        client.send(b"A: b\r\n")
        try:
            received = client.sock.recv(65536)
        except TimeoutError:
            continue

    assert received.startswith(b"HTTP/1.1 408 ")
    assert 0.4 <= time.monotonic() - begun < 1.0


def test_an_idle_connection_ends_silently(client: Client) -> None:
    """
    A connection without a request for `idle_timeout` is closed without an answer nobody asked for.
    """
    client.ask()
    begun = time.monotonic()

    assert client.closed()
    assert 0.6 <= time.monotonic() - begun < 1.2


def test_a_body_that_stops_is_a_408(client: Client, upstream: Upstream) -> None:
    """
    A body of which no byte came for `body_timeout`: 408 for the client, the upstream's request is cancelled.
    """
    upstream.use(lambda conn: conn.tell((conn.read_head(), conn.wait_for_end())))
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")

    answer = client.read()

    assert (answer.status, answer.problem["reason"]) == (408, "request_timeout")
    assert upstream.next_news()[1] in ("end", "reset")  # type: ignore[index]


def test_a_client_that_reads_nothing_is_given_up(worker: Worker, upstream: Upstream) -> None:
    """
    A client that takes no byte of its answer for `idle_timeout` is cut, and the upstream's connection with it.
    """

    def flooding(conn: Conn) -> None:
        conn.read()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 200000000\r\n\r\n")
        try:
            for _ in range(200):
                conn.send(b"x" * 1_000_000)
        except OSError:
            conn.tell("cut")

    upstream.use(flooding)
    with Client(worker.address, receive_buffer=4096) as client:
        client.send(request())
        assert upstream.next_news() == "cut"
    worker.wait_for(in_flight=0, connections=0)


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
    with Upstream() as gone:
        dead = gone.url
    with Upstream() as alive:
        config = f"upstream: {{endpoints: ['{dead}', '{alive.url}']}}\n"
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
        assert worker.process.wait(timeout=10) == 0


def test_a_worker_ends_with_its_supervisor() -> None:
    """
    When the heartbeat ends, the worker exits at once: no orphan is left.
    """
    with running_worker("upstream: {endpoints: ['http://127.0.0.1:1']}\n") as worker:
        worker.heart.shutdown(socket.SHUT_RDWR)
        assert worker.process.wait(timeout=5) == 0
