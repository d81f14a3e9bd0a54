"""After every case nothing is left: no connection, request, timer, task or descriptor."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from tests.support.client import Client
from tests.support.patience import WAIT_S
from tests.support.upstream import Upstream, echo
from tests.support.worker import Worker


def warmed(worker: Worker, upstream: Upstream, connect: Callable[[], Client] | None = None) -> tuple[int, int]:
    """Let a fresh worker load what it loads at first use; return (tasks, descriptors) of its rest."""
    upstream.use(echo)
    with connect() if connect is not None else Client(worker.address) as client:
        for _ in range(3):
            assert client.ask("POST", "/", b"x" * 100_000).status == 200
    rest = _at_rest(worker, upstream)
    return rest["tasks"], _least_descriptors(worker)


@contextlib.contextmanager
def leakless(worker: Worker, upstream: Upstream, rest: tuple[int, int]) -> Iterator[None]:
    """Run a case; then every connection ends, and the worker must be back at *rest*."""
    yield
    _at_rest(worker, upstream, rest[0])
    assert _least_descriptors(worker, rest[1]) <= rest[1], "descriptors are left"


def _at_rest(worker: Worker, upstream: Upstream, tasks: int = 1 << 20) -> dict[str, int]:
    """Return what the worker says of itself once nothing is under way, and no more than *tasks* are there."""
    deadline = time.monotonic() + WAIT_S
    while True:
        upstream.catch_up()
        upstream.end_connections()
        said = dict(worker.ask())
        if not (said["connections"] or said["in_flight"] or said["timers"]) and said["tasks"] <= tasks:
            return said
        assert time.monotonic() < deadline, f"never at rest, with at most {tasks} tasks: {said}"
        time.sleep(0.02)


def _least_descriptors(worker: Worker, enough: int = 0) -> int:
    """
    Return the fewest of some looks, because the worker looks for its controller now and then.

    With *enough* it looks until no more than that are left: the last ones may be on their way out.
    """
    looks, deadline = [worker.descriptors()], time.monotonic() + WAIT_S
    while min(looks) > enough if enough else len(looks) < 10:
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
        looks.append(worker.descriptors())
    return min(looks)
