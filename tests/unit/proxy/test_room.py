"""How many clients the descriptors allow."""

from __future__ import annotations

import pytest

from sidecar.proxy.room import ANY, Room


@pytest.mark.parametrize(
    ("limit", "room"),
    [
        (1024, Room(819, 1008, 1016)), (320, Room(256, 304, 312)), (96, Room(76, 87, 92)), (10, Room(8, 9, 10)), (1, Room(1, 1, 1)),
        (1_048_576, Room(838_860, 1_048_560, 1_048_568)),
    ],
)  # fmt: skip
def test_four_fifths_are_the_clients_and_some_are_nobodys(limit: int, room: Room) -> None:
    """
    80 % of the limit may be clients, the last 16 (a tenth of a low limit) are none, and of these half are not the API's.
    """
    assert Room.of(limit) == room


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
    An eighth beyond the cap, and at least 16, may wait for its clients' ends; beyond that, or with one of the last
    descriptors, none may.
    """
    room = Room.of(1024)
    assert not room.crowded(901, 801, 950)
    assert room.crowded(902, 801, 950)
    assert room.crowded(10, 801, 1008)
    assert (room.crowded(18, 2, 50), room.crowded(19, 2, 50)) == (False, True)
