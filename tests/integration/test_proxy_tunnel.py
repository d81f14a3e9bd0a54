"""WebSocket and other tunnels through a real worker: the handshake, bytes both ways, and every way in which they end."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from sidecar import clock
from sidecar.facts import Action, Directive, Scope
from sidecar.link.frames import Directives, Tick
from tests.support.client import WAIT_S, Client
from tests.support.link import Controller
from tests.support.upstream import Conn, Upstream, echo
from tests.support.worker import Worker, running_worker

CONFIG = """
upstream: {{endpoints: ["{url}"], response_timeout: 1s, idle_timeout: 600ms}}
downstream: {{tunnel_timeout: 1s, idle_timeout: 600ms}}
respond: {{end_tunnels: true}}
access_log: {{path: "{log}", sample: 100%}}
routes:
  - name: plain
    match: {{path: /plain/**}}
    upgrade: []
  - name: limited
    match: {{path: /limited/**}}
    limit: {{rate: 1/h, burst: 1}}
    concurrency: {{max: 1}}
  - name: default
    match: {{path: /**}}
"""
OFFER = b"GET %b HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Mine: 1\r\n\r\n"


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "access.log"


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as made:
        yield made


@pytest.fixture(scope="module")
def worker(upstream: Upstream, log: Path) -> Iterator[Worker]:
    with running_worker(CONFIG.format(url=upstream.url, log=log)) as made:
        yield made
        made.wait_for(connections=0, in_flight=0)


@pytest.fixture
def client(worker: Worker, upstream: Upstream) -> Iterator[Client]:
    upstream.use(switching)
    with Client(worker.address) as made:
        yield made


def raw_echo(conn: Conn) -> None:
    """Send back what comes, until the end."""
    while data := conn._buffer or conn.sock.recv(65536):
        conn._buffer = b""
        conn.sock.sendall(data)


def switching(conn: Conn) -> None:
    """Agree to the first offer and echo from then on."""
    while (request := conn.read()) is not None:
        if request.fields.get("upgrade") != "websocket":
            conn.answer(b"plain")
            continue
        conn.send(SWITCH)
        raw_echo(conn)
        conn.tell("ended")
        return


def handshake(client: Client, path: bytes = b"/ws") -> str:
    client.send(OFFER % path)
    return client.read_head().decode()


def received(client: Client, size: int) -> bytes:
    return client._exactly(size)


# --- the handshake ---------------------------------------------------------------------------------------------------


def test_bytes_pass_both_ways_after_101(client: Client, upstream: Upstream) -> None:
    """
    The offer goes up with that protocol alone, the 101 comes back with it, and then every byte passes as it is.
    """
    head = handshake(client)

    assert head.splitlines()[0] == "HTTP/1.1 101 Switching Protocols"
    assert [line for line in head.lower().splitlines() if line.startswith(("connection", "upgrade", "x-mine"))] == [
        "x-mine: 1", "connection: upgrade", "upgrade: websocket",
    ]  # fmt: skip
    fields = upstream.next_request().fields
    assert (fields["connection"], fields["upgrade"], fields["sec-websocket-key"]) == ("upgrade", "websocket", "k")
    assert fields["via"].startswith("1.1 sidecar-")
    for data in (b"\x00\xffGET / HTTP/1.1\r\n\r\n", os.urandom(200_000)):
        client.send(data)
        assert received(client, len(data)) == data


def test_nothing_goes_up_before_the_api_agreed(client: Client, upstream: Upstream) -> None:
    """
    What the client sends behind its head waits for the 101, and comes first after it; what the API sends with its 101 too.
    """

    def late(conn: Conn) -> None:
        conn.read_head()
        conn.sock.settimeout(0.3)
        try:
            conn.tell(conn._buffer or conn.sock.recv(100))
        except TimeoutError:
            conn.tell("nothing")
        conn.sock.settimeout(WAIT_S)
        conn.send(SWITCH + b"hello")
        raw_echo(conn)

    upstream.use(late)
    client.send(OFFER % b"/ws" + b"early")
    assert upstream.next_news() == "nothing"
    client.read_head()
    assert received(client, 10) == b"helloearly"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ],
)
def test_a_101_to_something_else_is_a_502(client: Client, upstream: Upstream, answer: bytes) -> None:
    """
    An API that switches to what was not offered breaks the protocol: nothing of it is passed on.
    """
    upstream.use(lambda conn: (conn.read(), conn.send(answer), conn.tell(conn.wait_for_end())))
    client.send(OFFER % b"/ws")
    assert client.read().problem["reason"] == "upstream_protocol_error"
    assert upstream.next_news() in ("end", "reset")


@pytest.mark.parametrize(
    "request_head",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        OFFER % b"/plain/ws",
        b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
        b"GET / HTTP/1.0\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    ],
)
def test_an_unasked_101_is_a_502(client: Client, upstream: Upstream, request_head: bytes) -> None:
    """
    Where no offer went up, for the route, the method, the protocol or the version, a 101 is an error of the API.
    """
    upstream.use(lambda conn: (conn.read(), conn.send(SWITCH), conn.tell(conn.wait_for_end())))
    client.send(request_head)
    answer = client.read(head_only=request_head.startswith(b"HEAD"))
    assert answer.status == 502
    request = upstream.next_request()
    assert "upgrade" not in request.fields
    assert "http2-settings" not in request.fields


def test_an_api_that_declines_is_passed_on(client: Client, upstream: Upstream) -> None:
    """
    Another status than 101 is an answer as any other, and the connection ends with it.
    """
    upstream.use(echo)
    client.send(OFFER % b"/ws" + b"frames that are no request")
    answer = client.read()
    assert (answer.status, answer.fields["connection"]) == (200, "close")
    assert client.closed()
    assert upstream.accepted >= 1


def test_the_guards_meet_the_handshake(upstream: Upstream, log: Path) -> None:
    """
    A limit refuses the second handshake; a tunnel that stands holds no permit of the concurrency limit.
    """
    upstream.use(switching)
    patient = CONFIG.format(url=upstream.url, log=log).replace("tunnel_timeout: 1s", "tunnel_timeout: 1m")
    with running_worker(patient) as worker, Client(worker.address) as one:
        assert " 101 " in handshake(one, b"/limited/ws")
        worker.wait_for(in_flight=0)
        with Client(worker.address) as two:
            two.send(OFFER % b"/limited/ws")
            assert two.read().problem["reason"] == "rate_limited"
        one.send(b"still")
        assert received(one, 5) == b"still"


# --- the end ---------------------------------------------------------------------------------------------------------


def test_the_clients_end_reaches_the_api(client: Client, upstream: Upstream) -> None:
    """
    A client that ends its sending half still gets what comes, and then the end.
    """
    handshake(client)
    client.send(b"last")
    client.end_sending()
    assert client.read_to_end() == b"last"
    assert upstream.next_news() == "ended"


def test_the_apis_end_reaches_the_client(client: Client, upstream: Upstream) -> None:
    """
    An API that closes after its last bytes closes the client's connection behind them.
    """
    upstream.use(lambda conn: (conn.read(), conn.send(SWITCH + b"bye")))
    handshake(client)
    assert client.read_to_end() == b"bye"


@pytest.mark.parametrize("who", ["client", "api"])
def test_a_reset_ends_both(worker: Worker, upstream: Upstream, who: str) -> None:
    """
    A reset on one side ends the other one at once.
    """

    def script(conn: Conn) -> None:
        conn.read()
        conn.send(SWITCH)
        if who == "api":
            conn.wait_for_order()
            conn.reset()
        else:
            conn.tell(conn.wait_for_end())

    upstream.use(script)
    with Client(worker.address) as client:
        handshake(client)
        if who == "client":
            client.reset()
            assert upstream.next_news() in ("end", "reset")
        else:
            upstream.order()
            assert client.closed()
    worker.wait_for(connections=0)


def test_silence_ends_a_tunnel(client: Client, upstream: Upstream) -> None:
    """
    After `tunnel_timeout` without a byte in either direction both sides are closed; a byte begins the time anew.
    """
    handshake(client)
    begun = time.monotonic()
    for _ in range(3):
        time.sleep(0.4)
        client.send(b"x")
        assert received(client, 1) == b"x"
    last = time.monotonic()
    assert last - begun > 1.0
    assert client.closed()
    assert 0.9 < time.monotonic() - last < 1.6
    assert upstream.next_news() == "ended"


def test_a_stalled_reader_stops_the_other_side(worker: Worker, upstream: Upstream) -> None:
    """
    Back-pressure: an API that floods a client which does not read is stopped; the worker's memory stays where it is.
    """

    def flooding(conn: Conn) -> None:
        conn.read()
        conn.send(SWITCH)
        sent = 0
        conn.sock.settimeout(0.5)
        try:
            while sent < 500_000_000:
                sent += conn.sock.send(b"x" * 1_000_000)
        except TimeoutError:
            conn.tell(sent)

    upstream.use(flooding)
    with Client(worker.address, receive_buffer=4096) as warm:
        handshake(warm)
        upstream.next_news()
    before = worker.memory_bytes()
    clients = [Client(worker.address, receive_buffer=4096) for _ in range(20)]
    for client in clients:
        handshake(client)
    assert max(int(str(upstream.next_news())) for _ in clients) < 20_000_000
    assert worker.memory_bytes() - before < 4_000_000
    for client in clients:
        client.sock.close()
    worker.wait_for(connections=0)


def test_a_slow_reader_gets_every_byte(worker: Worker, upstream: Upstream) -> None:
    """
    What is held back comes when the reader goes on, in order, in both directions.
    """
    upstream.use(switching)
    data = os.urandom(8_000_000)
    with Client(worker.address, receive_buffer=8192) as client:
        handshake(client)
        client.sock.settimeout(0.0)
        sent, got = 0, bytearray()
        deadline = time.monotonic() + WAIT_S
        while len(got) < len(data) and time.monotonic() < deadline:
            try:
                sent += client.sock.send(data[sent : sent + 200_000]) if sent < len(data) else 0
            except BlockingIOError:
                pass
            try:
                got += client.sock.recv(50_000)
            except BlockingIOError:
                time.sleep(0.001)
        assert bytes(got) == data


def test_draining_lets_a_tunnel_go_on_until_the_grace_time(upstream: Upstream, tmp_path: Path) -> None:
    """
    A tunnel is not cut when the worker begins to leave; what is left of it at the end of the grace time is.
    """
    upstream.use(switching)
    text = CONFIG.format(url=upstream.url, log=tmp_path / "a.log").replace("tunnel_timeout: 1s", "tunnel_timeout: 60s")
    with running_worker(text + "drain: {grace: 1s}\n") as worker, Client(worker.address) as client:
        handshake(client)
        worker.tell(do="drain")
        worker.wait_for(ready=False)
        begun = time.monotonic()
        client.send(b"on")
        assert received(client, 2) == b"on"
        assert client.closed()
        assert 0.5 < time.monotonic() - begun < 3.0
        assert worker.process.wait(5) == 0


def test_an_isolation_ends_open_tunnels(worker: Worker, upstream: Upstream) -> None:
    """
    With `respond.end_tunnels` a new isolation of the route, the client or the endpoint cuts what it covers, and nothing else;
    it is not counted against tunnels that came later.
    """
    upstream.use(switching)
    scopes = ("route:default", "client:default:127.0.0.1", f"endpoint:127.0.0.1:{upstream.port}", "service")
    with Controller(worker.runtime) as controller:
        for number, scope in enumerate(scopes):
            with Client(worker.address) as client:
                handshake(client)
                other = Directive(
                    "other", Scope.parse("route:plain"), Action.ISOLATE, clock.now() + 60, share_ratio=0.0
                )
                controller.send(Directives((other,)))
                client.send(b"x")
                assert received(client, 1) == b"x"
                mine = Directive(
                    f"isolation-{number}", Scope.parse(scope), Action.ISOLATE, clock.now() + 60, share_ratio=0.0
                )
                controller.send(Directives((mine,)))
                assert client.closed()
            controller.send(Directives(()))


def test_tunnels_are_counted_and_logged(worker: Worker, upstream: Upstream, log: Path) -> None:
    """
    The tick tells how many stand and what they carried; the access log has one line for each, at its end, with its bytes.
    """
    upstream.use(switching)
    worker.wait_for(connections=0)
    with Controller(worker.runtime) as controller:
        before = controller.next(Tick)
        with Client(worker.address) as client:
            handshake(client, b"/logged")
            client.send(b"12345")
            assert received(client, 5) == b"12345"
            while (tick := controller.next(Tick)).tunnels != 1:
                continue
            assert tick.tunnels_opened == before.tunnels_opened + 1
        while (tick := controller.next(Tick)).tunnels:
            continue
        assert tick.tunnel_bytes["up"] - before.tunnel_bytes["up"] == 5
        assert tick.tunnel_bytes["down"] - before.tunnel_bytes["down"] == 5
    deadline = time.monotonic() + WAIT_S
    while "/logged" not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    lines = [row for row in rows if row["path"] == "/logged"]
    assert [(row["status"], row["bytes_in"], row["bytes_out"]) for row in lines] == [(101, 5, 5)]


def test_a_tunnel_on_the_pool_is_one_connection(worker: Worker, upstream: Upstream) -> None:
    """
    The connection that became a tunnel is never given to another request.
    """
    upstream.use(switching)
    with Client(worker.address) as first:
        assert first.ask().body == b"plain"
        assert " 101 " in handshake(first)
        with Client(worker.address) as second:
            assert [second.ask().body for _ in range(3)] == [b"plain"] * 3
        first.send(b"mine")
        assert received(first, 4) == b"mine"
    worker.wait_for(connections=0)


def test_two_hundred_tunnels_leave_nothing(worker: Worker, upstream: Upstream) -> None:
    """
    Opened, used and closed in every way, tunnels leave no descriptor behind.
    """
    upstream.use(switching)
    worker.wait_for(connections=0)
    with Client(worker.address) as client:
        handshake(client)
    worker.wait_for(connections=0)
    before = worker.descriptors()
    for number in range(200):
        client = Client(worker.address)
        handshake(client)
        if number % 3 == 0:
            client.reset()
        elif number % 3 == 1:
            client.sock.shutdown(socket.SHUT_WR)
            assert client.closed()
            client.sock.close()
        else:
            client.send(b"x")
            client.sock.close()
    worker.wait_for(connections=0)
    deadline = time.monotonic() + 5
    while worker.descriptors() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert worker.descriptors() <= before


async def test_a_real_websocket_passes() -> None:
    """
    Client and server of aiohttp talk through the sidecar: text, binary, a large message, ping, and the closing handshake.
    """

    async def serve(request: web.Request) -> web.WebSocketResponse:
        made = web.WebSocketResponse()
        await made.prepare(request)
        async for message in made:
            if message.type is aiohttp.WSMsgType.TEXT:
                await made.send_str(message.data)
            else:
                await made.send_bytes(message.data)
        return made

    app = web.Application()
    app.router.add_get("/ws", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        with running_worker(f"upstream: {{endpoints: ['http://127.0.0.1:{runner.addresses[0][1]}']}}\n") as worker:
            url = f"http://127.0.0.1:{worker.port}/ws"
            async with aiohttp.ClientSession() as session, session.ws_connect(url, max_msg_size=0) as ws:
                for message in ("text", "x" * 300_000):
                    await ws.send_str(message)
                    assert await ws.receive_str(timeout=5) == message
                await ws.ping()
                await ws.send_bytes(b"\x00\xff")
                assert await ws.receive_bytes(timeout=5) == b"\x00\xff"
                await ws.close()
                assert ws.close_code == 1000
            await asyncio.to_thread(worker.wait_for, connections=0)
    finally:
        await runner.cleanup()
