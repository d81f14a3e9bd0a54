"""
Every timeout of the data plane through a real worker: it fires, not before its time, and with its own answer.

In each test one timeout is short and the others are longer than any test waits: that the thing happens at all shows which
one it was, however slow the machine. A beginning is noted before the last byte that could have set the timer.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest

from tests.support.client import Client, CutError, request
from tests.support.patience import WAIT_S
from tests.support.upstream import Conn, Upstream
from tests.support.worker import Worker, running_worker

SHORT_S = 0.4
LONG = {
    "upstream": ("connect_timeout", "response_timeout", "idle_timeout"),
    "downstream": ("head_timeout", "idle_timeout", "body_timeout"),
}


def config(url: str, short: str) -> str:
    """Return a config in which one timeout, as `section.key`, is short."""
    lines = []
    for section, keys in LONG.items():
        times = [f"{key}: {'400ms' if short == f'{section}.{key}' else '1h'}" for key in keys]
        endpoints = [f"endpoints: ['{url}']"] if section == "upstream" else []
        lines.append(f"{section}: {{{', '.join(endpoints + times)}}}\n")
    return "".join(lines)


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as made:
        yield made


@contextlib.contextmanager
def hasty(upstream: Upstream, short: str) -> Iterator[tuple[Worker, Client]]:
    """Run a worker with one short timeout, and a client of it; at the end nothing is left in it."""
    with running_worker(config(upstream.url, short)) as worker:
        with Client(worker.address) as client:
            yield worker, client
        upstream.end_connections()
        worker.wait_for(in_flight=0, connections=0)


def test_no_answer_in_time_is_a_504(upstream: Upstream) -> None:
    """
    An upstream that says nothing for `response_timeout` after the whole request: 504, and its connection is ended.
    """
    upstream.use(lambda conn: conn.tell((conn.read(), conn.wait_for_end())))
    with hasty(upstream, "upstream.response_timeout") as (_, client):
        begun = time.monotonic()
        answer = client.ask()
        assert (answer.status, answer.problem["reason"]) == (504, "upstream_timeout")
        assert time.monotonic() - begun >= SHORT_S
        assert upstream.next_news()[1] in ("end", "reset")  # type: ignore[index]


def test_a_connection_that_is_not_accepted_is_a_504() -> None:
    """
    A full accept queue answers nothing: after `connect_timeout` the client gets 504.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listening, socket.socket() as first:
        first.connect(listening.getsockname())
        text = config(f"http://127.0.0.1:{listening.getsockname()[1]}", "upstream.connect_timeout")
        with running_worker(text) as worker, Client(worker.address) as client:
            begun = time.monotonic()
            answer = client.ask()
            assert (answer.status, answer.problem["reason"]) == (504, "upstream_connect_timeout")
            assert time.monotonic() - begun >= SHORT_S


def test_silence_within_an_answer_cuts_it(upstream: Upstream) -> None:
    """
    An upstream that stops within a body is given up after `idle_timeout`; the client sees the cut.
    """

    def stopping(conn: Conn) -> None:
        conn.read()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
        conn.wait_for_end()

    upstream.use(stopping)
    with hasty(upstream, "upstream.idle_timeout") as (_, client):
        begun = time.monotonic()
        client.send(request())
        with pytest.raises(CutError):
            client.read()
        assert time.monotonic() - begun >= SHORT_S


def test_a_slow_head_is_a_408(upstream: Upstream) -> None:
    """
    A head that is not complete in `head_timeout`, however steadily it drips, gets 408 and the end.
    """
    with running_worker(config(upstream.url, "downstream.head_timeout")) as worker:
        begun = time.monotonic()
        with Client(worker.address) as client:
            client.sock.settimeout(0.05)
            client.send(b"GET / HTTP/1.1\r\nHost: x\r\n")
            received = b""
            while not received and time.monotonic() - begun < WAIT_S:
                with contextlib.suppress(TimeoutError):
                    client.send(b"A: b\r\n")
                    received = client.sock.recv(65536)
            assert received.startswith(b"HTTP/1.1 408 ")
            assert time.monotonic() - begun >= SHORT_S


def test_an_idle_connection_ends_silently(upstream: Upstream) -> None:
    """
    A connection without a request for `idle_timeout` is closed without an answer nobody asked for.
    """
    with running_worker(config(upstream.url, "downstream.idle_timeout")) as worker, Client(worker.address) as client:
        begun = time.monotonic()
        client.send(request())
        assert client.read().status == 200
        assert client.closed()
        assert time.monotonic() - begun >= SHORT_S


def test_a_body_that_stops_is_a_408(upstream: Upstream) -> None:
    """
    A body of which no byte came for `body_timeout`: 408 for the client, the upstream's request is cancelled.
    """
    upstream.use(lambda conn: conn.tell((conn.read_head(), conn.wait_for_end())))
    with hasty(upstream, "downstream.body_timeout") as (_, client):
        begun = time.monotonic()
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")
        answer = client.read()
        assert (answer.status, answer.problem["reason"]) == (408, "request_timeout")
        assert time.monotonic() - begun >= SHORT_S
        assert upstream.next_news()[1] in ("end", "reset")  # type: ignore[index]


def test_a_client_that_reads_nothing_is_given_up(upstream: Upstream) -> None:
    """
    A client that takes no byte of its answer for the API's `idle_timeout` is cut, and the upstream's connection with it.
    """

    def flooding(conn: Conn) -> None:
        conn.read()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 200000000\r\n\r\n")
        try:
            for _ in range(200):
                conn.send(b"x" * 1_000_000)
        except OSError as error:
            conn.tell(type(error).__name__)

    upstream.use(flooding)
    with running_worker(config(upstream.url, "upstream.idle_timeout")) as worker:
        with Client(worker.address, receive_buffer=4096) as client:
            client.send(request())
            assert upstream.next_news() in ("ConnectionResetError", "BrokenPipeError")
        worker.wait_for(in_flight=0, connections=0)
