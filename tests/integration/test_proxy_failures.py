"""What goes wrong upstream, through a real worker: every row of the reasons' table that needs an API which misbehaves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.client import Client, CutError, request
from tests.support.ports import closed_port
from tests.support.upstream import Conn, Upstream, echo
from tests.support.worker import Worker, running_worker

CONFIG = """
upstream: {{endpoints: ["{url}"], response_timeout: 5m, connect_timeout: 1m}}
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


def test_nobody_listening_is_a_502_at_once() -> None:
    """
    A refused connection is answered with 502 long before any timeout, and the next request is tried anew.
    """
    with closed_port() as port:
        config = CONFIG.format(url=f"http://127.0.0.1:{port}").replace("1m", "1h")  # nobody here waits for an hour
        with running_worker(config) as worker, Client(worker.address) as client:
            answer = client.ask()
            assert (answer.status, answer.problem["reason"]) == (502, "upstream_connect_failed")
            with Upstream(port=port):
                assert client.ask("POST", "/", b"back").body == b"back"


def test_a_name_without_address_is_a_502() -> None:
    """
    An endpoint whose name has no address is a 502, or a 504 where the name service itself does not answer in time.
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
