"""Whole conversations, torn anywhere and interleaved over connections, through a real worker: every answer is its request's."""

from __future__ import annotations

import contextlib
import itertools
import socket
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.client import Client, CutError
from tests.support.upstream import Upstream, echo
from tests.support.worker import Worker, running_worker

BODIES = st.binary(min_size=1, max_size=300) | st.sampled_from((b"x" * 70_000, b"0\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"))
SOME = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@dataclass(frozen=True)
class Asked:
    """One request as bytes, and the body that the API echoes."""

    data: bytes
    body: bytes


@st.composite
def asked(draw: st.DrawFn) -> Asked:
    head = draw(st.sampled_from((b"", b"X: y\r\n", b"Cookie: a=b\r\n", b"Expect: 100-continue\r\n")))
    kind = draw(st.sampled_from(("none", "length", "chunks")))
    if kind == "none":
        return Asked(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n", b"ok")
    body = draw(BODIES)
    if kind == "length":
        return Asked(b"POST /a HTTP/1.1\r\nHost: a\r\n%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body), body)
    step = draw(st.integers(1, len(body))) if len(body) < 400 else 9_000
    parts = (body[at : at + step] for at in range(0, len(body), step))
    text = b"".join(b"%x;e=1\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\nT: u\r\n\r\n"
    return Asked(b"POST /a HTTP/1.1\r\nHost: a\r\n%bTransfer-Encoding: chunked\r\n\r\n%b" % (head, text), body)


def torn(draw_cuts: list[float], data: bytes) -> list[bytes]:
    """Cut *data* at these places, given as parts of its length."""
    places = sorted({0, len(data), *(int(cut * len(data)) for cut in draw_cuts)})
    return [data[a:b] for a, b in itertools.pairwise(places)]


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream(echo) as made:
        yield made


@pytest.fixture(scope="module")
def worker(upstream: Upstream) -> Iterator[Worker]:
    with running_worker(f"upstream: {{endpoints: ['{upstream.url}']}}\n") as made:
        yield made
        upstream.end_connections()
        made.wait_for(connections=0, in_flight=0, timers=0)


CUTS = st.lists(st.floats(0, 1), max_size=8)


@SOME
@given(conversations=st.lists(st.tuples(st.lists(asked(), min_size=1, max_size=5), CUTS), min_size=1, max_size=4))
def test_every_answer_is_its_requests(worker: Worker, conversations: list[tuple[list[Asked], list[float]]]) -> None:
    """
    However requests are torn, pipelined and interleaved with those of other connections: answers come in order, whole, each
    to its own client.
    """
    clients = [Client(worker.address) for _ in conversations]
    pieces = [torn(cuts, b"".join(one.data for one in wanted)) for wanted, cuts in conversations]
    for turn in range(max(map(len, pieces))):
        for client, parts in zip(clients, pieces, strict=True):
            if turn < len(parts):
                client.send(parts[turn])
    for client, (wanted, _) in zip(clients, conversations, strict=True):
        for one in wanted:
            answer = client.read()
            while answer.status == 100:
                answer = client.read()
            assert (answer.status, answer.body) == (200, one.body)
        client.sock.close()


@SOME
@given(
    wanted=st.lists(asked(), min_size=1, max_size=4),
    cuts=CUTS,
    place=st.floats(0, 1),
    spice=st.binary(min_size=1, max_size=3),
)
def test_a_mutated_conversation_ends_in_order(
    worker: Worker, wanted: list[Asked], cuts: list[float], place: float, spice: bytes
) -> None:
    """
    With some bytes overwritten anywhere the client still gets only whole answers, refused or not, then the end or silence; the
    worker goes on.
    """
    data = bytearray(b"".join(one.data for one in wanted))
    at = int(place * (len(data) - 1))
    data[at : at + len(spice)] = spice
    with Client(worker.address) as client:
        with contextlib.suppress(OSError):
            for part in torn(cuts, bytes(data)):
                client.send(part)
            client.end_sending()
        client.sock.settimeout(5.0)
        statuses = []
        with contextlib.suppress(CutError, socket.timeout):
            while True:
                statuses.append(client.read().status)
    assert set(statuses) <= {100, 200, 400, 408, 413, 414, 431}, statuses
    with Client(worker.address) as client:
        assert client.ask().status == 200
