"""What leaves at the end of a turn: in order, once, and never to a connection that is gone."""

from __future__ import annotations

import asyncio

import pytest

from sidecar import clock
from sidecar.proxy.deadline import Wheel
from sidecar.proxy.framing import ResponseHead
from sidecar.proxy.outbox import Outbox
from sidecar.proxy.transport import NOWHERE, READ_VIEW
from sidecar.proxy.upstream import Upstream
from sidecar.reasons import Reason

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Wire(asyncio.Transport):
    """A transport that keeps what is written to it."""

    def __init__(self, told: list[bytes]) -> None:
        super().__init__()
        self.told = told
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep *data*."""
        self.told.append(bytes(data))

    def is_closing(self) -> bool:
        """Tell what the test decided."""
        return self.closed

    def abort(self) -> None:
        """Close."""
        self.closed = True


class House:
    """Where a connection lives, and its caller in one: keeps what it is told."""

    label, authority, watched, request_done, upgrade = "api:80", b"api", False, True, b""

    def __init__(self) -> None:
        self.news: list[tuple[str, object]] = []

    def judge(self, now: float, *, failed: bool) -> None:
        """Keep it."""

    def give(self, upstream: Upstream, now: float) -> None:
        """Keep that the connection came home."""
        self.news.append(("home", upstream.used))

    def lost(self, upstream: Upstream) -> None:
        """Keep that the connection is gone."""
        self.news.append(("lost", upstream.used))

    def response(self, head: ResponseHead, payload: bytes, now: float, whole: object) -> None:
        """Keep the answer."""
        self.news.append(("answer", (head.status, payload)))

    def upstream_lost(self, reason: Reason, detail: str, now: float, *, untouched: bool) -> None:
        """Keep why."""
        self.news.append((reason, untouched))


async def test_what_waits_leaves_in_order_at_the_end_of_the_turn() -> None:
    """
    Nothing is written within the turn; after it all of it is, in the order of arrival, and a new turn begins.
    """
    told: list[bytes] = []
    box, one, two = Outbox(asyncio.get_running_loop()), Wire(told), Wire(told)
    turns = [box.add(one, b"1"), box.add(two, b"2"), box.add(one, b"3")]
    assert told == []
    await asyncio.sleep(0)
    assert told == [b"1", b"2", b"3"]
    assert turns == [box.turn - 1] * 3
    await asyncio.sleep(0)
    assert told == [b"1", b"2", b"3"]


async def test_who_writes_past_it_flushes_first() -> None:
    """
    A flush within the turn writes what waits, once; what is added after it leaves at the end.
    """
    told: list[bytes] = []
    box, wire = Outbox(asyncio.get_running_loop()), Wire(told)
    assert box.add(wire, b"answer") == box.turn
    box.flush()
    wire.write(b"next")
    assert box.add(wire, b"last") == box.turn
    await asyncio.sleep(0)
    assert told == [b"answer", b"next", b"last"]


async def test_a_closed_connection_gets_nothing_and_the_others_theirs() -> None:
    """
    A connection that went in the same turn is passed over.
    """
    told: list[bytes] = []
    box, gone, there = Outbox(asyncio.get_running_loop()), Wire(told), Wire(told)
    box.add(gone, b"gone")
    box.add(there, b"there")
    gone.abort()
    await asyncio.sleep(0)
    assert told == [b"there"]


class Broken(Wire):
    """A transport that fails."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Fail."""
        raise ValueError(f"cannot write {len(data)} bytes")


async def test_a_write_that_fails_costs_the_others_nothing() -> None:
    """
    The fault is told, its connection ends, and what waits behind it leaves all the same.
    """
    told: list[bytes] = []
    faults: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: faults.append(context["message"]))
    box, broken, there = Outbox(loop), Broken(told), Wire(told)
    box.add(broken, b"lost")
    box.add(there, b"there")
    await asyncio.sleep(0)
    assert (told, faults, broken.closed) == ([b"there"], ["a write failed"], True)


@pytest.mark.parametrize(
    ("asked", "news"),
    [
        (True, [("home", 1), ("answer", (200, b"ok"))]),
        (False, [("lost", 1), (Reason.UPSTREAM_PROTOCOL_ERROR, True)]),
    ],
)
async def test_an_api_that_speaks_before_it_was_asked_answers_nothing(
    asked: bool, news: list[tuple[str, object]]
) -> None:
    """
    Bytes that come while the request still waits in the outbox are no answer to it, however much they look like one.
    """
    loop, house, told = asyncio.get_running_loop(), House(), list[bytes]()
    box, upstream = Outbox(loop), Upstream(house, Wheel(loop, clock.now))
    upstream.transport = Wire(told)
    upstream.ask(house, "GET", b"question", box)  # type: ignore[arg-type]  # a caller as far as this needs one
    if asked:
        await asyncio.sleep(0)
    READ_VIEW[: len(ANSWER)] = ANSWER
    upstream.buffer_updated(len(ANSWER))
    await asyncio.sleep(0)
    assert house.news == news
    assert told == [b"question"] * asked
    upstream.transport = NOWHERE
