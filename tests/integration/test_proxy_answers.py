"""Answers that are not the plain one, through a real worker: interim and early ones, refusals and what follows them, limits told."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator

import pytest

from tests.support.client import Client, request
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


def continuing(conn: Conn) -> None:
    while head := conn.read_head():
        conn.tell(head)
        conn.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        conn.answer(conn._exactly(5))


def test_the_upstreams_100_is_relayed(client: Client, upstream: Upstream) -> None:
    """
    The expectation reaches the upstream, its 100 (Continue) the client, and then the body goes up.
    """
    upstream.use(continuing)
    client.send(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")

    interim = client.read()
    client.send(b"hello")

    assert interim.status == 100
    assert client.read().body == b"hello"
    assert b"expect: 100-continue" in upstream.next_news().lower()  # type: ignore[attr-defined]


def test_a_100_is_withheld_when_the_body_is_there(client: Client, upstream: Upstream) -> None:
    """
    A client that sent its body with the head gets the final answer only.
    """
    upstream.use(continuing)
    client.send(b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello")

    assert (client.read().status, client.ask("PUT", "/", b"again").status) == (200, 200)


def test_a_refusal_comes_instead_of_the_100(client: Client) -> None:
    """
    A client that waits for 100 (Continue) and is refused gets the refusal, and the connection ends: its body may follow or not.
    """
    client.send(b"PUT /small/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\nExpect: 100-continue\r\n\r\n")

    answer = client.read()

    assert (answer.status, answer.fields["connection"]) == (413, "close")
    assert client.closed()


def test_interim_answers_are_forwarded(client: Client, upstream: Upstream) -> None:
    """
    Sixteen 103 (Early Hints) pass and are not taken for the answer; a seventeenth is too many.
    """

    def hinting(conn: Conn) -> None:
        while (asked := conn.read()) is not None:
            hints = int(asked.line.split(" ")[1].lstrip("/"))
            conn.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * hints)
            conn.answer()

    upstream.use(hinting)
    client.send(request("GET", "/16"))
    assert [client.read().status for _ in range(17)] == [103] * 16 + [200]

    client.send(request("GET", "/17"))
    assert [client.read().status for _ in range(17)] == [103] * 16 + [502]


def test_an_early_answer_reaches_the_client(worker: Worker, upstream: Upstream) -> None:
    """
    An upstream that refuses an upload before it has read it is heard, although it resets the connection.
    """

    def refusing(conn: Conn) -> None:
        conn.read_head()
        conn.answer(b"too much", "413 Content Too Large", "Connection: close")
        conn.wait_for_order()

    upstream.use(refusing)
    with Client(worker.address) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 50000000\r\n\r\n")
        sender = threading.Thread(target=send_all, args=(client, 50_000_000))
        sender.start()

        answer = client.read()

        upstream.order()
        assert (answer.status, answer.body, answer.fields["connection"]) == (413, b"too much", "close")
        client.sock.close()
        sender.join()


def send_all(client: Client, size: int) -> None:
    block = b"x" * 100_000
    try:
        for _ in range(size // len(block)):
            client.send(block)
    except OSError:
        return


def test_a_body_over_the_routes_cap_is_refused_at_once(client: Client) -> None:
    """
    A Content-Length over `max_body` gets 413 before a byte of the body goes anywhere.
    """
    answer = client.ask("POST", "/small/", b"x" * 1025)

    assert (answer.status, answer.problem["reason"]) == (413, "body_too_large")


def test_a_chunked_body_over_the_routes_cap_is_refused_on_its_way(client: Client, upstream: Upstream) -> None:
    """
    A chunked body is counted while it streams; beyond `max_body` the client gets 413 and the upstream no whole request.
    """
    client.send(
        b"POST /small/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n" + b"x" * 1024 + b"\r\n"
    )
    client.send(b"1\r\nx\r\n0\r\n\r\n")

    assert client.read().status == 413
    assert client.closed()
    assert upstream.seen.empty()


def test_a_refused_small_body_is_skipped(client: Client) -> None:
    """
    A refusal that does not close reads a small body away, so that the next request on the connection is understood.
    """
    assert client.ask("GET", "/refusing/").status in (200, 429)

    statuses = [client.ask("POST", "/refusing/", b"x" * 60_000).status, client.ask("GET", "/").status]

    assert statuses == [429, 200]


def test_a_refused_large_body_ends_the_connection(client: Client) -> None:
    """
    A refusal is not worth reading a large body: the answer says `close`, arrives, and the connection ends.
    """
    client.ask("GET", "/refusing/")
    client.send(b"POST /refusing/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1000)

    answer = client.read()

    assert (answer.status, answer.fields["connection"]) == (429, "close")
    assert client.closed()


def test_a_malformed_request_is_refused_and_nothing_goes_up(client: Client, upstream: Upstream) -> None:
    """
    A request without Host gets 400 with its reason, and the connection ends.
    """
    client.send(b"GET / HTTP/1.1\r\n\r\n")

    answer = client.read()

    assert (answer.status, answer.problem["reason"]) == (400, "bad_request")
    assert client.closed()
    assert upstream.seen.empty()


def test_a_body_that_breaks_later_never_looks_whole(client: Client, upstream: Upstream) -> None:
    """
    A chunk that is malformed after others went up: 400 for the client, an incomplete request for the upstream.
    """

    def reading(conn: Conn) -> None:
        conn.read_head()
        conn.tell("head")
        conn.tell(conn.wait_for_end())

    upstream.use(reading)
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    assert upstream.next_news() == "head"
    client.send(b"zz\r\n")

    assert client.read().status == 400
    assert upstream.next_news() in ("end", "reset")
    assert upstream.seen.empty()


def test_a_half_closed_client_gets_its_answers(client: Client) -> None:
    """
    A client that ends its sending half after pipelined requests still gets every answer, then the end.
    """
    client.send(request("GET", "/1") + request("POST", "/2", b"two"))
    client.end_sending()

    assert [client.read().body, client.read().body] == [b"ok", b"two"]
    assert client.closed()


def test_a_loop_is_detected(client: Client, upstream: Upstream) -> None:
    """
    A request that has passed this sidecar before is refused with 502 and goes nowhere.
    """
    client.ask("GET", "/")
    via = upstream.next_request().fields["via"]

    answer = client.ask("GET", "/", b"", f"Via: {via}")

    assert (answer.status, answer.problem["reason"]) == (502, "loop_detected")
    assert upstream.seen.empty()


def test_answers_tell_what_a_client_may_still_send(upstream: Upstream) -> None:
    """
    RateLimit fields stand behind the upstream's own, on answers and refusals alike, unless they are switched off.
    """

    def limiting(conn: Conn) -> None:
        while conn.read() is not None:
            conn.answer(b"ok", "200 OK", 'RateLimit: "own";r=5;t=1')

    upstream.use(limiting)
    config = (
        f"upstream: {{endpoints: ['{upstream.url}']}}\n"
        "routes: [{name: all, match: {path: /**}, limit: {rate: 0.001/s, burst: 2}}]\n"
    )
    heads = []
    for text in (config, "ratelimit_headers: false\n" + config):
        with running_worker(text) as worker, Client(worker.address) as client:
            for _ in range(3):
                client.send(request())
                head = client.read_head().decode().lower()
                size = re.search(r"content-length: (\d+)", head)
                assert size is not None
                client._exactly(int(size[1]))
                heads.append(head.split("\r\n"))

    told = [[line for line in head if line.startswith("ratelimit:")] for head in heads]
    assert [head[0].split(" ")[1] for head in heads] == ["200", "200", "429"] * 2
    assert told[0][0] == 'ratelimit: "own";r=5;t=1'
    assert told[0][1].startswith('ratelimit: "route";r=1;')
    assert told[1][1].startswith('ratelimit: "route";r=0;')
    assert told[2][0].startswith('ratelimit: "route";r=0;')
    assert told[3:] == [['ratelimit: "own";r=5;t=1']] * 2 + [[]]


def test_no_route_is_a_404(upstream: Upstream) -> None:
    """
    A request that no route takes gets 404 with its reason, and the connection lives on.
    """
    config = f"upstream: {{endpoints: ['{upstream.url}']}}\nroutes: [{{name: only, match: {{path: /only}}}}]\n"
    upstream.use(echo)
    with running_worker(config) as worker, Client(worker.address) as client:
        answers = [client.ask("GET", "/other"), client.ask("GET", "/only")]

    assert [answer.status for answer in answers] == [404, 200]
    assert json.loads(answers[0].body)["reason"] == "no_route"
