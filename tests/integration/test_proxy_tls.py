"""TLS on the listener and to the API, through a real worker: who is believed, what is refused, and every kind of end."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.client import WAIT_S, Client, CutError, request
from tests.support.pki import Authority, Issued, say_end
from tests.support.upstream import Conn, Upstream, echo
from tests.support.worker import Worker, running_worker

CONFIG = """
tls: {{{tls}}}
upstream: {{endpoints: ["{url}"], tls: {{ca: '{ca}'}}, connect_timeout: 10s, response_timeout: 1h}}
downstream: {{head_timeout: {head}, body_timeout: 1h, idle_timeout: 1h}}
"""
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def issued(authority: Authority) -> Issued:
    return authority.sign("here", "localhost", "127.0.0.1")


@pytest.fixture(scope="module")
def upstream(authority: Authority, issued: Issued) -> Iterator[Upstream]:
    with Upstream(tls=authority.serving(issued)) as made:
        yield made


@pytest.fixture(scope="module")
def worker(authority: Authority, issued: Issued, upstream: Upstream) -> Iterator[Worker]:
    upstream.use(echo)
    with running_worker(CONFIG.format(tls=issued.keys, url=upstream.url, ca=authority.ca, head="1h")) as made:
        with Client(made.address, tls=authority.trusting()) as client:
            for _ in range(20):  # what is loaded at first use is loaded now
                assert client.ask("POST", "/", b"x" * 100_000).status == 200
        made.wait_for(connections=0, in_flight=0)
        yield made
        made.wait_for(connections=0, in_flight=0)


@pytest.fixture
def connect(worker: Worker, authority: Authority, upstream: Upstream) -> Callable[..., Client]:
    upstream.use(echo)
    trusting = authority.trusting()
    return lambda receive_buffer=0: Client(worker.address, receive_buffer=receive_buffer, tls=trusting)


# --- both sides ------------------------------------------------------------------------------------------------------


def test_bodies_of_every_size_pass(connect: Callable[..., Client], upstream: Upstream) -> None:
    """
    TLS on both sides: bodies around the size of a record and larger than all buffers come back as they were.
    """
    with connect() as client:
        for size in (0, 1, 16_384, 16_385, 65_536, 3_000_000):
            body = os.urandom(size)
            assert client.ask("POST", "/", body).body == (body or b"ok")
    fields = upstream.next_request().fields
    assert (fields["x-forwarded-proto"], "proto=https" in fields["forwarded"]) == ("https", True)


def test_only_http_1_1_is_agreed_on(worker: Worker, authority: Authority, connect: Callable[..., Client]) -> None:
    """
    A client that can speak HTTP/2 gets http/1.1, over TLS 1.3.
    """
    offering = authority.trusting()
    offering.set_alpn_protocols(["h2", "http/1.1"])
    with Client(worker.address, tls=offering) as client:
        assert isinstance(client.sock, ssl.SSLSocket)
        assert (client.sock.selected_alpn_protocol(), client.sock.version()) == ("http/1.1", "TLSv1.3")
        assert client.ask().status == 200


def test_pipelined_requests_are_answered_in_order(connect: Callable[..., Client]) -> None:
    """
    Many requests in few records, answers in their order.
    """
    with connect() as client:
        client.send(b"".join(request("POST", "/", b"%d" % number) for number in range(50)))
        assert [client.read().body for _ in range(50)] == [b"%d" % number for number in range(50)]


def test_a_client_that_ends_its_half_gets_its_answer(connect: Callable[..., Client]) -> None:
    """
    close_notify after a request is the end of the client's half: the answer comes, then the end of ours, clean.
    """
    with connect() as client:
        client.send(request("POST", "/", b"all"))
        client.end_sending()
        assert client.read().body == b"all"
        assert client.closed()


def test_a_cut_answer_is_cut_for_the_client(connect: Callable[..., Client], upstream: Upstream) -> None:
    """
    The API's socket ends without close_notify: an answer that would end with the connection is not taken for whole.
    """

    def cutting(conn: Conn) -> None:
        conn.read()
        conn.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf of it")
        conn.wait_for_order()
        socket.socket.shutdown(conn.sock, socket.SHUT_RDWR)

    upstream.use(cutting)
    with connect() as client:
        client.send(request())
        client.read_head()
        upstream.order()
        with pytest.raises(CutError):
            client.read()


def test_an_answer_that_ends_with_close_notify_is_whole(connect: Callable[..., Client], upstream: Upstream) -> None:
    """
    close_notify, and only that, ends a body without length.
    """

    def ending(conn: Conn) -> None:
        conn.read()
        conn.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nall of it")

    upstream.use(ending)
    with connect() as client:
        assert client.ask().body == b"all of it"


def test_an_early_answer_survives_the_apis_reset(connect: Callable[..., Client], upstream: Upstream) -> None:
    """
    An API that answers an upload early and resets is still heard: what waits in the socket is decrypted first.
    """

    def refusing(conn: Conn) -> None:
        conn.read_head()
        conn.answer(b"too much", "413 Content Too Large", "Connection: close")
        conn.reset()

    upstream.use(refusing)
    with connect() as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50000000\r\n\r\n" + b"x" * 100_000)
        answer = client.read()
    assert answer.status == 413


def test_an_idle_connection_that_the_api_ends_is_not_used(connect: Callable[..., Client], upstream: Upstream) -> None:
    """
    close_notify on pooled connections costs no request its answer, nor a POST a second sending.
    """

    def once(conn: Conn) -> None:
        conn.read()
        conn.answer(b"ok")
        conn.wait_for_order()
        say_end(conn.sock)
        conn.tell("said")

    upstream.use(once)
    with connect() as client:
        for number in range(20):
            assert client.ask("POST", f"/{number}", b"x").status == 200
            upstream.order()
            assert upstream.next_news() == "said"
    assert [upstream.next_request().line.split()[1] for _ in range(20)] == [f"/{number}" for number in range(20)]


# --- tunnels ---------------------------------------------------------------------------------------------------------

OFFER = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


@pytest.mark.parametrize("who", ["client", "api"])
def test_a_tunnel_passes_bytes_and_half_an_end(connect: Callable[..., Client], upstream: Upstream, who: str) -> None:
    """
    Bytes pass both ways; the side that ends its half still gets the rest, and then the end.
    """
    data = os.urandom(700_000)

    def switching(conn: Conn) -> None:
        conn.read()
        conn.send(SWITCH)
        if who == "api":
            say_end(conn.sock)
            conn.tell("said")
            conn.tell(conn._exactly(len(data)))
        else:
            conn.tell(conn.sock.recv(100))
            conn.tell(conn.sock.recv(100))
            conn.send(data)

    upstream.use(switching)
    with connect() as client:
        client.send(OFFER)
        client.read_head()
        if who == "api":
            assert upstream.next_news() == "said"
            client.send(data)
            assert upstream.next_news() == data
            assert client.closed()
        else:
            client.send(b"last")
            assert upstream.next_news() == b"last"
            say_end(client.sock)
            assert upstream.next_news() == b""
            assert client.read_to_end() == data


# --- bounds ----------------------------------------------------------------------------------------------------------


def test_stalled_readers_cost_little_memory(connect: Callable[..., Client], worker: Worker, upstream: Upstream) -> None:
    """
    Twenty clients that read nothing of 200 MiB each, TLS on both sides, grow the worker by less than 4 MiB in all.
    """

    def flood(conn: Conn) -> None:
        conn.read()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (200 * MIB))
        conn.sock.settimeout(0.5)
        try:
            for _ in range(200):
                conn.send(b"x" * MIB)
        except TimeoutError:
            conn.tell("stalled")
            conn.wait_for_order()

    upstream.use(flood)
    with connect(8192) as warm:
        warm.send(request())
        assert upstream.next_news() == "stalled"
        before = worker.memory_bytes()
        clients = [connect(8192) for _ in range(20)]
        for client in clients:
            client.send(request())
        assert [upstream.next_news() for _ in clients] == ["stalled"] * 20
        grown = worker.memory_bytes() - before
    for client in clients:
        client.sock.close()
    upstream.end_connections()
    worker.wait_for(in_flight=0, connections=0)
    assert grown < 4 * MIB


def test_a_stalled_upload_costs_little_memory(
    connect: Callable[..., Client], worker: Worker, upstream: Upstream
) -> None:
    """
    An API that reads nothing of a 200 MiB upload, TLS on both sides, grows the worker by less than 1 MiB.
    """

    def reading_nothing(conn: Conn) -> None:
        conn.read_head()
        conn.tell("head")
        conn.wait_for_order()

    upstream.use(reading_nothing)
    before = worker.memory_bytes()
    with connect() as client:
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (200 * MIB))
        assert upstream.next_news() == "head"
        client.sock.settimeout(0.5)
        with pytest.raises(TimeoutError):
            client.send(b"x" * (200 * MIB))
        grown = worker.memory_bytes() - before
        client.reset()
    upstream.order()
    upstream.end_connections()
    worker.wait_for(in_flight=0, connections=0)
    assert grown < MIB


def test_a_handshake_has_the_time_of_a_head(authority: Authority, issued: Issued, upstream: Upstream) -> None:
    """
    Clients that say nothing, or half a handshake, are cut after `head_timeout`; nothing is left of them.
    """
    text = CONFIG.format(tls=issued.keys, url=upstream.url, ca=authority.ca, head="1s")
    with running_worker(text) as worker:
        begun = time.monotonic()
        silent = [socket.create_connection(worker.address) for _ in range(20)]
        for sock in silent[::2]:
            with contextlib.suppress(ConnectionError):  # on a slow machine the first ones may be cut already
                sock.sendall(b"\x16\x03\x01\x02\x00\x01")
        for sock in silent:
            sock.settimeout(WAIT_S)
            with contextlib.suppress(ConnectionError):
                assert sock.recv(1) == b""
            sock.close()
        assert time.monotonic() - begun > 0.8
        worker.wait_for(connections=0)


def test_clients_that_leave_leave_nothing(
    worker: Worker, authority: Authority, connect: Callable[..., Client], upstream: Upstream
) -> None:
    """
    After resets and ends at every stage of handshake and request no connection or descriptor is left.
    """
    with connect() as client:
        assert client.ask().status == 200
    upstream.end_connections()
    worker.wait_for(connections=0)
    before = worker.descriptors()
    hello = _hello(authority)
    for size in range(0, len(hello), 40):
        sock = socket.create_connection(worker.address)
        sock.sendall(hello[:size])
        sock.close()
    for number in range(60):
        client = connect()
        client.send(request("POST", "/", b"x" * 20_000)[: number * 200])
        if number % 3 == 0:
            client.reset()
        elif number % 3 == 1:
            client.end_sending()
            client.sock.close()
        else:
            client.sock.close()
    upstream.end_connections()
    worker.wait_for(in_flight=0, connections=0)
    deadline = time.monotonic() + WAIT_S
    while worker.descriptors() > before + 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert worker.descriptors() <= before + 1  # one pooled connection may just be on its way out


def _hello(authority: Authority) -> bytes:
    to_server = ssl.MemoryBIO()
    client = authority.trusting().wrap_bio(ssl.MemoryBIO(), to_server, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return to_server.read()


# --- who is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_plain_http_is_told_that_this_is_tls(worker: Worker, method: str) -> None:
    """
    A plain request gets a plain 400 that says https, and a clean end.
    """
    with Client(worker.address) as client:
        client.send(request(method))
        answer = client.read()
        assert (answer.status, answer.problem["reason"]) == (400, "bad_request")
        assert "https://" in answer.problem["detail"]
        assert client.closed()


def test_what_is_neither_is_ended(worker: Worker) -> None:
    """
    Bytes that are neither TLS nor HTTP end the connection without an answer in plain text.
    """
    with Client(worker.address) as client:
        client.send(b"\x00\x01\x02\x03" * 10)
        assert client.closed()


def test_client_certificates_are_demanded(authority: Authority, issued: Issued, tmp_path: Path) -> None:
    """
    With `client_ca` who shows none, or one of somebody else, gets the alert that says so, and the API no request.
    """
    stranger = Authority.make(tmp_path, "stranger").sign("anybody")
    friend = authority.sign("friend")
    with Upstream() as upstream:
        tls = f"{issued.keys}, client_ca: '{authority.ca}'"
        config = f"tls: {{{tls}}}\nupstream: {{endpoints: ['{upstream.url}']}}\n"
        with running_worker(config) as worker:
            with Client(worker.address, tls=authority.trusting(friend)) as client:
                assert client.ask().status == 200
            for shown, alert in ((None, "CERTIFICATE_REQUIRED"), (stranger, "UNKNOWN_CA")):
                with pytest.raises(ssl.SSLError, match=alert):
                    _ask(worker, authority.trusting(shown))
            assert upstream.seen.qsize() == 1
            worker.wait_for(connections=0)
            assert "TLS handshakes of clients failed" in _said(worker, "TLS handshakes")


def test_the_api_learns_whose_certificate_was_verified(authority: Authority, issued: Issued) -> None:
    """
    Client-Cert (RFC 9440) has it; with `optional` a client without one has none, whatever it says itself.
    """
    friend = authority.sign("known")
    wanted = b64encode(ssl.PEM_cert_to_DER_cert(friend.certificate.read_text())).decode()
    with Upstream() as upstream:
        tls = f"{issued.keys}, client_ca: '{authority.ca}', client_certificates: optional"
        config = f"tls: {{{tls}}}\nupstream: {{endpoints: ['{upstream.url}']}}\n"
        with running_worker(config) as worker:
            for shown in (friend, None):
                with Client(worker.address, tls=authority.trusting(shown)) as client:
                    for _ in range(2):
                        assert client.ask("GET", "/", b"", "Client-Cert: :AAAA:").status == 200
        told = [upstream.next_request().fields.get("client-cert") for _ in range(4)]
    assert told == [f":{wanted}:", f":{wanted}:", None, None]


def _ask(worker: Worker, context: ssl.SSLContext) -> None:
    with Client(worker.address, tls=context) as client:
        client.send(request("POST", "/", b"x" * 100_000))
        client.read()


def _said(worker: Worker, words: str) -> str:
    deadline = time.monotonic() + WAIT_S
    while words not in worker.errors() and time.monotonic() < deadline:
        time.sleep(0.05)
    return worker.errors()


# --- the API's certificate -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("problem", "says", "remedy"),
    [
        ("unknown authority", "self-signed certificate in certificate chain", "upstream.tls.ca"),
        ("other name", "IP address mismatch", "upstream.tls.server_name"),
        ("expired", "certificate has expired", "renew it there"),
        ("plain", "it does not speak TLS", "write http://"),
        ("wants ours", "certificate required", "upstream.tls.certificate"),
        ("wants ours in 1.2", "handshake failure", "upstream.tls.certificate"),
    ],
)
def test_an_api_that_cannot_be_trusted_is_a_502(
    authority: Authority, issued: Issued, tmp_path: Path, problem: str, says: str, remedy: str
) -> None:
    """
    The client gets 502 upstream_tls_failed, the log the endpoint, the cause and what to do; the API sees no request.
    """
    shown, serving = issued, authority.serving(issued)
    if problem == "unknown authority":
        other = Authority.make(tmp_path, "unknown")
        serving = authority.serving(other.sign("there", "127.0.0.1"))
        serving.load_cert_chain(_chain(other, tmp_path), tmp_path / "there.key")
    elif problem == "other name":
        serving = authority.serving(authority.sign("elsewhere", "elsewhere.test"))
    elif problem == "expired":
        serving = authority.serving(authority.sign("old", "127.0.0.1", days=-1))
    elif problem.startswith("wants ours"):  # TLS 1.3 tells only after the handshake
        serving = authority.serving(shown, clients=authority)
        serving.maximum_version = ssl.TLSVersion.TLSv1_2 if problem.endswith("1.2") else ssl.TLSVersion.TLSv1_3
    with Upstream(tls=None if problem == "plain" else serving) as upstream:
        if problem == "plain":
            upstream.use(lambda conn: conn.send(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
        url = f"https://127.0.0.1:{upstream.port}"
        config = (
            f"explain: full\nupstream: {{endpoints: ['{url}'], tls: {{ca: '{authority.ca}'}}, connect_timeout: 10s}}\n"
        )
        with running_worker(config) as worker, Client(worker.address) as client:
            answers = [client.ask() for _ in range(3)]
            assert [(answer.status, answer.problem["reason"]) for answer in answers] == [
                (502, "upstream_tls_failed")
            ] * 3
            assert says in answers[0].problem["detail"]
            log = _said(worker, "TLS to the API fails")
            assert log.count("TLS to the API fails") == 1
            assert f"127.0.0.1:{upstream.port}: it" in log
            assert remedy in log
        assert upstream.seen.empty()


def _chain(other: Authority, folder: Path) -> Path:
    made = folder / "chain.pem"
    made.write_text((folder / "there.crt").read_text() + other.ca.read_text())
    return made


def test_the_api_sees_our_certificate_and_the_name_it_is_asked_for(authority: Authority) -> None:
    """
    `upstream.tls`: own certificate and key, and a server name in place of the endpoint's host, for SNI and for the check.
    """
    asked: list[str | None] = []
    ours = authority.sign("ours")
    serving = authority.serving(authority.sign("api", "api.internal"), clients=authority)
    serving.sni_callback = lambda connection, name, context: asked.append(name)

    def telling(conn: Conn) -> None:
        assert isinstance(conn.sock, ssl.SSLSocket)
        subject = dict(part[0] for part in (conn.sock.getpeercert() or {})["subject"])  # type: ignore[misc]
        while conn.read() is not None:
            conn.answer(subject["commonName"].encode())

    with Upstream(telling, tls=serving) as upstream:
        tls = f"{{ca: '{authority.ca}', {ours.keys}, server_name: api.internal}}"
        config = f"upstream: {{endpoints: ['{upstream.url}'], tls: {tls}, connect_timeout: 10s}}\n"
        with running_worker(config) as worker, Client(worker.address) as client:
            assert client.ask().body == b"ours"
    assert asked == ["api.internal"]


def test_another_endpoint_serves_for_one_that_cannot_be_trusted(authority: Authority, issued: Issued) -> None:
    """
    A handshake that fails is a connection that could not be made: the next endpoint gets the request, a POST too.
    """
    bad = authority.serving(authority.sign("elsewhere", "elsewhere.test"))
    with Upstream(tls=bad) as one, Upstream(tls=authority.serving(issued)) as two:
        config = f"upstream: {{endpoints: ['{one.url}', '{two.url}'], tls: {{ca: '{authority.ca}'}}, connect_timeout: 10s}}\n"
        with running_worker(config) as worker, Client(worker.address) as client:
            assert [client.ask("POST", "/", b"x").status for _ in range(10)] == [200] * 10
        assert (one.seen.qsize(), two.seen.qsize()) == (0, 10)


def test_a_handshake_that_never_ends_is_a_504(authority: Authority) -> None:
    """
    An API that accepts and says nothing of its handshake has `connect_timeout`.
    """
    with Upstream(lambda conn: conn.wait_for_order()) as upstream:
        url = f"https://127.0.0.1:{upstream.port}"
        config = f"upstream: {{endpoints: ['{url}'], connect_timeout: 300ms, tls: {{ca: '{authority.ca}'}}}}\n"
        with running_worker(config) as worker, Client(worker.address) as client:
            assert client.ask().problem["reason"] == "upstream_connect_timeout"
            upstream.order()
