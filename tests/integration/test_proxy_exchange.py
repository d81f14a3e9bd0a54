"""The well-behaved half of HTTP/1.1 and 1.0 through a real worker: connections, bodies, interim and early answers."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import threading
from collections.abc import Iterator

import pytest

from tests.support.client import Client, CutError, request
from tests.support.upstream import Conn, Upstream, echo
from tests.support.worker import Worker, running_worker

CONFIG = """
upstream: {{endpoints: ["{url}"], response_timeout: 5s}}
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
