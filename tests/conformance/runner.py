"""Sends the cases through a real worker process, one after the other, and collects what it emits on both sides."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from tests.conformance.cases import Case
from tests.conformance.judge import BARRIER, CANARY, Seen, Verdict, judge_request, judge_response
from tests.conformance.upstream import Upstream
from tests.support.patience import WAIT_S

QUIET_S = 0.1  # after this without a byte the client asks whether the proxy is merely slow
QUIET_TURNS = 2  # so many exchanges beside it that bring it nothing: the proxy waits for more
_CONFIG = "mode: observe\n"


class Client:
    """One connection to the proxy, read to its end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.received = b""
        self.closed = False

    async def send(self, data: bytes) -> None:
        """Send; a proxy that has closed already is no fault."""
        with contextlib.suppress(OSError):
            self._writer.write(data)
            await self._writer.drain()

    async def read_until(self, mark: bytes, quiet_s: float) -> None:
        """Read until *mark* has come, the proxy has closed, or nothing comes any more."""
        while mark not in self.received and not self.closed:
            try:
                data = await asyncio.wait_for(self._reader.read(65536), quiet_s)
            except TimeoutError:
                return
            except OSError:
                data = b""
            self.closed = not data
            self.received += data

    async def end(self) -> None:
        """End our side and read what still comes."""
        if not self.closed:
            with contextlib.suppress(OSError):
                self._writer.write_eof()
            await self.read_until(b"\xff never \xff", WAIT_S)

    async def close(self) -> None:
        """Let go of the socket."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


@contextlib.asynccontextmanager
async def worker(upstream: Upstream) -> AsyncIterator[int]:
    """Run a worker process in front of *upstream*; yield its port. Nothing else of the sidecar runs."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    ours, heart = socket.socketpair()
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        (root / "runtime").mkdir(mode=0o700)
        (root / "state").mkdir()
        config = root / "sidecar.yaml"
        config.write_text(_CONFIG, encoding="utf-8")
        told = {
            "name": "worker-0", "index": 0, "epoch": "00", "fds": {"listen": [listener.fileno()], "heartbeat": heart.fileno()},
            "runtime": str(root / "runtime"), "config_file": str(config), "flags": {"--upstream": f"http://127.0.0.1:{upstream.port}"},
            "static": {"state": str(root / "state"), "workers": 1},
        }  # fmt: skip
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "sidecar.entry.worker",
            pass_fds=(listener.fileno(), heart.fileno()), env={**os.environ, "SIDECAR_CHILD": json.dumps(told)},
        )  # fmt: skip
        heart.close()
        try:
            ours.setblocking(False)
            await asyncio.wait_for(asyncio.get_running_loop().sock_recv(ours, 65536), WAIT_S)
            yield listener.getsockname()[1]
        finally:
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(signal.SIGKILL)
            await child.wait()
            ours.close()
            listener.close()


async def play(port: int, upstream: Upstream, parts: Sequence[tuple[bytes, float]], number: int) -> Seen:
    """Send *parts* and a canary on one connection; return what happened on both sides."""
    client = Client(*await asyncio.open_connection("127.0.0.1", port))
    for part, pause_s in parts:
        if pause_s:
            await asyncio.sleep(pause_s)  # the case's own timing, not a wait for us
        await client.send(part)
    canary = b"%b%d" % (CANARY, number)
    await client.send(b"GET %b HTTP/1.1\r\nHost: canary\r\n\r\n" % canary)
    await _until_quiet(client, b"<%b>" % canary, port, number)
    if b"<%b>" % canary not in client.received:
        await client.end()
    await client.close()
    await _barrier(port, number)
    return Seen(client.received, client.closed, tuple(upstream.news()))


async def _until_quiet(client: Client, mark: bytes, port: int, number: int) -> None:
    """
    Read until *mark* has come, the proxy has closed, or it waits for more of the client.

    That it waits is not concluded from time alone, which a busy machine could fake: exchanges on other connections, sent
    later, were answered meanwhile and nothing came here.
    """
    quiet = 0
    while quiet < QUIET_TURNS:
        seen = len(client.received)
        await client.read_until(mark, QUIET_S)
        if mark in client.received or client.closed:
            return
        await _barrier(port, number)
        quiet = quiet + 1 if len(client.received) == seen else 0


async def _barrier(port: int, number: int) -> None:
    """Send one request on a connection of its own: once it is answered, what the case caused has happened."""
    client = Client(*await asyncio.open_connection("127.0.0.1", port))
    target = b"%b%d" % (BARRIER, number)
    await client.send(b"GET %b HTTP/1.1\r\nHost: barrier\r\nConnection: close\r\n\r\n" % target)
    await client.read_until(b"<%b>" % target, WAIT_S)
    assert b"<%b>" % target in client.received, "the proxy does not answer any more"
    await client.close()


async def run_requests(cases: Sequence[Case]) -> list[Verdict]:
    """Judge cases that a client sends."""
    async with Upstream() as upstream, worker(upstream) as port:
        return [
            judge_request(case, await play(port, upstream, case.parts, number)) for number, case in enumerate(cases)
        ]


async def run_responses(cases: Sequence[Case]) -> list[Verdict]:
    """Judge cases that the upstream sends."""
    async with Upstream([case.raw for case in cases]) as upstream, worker(upstream) as port:
        verdicts = []
        for number, case in enumerate(cases):
            ask = b"GET /script/%d HTTP/1.1\r\nHost: a\r\n\r\n" % number
            verdicts.append(judge_response(case, await play(port, upstream, ((ask, 0.0),), number)))
        return verdicts


def report(verdicts: Sequence[Verdict]) -> str:
    """Summarise by suite, and list what is not strict."""
    lines = []
    for suite in dict.fromkeys(verdict.case.suite for verdict in verdicts):
        own = [verdict for verdict in verdicts if verdict.case.suite == suite]
        safe, strict = sum(verdict.safe for verdict in own), sum(verdict.strict for verdict in own)
        lines.append(f"{suite:12} {len(own):5} cases  safe {safe:5}  strict {strict:5}")
    for verdict in verdicts:
        if not verdict.strict:
            word = "loose " if verdict.safe else "UNSAFE"
            lines.append(f"  {word} {verdict.case.kind:6} {verdict.case.id}: {verdict.why} [{verdict.case.note}]")
    return "\n".join(lines)
