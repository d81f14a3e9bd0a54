"""A certificate authority of a test's own, by the openssl command: its certificates, and contexts that use them."""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Self

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True)
class Issued:
    """One certificate with its key, in PEM files."""

    certificate: Path
    key: Path

    @property
    def keys(self) -> str:
        """Its two keys of a config, for a flow mapping of YAML."""
        return f"certificate: '{self.certificate}', key: '{self.key}'"

    def replace(self, by: Issued) -> None:
        """Let the files of *by* stand in the place of these, as a renewal does: each at once, one after the other."""
        by.certificate.rename(self.certificate)
        by.key.rename(self.key)


@dataclass(frozen=True)
class Authority:
    """One authority: `ca` is its certificate, `folder` has all files."""

    folder: Path
    ca: Path
    key: Path

    @classmethod
    def make(cls, folder: Path, name: str = "ca") -> Self:
        """Make a new one."""
        made = cls(folder, folder / f"{name}.crt", folder / f"{name}.key")
        _openssl(
            "req", "-x509", *_KEY, "-days", "2", "-subj", f"/CN={name}", "-keyout", made.key, "-out", made.ca,
            "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign",
        )  # fmt: skip
        return made

    def sign(self, name: str, *hosts: str, days: int = 2) -> Issued:
        """Return a certificate for *hosts* (names or addresses; for a client, what it is called); *days* below 1: expired."""
        made = Issued(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        request, extensions = self.folder / f"{name}.csr", self.folder / f"{name}.ext"
        extensions.write_text("subjectAltName=" + ",".join(map(_alternative, hosts or (name,))) + "\n")
        _openssl("req", "-new", *_KEY, "-subj", f"/CN={name}", "-keyout", made.key, "-out", request)
        _openssl(
            "x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self.key, "-CAcreateserial", "-days", str(days),
            "-extfile", extensions, "-out", made.certificate,
        )  # fmt: skip
        return made

    def serving(self, issued: Issued, *, clients: Authority | None = None) -> ssl.SSLContext:
        """Return the context of a server that shows *issued*, and asks its clients for a certificate of *clients*."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(issued.certificate, issued.key)
        if clients is not None:
            made.load_verify_locations(clients.ca)
            made.verify_mode = ssl.CERT_REQUIRED
        return made

    def trusting(self, issued: Issued | None = None) -> ssl.SSLContext:
        """Return the context of a client that trusts this authority alone, and shows *issued* when it is asked."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        made.load_verify_locations(self.ca)
        if issued is not None:
            made.load_cert_chain(issued.certificate, issued.key)
        return made


def say_end(sock: socket.socket) -> None:
    """Send close_notify when *sock* speaks TLS; do not wait for the other side's."""
    if isinstance(sock, ssl.SSLSocket):
        waits = sock.gettimeout()
        sock.setblocking(False)
        with contextlib.suppress(OSError, ValueError):
            sock.unwrap()
        with contextlib.suppress(OSError):
            sock.settimeout(waits)


def _alternative(host: str) -> str:
    try:
        ip_address(host)
    except ValueError:
        return f"DNS:{host}"
    return f"IP:{host}"


def _openssl(*words: str | Path) -> None:
    done = subprocess.run(["openssl", *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@dataclass(frozen=True)
class Shaken:
    """The two ends of a handshake that was done in memory."""

    server: ssl.SSLObject
    client: ssl.SSLObject


def shake(server: ssl.SSLContext, client: ssl.SSLContext, name: str | None) -> Shaken:
    """
    Let *client* ask *server* for *name*, and read what follows.

    Raises:
        ssl.SSLError: from the end that refuses first.
    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    there = server.wrap_bio(to_server, to_client, server_side=True)
    here = client.wrap_bio(to_client, to_server, server_hostname=name)
    for _ in range(4):
        for end in (here, there):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return Shaken(there, here)
