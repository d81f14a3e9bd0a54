"""Slow readers, resets and drips: every byte arrives, and nothing is left behind."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.client import Client, CutError, request
from tests.support.upstream import Conn, Upstream, echo
from tests.support.worker import Worker, running_worker

CONFIG = """
upstream: {{endpoints: ["{url}"], response_timeout: 1h, idle_timeout: 1h}}
downstream: {{head_timeout: 1h, body_timeout: 1h, idle_timeout: 1h}}
"""


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as made:
        yield made


@pytest.fixture(scope="module")
def worker(upstream: Upstream) -> Iterator[Worker]:
    upstream.use(echo)
    with running_worker(CONFIG.format(url=upstream.url)) as made:
        with Client(made.address) as client:
            for _ in range(20):  # what is loaded at first use is loaded now
                client.ask("POST", "/", b"x" * 100_000)
        made.wait_for(connections=0, in_flight=0)
        yield made


def test_a_slow_reader_gets_every_byte(worker: Worker, upstream: Upstream) -> None:
    """
    A client that reads late and little by little gets the whole body, and the connection lives on.
    """
    body = bytes(range(256)) * 40_000

    def answering(conn: Conn) -> None:
        while conn.read() is not None:
            conn.answer(body)

    upstream.use(answering)
    with Client(worker.address, receive_buffer=8192) as client:
        assert client.ask().body == body
        assert client.ask().body == body


def test_nothing_is_left_behind(worker: Worker, upstream: Upstream) -> None:
    """
    After clients that reset, drip, stall and vanish at every stage no connection, request or descriptor is left.
    """
    upstream.use(echo)
    whole = request("POST", "/", b"x" * 3000)

    def leave_after(size: int) -> None:
        with contextlib.suppress(OSError, CutError), Client(worker.address) as client:
            client.send(whole[:size])
            if size % 3 == 0:
                client.reset()
            elif size % 3 == 1:
                client.end_sending()
                client.read_to_end()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(leave_after, range(0, len(whole), 17)))
    upstream.end_connections()

    worker.wait_for(in_flight=0, connections=0)
    with Client(worker.address) as client:
        assert client.ask().status == 200


def test_resets_at_every_byte_of_an_answer_leave_nothing(worker: Worker, upstream: Upstream) -> None:
    """
    An upstream that resets after any number of bytes yields a 502 or a visible cut, and leaves nothing behind.
    """
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n" + b"y" * 20

    def cutting(conn: Conn) -> None:
        asked = conn.read()
        assert asked is not None
        conn.send(answer[: int(asked.line.split(" ")[1].lstrip("/"))])
        conn.reset()

    upstream.use(cutting)
    seen = []
    for size in range(len(answer)):
        with Client(worker.address) as client:
            try:
                seen.append(client.ask("GET", f"/{size}").status)
            except CutError:
                seen.append(0)

    head = answer.index(b"\r\n\r\n") + 4
    assert set(seen[:head]) == {502}
    assert set(seen[head:]) <= {0, 502}
    worker.wait_for(in_flight=0, connections=0)


def test_a_burst_of_connections_that_say_nothing_is_survived(worker: Worker, upstream: Upstream) -> None:
    """
    Five hundred connections that send nothing, or half a head, cost no other client its answer.
    """
    upstream.use(echo)
    silent = [socket.create_connection(worker.address) for _ in range(500)]
    for number, sock in enumerate(silent):
        if number % 2:
            sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")

    with Client(worker.address) as client:
        assert [client.ask().status for _ in range(5)] == [200] * 5

    for sock in silent:
        sock.close()
    worker.wait_for(in_flight=0, connections=0)
