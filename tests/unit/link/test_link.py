"""The link between a worker and the controller, over real Unix sockets."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from sidecar.link import client as client_module
from sidecar.link import server as server_module
from sidecar.link.client import LinkClient
from sidecar.link.frames import Ack, BreakerReset, Frame, Hello, Prepare, Tick
from sidecar.link.server import LinkServer
from sidecar.link.wire import encode
from tests.support.patience import WAIT_S

RESET = BreakerReset("checkout")


def hello(worker: int = 0, epoch: str = "e1", since_at: float = 1.0) -> Hello:
    return Hello(worker, epoch, os.getpid(), 1, since_at)


def tick(sequence: int = 1, epoch: str = "e1") -> Tick:
    return Tick(0, epoch, sequence, float(sequence), {}, [0.0, []])  # lists, as JSON gives them back


async def until(condition: Callable[[], object]) -> None:
    """Let the loop turn until *condition* holds; fail after WAIT_S."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110  the condition is about two event sources
            await asyncio.sleep(0.002)


class Controller:
    """A real server on a socket of its own, and what it heard."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.heard: list[tuple[int, Frame]] = []
        self.lost: list[int] = []
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(path))
        self.listener.listen(64)
        self.server = self.serve()

    def serve(self) -> LinkServer:
        return LinkServer(self.listener, lambda worker, frame: self.heard.append((worker, frame)), self.lost.append)

    def frames(self) -> list[Frame]:
        return [frame for _, frame in self.heard]


@pytest.fixture(params=[asyncio.DefaultEventLoopPolicy(), uvloop.EventLoopPolicy()], ids=["asyncio", "uvloop"])
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="link-") as directory:  # short: a socket's path has 107 bytes at most
        yield Path(directory) / "link.sock"


@pytest.fixture
async def controller(path: Path) -> AsyncIterator[Controller]:
    made = Controller(path)
    made.server.start()
    yield made
    await made.server.close()
    made.listener.close()


@pytest.fixture
async def connect(path: Path) -> AsyncIterator[Callable[..., LinkClient]]:
    clients: list[LinkClient] = []

    def start(first: Hello | None = None, on_frame: Callable[[Frame], None] = lambda _: None) -> LinkClient:
        made = LinkClient(path, lambda: first or hello(), on_frame)
        made.start()
        clients.append(made)
        return made

    yield start
    for client in clients:
        await client.close()


async def raw(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_unix_connection(str(path))


async def test_hello_first_then_frames_in_order(controller: Controller, connect: Callable[..., LinkClient]) -> None:
    """The controller hears Hello first, then every frame in the order in which it was sent."""
    client = connect()
    await until(lambda: client.connected)

    assert all(client.send(tick(n)) for n in (1, 2, 3))

    await until(lambda: len(controller.heard) == 4)
    assert [(0, hello()), (0, tick(1)), (0, tick(2)), (0, tick(3))] == controller.heard
    assert frozenset({0}) == controller.server.workers()


async def test_push_to_one_all_and_all_but_one(controller: Controller, connect: Callable[..., LinkClient]) -> None:
    """A push reaches the workers that it names and says so."""
    heard: dict[int, list[Frame]] = {0: [], 1: []}
    for worker in (0, 1):
        connect(hello(worker, f"e{worker}"), heard[worker].append)
    await until(lambda: controller.server.workers() == {0, 1})

    assert controller.server.push(0, RESET)
    assert not controller.server.push(7, RESET)
    assert frozenset({0, 1}) == controller.server.push_all(Prepare(2, "x"))
    assert frozenset({1}) == controller.server.push_all(Prepare(3, "x"), but=0)

    await until(lambda: len(heard[0]) == 2 and len(heard[1]) == 2)
    assert {0: [RESET, Prepare(2, "x")], 1: [Prepare(2, "x"), Prepare(3, "x")]} == heard


async def test_client_waits_for_a_controller_that_is_not_there_yet(
    path: Path, connect: Callable[..., LinkClient]
) -> None:
    """A worker connects by itself once somebody listens; until then frames are dropped and counted."""
    client = connect()
    assert not client.send(tick())
    assert client.dropped == 1
    await asyncio.sleep(0)

    controller = Controller(path)
    controller.server.start()
    await until(lambda: controller.frames() == [hello()])

    await controller.server.close()
    controller.listener.close()


async def test_new_controller_takes_over(controller: Controller, connect: Callable[..., LinkClient]) -> None:
    """When the controller dies the workers come back by themselves, each with a new Hello."""
    client = connect()
    await until(lambda: controller.frames() == [hello()])
    await controller.server.close()
    await until(lambda: not client.connected)

    controller.server = controller.serve()
    controller.server.start()

    await until(lambda: controller.frames() == [hello(), hello()])
    assert controller.lost == []  # its own end is no loss of a worker


async def test_frames_wait_in_the_backlog_while_a_controller_starts(
    path: Path, connect: Callable[..., LinkClient]
) -> None:
    """The supervisor's listener holds the connection: what is sent before anybody accepts is heard afterwards."""
    controller = Controller(path)
    client = connect()
    await until(lambda: client.connected)
    assert client.send(tick())

    controller.server.start()

    await until(lambda: controller.frames() == [hello(), tick()])
    await controller.server.close()
    controller.listener.close()


