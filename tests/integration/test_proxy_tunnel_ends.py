"""How a tunnel through a real worker ends: by either side, in silence, with the worker, by an isolation; and what is told of it."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar import clock
from sidecar.facts import Action, Directive, Scope
from sidecar.link.frames import Directives, Tick
from tests.support.client import Client, CutError
from tests.support.link import Controller
from tests.support.patience import WAIT_S
from tests.support.tunnels import SWITCH, config, handshake, opened, received, switching
from tests.support.upstream import Conn, Upstream
from tests.support.worker import Worker, running_worker

GRACE_S = 4.0


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("log") / "access.log"


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream() as made:
        yield made


@pytest.fixture(scope="module")
def worker(upstream: Upstream, log: Path) -> Iterator[Worker]:
    with running_worker(config(upstream.url, log)) as made:
        yield made
        made.wait_for(connections=0, in_flight=0)


@pytest.fixture
def client(worker: Worker, upstream: Upstream) -> Iterator[Client]:
    upstream.use(switching)
    with Client(worker.address) as made:
        yield made


def test_the_clients_end_reaches_the_api(client: Client, upstream: Upstream) -> None:
    """
    A client that ends its sending half still gets what comes, and then the end.
    """
    handshake(client)
    client.send(b"last")
    client.end_sending()
    assert client.read_to_end() == b"last"
    assert upstream.next_news() == "ended"


def test_the_apis_end_reaches_the_client(client: Client, upstream: Upstream) -> None:
    """
    An API that closes after its last bytes closes the client's connection behind them.
    """
    upstream.use(lambda conn: (conn.read(), conn.send(SWITCH + b"bye")))
    handshake(client)
    assert client.read_to_end() == b"bye"


@pytest.mark.parametrize("who", ["client", "api"])
def test_a_reset_ends_both(worker: Worker, upstream: Upstream, who: str) -> None:
    """
    A reset on one side ends the other one at once.
    """

    def script(conn: Conn) -> None:
        conn.read()
        conn.send(SWITCH)
        if who == "api":
            conn.wait_for_order()
            conn.reset()
        else:
            conn.tell(conn.wait_for_end())

    upstream.use(script)
    with Client(worker.address) as client:
        handshake(client)
        if who == "client":
            client.reset()
            assert upstream.next_news() in ("end", "reset")
        else:
            upstream.order()
            assert client.closed()
    worker.wait_for(connections=0)


def test_silence_ends_a_tunnel(upstream: Upstream, tmp_path: Path) -> None:
    """
    After `tunnel_timeout` without a byte in either direction both sides are closed; a byte begins the time anew.
    """
    for silence_s in (2.0, 10.0, 40.0):  # a busy machine may itself be silent for seconds
        upstream.use(switching)
        text = config(upstream.url, tmp_path / "a.log", silence=f"{silence_s:g}s")
        with running_worker(text) as worker, Client(worker.address) as client:
            handshake(client)
            if not outlives(client, silence_s):
                continue
            last = time.monotonic()
            client.send(b"x")
            assert client.read_to_end() == b"x"
            assert time.monotonic() - last >= 0.9 * silence_s
            assert upstream.next_news() == "ended"
            return
    raise AssertionError("the machine is too busy to tell")


def outlives(client: Client, silence_s: float) -> bool:
    """Send a byte now and then for longer than *silence_s*; tell whether our own pauses stayed far below it."""
    begun = last = time.monotonic()
    while last - begun < 1.5 * silence_s:
        try:
            client.send(b"x")
            assert received(client, 1) == b"x"
        except (CutError, OSError):
            if time.monotonic() - last > silence_s / 4:
                return False
            raise
        time.sleep(0.05)
        if time.monotonic() - last > silence_s / 4:
            return False
        last = time.monotonic()
    return True


def test_draining_lets_a_tunnel_go_on_until_the_grace_time(upstream: Upstream, tmp_path: Path) -> None:
    """
    A tunnel is not cut when the worker begins to leave; what is left of it at the end of the grace time is.
    """
    upstream.use(switching)
    text = config(upstream.url, tmp_path / "a.log") + f"drain: {{grace: {GRACE_S:g}s}}\n"
    with running_worker(text) as worker, Client(worker.address) as client:
        handshake(client)
        begun = time.monotonic()
        worker.tell(do="drain")
        worker.wait_for(ready=False)
        client.send(b"on")
        assert received(client, 2) == b"on"
        assert client.closed()
        assert time.monotonic() - begun >= GRACE_S
        assert worker.process.wait(WAIT_S) == 0


def test_an_isolation_ends_open_tunnels(worker: Worker, upstream: Upstream) -> None:
    """
    With `respond.end_tunnels` a new isolation of the route, the client or the endpoint cuts what it covers, and nothing else;
    it is not counted against tunnels that came later.
    """
    upstream.use(switching)
    scopes = ("route:default", "client:default:127.0.0.1", f"endpoint:127.0.0.1:{upstream.port}", "service")
    with Controller(worker.runtime) as controller:
        for scope in scopes:
            with opened(worker) as client:
                controller.send(isolating("route:plain"))
                client.send(b"x")
                assert received(client, 1) == b"x"
                controller.send(isolating(scope))
                assert client.closed()
            controller.send(Directives(()))


def isolating(scope: str) -> Directives:
    """Return the order to isolate *scope* and nothing else."""
    wanted = Scope.parse(scope)
    return Directives((Directive(f"isolation-{scope}", wanted, Action.ISOLATE, clock.now() + 3600, share_ratio=0.0),))


def test_tunnels_are_counted_and_logged(worker: Worker, upstream: Upstream, log: Path) -> None:
    """
    The tick tells how many stand and what they carried; the access log has one line for each, at its end, with its bytes.
    """
    upstream.use(switching)
    worker.wait_for(connections=0)
    with Controller(worker.runtime) as controller:
        before = controller.next(Tick)
        with Client(worker.address) as client:
            handshake(client, b"/logged")
            client.send(b"12345")
            assert received(client, 5) == b"12345"
            while (tick := controller.next(Tick)).tunnels != 1:
                continue
            assert tick.tunnels_opened == before.tunnels_opened + 1
        while (tick := controller.next(Tick)).tunnels:
            continue
        assert tick.tunnel_bytes["up"] - before.tunnel_bytes["up"] == 5
        assert tick.tunnel_bytes["down"] - before.tunnel_bytes["down"] == 5
    deadline = time.monotonic() + WAIT_S
    while "/logged" not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    lines = [row for row in rows if row["path"] == "/logged"]
    assert [(row["status"], row["bytes_in"], row["bytes_out"]) for row in lines] == [(101, 5, 5)]


def test_two_hundred_tunnels_leave_nothing(worker: Worker, upstream: Upstream) -> None:
    """
    Opened, used and closed in every way, tunnels leave no descriptor behind.
    """
    upstream.use(switching)
    worker.wait_for(connections=0)
    with Client(worker.address) as client:
        handshake(client)
    worker.wait_for(connections=0)
    before = worker.descriptors()
    for number in range(200):
        client = Client(worker.address)
        handshake(client)
        if number % 3 == 0:
            client.reset()
        elif number % 3 == 1:
            client.sock.shutdown(socket.SHUT_WR)
            assert client.closed()
            client.sock.close()
        else:
            client.send(b"x")
            client.sock.close()
    worker.wait_for(connections=0)
    deadline = time.monotonic() + WAIT_S
    while worker.descriptors() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert worker.descriptors() <= before
