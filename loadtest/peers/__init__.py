"""The peers of the benchmark: how each is configured, started and stopped."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

HERE: Final = Path(__file__).parent
START_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Peer:
    """
    One proxy under test.

    Attributes:
        name: As in the tables.
        needs: The program that must be installed.
        template: Its configuration in this folder, with {port}, {upstream}, {dir}, …; empty when it has none.
        command: Makes its command line from the configuration's path and the ports.
    """

    name: str
    needs: str
    template: str
    command: Callable[[str, Mapping[str, int]], list[str]]


def program(name: str) -> str:
    """Return the path of an installed program, the virtual environment's first; empty when it is not there."""
    beside = Path(sys.executable).with_name(name)
    if beside.exists():
        return str(beside)
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or ""


PEERS: Final = (
    Peer("sidecar", "python3", "sidecar.yaml", lambda c, _: [sys.executable, "-m", "sidecar", "run", "-c", c]),
    Peer("nginx", "nginx", "nginx.conf", lambda c, _: [program("nginx"), "-c", c]),
    Peer("HAProxy", "haproxy", "haproxy.cfg", lambda c, _: [program("haproxy"), "-db", "-f", c]),
    Peer("Envoy", "envoy", "envoy.yaml",
         lambda c, _: [program("envoy"), "-c", c, "--concurrency", "1", "--log-level", "error", "--base-id", "77"]),
    Peer("naive aiohttp", "python3", "",
         lambda _, p: [sys.executable, str(HERE / "naive.py"), str(p["port"]), str(p["upstream"])]),
)  # fmt: skip


def free_port() -> int:
    """Return a port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Running:
    """One started program, pinned to a core; ends with the `with` block."""

    def __init__(self, name: str, command: list[str], core: int, port: int, log: Path) -> None:
        self.name = name
        self.port = port
        self._log = log
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                ["taskset", "-c", str(core), *command], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                start_new_session=True,
            )  # fmt: skip
        self._wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _wait(self) -> None:
        until = time.monotonic() + START_S
        while time.monotonic() < until and self.process.poll() is None:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 0.5) as probe:
                    probe.sendall(b"GET /ready HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
                    probe.settimeout(2)
                    if b" 200 " in probe.recv(64):
                        return
            except OSError:
                pass
            time.sleep(0.1)
        self.process.kill()
        raise SystemExit(f"{self.name} did not start:\n{self._log.read_text(errors='replace')[-2000:]}")


def start(peer: Peer, folder: Path, core: int, upstream: int, change: Callable[[str], str] = str) -> Running:
    """Start *peer* on a free port in front of the port *upstream*, its configuration's text passed through *change*."""
    ports = {"port": free_port(), "observe": free_port(), "admin": free_port(), "upstream": upstream}
    config = folder / (peer.template or "naive.conf")  # Envoy tells YAML from JSON by the ending
    if peer.template:
        config.write_text(change((HERE / peer.template).read_text().format(dir=folder, **ports)))
    return Running(peer.name, peer.command(str(config), ports), core, ports["port"], config.with_suffix(".log"))


def start_backend(folder: Path, core: int, body: str) -> Running:
    """Start the API that all peers stand before."""
    port = free_port()
    config = folder / "backend.conf"
    config.write_text((HERE / "backend.conf").read_text().format(dir=folder, port=port, body=body))
    return Running("backend", [program("nginx"), "-c", str(config)], core, port, folder / "backend.log")
