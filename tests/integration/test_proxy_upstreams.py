"""Several endpoints through a real worker and a whole sidecar: who gets the requests when one of them misbehaves."""
# ruff: noqa: SIM117  first what stands upstream, then what stands in front of it

from __future__ import annotations

import socket
import time
from collections import Counter
from pathlib import Path

import pytest

from sidecar import clock
from sidecar.facts import Action, Directive, Scope
from sidecar.link.frames import Directives, Tick, Unhealthy
from sidecar.link.runtime import BootConfig, write_boot
from tests.support.client import Client
from tests.support.link import Controller
from tests.support.sidecar import sidecar, until
from tests.support.upstream import Conn, Script, Upstream, echo
from tests.support.worker import running_worker, start_worker


def config(*endpoints: object, **upstream: str) -> str:
    listed = ", ".join(f'"{each.url}"' if isinstance(each, Upstream) else str(each) for each in endpoints)
    upstream = {"connect_timeout": "1m"} | upstream  # a busy machine makes no endpoint the second choice
    more = "".join(f"\n  {key}: {value}" for key, value in upstream.items())
    return f"upstream:\n  endpoints: [{listed}]{more}\n"


def answering(status: str) -> Script:
    def script(conn: Conn) -> None:
        while conn.read() is not None:
            conn.answer(b"", status)

    return script


def seen(*upstreams: Upstream) -> list[int]:
    counts = [upstream.seen.qsize() for upstream in upstreams]
    for upstream in upstreams:
        while not upstream.seen.empty():
            upstream.seen.get()
    return counts


def test_a_unix_socket_serves(tmp_path: Path) -> None:
    """
    An endpoint may be a Unix socket; a request without Host gets one that the API can read.
    """
    with Upstream(path=str(tmp_path / "api.sock")) as upstream, running_worker(config(upstream)) as worker:
        with Client(worker.address) as client:
            assert [client.ask("POST", "/", b"x").body for _ in range(3)] == [b"x"] * 3
            client.send(b"GET / HTTP/1.0\r\n\r\n")
            assert client.read().status == 200
        assert [upstream.next_request().fields["host"] for _ in range(4)] == ["api.test"] * 3 + ["localhost"]
        assert upstream.accepted == 1


def test_weights_are_kept() -> None:
    """
    An endpoint of weight 3 gets three quarters of the requests of one client after the other.
    """
    with Upstream() as one, Upstream() as two:
        text = config(one, f'{{url: "{two.url}", weight: 3}}')
        with running_worker(text) as worker, Client(worker.address) as client:
            assert {client.ask().status for _ in range(40)} == {200}
        light, heavy = seen(one, two)
        assert (light in (9, 10, 11), light + heavy) == (True, 40)  # the round begins where the worker's name says


def test_a_slow_endpoint_gets_less() -> None:
    """
    While an endpoint keeps its requests waiting, the others get the next ones: the less loaded of two is chosen.
    """

    def waiting(conn: Conn) -> None:
        while conn.read() is not None:
            conn.wait_for_order()
            conn.answer()

    with Upstream(waiting) as slow, Upstream() as fast, running_worker(config(slow, fast)) as worker:
        clients = [Client(worker.address) for _ in range(4)]
        for client in clients:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        until(lambda: slow.seen.qsize() + fast.seen.qsize() == 4, "all were sent")
        stuck = slow.seen.qsize()
        with Client(worker.address) as other:
            assert {other.ask().status for _ in range(40)} == {200}
        assert slow.seen.qsize() == stuck
        assert 1 <= stuck <= 2
        for _ in range(stuck):
            slow.order()
        for client in clients:
            assert client.read().status == 200
            client.sock.close()