async def test_lost_worker_is_told_once(controller: Controller, connect: Callable[..., LinkClient]) -> None:
    """The end of a worker's link is told with its index."""
    client = connect(hello(3))
    await until(lambda: controller.server.workers() == {3})

    await client.close()

    await until(lambda: controller.lost == [3])
    assert frozenset() == controller.server.workers()
    assert not client.connected


async def test_stalled_controller_costs_at_most_a_mebibyte(path: Path, connect: Callable[..., LinkClient]) -> None:
    """With a controller that never reads, frames are dropped beyond 1 MiB, counted, and sending goes on afterwards."""
    controller = Controller(path)  # listens, does not accept
    client = connect()
    await until(lambda: client.connected)
    large = Prepare(1, "x" * 100_000)

    sent = 0
    while client.send(large):
        sent += 1

    assert sent * 100_000 <= client_module.MAX_WAITING_BYTES + 1_000_000  # the rest is in the kernel's buffer
    assert client.dropped == 1
    controller.server.start()
    await until(lambda: len(controller.heard) == sent + 1)
    assert client.send(tick())
    await until(lambda: controller.frames()[-1] == tick())
    await controller.server.close()
    controller.listener.close()


async def test_frame_over_the_bound_is_sent_when_nothing_waits(
    controller: Controller, connect: Callable[..., LinkClient]
) -> None:
    """A single frame larger than 1 MiB is late, not lost for ever."""
    client = connect()
    await until(lambda: controller.server.workers() == {0})
    huge = Prepare(1, "x" * 3_000_000)

    assert client.send(huge)
    assert not client.send(huge)

    await until(lambda: controller.frames() == [hello(), huge])


