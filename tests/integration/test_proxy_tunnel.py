"""WebSocket and other tunnels through a real worker: the handshake, and bytes both ways at the readers' pace."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from tests.support.client import Client
from tests.support.patience import WAIT_S
from tests.support.tunnels import OFFER, SWITCH, config, handshake, raw_echo, received, switching
from tests.support.upstream import Conn, Upstream, echo
from tests.support.worker import Worker, running_worker


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "access.log"


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as made:
        yield made


@pytest.fixture(scope="module")
def worker(upstream: Upstream, log: Path) -> Iterator[Worker]:
    with running_worker(config(upstream.url, log)) as made:
        yield made
        made.wait_for(connections=0, in_flight=0)


@pytest.fixture
def client(worker: Worker, upstream: Upstream) -> Iterator[Client]:
    upstream.use(switching)
    with Client(worker.address) as made:
        yield made


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


def test_the_guards_meet_the_handshake(worker: Worker, upstream: Upstream) -> None:
    """
    A limit refuses the second handshake; a tunnel that stands holds no permit of the concurrency limit.
    """
    upstream.use(switching)
    with Client(worker.address) as one:
        assert " 101 " in handshake(one, b"/limited/ws")
        worker.wait_for(in_flight=0)
        with Client(worker.address) as two:
            two.send(OFFER % b"/limited/ws")
            assert two.read().problem["reason"] == "rate_limited"
        one.send(b"still")
        assert received(one, 5) == b"still"


# --- the bytes -------------------------------------------------------------------------------------------------------


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
                    assert await ws.receive_str(timeout=WAIT_S) == message
                await ws.ping()
                await ws.send_bytes(b"\x00\xff")
                assert await ws.receive_bytes(timeout=WAIT_S) == b"\x00\xff"
                await ws.close()
                assert ws.close_code == 1000
            await asyncio.to_thread(worker.wait_for, connections=0)
    finally:
        await runner.cleanup()
