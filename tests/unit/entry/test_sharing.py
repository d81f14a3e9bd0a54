from __future__ import annotations

from pathlib import Path

import pytest

from sidecar.entry.sharing import Sharing
from sidecar.guard.guard import Guard
from sidecar.link.client import LinkClient
from sidecar.link.frames import Hello, Shares
from tests.support.playbook import ROUTE, bucket, limited, service

KEPT = {0: {"*": 0.6, f"route:{ROUTE}": 0.9}, 1: {"*": 0.4, f"route:{ROUTE}": 0.1}}


def part(kept: dict[int, dict[str, float]], *, worker: int = 0, workers: int = 2) -> tuple[float, float]:
    """Return what a newborn worker has of the rest, and of the route's rate of 98 tokens a second."""
    guard = Guard(service(limited(route=bucket(100, 100)), workers=workers), 0.0)
    sharing = Sharing(worker, "e", workers, guard, kept, 0.0)
    bucket_of_route = guard.route(ROUTE)._levels.route
    assert bucket_of_route is not None
    return sharing.begin_link(), bucket_of_route.rate.rate / bucket_of_route.rate.pool


@pytest.mark.parametrize(
    ("kept", "worker", "workers", "expected"),
    [
        ({}, 0, 2, (0.5, 0.5)),
        (KEPT, 0, 2, (0.6, 0.9)),
        (KEPT, 1, 2, (0.4, 0.1)),
        (KEPT, 2, 2, (0.005, 0.005)),
        (KEPT, 0, 1, (1.0, 1.0)),
    ],
)
def test_a_newborn_worker_begins_with_what_is_free(
    kept: dict[int, dict[str, float]], worker: int, workers: int, expected: tuple[float, float]
) -> None:
    """
    An even part at the first start, its predecessor's later, a floor where the others have it all; alone the whole.
    """
    assert part(kept, worker=worker, workers=workers) == pytest.approx(expected)


def test_without_a_link_nothing_is_said() -> None:
    """
    Demand that nobody hears is not counted as dropped.
    """
    guard = Guard(service(limited(route=bucket(100, 100)), workers=2), 0.0)
    sharing = Sharing(0, "e", 2, guard, {}, 0.0)
    link = LinkClient(Path("nowhere"), lambda: Hello(0, "e", 1, 1), lambda frame: None)
    sharing.turn(link, 0.25, leaving=False)
    sharing.take(link, Shares(3, 0.7, {}), 0.3, leaving=False)
    assert link.dropped == 0
    assert repr(sharing) == "<Sharing worker 0 of 2 told 3>"
    assert sharing.begin_link() == 0.7
