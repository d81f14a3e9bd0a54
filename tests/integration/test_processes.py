"""Supervisor, controller and workers as processes: killed, hung, drained, replaced."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support.client import Client, CutError
from tests.support.load import Load, Shot
from tests.support.patience import WAIT_S
from tests.support.sidecar import Shop, Sidecar, gone, kill, sidecar, until
from tests.support.upstream import Conn, Upstream

DELAY_S = 5.0
OVERRIDE = {"action": "throttle=5000/s", "ttl": "10m", "reason": "a test"}


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    """The sample API."""
    with Shop() as shop:
        yield shop


@pytest.fixture(scope="module")
def shared(shop: Shop) -> Iterator[Sidecar]:
    """A sidecar of two workers that tests may kill parts of."""
    with sidecar(shop.url, workers=2) as running:
        yield running


def lived_well(load: Load) -> None:
    """Every request of *load* was served."""
    assert not load.failed, load.said()
    assert len(load.results) > 100


def test_kill_9_of_the_controller_fails_no_request_and_loses_nothing(shared: Sidecar) -> None:
    """
    A killed controller costs no request; its successor knows every version, override and audit row.
    """
    assert shared.api("PUT", "/overrides/route:checkout", OVERRIDE).body["durable"] is True
    shared.config["routes"][0]["limit"] = {"rate": "900/s", "burst": 900}
    assert shared.apply(shared.text).status == 200
    with shared.load(150) as load:
        load.wait(100)
        before = {path: shared.get(path) for path in ("/config", "/config/versions", "/overrides")}
        audit = shared.get("/audit", limit=100)["items"]
        old = shared.controller()
        kill(old)
        until(lambda: gone(old), "the controller is gone")
        until(lambda: shared.pids("sidecar.entry.controller"), "a new one is there")
        until(shared.serving, "it serves and both workers are linked")
        load.wait(100)
    lived_well(load)
    assert before == {path: shared.get(path) for path in before}
    assert audit == shared.get("/audit", limit=100)["items"][-len(audit) :]
    assert shared.get("/audit/verify")["ok"] is True


def test_an_answered_override_survives_a_kill_in_the_next_moment(shared: Sidecar) -> None:
    """
    What was answered as durable is stored: killing the controller right after the answer loses none of ten.
    """
    for number in range(10):
        answer = shared.api("PUT", f"/overrides/client:checkout:10.0.0.{number}", OVERRIDE).body
        assert answer["durable"] is True
    kill(shared.controller())
    until(lambda: "starting" in shared.observe("/livez").text or shared.serving(), "somebody answers")
    until(shared.serving, "a new controller serves")
    scopes = {row["scope"] for row in shared.get("/overrides")["items"]}
    assert {f"client:checkout:10.0.0.{number}" for number in range(10)} <= scopes


def test_the_supervisor_answers_observe_while_no_controller_lives(shared: Sidecar) -> None:
    """
    Between two controllers livez is 200, readyz tells of the workers, metrics are 503; afterwards readyz never blinks.
    """

    def stands_in() -> bool:
        return "the supervisor lives" in shared.observe("/livez").text

    def seen_between_two() -> dict[str, int] | None:
        old = shared.controller()
        kill(old)
        until(lambda: gone(old), "the controller is gone")
        until(lambda: stands_in() or shared.serving(), "somebody answers")
        seen = {path: shared.observe(path).status for path in ("/readyz", "/metrics", "/other")}
        return seen if stands_in() else None  # else the next controller came too early to be sure who answered

    assert until(seen_between_two, "the supervisor answers") == {"/readyz": 200, "/metrics": 503, "/other": 404}
    ready = []
    until(lambda: ready.append(shared.observe("/readyz").status) or shared.serving(), "a controller serves")
    assert set(ready) == {200}
    until(
        lambda: shared.observe("/metrics").status == 200,
        "the supervisor has heard that it is ready, and lets it answer",
    )


def test_kill_9_of_a_worker_loses_only_what_was_in_flight(shared: Sidecar) -> None:
    """
    Only requests under way in the killed worker fail, no connection is refused, and a new worker takes its place.
    """
    with shared.load(150, connections=8) as load:
        load.wait(100)
        victim = shared.workers()[0]
        kill(victim)
        until(lambda: gone(victim), "the worker is gone")
        load.wait(50)
        until(shared.serving, "two workers serve again")
        began = time.monotonic()
        load.wait(100)
    assert len(load.failed) <= 8, load.said()  # one request a connection can be in flight
    assert not [row for row in load.failed if "refused" in row.problem.lower() or row.status], load.said()
    assert not [row for row in load.since(began) if not row.served]


def test_a_hung_worker_is_killed_and_replaced(shared: Sidecar) -> None:
    """
    A worker that is silent for 5 s is killed; its successor serves.
    """
    victim = shared.workers()[0]
    began = time.monotonic()
    kill(victim, signal.SIGSTOP)
    until(lambda: gone(victim), "the hung worker is killed")
    assert time.monotonic() - began >= 4.0
    assert shared.until_said("was silent for 5 s")["pid"] == victim
    until(shared.serving, "two workers serve again")
    assert victim not in shared.workers()


def test_a_hung_controller_is_killed_and_replaced(shared: Sidecar) -> None:
    """
    A controller that is silent for 5 s is killed and replaced while requests flow.
    """
    with shared.load(60) as load:
        load.wait(60)
        victim = shared.controller()
        kill(victim, signal.SIGSTOP)
        until(lambda: gone(victim), "the hung controller is killed")
        until(shared.serving, "a new one serves")
        load.wait(60)
    lived_well(load)


def test_sigterm_to_one_worker_replaces_it_without_a_failure(shared: Sidecar) -> None:
    """
    A worker that somebody sends SIGTERM drains, and another one starts meanwhile.
    """
    victim = shared.workers()[0]
    with shared.load(100) as load:
        load.wait(50)
        kill(victim, signal.SIGTERM)
        until(lambda: gone(victim), "it has left")
        until(shared.serving, "two workers serve again")
        load.wait(50)
    lived_well(load)


def slow(conn: Conn) -> None:
    """Answer /slow when the test says so, anything else at once."""
    while (request := conn.read()) is not None:
        if " /slow" in request.line:
            conn.tell("asked")
            conn.wait_for_order()
        conn.answer(b"whole")


def test_sigterm_finishes_what_is_in_flight() -> None:
    """
    After SIGTERM a slow request gets its whole answer, idle connections end, nobody is let in, the exit code is 0.
    """
    with Upstream(slow) as upstream, sidecar(upstream.url, upstream={"endpoints": [upstream.url]}) as running:
        answers = []

        def ask() -> None:
            with Client(running.address()) as client:
                answers.append(client.ask("GET", "/slow"))

        with Client(running.address()) as idle, running.load(50) as load:
            assert idle.ask("GET", "/").status == 200
            load.wait(50)
            asking = threading.Thread(target=ask)
            asking.start()
            upstream.next_news()
            running.signal(signal.SIGTERM)
            assert idle.closed()
            until(lambda: any("refused" in row.problem.lower() for row in load.failed), "new connections are refused")
            assert running.observe("/readyz").status == 503
            assert running.observe("/livez").status == 200
            upstream.order()
            asking.join(WAIT_S)
            load.stop()
        assert running.process is not None
        assert running.process.wait(WAIT_S) == 0
        assert [(answer.status, answer.body) for answer in answers] == [(200, b"whole")]
        bad = [row for row in load.failed if not ("refused" in row.problem.lower() or row.status == 503)]
        assert not bad, load.said(bad)


def test_the_delay_lets_everybody_leave(shop: Shop) -> None:
    """
    During `drain.delay` readiness is false while everything is served, and each answer ends its connection: when the
    listener closes no request is cut off.
    """
    with sidecar(shop.url, drain={"delay": f"{DELAY_S:g}s"}) as running:
        with Client(running.address()) as kept, running.load(60) as load:
            load.wait(60)
            assert kept.ask("GET", "/api/products/1").fields.get("connection") != "close"
            told_at = time.monotonic()
            running.signal(signal.SIGTERM)
            until(lambda: running.observe("/readyz").status == 503, "it is not ready")
            assert kept.ask("GET", "/api/products/1").fields["connection"] == "close"
            with Client(running.address()) as fresh:
                answer = fresh.ask("GET", "/api/products/1")
                assert (answer.status, answer.fields["connection"]) == (200, "close")
            until(lambda: any("refused" in row.problem.lower() for row in load.failed), "new connections are refused")
            load.stop()
        assert running.process is not None
        assert running.process.wait(WAIT_S) == 0
        # Who knocks in the very moment in which the listener closes waits in its queue, which the kernel resets.
        bad = [
            row
            for row in load.failed
            if "refused" not in row.problem.lower() and not (row.unheard and row.at > told_at + DELAY_S / 2)
        ]
        assert not bad, load.said(bad)


def test_a_request_that_outlives_the_grace_is_cut() -> None:
    """
    Draining ends after `drain.grace`, whatever is in flight; the exit code is 0.
    """
    asked = threading.Event()

    def never(conn: Conn) -> None:
        conn.read()
        asked.set()
        conn.wait_for_end()

    short = {"grace": "1s"}
    with (
        Upstream(never) as upstream,
        sidecar(upstream.url, drain=short) as running,
        Client(running.address()) as client,
    ):
        client.send(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
        assert asked.wait(WAIT_S)
        assert running.leave() == 0
        with pytest.raises(CutError):
            client.read()


def test_a_second_signal_ends_the_draining() -> None:
    """
    SIGTERM again, a moment later, kills what still drains; the exit code says so.
    """
    asked = threading.Event()

    def never(conn: Conn) -> None:
        conn.read()
        asked.set()
        conn.wait_for_end()

    with Upstream(never) as upstream, sidecar(upstream.url) as running, Client(running.address()) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n")
        assert asked.wait(WAIT_S)
        running.signal(signal.SIGTERM)
        assert running.process is not None
        until(lambda: running.signal(signal.SIGTERM) or running.said("again: ending now"), "it takes the second one")
        assert running.process.wait(WAIT_S) == 1


def test_no_process_outlives_a_killed_supervisor(shop: Shop) -> None:
    """
    After `kill -9` of the supervisor every child is gone, a hung one too, and the port is free.
    """
    with sidecar(shop.url, workers=2) as running:
        children = running.pids()
        address = running.address()
        kill(running.workers()[0], signal.SIGSTOP)
        kill(running.controller(), signal.SIGSTOP)
        running.signal(signal.SIGKILL)
        until(lambda: all(map(gone, children)), "all children are gone")
        assert not running.pids()
        until(lambda: _free(address), "the port is free")


def _free(address: tuple[str, int]) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError:
            return False
        return True


def test_a_worker_boots_without_a_controller(shop: Shop) -> None:
    """
    A worker that is born while no controller lives runs the active version and its directives, from worker-boot.json.
    """
    with sidecar(shop.url) as running:
        running.config["routes"][1]["limit"] = {"rate": "1/m", "burst": 1}
        assert running.apply(running.text).status == 200
        override = {"action": "isolate", "ttl": "10m", "reason": "a test"}
        assert running.api("PUT", "/overrides/route:checkout", override).status == 200
        kill(running.controller(), signal.SIGSTOP)  # lives, but neither answers nor greets
        victim = running.workers()[0]
        kill(victim)
        until(lambda: running.workers() and running.workers() != [victim], "a new worker is there")
        found = []
        for shot in (Shot("/api/checkout", "POST", body=b"{}"), Shot(), Shot()):
            with Client(running.address()) as client:
                client.send(shot.data)
                answer = client.read()
                found.append((answer.status, answer.problem.get("reason")))
        assert found == [(503, "overridden"), (200, None), (429, "rate_limited")]


def test_a_workers_directive_ends_by_itself(shop: Shop) -> None:
    """
    Without a controller a worker honours the end of an override by itself: the route opens while nobody tells it.
    """
    with sidecar(shop.url) as running:
        order = Shot("/api/checkout", "POST", body=b'{"items": []}')

        def status() -> int:
            with Client(running.address()) as client:
                client.send(order.data)
                return client.read().status

        controller = running.controller()
        for ttl in ("2s", "20s", "80s"):  # on a busy machine the first one may be over before it is looked at
            override = {"action": "isolate", "ttl": ttl, "reason": "a test"}
            assert running.api("PUT", "/overrides/route:checkout", override).status == 200
            running.signal(signal.SIGSTOP)  # who would replace the hung controller hangs, too
            kill(controller, signal.SIGSTOP)
            refused = status() == 503
            until(lambda: status() == 201, "it ends by itself")
            kill(controller, signal.SIGCONT)
            running.signal(signal.SIGCONT)
            if refused:
                break
        assert refused
