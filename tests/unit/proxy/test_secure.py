"""TLS as a transport: two ends over a socket pair, and ends that misbehave."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from sidecar.proxy.alerts import NotTlsError
from sidecar.proxy.secure import HANDSHAKE_BYTES, READ_AT_ONCE, Secured
from sidecar.proxy.transport import READ_BUFFER, READ_BYTES, READ_VIEW
from tests.support.patience import WAIT_S
from tests.support.pki import Authority

RECORD_BYTES = 16 * 1024


class Above(asyncio.BufferedProtocol):
    """Collects what comes, and waits for the end of its handshake."""

    def __init__(self, *, half_open: bool = False) -> None:
        self.transport: Secured | None = None
        self.got = b""
        self.largest = 0
        self.ended = self.lost = False
        self.error: Exception | None = None
        self.refused: Exception | None = None
        self._half_open = half_open

    def begins(self, secured: Secured) -> bool:
        return True

    def shaken(self, secured: Secured) -> asyncio.BufferedProtocol:
        assert self.transport is None
        self.transport = secured
        return self

    def failed(self, secured: Secured, error: Exception) -> None:
        assert self.refused is None
        self.refused = error

    def get_buffer(self, sizehint: int) -> bytearray:
        return READ_BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        self.largest = max(self.largest, nbytes)
        self.got += READ_VIEW[:nbytes]

    def eof_received(self) -> bool:
        self.ended = True
        return self._half_open

    def connection_lost(self, exc: Exception | None) -> None:
        assert not self.lost
        self.lost, self.error = True, exc

    @property
    def sends(self) -> Secured:
        assert self.transport is not None
        return self.transport


@dataclass
class Pair:
    client: Above
    server: Above
    contexts: tuple[ssl.SSLContext, ssl.SSLContext]

    async def shake(self) -> None:
        loop = asyncio.get_running_loop()
        here, there = socket.socketpair()
        await attach(there, Secured(loop, self.contexts[1], self.server))
        await attach(here, Secured(loop, self.contexts[0], self.client, "main.test"))
        await until(lambda: self.client.transport is not None and self.server.transport is not None)


async def attach(sock: socket.socket, secured: Secured) -> None:
    await asyncio.get_running_loop().connect_accepted_socket(lambda: secured, sock)


async def until(done: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not done():  # noqa: ASYNC110  each turn of the loop may bring it
            await asyncio.sleep(0)


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = Authority.make(tmp_path_factory.mktemp("pki"))
    return authority.trusting(), authority.serving(authority.sign("main", "main.test"))


@pytest.fixture
def pair(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> Pair:
    return Pair(Above(half_open=True), Above(half_open=True), contexts)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_every_byte_arrives_in_order(tmp_path: Path, version: ssl.TLSVersion) -> None:
    """
    Short and long writes in both directions at once, around the size of a record, and larger than all buffers.
    """
    authority = Authority.make(tmp_path)
    trusting = authority.trusting()
    trusting.minimum_version = trusting.maximum_version = version
    pair = Pair(Above(), Above(), (trusting, authority.serving(authority.sign("main", "main.test"))))
    await pair.shake()
    sizes = (1, 2, 600, RECORD_BYTES - 1, RECORD_BYTES, RECORD_BYTES + 1, READ_AT_ONCE, READ_BYTES + 3, 700_000)
    up, down = [os.urandom(size) for size in sizes], [os.urandom(size) for size in reversed(sizes)]
    for one, two in zip(up, down, strict=True):
        pair.client.sends.write(one)
        pair.server.sends.write(bytearray(two))
        await asyncio.sleep(0)
    await until(lambda: len(pair.server.got) + len(pair.client.got) == 2 * sum(sizes))
    assert (pair.server.got, pair.client.got) == (b"".join(up), b"".join(down))
    assert max(pair.server.largest, pair.client.largest) <= READ_BYTES
    pair.client.sends.close()
    await until(lambda: pair.client.lost and pair.server.lost)
    assert (pair.server.ended, pair.server.error, pair.client.error) == (True, None, None)


async def test_a_half_closed_connection_is_still_read(pair: Pair) -> None:
    """
    After write_eof the other side knows the end, still sends, and what it sends arrives, a record in two halves too.
    """
    await pair.shake()
    pair.client.sends.write(b"last")
    pair.client.sends.write_eof()
    await until(lambda: pair.server.ended)
    assert (pair.server.got, pair.server.lost) == (b"last", False)
    answer = os.urandom(300_000)
    pair.server.sends.write(answer)
    await until(lambda: len(pair.client.got) == len(answer))
    assert (pair.client.got, pair.client.ended) == (answer, False)
    pair.server.sends.write_eof()
    await until(lambda: pair.client.ended)
    for side in (pair.client, pair.server):
        side.sends.close()
    await until(lambda: pair.client.lost and pair.server.lost)
    assert (pair.client.error, pair.server.error) == (None, None)


async def test_the_end_is_said_after_all_was_taken(pair: Pair) -> None:
    """
    write_eof while reading is paused waits for what came before: OpenSSL would take it for an error.
    """
    await pair.shake()
    pair.client.sends.pause_reading()
    data = os.urandom(50_000)
    pair.server.sends.write(data)
    await until(lambda: not pair.server.sends.get_write_buffer_size())
    pair.client.sends.write_eof()
    pair.client.sends.resume_reading()
    await until(lambda: pair.server.ended and len(pair.client.got) == len(data))
    pair.server.sends.write(b"more")
    await until(lambda: pair.client.got == data + b"more")
    assert pair.client.error is None


async def test_a_paused_reader_holds_one_read(pair: Pair) -> None:
    """
    While reading is paused nothing is decrypted and the sender's socket fills; then every byte arrives.
    """
    await pair.shake()
    pair.client.sends.pause_reading()
    data = os.urandom(4_000_000)
    pair.server.sends.set_write_buffer_limits(0)
    pair.server.sends.write(data)
    for _ in range(200):
        await asyncio.sleep(0)
    assert pair.client.got == b""
    assert pair.server.sends.get_write_buffer_size() > 1_000_000
    pair.client.sends.resume_reading()
    await until(lambda: len(pair.client.got) == len(data))
    assert pair.client.got == data


@pytest.mark.parametrize("how", ["end", "abort", "broken record"])
async def test_an_end_without_close_notify_is_a_loss(pair: Pair, how: str) -> None:
    """
    A socket that ends, or a record that was changed on its way, is an error to the protocol above: never a clean end.
    """
    await pair.shake()
    pair.server.sends.write(b"whole")
    await until(lambda: pair.client.got == b"whole")
    raw = pair.server.sends._raw
    if how == "end":
        raw.write_eof()
    elif how == "abort":
        pair.server.sends.abort()
    else:
        raw.write(b"\x17\x03\x03\x00\x20" + b"x" * 32)
    await until(lambda: pair.client.lost)
    assert (pair.client.ended, pair.client.got) == (False, b"whole")
    assert how == "abort" or pair.client.error is not None


async def test_what_waits_at_the_end_is_still_given(pair: Pair) -> None:
    """
    Bytes and close_notify in one piece: the bytes first, then the end.
    """
    await pair.shake()
    data = os.urandom(100_000)
    pair.server.sends.write(data)
    pair.server.sends.close()
    await until(lambda: pair.client.ended)
    assert pair.client.got == data
    pair.client.sends.close()
    await until(lambda: pair.client.lost and pair.server.lost)
    assert pair.client.error is None


@pytest.mark.parametrize(("said", "text"), [(b"GET / HTTP/1.1\r\n\r\n", True), (b"\x00\x01\x02", False), (b"z", False)])
async def test_a_peer_without_tls_is_known_by_its_first_byte(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], said: bytes, text: bool
) -> None:
    """
    It is refused at once, and told from HTTP by a capital letter.
    """
    above = Above()
    here, there = socket.socketpair()
    with here:
        here.setblocking(False)
        await attach(there, Secured(asyncio.get_running_loop(), contexts[1], above))
        here.send(said)
        await until(lambda: above.refused is not None)
    assert isinstance(above.refused, NotTlsError)
    assert above.refused.text is text
    assert above.transport is None


async def test_a_handshake_without_end_is_bounded(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """
    A client that sends records of a handshake that never completes is cut after 64 KiB, or sooner by OpenSSL.
    """
    above = Above()
    here, there = socket.socketpair()
    with here:
        here.setblocking(False)
        await attach(there, Secured(asyncio.get_running_loop(), contexts[1], above))
        hello = b"\x01" + (130_000).to_bytes(3, "big")
        sent = 0
        while above.refused is None:
            part = hello + b"\x00" * (1000 - len(hello))
            hello = b""
            try:
                sent += here.send(b"\x16\x03\x01" + len(part).to_bytes(2, "big") + part)
            except (BlockingIOError, BrokenPipeError):
                pass
            await asyncio.sleep(0)
    assert sent < HANDSHAKE_BYTES + READ_AT_ONCE + 300_000  # what the kernel's buffer holds
    assert not isinstance(above.refused, NotTlsError)


async def test_a_peer_that_leaves_within_its_handshake_is_told(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    """
    The end of the socket before the end of the handshake is a failure, told once.
    """
    above = Above()
    here, there = socket.socketpair()
    with here:
        await attach(there, Secured(asyncio.get_running_loop(), contexts[1], above))
        here.send(b"\x16\x03\x01\x02\x00\x01")
    await until(lambda: above.refused is not None)
    assert isinstance(above.refused, ConnectionResetError)


async def test_a_name_that_does_not_fit_fails_both(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """
    A client that expects another name refuses, and its alert tells the server so.
    """
    loop = asyncio.get_running_loop()
    here, there = socket.socketpair()
    client, server = Above(), Above()
    await attach(there, Secured(loop, contexts[1], server))
    await attach(here, Secured(loop, contexts[0], client, "other.test"))
    await until(lambda: client.refused is not None and (server.refused is not None or server.lost))
    assert isinstance(client.refused, ssl.SSLCertVerificationError)
    assert client.transport is None
