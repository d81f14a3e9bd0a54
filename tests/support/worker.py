"""A real worker process for tests: own listening socket on port 0, own heartbeat, no supervisor, no controller."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.patience import WAIT_S

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Worker:
    """
    One running worker.

    Attributes:
        port: Where it serves, on 127.0.0.1.
        process: The child.
        heart: Our end of its heartbeat.
        runtime: Its private runtime directory: `link.sock` belongs there.
        rest: Tasks and descriptors when nothing is under way, once somebody has looked (`leaks.py`).
    """

    port: int
    process: subprocess.Popen[bytes]
    heart: socket.socket
    runtime: Path
    log: Path
    rest: tuple[int, int] | None = None
    _buffer: bytes = b""
    _last: Mapping[str, Any] = field(default_factory=dict)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def address(self) -> tuple[str, int]:
        """Where to connect."""
        return ("127.0.0.1", self.port)

    def beat(self, timeout_s: float = WAIT_S) -> Mapping[str, Any]:
        """Wait for the next heartbeat and return what it says."""
        self.heart.settimeout(timeout_s)
        while b"\n" not in self._buffer:
            received = self.heart.recv(65536)
            if not received:
                raise EOFError(f"the worker ended: {self.errors()}")
            self._buffer += received
        line, self._buffer = self._buffer.split(b"\n", 1)
        self._last = json.loads(line)
        return self._last

    def _forget(self) -> None:
        """Let go of the lines that wait unread: they tell of an earlier time."""
        self.heart.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while received := self.heart.recv(65536):
                self._buffer += received
        self._buffer = self._buffer.rpartition(b"\n")[2]

    def ask(self) -> Mapping[str, Any]:
        """Return what it says of itself now."""
        self._forget()
        self.tell(do="tell")
        return self.beat()

    def wait_for(self, **wanted: object) -> Mapping[str, Any]:
        """Wait until every named fact of its heartbeat has the wanted value, now and not earlier; it is asked all the time."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            said = self.ask()
            if all(said.get(name) == value for name, value in wanted.items()):
                return said
            time.sleep(0.01)
        raise AssertionError(f"never {wanted}, last {self._last}")

    def at_rest(self, tasks: int) -> None:
        """
        Wait until no connection, no request and no more than *tasks* are there, but for two of a link that stands.

        A worker that has ended is at rest.
        """
        with contextlib.suppress(EOFError, ConnectionError):
            said, deadline = self.wait_for(connections=0, in_flight=0), time.monotonic() + WAIT_S
            while said["tasks"] > tasks + 2:
                assert time.monotonic() < deadline, f"tasks are left: {said}, {tasks} at the beginning"
                time.sleep(0.01)
                said = self.ask()

    def tell(self, **order: object) -> None:
        """Send one order, as the supervisor does."""
        self.heart.sendall(json.dumps(order).encode() + b"\n")

    def memory_bytes(self) -> int:
        """Return its resident memory."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS")

    def descriptors(self) -> int:
        """Count its open files."""
        return sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())

    def cpu_s(self) -> tuple[float, float]:
        """Return (user, system) seconds so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        tick = os.sysconf("SC_CLK_TCK")
        return int(fields[11]) / tick, int(fields[12]) / tick

    def errors(self) -> str:
        """Return what it wrote to stderr."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def kill(self) -> None:
        """End it at once."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.heart.close()


def limited(descriptors: int) -> Callable[[], None] | None:
    """Return what lowers a child's file limit before it runs; None for 0."""
    if not descriptors:
        return None
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))


@contextlib.contextmanager
def running_worker(text: str, *, environ: Mapping[str, str] | None = None, descriptors: int = 0) -> Iterator[Worker]:
    """
    Run a worker on the config *text* until the block ends; it is ready when this returns.

    Args:
        descriptors: Its file limit; 0 leaves it as it is here.

    The block fails when the worker logged a fault of its own, or when anything is still under way in it at the end.
    """
    with tempfile.TemporaryDirectory(prefix="sidecar-test-") as directory:
        worker = start_worker(text, Path(directory), environ=environ, descriptors=descriptors)
        try:
            tasks = int(worker.wait_for(ready=True)["tasks"])
            yield worker
            worker.at_rest(tasks)
        finally:
            worker.kill()
        assert "Traceback" not in worker.errors(), worker.errors()


def start_worker(
    text: str, directory: Path, *, environ: Mapping[str, str] | None = None, descriptors: int = 0
) -> Worker:
    """Start a worker whose config, state and runtime live in *directory*; it may not be ready yet."""
    file = directory / "sidecar.yaml"
    file.write_text(text, encoding="utf-8")
    runtime = directory / "run"
    runtime.mkdir(mode=0o700, exist_ok=True)
    (directory / "var").mkdir(exist_ok=True)
    listening = socket.create_server(("127.0.0.1", 0), backlog=4096)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    told = {
        "name": "worker-0",
        "index": 0,
        "epoch": os.urandom(8).hex(),
        "fds": {"listen": [listening.fileno()], "heartbeat": theirs.fileno()},
        "runtime": str(runtime),
        "config_file": str(file),
        "flags": {},
        "static": {"state": str(directory / "var"), "workers": 1, "drain": {"delay_s": 0.0, "grace_s": 30.0}},
    }
    log = directory / "worker.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "sidecar.entry.worker"],
            cwd=ROOT,
            env={**os.environ, **(environ or {}), "SIDECAR_CHILD": json.dumps(told)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            pass_fds=(listening.fileno(), theirs.fileno()),
            start_new_session=True,
            preexec_fn=limited(descriptors),  # noqa: PLW1509  one system call
        )
    port = listening.getsockname()[1]
    listening.close()
    theirs.close()
    return Worker(port, process, ours, runtime, log)