async def test_worker_that_does_not_read_is_closed(
    controller: Controller, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A push never buffers more than its bound: the link of a worker that does not read is closed."""
    monkeypatch.setattr(server_module, "MAX_WAITING_BYTES", 200_000)
    reader, writer = await raw(path)
    reader._transport.pause_reading()  # type: ignore[attr-defined]
    writer.write(encode(hello()))
    await until(lambda: controller.server.workers() == {0})

    pushed = 0
    while controller.server.push(0, Prepare(1, "x" * 50_000)):
        pushed += 1
        assert pushed < 100

    await until(lambda: controller.lost == [0])
    writer.close()


@pytest.mark.parametrize(
    "first",
    [encode(tick()), struct.pack("!I", 3) + b"abc", struct.pack("!I", 1 << 30)],
    ids=["no hello", "no JSON", "huge"],
)
async def test_stranger_is_closed(controller: Controller, path: Path, first: bytes) -> None:
    """A peer that does not begin with Hello is closed without a word to anybody."""
    reader, writer = await raw(path)
    writer.write(first)

    async with asyncio.timeout(WAIT_S):
        assert await _read_until_reset(reader) == b""

    assert controller.heard == []
    assert controller.lost == []
    writer.close()


async def _read_until_reset(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


async def test_silent_peer_is_closed_in_time(
    controller: Controller, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer that says nothing is closed when its time for Hello is over."""
    monkeypatch.setattr(server_module, "HELLO_TIMEOUT_S", 0.02)
    reader, writer = await raw(path)

    async with asyncio.timeout(WAIT_S):
        assert await _read_until_reset(reader) == b""

    writer.close()


async def test_malformed_frame_ends_the_link(controller: Controller, path: Path) -> None:
    """A frame that is none ends a link that stood, and that is a loss."""
    _, writer = await raw(path)
    writer.write(encode(hello()) + encode(tick()) + struct.pack("!I", 2) + b"[]")

    await until(lambda: controller.lost == [0])
    assert [hello(), tick()] == controller.frames()
    writer.close()


async def test_client_leaves_a_controller_that_sends_no_frames(path: Path, connect: Callable[..., LinkClient]) -> None:
    """Bytes that are no frame close the worker's link; it connects anew and says Hello again."""
    greetings = asyncio.Queue[bytes]()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await greetings.put(await reader.read(1000))
        writer.write(struct.pack("!I", 4) + b"null")
        await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(answer, str(path))
    client = connect()
    async with asyncio.timeout(WAIT_S):
        assert [encode(hello())] * 2 == [await greetings.get(), await greetings.get()]
    await client.close()
    server.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
async def test_other_user_is_refused(controller: Controller, path: Path) -> None:
    """SO_PEERCRED decides: a process of another user is closed though the socket let it in."""
    path.parent.chmod(0o777)
    path.chmod(0o777)  # noqa: ASYNC240
    stranger = (
        "import os, socket, sys; os.setuid(12345); s = socket.socket(socket.AF_UNIX); s.settimeout(60); "
        "s.connect(sys.argv[1]); s.sendall(bytes.fromhex(sys.argv[2])); print(s.recv(1))"
    )
    process = await asyncio.create_subprocess_exec(
        "python3", "-c", stranger, str(path), encode(hello()).hex(),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, error = await asyncio.wait_for(process.communicate(), WAIT_S)

    assert out.strip() == b"b''" or b"Error" in error
    assert controller.heard == []


async def test_younger_epoch_becomes_the_worker(controller: Controller, connect: Callable[..., LinkClient]) -> None:
    """During a replacement pushes go to the younger process; the older one's last ticks still count, its acks do not."""
    heard: dict[str, list[Frame]] = {"old": [], "new": []}
    old = connect(hello(0, "old", 1.0), heard["old"].append)
    await until(lambda: len(controller.heard) == 1)
    connect(hello(0, "new", 2.0), heard["new"].append)
    await until(lambda: len(controller.heard) == 2)

    controller.server.push_all(RESET)
    old.send(tick(9, "old"))
    old.send(Ack(0, "commit", 2))
    old.send(tick(10, "old"))

    await until(lambda: controller.frames()[2:] == [tick(9, "old"), tick(10, "old")])
    await until(lambda: heard == {"old": [], "new": [RESET]})
    await old.close()
    await until(lambda: "links 1" in repr(controller.server))
    assert controller.lost == []
    assert frozenset({0}) == controller.server.workers()


async def test_older_epoch_that_comes_later_does_not_take_over(
    controller: Controller, connect: Callable[..., LinkClient]
) -> None:
    """After a controller's restart the draining process may say Hello last: the younger one stays the worker."""
    heard: dict[str, list[Frame]] = {"old": [], "new": []}
    connect(hello(0, "new", 2.0), heard["new"].append)
    await until(lambda: controller.server.workers() == {0})
    old = connect(hello(0, "old", 1.0), heard["old"].append)
    await until(lambda: old.connected)
    old.send(tick(1, "old"))
    await until(lambda: controller.frames() == [hello(0, "new", 2.0), tick(1, "old")])

    controller.server.push_all(RESET)

    await until(lambda: heard == {"old": [], "new": [RESET]})


async def test_same_epoch_again_replaces_its_link_in_silence(controller: Controller, path: Path) -> None:
    """A worker that reconnects before its end was noticed is not told as lost."""
    reader, first = await raw(path)
    first.write(encode(hello()))
    await until(lambda: len(controller.heard) == 1)
    _, second = await raw(path)
    second.write(encode(hello()))

    async with asyncio.timeout(WAIT_S):
        assert await _read_until_reset(reader) == b""
    assert controller.lost == []
    assert controller.server.push(0, RESET)
    first.close()
    second.close()
