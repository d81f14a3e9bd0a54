"""Listening sockets: bound, replaced, refused with a reason and a remedy."""

from __future__ import annotations

import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from sidecar.supervise.listeners import ListenError, address_of, bind, bind_all
from tests.support.patience import WAIT_S


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory whose path is short enough for a socket."""
    with TemporaryDirectory(prefix="sc-") as made:
        yield Path(made)


@pytest.mark.parametrize(("address", "family"), [("127.0.0.1:0", socket.AF_INET), ("[::1]:0", socket.AF_INET6)])
def test_tcp(address: str, family: socket.AddressFamily) -> None:
    """
    An address of either family listens without blocking; port 0 becomes a real one, in the config's spelling.
    """
    with bind("listen", address) as listening:
        assert (listening.family, listening.getblocking()) == (family, False)
        host, _, port = address_of(listening).rpartition(":")
        assert (host, int(port) > 0) == (address.rpartition(":")[0], True)
        with socket.create_connection((host.strip("[]"), int(port)), timeout=WAIT_S):
            assert listening.accept()


def test_a_taken_port_says_who_to_ask() -> None:
    """
    The error names the setting, the address, the command that shows the owner, and the variable that changes it.
    """
    with bind("listen", "127.0.0.1:0") as first:
        address = address_of(first)
        with pytest.raises(ListenError) as found:
            bind("listen", address)
    assert found.value.problem == f"listen: {address} cannot be listened on: Address already in use"
    assert f"sport = :{address.rpartition(':')[2]}" in found.value.hint
    assert "SIDECAR__LISTEN=" in found.value.hint


@pytest.mark.parametrize(
    ("name", "address", "hint"),
    [
        ("observe", "203.0.113.1:8080", "set `observe` to an address of this machine"),
        ("listen", "nowhere.invalid:8080", "set `listen` to an address of this machine"),
        ("admin", "unix:/nowhere/at/all.sock", "SIDECAR__ADMIN__LISTEN=unix:/PATH"),
    ],
)
def test_an_address_that_cannot_be_had(name: str, address: str, hint: str) -> None:
    """
    A foreign address, a name without one and a path without a directory each give a remedy that fits.
    """
    with pytest.raises(ListenError) as found:
        bind(name, address)
    assert found.value.problem.startswith(f"{name}: {address} cannot be listened on: ")
    assert hint in found.value.hint


def test_a_unix_socket_is_private_and_replaces_a_stale_one(folder: Path) -> None:
    """
    A socket that a killed process left is replaced; the new one belongs to its owner alone.
    """
    path = folder / "admin.sock"
    for _ in range(2):
        with bind("admin", f"unix:{path}") as listening:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert address_of(listening) == f"unix:{path}"
        assert path.exists()  # left behind, as after kill -9


def test_a_unix_socket_in_use_is_left_alone(folder: Path) -> None:
    """
    A socket that somebody serves, and a file that is none, are refused and stay.
    """
    path, file = folder / "admin.sock", folder / "file"
    file.write_text("precious")
    with bind("admin", f"unix:{path}"):
        with pytest.raises(ListenError, match="another process serves it"):
            bind("admin", f"unix:{path}")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    with pytest.raises(ListenError, match="a file that is no socket is there"):
        bind("admin", f"unix:{file}")
    assert file.read_text() == "precious"


def test_all_or_none() -> None:
    """
    When one of several addresses cannot be had none is kept.
    """
    with bind("listen", "127.0.0.1:0") as taken:
        free = f"127.0.0.1:{_free_port()}"
        with pytest.raises(ListenError, match="observe"):
            bind_all({"listen": free, "observe": address_of(taken)})
    bound = bind_all({"listen": free, "observe": "127.0.0.1:0"})
    assert address_of(bound["listen"]) == free
    for listening in bound.values():
        listening.close()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
