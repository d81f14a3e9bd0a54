"""Every listening socket of the sidecar: bound once by the supervisor, inherited by whoever serves it."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

BACKLOG: Final = 4096  # the kernel caps it at net.core.somaxconn


class ListenError(Exception):
    """
    A listener that could not be bound.

    Attributes:
        problem: What and where.
        hint: What to type.
    """

    def __init__(self, problem: str, hint: str) -> None:
        super().__init__(f"{problem} ({hint})")
        self.problem = problem
        self.hint = hint


def bind(name: str, address: str) -> socket.socket:
    """
    Return a listening, non-blocking socket.

    Args:
        name: The setting that the address comes from, for the error.
        address: `HOST:PORT`, `[IPV6]:PORT` or `unix:/PATH`, validated before.

    Raises:
        ListenError: when the address is taken, forbidden or not of this machine.
    """
    try:
        if address.startswith("unix:"):
            return bind_unix(Path(address.removeprefix("unix:")))
        host, _, port = address.rpartition(":")
        return _bind_tcp(host.strip("[]"), int(port))
    except OSError as error:
        raise ListenError(
            f"{name}: {address} cannot be listened on: {error.strerror or error}", _hint(name, address, error)
        ) from error


def bind_all(addresses: Mapping[str, str]) -> dict[str, socket.socket]:
    """
    Return a listening socket for each of *addresses*, by the setting's name: all of them or none.

    Raises:
        ListenError: when one cannot be bound.
    """
    bound: dict[str, socket.socket] = {}
    try:
        for name, address in addresses.items():
            bound[name] = bind(name, address)
    except ListenError:
        for listening in bound.values():
            listening.close()
        raise
    return bound


def _bind_tcp(host: str, port: int) -> socket.socket:
    family, kind, proto, _, sockaddr = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
        0
    ]
    made = socket.socket(family, kind, proto)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(sockaddr)
        made.listen(BACKLOG)
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    return made


def bind_unix(path: Path) -> socket.socket:
    """Return a listening Unix socket of mode 0600 at *path*; one that a killed process left there is replaced."""
    _remove_stale(path)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)  # from its first moment, not by a chmod that comes too late
    try:
        made.bind(str(path))
        made.listen(BACKLOG)
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    finally:
        os.umask(mask)
    return made


def _remove_stale(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise FileExistsError(errno.EEXIST, "a file that is no socket is there")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()
                return
        raise OSError(errno.EADDRINUSE, "another process serves it")


def _hint(name: str, address: str, error: OSError) -> str:
    port = address.rpartition(":")[2]
    variable = "SIDECAR__ADMIN__LISTEN" if name == "admin" else f"SIDECAR__{name.upper()}"
    if address.startswith("unix:"):
        return f"remove what is there, or choose another place: {variable}=unix:/PATH"
    if error.errno == errno.EADDRINUSE:
        return f"see who has it: ss -ltnp 'sport = :{port}'; or choose another: {variable}=HOST:PORT"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"ports below 1024 need CAP_NET_BIND_SERVICE; or choose another: {variable}=HOST:PORT"
    return f"set `{name}` to an address of this machine, such as 127.0.0.1:{port}"


def address_of(listening: socket.socket) -> str:
    """Return the address that *listening* really has, in the config's spelling (port 0 becomes the kernel's choice)."""
    name = listening.getsockname()
    if listening.family == socket.AF_UNIX:
        return f"unix:{name}"
    return f"[{name[0]}]:{name[1]}" if listening.family == socket.AF_INET6 else f"{name[0]}:{name[1]}"
