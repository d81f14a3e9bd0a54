"""How many clients the descriptors allow."""

from __future__ import annotations

import pytest

from sidecar.proxy.room import ANY, Room


@pytest.mark.parametrize(
    ("limit", "connections", "last"),
    [(1024, 819, 1008), (320, 256, 304), (96, 76, 87), (10, 8, 9), (1, 1, 1), (1_048_576, 838_860, 1_048_560)],
)
def test_four_fifths_are_the_clients_and_some_are_nobodys(limit: int, connections: int, last: int) -> None:
    """
    80 % of the limit may be clients, and the last 16 (a tenth of a low limit) are none, whatever the others are.
    """
    assert Room.of(limit) == Room(connections, last)


def test_no_limit_is_no_bound() -> None:
    """
    Without a limit the configuration alone counts.
    """
    assert Room.of(-1) == ANY
    assert ANY.most(10_000) == 10_000


def test_the_lower_bound_holds() -> None:
    """
    The configuration and the descriptors both bound the number.
    """
    assert Room.of(1024).most(10_000) == 819
    assert Room.of(1024).most(100) == 100


def test_refused_connections_wait_only_where_there_is_room() -> None:
    """
    An eighth beyond the cap may wait for its clients' ends; beyond that, or with one of the last descriptors, none may.
    """
    room = Room.of(1024)
    assert not room.crowded(901, 801, 950)
    assert room.crowded(902, 801, 950)
    assert room.crowded(10, 801, 1008)
