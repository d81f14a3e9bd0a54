"""The access log and the tap of real processes: what is in them, what never is, and that neither waits for its reader."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar.link.frames import Tap, Tapped, Tick
from tests.support.client import Client, CutError, request
from tests.support.link import Controller
from tests.support.sidecar import ROOT, SECRETS, Shop, Sidecar, call, sidecar, until
from tests.support.upstream import Conn, Upstream, echo
from tests.support.worker import Worker, running_worker

CONFIG = """
upstream: {{endpoints: ["{url}"], response_timeout: 5m}}
access_log: {{path: "{file}", sample: {sample}}}
routes:
  - name: limited
    match: {{path: /limited/**}}
    client_key: header:x-api-key
    limit: {{rate: 0.001/s, burst: 1}}
  - name: hasty
    match: {{path: /slow}}
    response_timeout: 300ms
  - name: default
    match: {{path: /**}}
"""


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as made:
        yield made


def rows(file: Path, wanted: int) -> list[dict[str, Any]]:
    """Wait for so many lines, and return them."""

    def read() -> list[bytes] | None:
        lines = file.read_bytes().splitlines() if file.exists() else []
        return lines if len(lines) >= wanted else None

    return [json.loads(line) for line in until(read, f"{wanted} lines")]


@contextlib.contextmanager
def logging(upstream: Upstream, folder: Path, sample: str) -> Iterator[tuple[Worker, Path]]:
    file = folder / "access.log"
    with running_worker(CONFIG.format(url=upstream.url, file=file, sample=sample)) as worker:
        yield worker, file


def test_a_sampled_success_tells_where_its_time_went(upstream: Upstream, tmp_path: Path) -> None:
    """
    Method, path without query, sizes, durations in their order, endpoint, and the trace that the API saw.
    """
    with logging(upstream, tmp_path, "100%") as (worker, file), Client(worker.address) as client:
        client.ask("POST", "/orders/12?card=4111", b"abc")
        client.ask("GET", "/orders/12")
        client.ask("HEAD", "/orders/12")
        posted, got, headed = rows(file, 3)
    traces = [upstream.next_request().fields["traceparent"][3:35] for _ in range(3)]
    assert posted | {"trace": "", "time": ""} == {
        "event": "request", "time": "", "client": "127.0.0.1", "method": "POST", "path": "/orders/12", "path_template": "/orders/{id}",
        "route": "default", "status": 200, "guard_s": posted["guard_s"], "upstream_s": posted["upstream_s"], "duration_s": posted["duration_s"],
        "bytes_in": 3, "bytes_out": 3, "trace": "", "endpoint": upstream.url.removeprefix("http://"), "retried": 0,
    }  # fmt: skip
    for row in (posted, got):
        assert 0 < row["guard_s"] < row["duration_s"]
        assert 0 < row["upstream_s"] < row["duration_s"]
    assert [row["trace"] for row in (posted, got, headed)] == traces
    assert (got["bytes_in"], got["bytes_out"], headed["bytes_out"]) == (0, 2, 0)


def chunked_then_cut(conn: Conn) -> None:
    conn.read()
    conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    conn.reset()


def failing(conn: Conn) -> None:
    while conn.read() is not None:
        conn.answer(b"no", "500 Internal Server Error")


def silent(conn: Conn) -> None:
    conn.read()
    conn.wait_for_order()


def cut(client: Client, _: Upstream) -> None:
    client.send(request("GET", "/cut"))
    with pytest.raises(CutError):
        client.read()


def left(client: Client, upstream: Upstream) -> None:
    client.send(request("GET", "/left"))
    upstream.next_request()
    client.reset()


CASES: dict[str, tuple[Callable[[Conn], None], Callable[[Client, Upstream], object], dict[str, Any]]] = {
    "malformed": (echo, lambda c, _: c.send(b"GET / HTTP/1.1\r\n\r\n"), {"status": 400, "reason": "bad_request", "flags": "DPE"}),
    "api failed": (failing, lambda c, _: c.ask("GET", "/x"), {"status": 500, "bytes_out": 2}),
    "cut": (chunked_then_cut, cut, {"status": 200, "reason": "upstream_reset", "flags": "UC", "bytes_out": 3}),
    "timeout": (silent, lambda c, _: c.ask("GET", "/slow"), {"status": 504, "reason": "upstream_timeout", "flags": "UT"}),
    "client left": (silent, left, {"status": 499, "reason": "client_disconnected", "flags": "DC"}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_failed_is_always_there(upstream: Upstream, tmp_path: Path, case: str) -> None:
    """
    With `sample: 0%` the log has every request that went wrong, with its reason, and no success.
    """
    script, act, wanted = CASES[case]
    with logging(upstream, tmp_path, "0%") as (worker, file):
        upstream.use(echo)
        with Client(worker.address) as client:
            assert client.ask().status == 200
        upstream.use(script)
        with Client(worker.address) as client:
            act(client, upstream)
            found = rows(file, 1)
    assert [{name: row.get(name) for name in wanted} for row in found] == [wanted]


def test_a_refusal_leads_to_its_explanation_and_no_secret_is_told(upstream: Upstream, tmp_path: Path) -> None:
    """
    The decision in the log is the one that the client was given; the API key, the query and the fields are nowhere in it.
    """
    with logging(upstream, tmp_path, "0%") as (worker, file), Client(worker.address) as client:
        for _ in range(2):
            answer = client.ask("GET", "/limited/a?token=s3cret", b"", "X-API-Key: s3cret", "Cookie: s3cret")
        (row,) = rows(file, 1)
        text = file.read_text()
    assert (row["decision"], row["reason"], row["status"]) == (answer.problem["decision"], "rate_limited", 429)
    assert re.fullmatch("h-[0-9a-f]{16}", row["client"])
    assert row["bytes_out"] == len(answer.body)
    assert "s3cret" not in text


def test_every_kth_success_is_there(upstream: Upstream, tmp_path: Path) -> None:
    """
    With 10 % every tenth success has its line.
    """
    with logging(upstream, tmp_path, "10%") as (worker, file), Client(worker.address) as client:
        for number in range(1, 31):
            client.ask("GET", f"/n{number}")
        found = [row["path"] for row in rows(file, 3)]
    assert found == ["/n10", "/n20", "/n30"]


def test_a_log_that_nobody_reads_costs_no_request(upstream: Upstream, tmp_path: Path) -> None:
    """
    A pipe whose reader has stopped: requests are served as before, and the lines that do not fit are counted.
    """
    pipe = tmp_path / "access.log"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with logging(upstream, tmp_path, "100%") as (worker, _), Client(worker.address) as client:
            path = "/" + "x" * 1000
            for _ in range(70):
                client.send(request("GET", path) * 20)
                assert [client.read().status for _ in range(20)] == [200] * 20
            with Controller(worker.runtime) as link:
                until(lambda: link.next(Tick).log_dropped, "lost lines are told")
    finally:
        os.close(reading)


def test_a_tap_shows_what_fits_and_nothing_secret(upstream: Upstream, tmp_path: Path) -> None:
    """
    A worker shows a tap the requests of its filter, without their paths and values, until its time is over.
    """
    with logging(upstream, tmp_path, "0%") as (worker, _), Controller(worker.runtime) as link:
        link.send(Tap("t1", 600.0, route="default", least_status=200, most_status=299))
        with Client(worker.address) as client:

            def shown() -> Tapped | None:
                client.ask("GET", "/a/s3cret-1", b"", "X-Own: s3cret")
                return link.next(Tapped)

            tapped = until(shown, "a request is shown")
            client.ask("GET", "/limited/a")
            link.send(Tap("t1", 0.0))
            client.ask("GET", "/limited/b")
            client.ask("GET", "/b")
            worker.wait_for(in_flight=0)
        worker.tell(do="drain")
        late = [frame for frame in link.rest() if isinstance(frame, Tapped)]
    assert (tapped.tap, tapped.request.method, tapped.request.status, tapped.request.path) == ("t1", "GET", 200, "")
    assert {"host", "x-own"} <= set(tapped.request.fields)
    assert "s3cret" not in repr(tapped).replace(tapped.request.template, "")
    assert {frame.request.route for frame in late} <= {"default"}


@pytest.fixture(scope="module")
def whole() -> Iterator[tuple[Sidecar, Shop]]:
    """A whole sidecar that writes its access log to a file in its folder."""
    with Shop() as shop, sidecar(shop.url, access_log={"path": "access.log", "sample": "100%"}, workers=2) as running:
        yield running, shop


def test_a_rotated_log_is_left_on_sighup(whole: tuple[Sidecar, Shop]) -> None:
    """
    After a rename and SIGHUP every worker writes to a new file under the old name; nothing is lost on the way.
    """
    running, _ = whole
    file, rotated = running.folder / "access.log", running.folder / "access.log.1"
    address = "{}:{}".format(*running.address("listen"))
    asked = 0

    def ask() -> None:
        nonlocal asked
        asked += 1
        assert call(address, "GET", f"/api/products/{asked}").status in (200, 404)

    for _ in range(5):
        ask()
    rows(file, 5)
    file.rename(rotated)
    running.signal(signal.SIGHUP)
    until(lambda: file.exists() or ask(), "the file is there again")
    for _ in range(5):
        ask()
    until(lambda: len((rotated.read_text() + file.read_text()).splitlines()) == asked, f"all {asked} lines")


def test_the_format_is_changed_live_and_the_path_is_not(whole: tuple[Sidecar, Shop]) -> None:
    """
    `format` applies with a config version; `path` is static: the API answers 422, a file and SIGHUP change it.
    """
    running, _ = whole
    other = running.folder / "other.log"
    changed = running.config | {"access_log": {"path": "other.log", "format": "common", "sample": "100%"}}
    refused = running.apply(yaml.safe_dump(changed))
    assert refused.status == 422
    assert [error["path"] for error in refused.body["errors"]] == ["access_log.path"]
    kept = running.config | {"access_log": {"path": "access.log", "format": "common", "sample": "100%"}}
    applied = running.apply(yaml.safe_dump(kept))
    assert applied.status == 200, applied.text
    address = "{}:{}".format(*running.address("listen"))
    file = running.folder / "access.log"

    def asked() -> bool:
        call(address, "GET", "/api/products/7")
        return b'"GET /api/products/7 HTTP/1.1"' in file.read_bytes()

    until(asked, "a common line")
    running.config = changed
    running.write()
    running.signal(signal.SIGHUP)
    until(lambda: other.exists() or call(address, "GET", "/api/products/7").status > 500, "the other file")


def test_the_cli_taps_live(whole: tuple[Sidecar, Shop]) -> None:
    """
    `sidecar tap --status 5xx` prints the failures as they happen, as JSON for scripts, and only them.
    """
    running, shop = whole
    shop.breaks(errors=1.0)
    address, admin = ("{}:{}".format(*running.address(name)) for name in ("listen", "admin"))
    command = [
        sys.executable,
        "-m",
        "sidecar",
        "--admin",
        f"http://{admin}",
        "tap",
        "--status",
        "5xx",
        "--limit",
        "2",
        "-o",
        "json",
    ]
    environ = running.environment | {"SIDECAR_TOKEN": SECRETS["viewer"], "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as tap:
        until(lambda: call(address, "GET", "/api/products/7") and tap.poll() is not None, "two requests were shown")
        out, _ = tap.communicate()
    shop.breaks()
    shown = [json.loads(line) for line in out.splitlines()]
    assert [row["status"] // 100 for row in shown] == [5, 5]
    assert all("path" not in row and row["path_template"] == "/api/products/{id}" for row in shown)