def test_an_outlier_is_ejected() -> None:
    """
    An endpoint that fails while the other serves gets no request after five failures; the tick says so.
    """
    with Upstream(answering("500 No")) as bad, Upstream() as good, running_worker(config(bad, good)) as worker:
        with Controller(worker.runtime) as controller, Client(worker.address) as client:
            statuses = Counter(client.ask().status for _ in range(60))
            assert statuses == {500: 5, 200: 55}
            while controller.next(Tick).endpoints[f"127.0.0.1:{bad.port}"][0] != "ejected":
                continue
            tick = controller.next(Tick)
            assert tick.endpoints[f"127.0.0.1:{bad.port}"] == ["ejected", 0, 1]
            assert tick.endpoints[f"127.0.0.1:{good.port}"] == ["up", 0, 0]


@pytest.mark.parametrize("script", [lambda conn: conn.reset(), lambda conn: (conn.read(), conn.reset())])
def test_resets_eject_too(script: Script) -> None:
    """
    What breaks the connection counts as what answers 500.
    """
    with Upstream(script) as bad, Upstream() as good, running_worker(config(bad, good)) as worker:
        with Client(worker.address) as client:
            failed = sum(client.ask("POST", "/", b"x").status != 200 for _ in range(60))
        assert failed <= 6
        assert good.seen.qsize() == 60 - failed


def test_an_ejected_endpoint_returns() -> None:
    """
    After its time it is tried again, and serves again when it is well.
    """
    policy = {"ejection": "{base: 5s, max: 5s}", "slow_start": "0s"}
    with Upstream(answering("500 No")) as bad, Upstream() as good:
        with running_worker(config(bad, good, **policy)) as worker, Client(worker.address) as client:
            for _ in range(20):
                client.ask()
            bad.use(echo)
            seen(bad, good)
            assert {client.ask().status for _ in range(3)} == {200}
            assert seen(bad, good) == [0, 3]
            until(lambda: client.ask().status == 200 and bad.seen.qsize() > 0, "it is back")


def test_when_all_fail_none_is_ejected() -> None:
    """
    An API that is down keeps all its endpoints: whom should one prefer?
    """
    with Upstream(answering("500 No")) as one, Upstream(answering("500 No")) as two:
        with running_worker(config(one, two)) as worker, Client(worker.address) as client:
            for _ in range(60):
                client.ask()
        assert [30 - 6 <= count <= 30 + 6 for count in seen(one, two)] == [True, True]


def test_observing_ejects_nothing() -> None:
    """
    In observe mode the failing endpoint keeps its requests, and the tick counts what would have been.
    """
    with Upstream(answering("500 No")) as bad, Upstream() as good:
        with running_worker(config(bad, good, ejection="{mode: observe}")) as worker:
            with Controller(worker.runtime) as controller, Client(worker.address) as client:
                assert Counter(client.ask().status for _ in range(60))[500] == 30
                tick = controller.tick_with("default", 60)
                standing, _, ejections = tick.endpoints[f"127.0.0.1:{bad.port}"]
                assert standing == "up"
                assert ejections >= 5


def test_retries_go_to_another_endpoint() -> None:
    """
    An attempt that failed is repeated elsewhere, so that no request of a failing endpoint is seen to fail.
    """
    with Upstream(answering("503 No")) as bad, Upstream() as good:
        text = config(bad, good, retries="{attempts: 1, on_status: [503], budget: 100%}")
        with running_worker(text) as worker, Client(worker.address) as client:
            assert {client.ask().status for _ in range(6)} == {200}
        assert bad.seen.qsize() == 3


def test_all_attempts_to_connect_are_bounded() -> None:
    """
    However many endpoints accept nothing, the client has its 504 within 1.5 times the connect timeout.
    """
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as one,
        socket.create_server(("127.0.0.1", 0), backlog=0) as two,
        socket.socket() as first,
        socket.socket() as second,
    ):
        first.connect(one.getsockname())
        second.connect(two.getsockname())
        urls = [f'"http://127.0.0.1:{each.getsockname()[1]}"' for each in (one, two)]
        text = config(*urls, connect_timeout="4s")
        with running_worker(text) as worker, Client(worker.address) as client:
            begun = time.monotonic()
            assert client.ask().problem["reason"] == "upstream_connect_timeout"
            assert 4.0 <= time.monotonic() - begun < 6.0


