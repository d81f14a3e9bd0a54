"""Half a gigabyte that nobody reads: what the worker holds of it, whichever side has stalled and however it is framed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.client import Client, request
from tests.support.patience import WAIT_S
from tests.support.upstream import Conn, Upstream, echo
from tests.support.worker import Worker, running_worker

CONFIG = """
upstream: {{endpoints: ["{url}"], response_timeout: 2m, idle_timeout: 2m}}
downstream: {{body_timeout: 2m}}
"""
MIB = 1024 * 1024
BODY_BYTES = 500_000_000
MOST_BYTES = 4 * MIB
READERS = 20
BLOCK = b"x" * MIB
FRAMINGS = {
    "length": (b"Content-Length: %d\r\n\r\n" % BODY_BYTES, BLOCK),
    "chunks": (b"Transfer-Encoding: chunked\r\n\r\n", b"100000\r\n" + BLOCK + b"\r\n"),
}


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as made:
        yield made


@pytest.fixture(scope="module")
def worker(upstream: Upstream) -> Iterator[Worker]:
    """A worker that has loaded what it loads at first use, for as many connections as are measured."""
    upstream.use(echo)
    with running_worker(CONFIG.format(url=upstream.url)) as made:
        clients = [Client(made.address) for _ in range(READERS)]
        for client in clients:
            client.send(request("POST", "/", b"x" * 200_000))
        for client in clients:
            assert client.read().status == 200
            client.sock.close()
        made.wait_for(connections=0, in_flight=0)
        yield made


@pytest.mark.parametrize("framing", FRAMINGS)
def test_twenty_stalled_readers_cost_little_memory(worker: Worker, upstream: Upstream, framing: str) -> None:
    """
    Twenty clients that ask for 500 MB each and read nothing grow the worker by less than 4 MiB in all.
    """
    head, block = FRAMINGS[framing]

    def flood(conn: Conn) -> None:
        conn.read()
        conn.send(b"HTTP/1.1 200 OK\r\n" + head)
        conn.sock.settimeout(0.5)
        try:
            for _ in range(BODY_BYTES // MIB):
                conn.send(block)
        except TimeoutError:
            conn.tell("stalled")
            conn.sock.settimeout(WAIT_S)
            conn.tell(conn.wait_for_end())

    upstream.use(flood)
    before = worker.memory_bytes()
    clients = [Client(worker.address, receive_buffer=8192) for _ in range(READERS)]
    for client in clients:
        client.send(request())
    assert [upstream.next_news() for _ in clients] == ["stalled"] * READERS
    grown = worker.memory_bytes() - before

    for client in clients:
        client.sock.close()
    assert {upstream.next_news() for _ in clients} <= {"end", "reset"}
    assert grown < MOST_BYTES


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_stalled_upload_costs_little_memory(worker: Worker, upstream: Upstream, framing: str) -> None:
    """
    An API that reads nothing of a 500 MB upload grows the worker by less than 4 MiB.
    """
    head, block = FRAMINGS[framing]

    def reading_nothing(conn: Conn) -> None:
        conn.read_head()
        conn.tell("head")
        conn.wait_for_order()

    upstream.use(reading_nothing)
    before = worker.memory_bytes()
    with Client(worker.address) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\n" + head)
        assert upstream.next_news() == "head"
        client.sock.settimeout(0.5)
        with pytest.raises(TimeoutError):
            send_all(client, block)
        grown = worker.memory_bytes() - before
        client.reset()
    upstream.order()
    assert grown < MOST_BYTES


def send_all(client: Client, block: bytes) -> None:
    """Send the whole body, block by block, or as much as is taken."""
    for _ in range(BODY_BYTES // MIB):
        client.send(block)
