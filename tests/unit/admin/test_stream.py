"""Server-sent events: nothing is missed, a slow reader is dropped, a shutdown ends every stream."""

from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp import ClientPayloadError, ClientResponse
from aiohttp.test_utils import TestClient

from sidecar.admin.stream import Streams, encode
from sidecar.link.frames import Tap
from tests.support import documents as d
from tests.support.control import MemoryControl
from tests.unit.admin.conftest import Ask


async def events(response: ClientResponse, count: int) -> list[dict]:
    """Return the next *count* events' data."""
    found: list[dict] = []
    async with asyncio.timeout(5.0):
        while len(found) < count:
            line = await response.content.readline()
            assert line, "the stream ended"
            if line.startswith(b"data: "):
                found.append(json.loads(line[6:]))
    return found


def test_wire_format() -> None:
    """An event is its id, its kind and one line of data, whatever is in it."""
    event = {**d.EVENT, "body": {"text": "two\nlines"}}
    lines = encode(event).decode().split("\n")
    assert lines[:2] == ["id: 41", "event: incident.opened"]
    assert (json.loads(lines[2].removeprefix("data: ")), lines[3:]) == (event, ["", ""])


async def test_events_come_as_they_happen(ask: Ask, control: MemoryControl) -> None:
    """A new reader gets what happens from now on, not the past."""
    async with ask("GET", "/events", "viewer") as response:
        assert (response.status, response.content_type) == (200, "text/event-stream")
        assert response.headers["Cache-Control"] == "no-store"
        assert await response.content.readline() == b"retry: 2000\n"
        fresh = {**d.EVENT, "sequence": 42}
        await control.happen(fresh)
        assert await events(response, 1) == [fresh]


async def test_returning_reader_misses_nothing(ask: Ask, control: MemoryControl) -> None:
    """After Last-Event-ID come all later events, then the new ones."""
    async with ask("GET", "/events", headers={"Last-Event-ID": "40"}) as response:
        assert await events(response, 1) == [d.EVENT]
        await control.happen({**d.EVENT, "sequence": 42})
        assert [event["sequence"] for event in await events(response, 1)] == [42]


async def test_a_tap_shows_requests_that_fit(ask: Ask, control: MemoryControl) -> None:
    """What the parameters say is what the workers are asked for; each request comes as one event; the end is the source's."""
    path = "/tap?route=checkout&status=5xx&client=h-0123&slower=200ms&refused=1"
    async with ask("GET", path, "viewer") as response:
        text = (await response.content.read()).decode()
    assert control.taps.wanted == [
        Tap("", 0.0, route="checkout", client="h-0123", least_status=500, most_status=599, slower_s=0.2, refused=True)
    ]
    kind, data = text.removeprefix("retry: 2000\n\n").removesuffix("\n\n").split("\n")
    assert (kind, json.loads(data.removeprefix("data: "))) == ("event: request", d.TAPPED)


async def test_too_many_taps_are_refused_before_anything_is_sent(ask: Ask, control: MemoryControl) -> None:
    """The refusal is a problem with its status, not a stream that ends."""
    control.taps.full = True
    async with ask("GET", "/tap?status=503", "viewer") as response:
        assert (response.status, (await response.json())["hint"]) == (503, "close one")


class TestImpatient:
    """With short times."""

    @pytest.fixture
    def streams(self) -> Streams:
        return Streams(heartbeat_s=0.01, write_s=0.05, most=1)

    async def test_quiet_stream_has_a_heartbeat(self, ask: Ask) -> None:
        """A comment tells a quiet stream from a dead one."""
        async with ask("GET", "/events") as response, asyncio.timeout(5.0):
            lines = [await response.content.readline() for _ in range(6)]
        assert lines.count(b": still here\n") == 2

    async def test_revoked_token_ends_its_streams(self, ask: Ask, control: MemoryControl) -> None:
        """A stream ends at the first heartbeat after its token was revoked."""
        async with ask("GET", "/events") as response:
            await response.content.readline()
            control.valid_tokens.clear()
            async with asyncio.timeout(5.0):
                await response.content.read()

    async def test_streams_are_bounded(self, ask: Ask) -> None:
        """One stream too many is refused, and says when to come back."""
        async with ask("GET", "/events"), ask("GET", "/events") as second:
            assert (second.status, second.headers["Retry-After"]) == (503, "5")

    async def test_slow_reader_is_dropped(self, ask: Ask, control: MemoryControl, streams: Streams) -> None:
        """A reader that does not read is cut off; nothing waits for it without bound."""
        large = {**d.EVENT, "body": {"text": "x" * 900_000}}
        async with ask("GET", "/events") as response:
            await response.content.readline()
            for sequence in range(42, 62):
                await control.happen({**large, "sequence": sequence})
            async with asyncio.timeout(5.0):
                await streams.idle.wait()
            with pytest.raises(ClientPayloadError):
                await response.content.read()


async def test_shutdown_ends_streams_cleanly(ask: Ask, client: TestClient, streams: Streams) -> None:
    """A process that ends says goodbye to its readers at once, and takes no new ones."""
    async with ask("GET", "/events") as response:
        await response.content.readline()
        assert repr(streams) == "<Streams 1 open>"
        await client.server.app.shutdown()
        async with asyncio.timeout(5.0):
            await response.content.read()
        async with ask("GET", "/events") as late:
            assert late.status == 503
    assert repr(streams) == "<Streams 0 open, closing>"
