"""Those who look on: workers are told while somebody reads and no longer; nothing waits without bound."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from sidecar.controller.ports import Unavailable
from sidecar.controller.tapping import MAX_BEHIND, MAX_READERS, TTL_S, Taps
from sidecar.facts import RequestFacts
from sidecar.link.frames import Frame, Tap, Tapped

FACTS = RequestFacts(
    1.5, "checkout", "h-1", "GET", "", 1, "/a/{id}", 503, "breaker_open", "UH", 0.0, None, 0.25, 0, 10, "d-1", fields=("host",)
)  # fmt: skip


class Link:
    """Remembers what the workers are told."""

    def __init__(self) -> None:
        self.told: list[Frame] = []

    def push(self, worker: int, frame: Frame) -> bool:
        self.told.append(frame)
        return True

    def push_all(self, frame: Frame, *, but: int | None = None) -> frozenset[int]:
        self.told.append(frame)
        return frozenset({0})


@pytest.fixture
def link() -> Link:
    return Link()


@pytest.fixture
def taps(link: Link) -> Taps:
    return Taps(link, iter("abcdefghijkl").__next__)


async def test_a_reader_gets_what_the_workers_show(taps: Taps, link: Link) -> None:
    """
    The tap goes down with an id and a time to live; what comes up under that id is shown; at the end the workers are told.
    """
    source = taps.requests(Tap("", 0.0, route="checkout"))
    first = asyncio.ensure_future(anext(source))
    await asyncio.sleep(0)
    taps.take(3, Tapped("other", 0, FACTS))
    taps.take(3, Tapped("a", 4, FACTS))
    shown = await first
    await source.aclose()  # type: ignore[attr-defined]
    assert (shown["worker"], shown["missed"], shown["status"], shown["fields"]) == (3, 4, 503, ["host"])
    assert "path" not in shown
    wanted = Tap("a", TTL_S, route="checkout")
    assert link.told == [wanted, dataclasses.replace(wanted, ttl_s=0.0)]
    assert repr(taps) == "<Taps 0 readers>"


async def test_a_new_worker_is_told(taps: Taps, link: Link) -> None:
    """
    A worker whose link is new hears of the taps that are open.
    """
    source = taps.requests(Tap("", 0.0))
    first = asyncio.ensure_future(anext(source))
    await asyncio.sleep(0)
    taps.greet(1)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert link.told[:2] == [Tap("a", TTL_S)] * 2


async def test_a_slow_reader_misses_and_is_told(taps: Taps) -> None:
    """
    Beyond `MAX_BEHIND` nothing waits; the count of what was missed comes with the next one that fits.
    """
    source = taps.requests(Tap("", 0.0))
    first = asyncio.ensure_future(anext(source))
    await asyncio.sleep(0)
    for _ in range(MAX_BEHIND + 5):
        taps.take(0, Tapped("a", 0, FACTS))
    shown = [await first] + [await anext(source) for _ in range(MAX_BEHIND - 1)]
    taps.take(0, Tapped("a", 0, FACTS))
    assert [row["missed"] for row in (shown[-1], await anext(source))] == [0, 5]
    await source.aclose()  # type: ignore[attr-defined]


async def test_readers_are_bounded(taps: Taps) -> None:
    """
    One reader too many is refused before anything is sent.
    """
    sources = [taps.requests(Tap("", 0.0)) for _ in range(MAX_READERS)]
    waiting = [asyncio.ensure_future(anext(source)) for source in sources]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable):
        taps.requests(Tap("", 0.0))
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
