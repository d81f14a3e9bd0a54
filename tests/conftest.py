"""For all tests: a port that nobody has; and after each case that shares a worker, nothing of it is left (guarantee 19)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import ports
from tests.support.leaks import leakless, warmed
from tests.support.upstream import Upstream
from tests.support.worker import Worker

MODULES = {
    "test_proxy_answers", "test_proxy_conversations", "test_proxy_exchange", "test_proxy_failures", "test_proxy_memory", "test_proxy_stalls",
    "test_proxy_tls", "test_proxy_tunnel", "test_proxy_tunnel_ends", "test_proxy_worker",
}  # fmt: skip


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port on which nobody listens; it stays so for the test."""
    with ports.closed_port() as port:
        yield port


@pytest.fixture(autouse=True)
def _nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let the worker be at rest again after the case: no connection, request, timer, task or descriptor."""
    if request.module.__name__.rpartition(".")[2] not in MODULES or "worker" not in request.fixturenames:
        yield
        return
    worker: Worker = request.getfixturevalue("worker")
    upstream: Upstream = request.getfixturevalue("upstream")
    if worker.rest is None:
        connect = request.getfixturevalue("connect") if "connect" in request.fixturenames else None
        worker.rest = warmed(worker, upstream, connect)
    with leakless(worker, upstream, worker.rest):
        yield
