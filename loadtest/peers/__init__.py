"""The peers of the benchmark: how each is configured, started and stopped."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from loadtest.peers.certificate import Certificate

HERE: Final = Path(__file__).parent
START_S: Final = 20.0
_FILES: Final = ("certificate", "key", "both")


@dataclass(frozen=True, slots=True)
class Peer:
    """
    One proxy under test.

    Attributes:
        name: As in the tables.
        needs: The program that must be installed.
        template: Its configuration in this folder, with {port}, {upstream}, {dir}, {tls}, …; empty when it has none.
        tls: What stands in the place of {tls} when it terminates TLS, with {certificate}, {key} and {both}.
        command: Makes its command line from the configuration's path and the ports.
    """

    name: str
    needs: str
    template: str
    tls: str
    command: Callable[[str, Mapping[str, int]], list[str]]


def program(name: str) -> str:
    """Return the path of an installed program, the virtual environment's first; empty when it is not there."""
    beside = Path(sys.executable).with_name(name)
    if beside.exists():
        return str(beside)
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") or ""


_ENVOY_TLS: Final = """
          transport_socket:
            name: envoy.transport_sockets.tls
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
              common_tls_context:
                alpn_protocols: [http/1.1]
                tls_certificates: [{{certificate_chain: {{filename: {certificate}}}, private_key: {{filename: {key}}}}}]
"""
PEERS: Final = (
    Peer("sidecar", "python3", "sidecar.yaml", "tls: {{certificate: {certificate}, key: {key}}}",
         lambda c, _: [sys.executable, "-m", "sidecar", "run", "-c", c]),
    Peer("nginx", "nginx", "nginx.conf", " ssl; ssl_certificate {certificate}; ssl_certificate_key {key}",
         lambda c, _: [program("nginx"), "-c", c]),
    Peer("HAProxy", "haproxy", "haproxy.cfg", " ssl crt {both} alpn http/1.1",
         lambda c, _: [program("haproxy"), "-db", "-f", c]),
    Peer("Envoy", "envoy", "envoy.yaml", _ENVOY_TLS,
         lambda c, _: [program("envoy"), "-c", c, "--concurrency", "1", "--log-level", "error", "--base-id", "77"]),
    Peer("naive aiohttp", "python3", "", "",
         lambda c, p: [sys.executable, str(HERE / "naive.py"), str(p["port"]), str(p["upstream"]), c]),
)  # fmt: skip


def free_port() -> int:
    """Return a port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Running:
    """One started program, pinned to a core or to several ("0,1"); ends with the `with` block."""

    def __init__(
        self,
        name: str,
        command: list[str],
        core: int | str,
        ports: Mapping[str, int],
        log: Path,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.name = name
        self.ports = ports
        self.port = ports["port"]
        self._log = log
        self._tls = tls
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

    def _connect(self) -> socket.socket:
        probe = socket.create_connection(("127.0.0.1", self.port), 0.5)
        return probe if self._tls is None else self._tls.wrap_socket(probe)

    def _wait(self) -> None:
        until = time.monotonic() + START_S
        while time.monotonic() < until and self.process.poll() is None:
            try:
                with self._connect() as probe:
                    probe.sendall(b"GET /ready HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")
                    probe.settimeout(2)
                    if b" 200 " in probe.recv(64):
                        return
            except OSError:
                pass
            time.sleep(0.1)  # between two looks at another process
        self.process.kill()
        raise SystemExit(f"{self.name} did not start:\n{self._log.read_text(errors='replace')[-2000:]}")


def start(
    peer: Peer,
    folder: Path,
    core: int | str,
    upstream: int,
    change: Callable[[str], str] = str,
    certificate: Certificate | None = None,
) -> Running:
    """
    Start *peer* on a free port in front of the port *upstream*; with *certificate* it terminates TLS.

    Args:
        change: Its configuration's text is passed through this.
    """
    ports = {"port": free_port(), "observe": free_port(), "admin": free_port(), "upstream": upstream}
    config = folder / (peer.template or "naive.conf")  # Envoy tells YAML from JSON by the ending
    if peer.template:
        tls = "" if certificate is None else peer.tls.format_map({name: getattr(certificate, name) for name in _FILES})
        config.write_text(change((HERE / peer.template).read_text().format(dir=folder, tls=tls, **ports)))
    shown = str(config) if peer.template else str(certificate.both) if certificate is not None else ""
    command = peer.command(shown, ports)
    trust = _anybody() if certificate is not None else None
    return Running(peer.name, command, core, ports, config.with_suffix(".log"), trust)


def _anybody() -> ssl.SSLContext:
    """Return a context that believes everything: it only asks whether a peer has started."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    return made


def _return(body: str) -> str:
    """Write nginx's words for an answer of *body*; one word of its config holds at most 4 KiB."""
    parts = [body[at : at + 4000] for at in range(0, len(body), 4000)]
    sets = "".join(f"set $part{i} '{part}'; " for i, part in enumerate(parts))
    return f"{sets}return 200 '{''.join(f'$part{i}' for i in range(len(parts)))}';"


def start_backend(folder: Path, core: int, body: str) -> Running:
    """Start the API that all peers stand before."""
    port = free_port()
    config = folder / "backend.conf"
    config.write_text((HERE / "backend.conf").read_text().format(dir=folder, port=port, body=_return(body)))
    return Running("backend", [program("nginx"), "-c", str(config)], core, {"port": port}, folder / "backend.log")
