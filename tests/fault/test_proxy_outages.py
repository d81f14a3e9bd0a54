"""An API that goes and comes back, and messages that are made to be expensive."""

from __future__ import annotations

import contextlib
import time

import pytest

from tests.support.client import Client, CutError, request
from tests.support.patience import quickest_s
from tests.support.ports import closed_port
from tests.support.raw import byte_by_byte, speak
from tests.support.upstream import Upstream, echo
from tests.support.worker import running_worker

CONFIG = """
upstream:
  endpoints: ["{url}"]
"""
NORMAL = request("GET", "/", b"", "Connection: close")


def test_an_outage_is_told_at_once_and_so_is_its_end() -> None:
    """
    While nobody listens a request gets its 502 within 1.5 s, whatever the timeouts; the first one after the API's return is
    served.
    """
    with closed_port() as port:
        text = CONFIG.format(url=f"http://127.0.0.1:{port}") + "  connect_timeout: 1h\n"
        with running_worker(text) as worker, Client(worker.address) as client:
            for _ in range(2):
                with Upstream(echo, port=port):
                    assert client.ask().status == 200
                assert [client.ask().status for _ in range(9)] == [502] * 9
                assert quickest_s(lambda: refused_s(client), 1.5) < 1.5


def refused_s(client: Client) -> float:
    """Return the seconds until a 502."""
    begun = time.monotonic()
    assert client.ask().status == 502
    return time.monotonic() - begun


HOSTILE = {
    "dripped head": byte_by_byte(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 4000 + b"\r\nConnection: close\r\n\r\n"),
    "many fields": [b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 97 + b"Connection: close\r\n\r\n"],
    "many hops": [b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: " + b"1.1.1.1," * 1900 + b"\r\nConnection: close\r\n\r\n"],
    "odd path": [b"GET /" + b"%2f;" * 1900 + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"],
    "tiny chunks": [b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 5000],
    "nominated": [b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close, " + b"a," * 7000 + b"\r\n\r\n"],
    "pipelined nonsense": [b"\r\n" * 8000],
}  # fmt: skip


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_message_costs_less_than_a_hundred_normal_ones(what: str) -> None:
    """
    CPU and memory of one hostile input stay below a hundred times a normal request's.
    """
    with Upstream(echo) as upstream, running_worker(CONFIG.format(url=upstream.url)) as worker:

        def cost(parts: list[bytes], times: int) -> float:
            before = sum(worker.cpu_s())
            for _ in range(times):
                with contextlib.suppress(CutError):
                    speak(worker.address, parts)
            return (sum(worker.cpu_s()) - before) / times

        cost([NORMAL], 50)
        normal = max(cost([NORMAL], 400), 0.0001)
        memory = worker.memory_bytes()
        assert cost(HOSTILE[what], 10) < 100 * normal
        assert worker.memory_bytes() - memory < 4 * 1024 * 1024
