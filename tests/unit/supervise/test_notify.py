"""What the service manager is told, over a real datagram socket."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.supervise.notify import Notifier

PID = 4711


class Receiver:
    """The service manager's end of the protocol: what `NOTIFY_SOCKET` names."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.setblocking(False)

    def heard(self) -> list[str]:
        """Return what came since the last call, a message each."""
        messages = []
        while True:
            try:
                messages.append(self.socket.recv(4096).decode())
            except BlockingIOError:
                return messages


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "notify")


@pytest.fixture
def receiver(path: str) -> Iterator[Receiver]:
    made = Receiver(path)
    yield made
    made.socket.close()


def test_ready_is_said_once_when_the_first_worker_serves(receiver: Receiver, path: str) -> None:
    """
    READY=1 follows the first worker that serves, not the start nor the controller, and is not repeated when workers come and go.
    """
    told = Notifier({"NOTIFY_SOCKET": path}, PID)

    told.turn(0.0, 0, 2, controlled=False)
    assert receiver.heard() == ["STATUS=0 of 2 workers serve, the controller is starting"]
    told.turn(0.3, 1, 2, controlled=False)
    assert receiver.heard() == ["READY=1", "STATUS=1 of 2 workers serve, the controller is starting"]
    told.turn(0.5, 1, 2)
    assert receiver.heard() == ["STATUS=1 of 2 workers serve"]
    told.turn(0.8, 0, 2)
    told.turn(1.0, 2, 2)
    assert receiver.heard() == ["STATUS=0 of 2 workers serve", "STATUS=2 of 2 workers serve"]


def test_a_reload_is_framed_by_reloading_and_ready(receiver: Receiver, path: str) -> None:
    """
    RELOADING=1 carries the monotonic time in µs that Type=notify-reload compares; READY=1 ends it.
    """
    told = Notifier({"NOTIFY_SOCKET": path}, PID)
    told.turn(0.0, 1, 1)
    receiver.heard()

    told.reloading(12.5)
    assert receiver.heard() == ["RELOADING=1\nMONOTONIC_USEC=12500000"]
    told.reloaded()
    assert receiver.heard() == ["READY=1"]


def test_a_reload_before_the_first_worker_serves_makes_nothing_ready(receiver: Receiver, path: str) -> None:
    """
    A service that is still starting is not called ready by the end of a reload.
    """
    told = Notifier({"NOTIFY_SOCKET": path}, PID)
    told.reloading(1.0)
    told.reloaded()

    assert receiver.heard() == ["RELOADING=1\nMONOTONIC_USEC=1000000"]


def test_stopping_asks_for_the_time_that_draining_takes(receiver: Receiver, path: str) -> None:
    """
    STOPPING=1 comes with EXTEND_TIMEOUT_USEC, and workers that leave then change no status.
    """
    told = Notifier({"NOTIFY_SOCKET": path}, PID)
    told.turn(0.0, 1, 1)
    receiver.heard()

    told.stopping(45.0)
    told.turn(1.0, 0, 1)
    assert receiver.heard() == ["STOPPING=1\nSTATUS=finishing what is in flight\nEXTEND_TIMEOUT_USEC=45000000"]


@pytest.mark.parametrize("meant", [{}, {"WATCHDOG_PID": str(PID)}])
def test_the_watchdog_is_fed_twice_a_period(receiver: Receiver, path: str, meant: dict[str, str]) -> None:
    """
    WATCHDOG=1 at half of WATCHDOG_USEC, from the first turn on, also while draining.
    """
    told = Notifier({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "4000000", **meant}, PID)
    beats = []
    for quarter in range(40):
        if quarter == 20:
            told.stopping(45.0)
        told.turn(quarter / 4, 1, 1)
        beats += [quarter / 4] * receiver.heard().count("WATCHDOG=1")

    assert beats == [0.0, 2.0, 4.0, 6.0, 8.0]


@pytest.mark.parametrize(
    "watchdog",
    [{}, {"WATCHDOG_USEC": ""}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "1"}],
)
def test_a_watchdog_of_nobody_or_of_another_process_is_not_fed(
    receiver: Receiver, path: str, watchdog: dict[str, str]
) -> None:
    """
    Without a period, or with another process's pid beside it, no WATCHDOG=1 is sent.
    """
    told = Notifier({"NOTIFY_SOCKET": path, **watchdog}, PID)
    for second in range(10):
        told.turn(float(second), 1, 1)

    assert "WATCHDOG=1" not in receiver.heard()


def test_an_abstract_socket_is_reached() -> None:
    """
    A leading @ names a socket of the abstract namespace, as sd_notify(3) says.
    """
    name = f"sidecar-test-{os.getpid()}"
    receiver = Receiver(f"\0{name}")
    Notifier({"NOTIFY_SOCKET": f"@{name}"}, PID).turn(0.0, 1, 1)

    assert receiver.heard() == ["READY=1", "STATUS=1 of 1 workers serve"]
    receiver.socket.close()


@pytest.mark.parametrize("address", ["", "@", "relative", "vsock:2:9999", "/nowhere/at/all"])
def test_nobody_to_tell_stops_nothing(address: str) -> None:
    """
    Without an address, with one of another kind, or with one that nobody serves, every call returns.
    """
    told = Notifier({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000"}, PID)
    told.turn(0.0, 1, 1)
    told.reloading(1.0)
    told.reloaded()
    told.stopping(1.0)

    assert repr(told).startswith("<Notifier ")


def test_what_a_full_receiver_did_not_take_is_said_later(receiver: Receiver, path: str) -> None:
    """
    A full queue never makes the sidecar wait, and READY=1 comes through once there is room.
    """
    told = Notifier({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "2"}, PID)
    for turn in range(2000):
        told.turn(float(turn), 0, 1)
    told.turn(2000.0, 1, 1)
    assert "READY=1" not in receiver.heard()

    told.turn(2001.0, 1, 1)
    assert next(message for message in receiver.heard() if message != "WATCHDOG=1") == "READY=1"