# --- what the controller says ----------------------------------------------------------------------------------------


def directive(upstream: Upstream, action: Action) -> Directive:
    scope = Scope.parse(f"endpoint:127.0.0.1:{upstream.port}")
    return Directive(f"override-{scope}", scope, action, clock.now() + 3600.0, share_ratio=0.0)


def test_an_override_isolates_an_endpoint() -> None:
    """
    An isolated endpoint gets nothing; when all are isolated requests get 503 and its reason, until the override ends.
    """
    with Upstream() as one, Upstream() as two, running_worker(config(one, two)) as worker:
        with Controller(worker.runtime) as controller, Client(worker.address) as client:
            controller.send(Directives((directive(one, Action.ISOLATE),)))
            until(lambda: (client.ask().status, seen(one, two)) == (200, [0, 1]) and served(client, one, two), "obeyed")
            controller.send(Directives((directive(one, Action.ISOLATE), directive(two, Action.ISOLATE))))
            answer = until(lambda: found if (found := client.ask()).status == 503 else None, "all are isolated")
            assert answer.problem["reason"] == "overridden"
            assert int(answer.fields["retry-after"]) >= 3000
            controller.send(Directives(()))
            until(lambda: client.ask().status == 200, "the override ended")
            worker.wait_for(in_flight=0)


def served(client: Client, none: Upstream, all_of_them: Upstream) -> bool:
    for _ in range(20):
        assert client.ask().status == 200
    return seen(none, all_of_them) == [0, 20]


def test_a_worker_boots_with_what_was_known(tmp_path: Path) -> None:
    """
    A worker that is born while no controller lives shuns the endpoint that failed its health checks, and takes news of it.
    """
    with Upstream() as one, Upstream() as two:
        text, down = config(one, two, slow_start="0s"), {f"127.0.0.1:{one.port}": clock.now() + 3600.0}
        (tmp_path / "run").mkdir(mode=0o700)
        write_boot(tmp_path / "run", BootConfig(3, text, "hash", unhealthy=down))
        worker = start_worker(text, tmp_path)
        try:
            worker.wait_for(ready=True)
            with Controller(worker.runtime) as controller, Client(worker.address) as client:
                assert served(client, one, two)
                controller.send(Unhealthy({}))
                until(lambda: client.ask().status == 200 and one.seen.qsize() > 0, "it is well again")
        finally:
            worker.kill()


def test_health_checks_of_a_whole_sidecar() -> None:
    """
    An endpoint that fails its checks gets no request although it answers well otherwise, `/metrics` says so, and it
    returns with its checks.
    """

    def unwell(conn: Conn) -> None:
        while (request := conn.read()) is not None:
            conn.answer(b"", "503 No" if "/healthz" in request.line else "200 OK")

    checks = {"path": "/healthz", "interval": "100ms", "timeout": "1m", "unhealthy": 2, "healthy": 2}
    with Upstream(unwell) as one, Upstream() as two:
        upstream = {"endpoints": [one.url, two.url], "health": checks, "slow_start": "0s"}
        with sidecar(one.url, upstream=upstream) as whole, Client(whole.address()) as client:
            shown = f'sidecar_endpoint_up{{endpoint="127.0.0.1:{one.port}"}}'
            until(lambda: f"{shown} 0.0" in whole.observe("/metrics").text, "it is out of service")
            lines = [client.ask("GET", "/work").status for _ in range(20)]
            assert lines == [200] * 20
            assert not any("/work" in one.seen.get().line for _ in range(one.seen.qsize()))
            assert whole.said("an endpoint fails its health checks")
            one.script = echo
            one.end_connections()
            until(lambda: f"{shown} 1.0" in whole.observe("/metrics").text, "it is back")
