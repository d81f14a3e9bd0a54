"""The well-behaved half of HTTP/1.1 and 1.0 through a real worker: connections, pipelining, bodies both ways."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator

import pytest

from tests.support.client import Client, CutError, request
from tests.support.upstream import Conn, Upstream, echo
from tests.support.worker import Worker, running_worker

CONFIG = """
upstream: {{endpoints: ["{url}"], response_timeout: 5m}}
routes:
  - name: small
    match: {{path: /small/**}}
    max_body: 1KiB
  - name: refusing
    match: {{path: /refusing/**}}
    limit: {{rate: 0.001/s, burst: 1}}
  - name: default
    match: {{path: /**}}
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


def test_connections_are_kept_on_both_sides(client: Client, upstream: Upstream) -> None:
    """
    Requests that follow each other on one client connection use one upstream connection.
    """
    before = upstream.accepted

    answers = [client.ask("GET", f"/{n}").status for n in range(5)]

    assert answers == [200] * 5
    assert upstream.accepted - before == 1


def test_the_upstream_gets_a_request_written_anew(client: Client, upstream: Upstream) -> None:
    """
    Host, path and own fields pass, the client's address is told, hop-by-hop fields end here.
    """
    client.ask("GET", "/a/b?c=d", b"", "X-Own: 1", "Connection: keep-alive, X-Hop", "X-Hop: 2", "Keep-Alive: 5")

    seen = upstream.next_request()
    assert seen.line == "GET /a/b?c=d HTTP/1.1"
    assert (seen.fields["host"], seen.fields["x-own"]) == ("api.test", "1")
    assert seen.fields["x-forwarded-for"] == "127.0.0.1"
    assert len(seen.fields["traceparent"]) == 55
    assert not {"connection", "x-hop", "keep-alive"} & seen.fields.keys()


def test_pipelined_requests_are_answered_in_order(client: Client) -> None:
    """
    Requests sent in one write, with and without bodies, get their answers in the order of the requests.
    """
    bodies = [b"", b"one", b"", b"x" * 70_000, b"last"]

    client.send(b"".join(request("POST", "/", body) for body in bodies))

    assert [client.read().body for _ in bodies] == [b"ok", *bodies[1:2], b"ok", *bodies[3:]]


def test_many_refused_pipelined_requests_are_all_answered(client: Client) -> None:
    """
    A hundred pipelined requests beyond a limit each get their refusal, and the connection lives on.
    """
    client.ask("GET", "/refusing/")
    client.send(request("GET", "/refusing/") * 100 + request("GET", "/"))

    statuses = [client.read().status for _ in range(101)]

    assert statuses == [429] * 100 + [200]


def test_a_head_may_come_byte_by_byte(client: Client) -> None:
    """
    A request that arrives one byte at a time is served like any other.
    """
    for byte in request("POST", "/", b"abc"):
        client.send(bytes([byte]))

    assert client.read().body == b"abc"


def test_http_1_0_closes_after_the_answer(client: Client) -> None:
    """
    A client of HTTP/1.0 gets the answer, then the end of the connection.
    """
    client.send(b"GET / HTTP/1.0\r\n\r\n")

    answer = client.read()

    assert (answer.status, answer.fields["connection"]) == (200, "close")
    assert client.closed()


def test_http_1_0_may_keep_the_connection(client: Client) -> None:
    """
    A client of HTTP/1.0 that asks for keep-alive gets it, and is told.
    """
    for _ in range(2):
        client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        answer = client.read()
        assert (answer.body, answer.fields["connection"]) == (b"ok", "keep-alive")


def chunked_answer(conn: Conn) -> None:
    while conn.read() is not None:
        conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for part in (b"1;ext=1\r\na\r\n", b"3\r\nbcd\r\n", b"0\r\nX-Trailer: t\r\n\r\n"):
            conn.send(part)


def test_a_chunked_answer_reaches_a_1_0_client_until_close(client: Client, upstream: Upstream) -> None:
    """
    A client of HTTP/1.0 cannot read chunks: the body comes bare and ends with the connection.
    """
    upstream.use(chunked_answer)
    client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")

    answer = client.read()

    assert (answer.body, answer.fields["connection"]) == (b"abcd", "close")
    assert "transfer-encoding" not in answer.fields


def test_a_chunked_answer_stays_chunked(client: Client, upstream: Upstream) -> None:
    """
    A client of HTTP/1.1 gets the payload in chunks, and the connection lives on.
    """
    upstream.use(chunked_answer)

    assert [client.ask().body for _ in range(3)] == [b"abcd"] * 3


def test_an_answer_that_ends_with_its_connection_is_chunked(client: Client, upstream: Upstream) -> None:
    """
    A body that the upstream ends by closing reaches a 1.1 client with a visible end, and the connection lives on.
    """

    def until_close(conn: Conn) -> None:
        conn.read()
        conn.send(b"HTTP/1.1 200 OK\r\n\r\nsome ")
        conn.send(b"words")

    upstream.use(until_close)

    assert [client.ask().body for _ in range(2)] == [b"some words"] * 2


@pytest.mark.parametrize("size", [1, 65_535, 65_536, 65_537, 5_000_000])
def test_bodies_of_known_length_pass_whole(client: Client, size: int) -> None:
    """
    Every byte of a body of a known length arrives, up and down.
    """
    body = hashlib.shake_128(str(size).encode()).digest(size)

    assert hashlib.sha256(client.ask("POST", "/", body).body).digest() == hashlib.sha256(body).digest()


def test_chunked_bodies_pass_whole(client: Client, upstream: Upstream) -> None:
    """
    A body in chunks of any size, torn anywhere, arrives as the same bytes.
    """
    body = hashlib.shake_128(b"chunks").digest(200_000)
    cuts = [0, 1, 2, 100, 7_000, 70_000, 199_999, 200_000]
    chunks = [body[a:b] for a, b in itertools.pairwise(cuts)]
    text = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"

    for start in range(0, len(text), 9_973):
        client.send((head if start == 0 else b"") + text[start : start + 9_973])

    assert client.read().body == body
    assert upstream.next_request().fields["transfer-encoding"] == "chunked"


def test_answers_without_body_keep_the_connection_in_step(client: Client, upstream: Upstream) -> None:
    """
    HEAD, 204 and 304 carry no body whatever their fields say; what follows on the connection is the next answer.
    """

    def script(conn: Conn) -> None:
        while (asked := conn.read()) is not None:
            if asked.line.startswith("HEAD"):
                conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
            elif "/304" in asked.line:
                conn.send(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\nETag: x\r\n\r\n")
            elif "/204" in asked.line:
                conn.send(b"HTTP/1.1 204 No Content\r\n\r\n")
            else:
                conn.answer()

    upstream.use(script)
    before = upstream.accepted
    asked = [("HEAD", "/"), ("GET", "/304"), ("GET", "/204"), ("GET", "/")]

    answers = [client.ask(method, path) for method, path in asked]

    assert [answer.status for answer in answers] == [200, 304, 204, 200]
    assert answers[0].fields["content-length"] == "10"
    assert answers[3].body == b"ok"
    assert upstream.accepted - before == 1


def test_a_cut_answer_is_no_answer() -> None:
    """
    The client of these tests tells a cut answer from a whole one.
    """
    with (
        Upstream(lambda conn: conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")) as upstream,
        Client(("127.0.0.1", upstream.port)) as client,
        pytest.raises(CutError),
    ):
        client.read()
