"""Clients that send without end and read late or never, through a real worker: bounded, in order, nothing lost."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.support.client import Client, request
from tests.support.patience import WAIT_S
from tests.support.upstream import Conn, Upstream
from tests.support.worker import Worker, running_worker

CONFIG = """
upstream: {{endpoints: ["{url}"]}}
downstream: {{idle_timeout: 5m}}
routes:
  - {{name: refusing, match: {{path: /refusing/**}}, limit: {{rate: 0.001/s, burst: 1}}}}
  - {{name: default, match: {{path: /**}}}}
"""
BODY = b"b" * 60_000
MOST_BYTES = 64 * 1024 * 1024


def large(conn: Conn) -> None:
    """Answer each request with 60 kB."""
    while conn.read() is not None:
        conn.answer(BODY)


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream(large) as made:
        yield made


@pytest.fixture(scope="module")
def worker(upstream: Upstream) -> Iterator[Worker]:
    with running_worker(CONFIG.format(url=upstream.url)) as made:
        yield made
        upstream.end_connections()


def flood(sock: socket.socket, data: bytes) -> int:
    """Send *data* again and again until nobody takes it for a second; return how many bytes were sent."""
    sent = 0
    sock.setblocking(False)
    while sent < MOST_BYTES and select.select([], [sock], [], 1.0)[1]:
        sent += sock.send(data[sent % len(data) :])
    return sent


@pytest.mark.parametrize(("path", "size", "status"), [("/", 8000, 200), ("/refusing/", 2000, 429)])
def test_a_client_that_reads_nothing_is_not_read_from(worker: Worker, path: str, size: int, status: int) -> None:
    """
    Requests of a client that takes no answers stop at a bound, in memory, too; when it reads, every one of them is answered.
    """
    with Client(worker.address, receive_buffer=64 * 1024) as client:
        client.ask("GET", path)
        before = worker.memory_bytes()
        asked = request("GET", path, b"", "X: " + "x" * size)

        sent = flood(client.sock, asked)

        assert sent < MOST_BYTES
        assert worker.memory_bytes() - before < 8 * 1024 * 1024
        client.sock.settimeout(WAIT_S)
        assert {client.read().status for _ in range(sent // len(asked))} == {status}


def test_thousands_of_refused_pipelined_requests_are_all_answered(worker: Worker) -> None:
    """
    More refused requests than one read holds, from a client that does read: each gets its refusal, in one conversation.
    """
    with Client(worker.address) as client:
        client.ask("GET", "/refusing/")
        sender = threading.Thread(target=client.send, args=(request("GET", "/refusing/") * 5000,))
        sender.start()
        statuses = [client.read().status for _ in range(5000)]
        sender.join()

        assert set(statuses) == {429}
