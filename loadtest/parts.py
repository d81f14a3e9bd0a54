"""
`python -m loadtest.parts`: what one exchange costs in Python, step by step, without sockets and without the kernel.

The real objects of the data plane are driven with transports that drop what is written. A figure is the CPU time of the
fastest of many short runs, so a busy machine changes it little. The steps do not add up to the whole: what joins them
(the calls of `downstream.py`, `exchange.py` and `upstream.py`) is the rest.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import socket
import sys
import tempfile
import time
import timeit
from collections.abc import Callable
from typing import Final

from loadtest.bench import body
from loadtest.peers import HERE
from sidecar import clock
from sidecar.config.load import load
from sidecar.facts import Outcome
from sidecar.guard.guard import Ticket
from sidecar.proxy.downstream import Downstream
from sidecar.proxy.framing import RequestHead, ResponseHead, parse_request_head, parse_response_head
from sidecar.proxy.headers import request_head, response_head
from sidecar.proxy.plane import Install, Plane, Route
from sidecar.proxy.pool import Backend
from sidecar.proxy.route import path_template
from sidecar.proxy.tap import Tap
from sidecar.proxy.trace import new_trace
from sidecar.proxy.transport import READ_VIEW
from sidecar.proxy.upstream import Upstream

RUNS: Final = 60
CALLS: Final = 1000
REQUEST: Final = b"GET /api/products/7 HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n"
ANSWER_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Wed, 25 Nov 2026 00:00:00 GMT\r\n"
    b"Content-Type: application/json\r\nContent-Length: 683\r\nConnection: keep-alive\r\n\r\n"
)
ANSWER: Final = ANSWER_HEAD + body().encode()


class Drop(asyncio.Transport):
    """A transport over a socket that nobody reads: what is written is counted and dropped."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__({"peername": ("127.0.0.1", 5555), "socket": sock})
        self.written = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:  # noqa: ARG002  that it is dropped is the point
        """Count it."""
        self.written += 1

    def is_closing(self) -> bool:
        """Say no."""
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Have no buffer."""

    def abort(self) -> None:
        """Do nothing."""


def us(work: Callable[[], object]) -> float:
    """Return the CPU microseconds of one call of *work*."""
    return min(timeit.repeat(work, number=CALLS, repeat=RUNS, timer=time.process_time)) / CALLS * 1e6


class Stage:
    """A plane with one client and one connection to the API, both without a socket that matters."""

    def __init__(self, folder: str, sockets: tuple[socket.socket, socket.socket]) -> None:
        text = (HERE / "sidecar.yaml").read_text().format(port=1, observe=2, admin=3, dir=folder, upstream=9, tls="")
        compiled = load(text, name="parts", environ={}, flags={})
        self.plane = Plane(
            asyncio.get_running_loop(),
            Install("sidecar-00000000", b"k" * 32),
            compiled,
            1,
            Tap("parts0", lambda _: None),
            clock.now(),
        )
        self.client, self.client_wire = Downstream(self.plane), Drop(sockets[0])
        self.client.connection_made(self.client_wire)
        self.client.requests = 1  # the first request of a client is treated with more care
        self.backend: Backend = self.plane.pool.backends[0]
        self.api, self.api_wire = self.backend.new(), Drop(sockets[1])
        self.backend.open.add(self.api)
        self.api.connection_made(self.api_wire)
        self.backend.give(self.api, clock.now())

    def exchange(self, request: bytes) -> None:
        """Serve one request from its first byte to its last."""
        READ_VIEW[: len(request)] = request
        self.client.buffer_updated(len(request))
        self.plane.outbox.flush()
        READ_VIEW[: len(ANSWER)] = ANSWER
        self.api.buffer_updated(len(ANSWER))
        self.plane.outbox.flush()


def requests_that_differ() -> Callable[[], bytes]:
    """Return what gives another request at each call: path, query and one field are its own."""
    line = b"GET /api/products/%d?page=%d HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nX-Request-Id: %08x\r\n\r\n"
    made = [line % (n * 7919 % 1000003, n, n * 2654435761 % 2**32) for n in range(50_000)]
    return itertools.cycle(made).__next__


def steps(stage: Stage, head: RequestHead, answer: ResponseHead, route: Route, other: Callable[[], bytes]) -> None:
    """Print what each step costs."""
    plane, peer, live = stage.plane, stage.client.peer, stage.plane.live
    hop, kind, now = live.hop, ("GET", 200, None, Outcome.SUCCESS, "127.0.0.1:9", "/api/products/{id}"), clock.now()

    def guards() -> None:
        at = clock.now()
        ticket = route.admit(peer.key, at)
        assert isinstance(ticket, Ticket)
        route.guard.sent(ticket, at)
        route.guard.first_byte(ticket, at)
        route.guard.settle(ticket, Outcome.SUCCESS, at, 0.001)

    def pool() -> None:
        upstream: Upstream | None = stage.backend.take(-1.0)
        assert upstream is not None
        stage.backend.give(upstream, now)

    rows: tuple[tuple[str, Callable[[], object]], ...] = (
        ("read a request's head that is known", lambda: parse_request_head(REQUEST)),
        ("read a request's head that is new", lambda: parse_request_head(other())),
        ("read an answer's head that is known", lambda: parse_response_head(ANSWER_HEAD, "GET")),
        ("find the route of a known line", lambda: live.route_of(head)),
        ("write the request's head", lambda: request_head(head, peer, hop, new_trace())),
        ("write the answer's head", lambda: response_head(answer, hop, 1, False)),
        ("say what the limits leave", lambda: route.guard.limit_fields(peer.key, now)),
        ("guards: admit, sent, first byte, settle", guards),
        ("choose an endpoint, take and give back a connection", lambda: (plane.pool.choose(), pool())),
        ("count the end", lambda: route.counters.end(peer.key, kind, 0.002, 0.001, False, None)),
        ("name the path's kind, known", lambda: path_template(head.path, True)),
        ("ask whether anybody wants to hear of it", lambda: plane.witness.wants(200, None)),
        ("read the clock", clock.now),
    )
    for name, work in rows:
        print(f"{name:54} {us(work):6.2f}")


async def measure() -> None:
    """Print the table."""
    one, two = socket.socketpair()
    other = requests_that_differ()
    with tempfile.TemporaryDirectory(prefix="sidecar-parts-") as folder, one, two:
        stage = Stage(folder, (one, two))
        for _ in range(3):
            stage.exchange(REQUEST)
        if (stage.client_wire.written, stage.api_wire.written) != (3, 3):
            raise SystemExit("the exchange did not run: nothing to measure")
        head, answer = parse_request_head(REQUEST), parse_response_head(ANSWER_HEAD, "GET")
        assert isinstance(head, RequestHead)
        assert isinstance(answer, ResponseHead)
        route = stage.plane.live.route_of(head)
        assert isinstance(route, Route)
        gc.freeze()
        print(f"{'one exchange in Python, CPU µs':54} {us(lambda: stage.exchange(REQUEST)):6.2f}")
        print(f"{'the same when every request differs':54} {us(lambda: stage.exchange(other())):6.2f}\n")
        steps(stage, head, answer, route, other)


def main() -> int:
    """Measure and return 0."""
    argparse.ArgumentParser(prog="python -m loadtest.parts", description=__doc__).parse_args()
    asyncio.run(measure())
    return 0


if __name__ == "__main__":
    sys.exit(main())
