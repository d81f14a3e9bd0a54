"""Requests that are sent again, through a real worker: which ones, how often, and never beyond the budget."""

from __future__ import annotations

import threading

import pytest

from tests.support.client import Client
from tests.support.upstream import Conn, Script, Upstream, echo
from tests.support.worker import running_worker

CONFIG = """
upstream:
  endpoints: ["{url}"]
  retries: {retries}
"""


def config(upstream: Upstream, retries: str = "{attempts: 2}") -> str:
    return CONFIG.format(url=upstream.url, retries=retries)


def resetting(times: int) -> Script:
    """Reset the first *times* connections after their request, answer on the others."""

    def script(conn: Conn) -> None:
        if conn.number <= times:
            conn.read()
            conn.reset()
        else:
            echo(conn)

    return script


def failing(times: int, *, status: str = "503 Service Unavailable") -> Script:
    """Answer the first *times* connections with *status*, the others well."""

    def script(conn: Conn) -> None:
        while conn.read() is not None:
            conn.answer(b"ok", status if conn.number <= times else "200 OK")

    return script


@pytest.mark.parametrize(("resets", "status"), [(1, 200), (2, 200), (3, 502)])
def test_a_request_without_an_answer_is_sent_again(resets: int, status: int) -> None:
    """
    A GET whose new connection ends before a byte of an answer goes out again, `attempts` times and no more.
    """
    with Upstream(resetting(resets)) as upstream, running_worker(config(upstream)) as worker:
        with Client(worker.address) as client:
            assert client.ask().status == status
        assert upstream.accepted == min(resets + 1, 3)
        worker.wait_for(in_flight=0)


def test_nothing_is_retried_unless_it_is_configured() -> None:
    """
    Without `attempts` only a pooled connection's end costs no request; a new one's does.
    """
    with (
        Upstream(resetting(1)) as upstream,
        running_worker(config(upstream, "{}")) as worker,
        Client(worker.address) as client,
    ):
        assert client.ask().problem["reason"] == "upstream_reset"


@pytest.mark.parametrize(("method", "body"), [("POST", b"x"), ("POST", b""), ("PATCH", b"x"), ("PUT", b"x")])
def test_what_must_not_be_repeated_is_sent_once(method: str, body: bytes) -> None:
    """
    A method that is not idempotent, or any body, is seen exactly once, whatever the policy says.
    """
    policy = "{attempts: 3, on_status: [500, 502-599]}"
    with (
        Upstream(resetting(1)) as upstream,
        running_worker(config(upstream, policy)) as worker,
        Client(worker.address) as client,
    ):
        assert client.ask(method, "/", body).status == 502
        assert upstream.seen.qsize() == 1
        upstream.use(failing(100))
        assert client.ask(method, "/", body).status == 503
        assert upstream.seen.qsize() == 1


def test_an_answer_that_began_is_never_repeated() -> None:
    """
    One byte of an answer, or an interim one, ends all chances: the client sees the end that there was.
    """

    def beginning(conn: Conn) -> None:
        conn.read()
        conn.send(b"H" if conn.number == 1 else b"HTTP/1.1 103 Early Hints\r\n\r\n")
        conn.close()

    with Upstream(beginning) as upstream, running_worker(config(upstream)) as worker, Client(worker.address) as client:
        assert client.ask().status == 502
        assert client.ask().status == 103
        assert client.read().status == 502
        assert upstream.accepted == 2


def test_statuses_are_retried_where_they_are_named() -> None:
    """
    `on_status` drops an answer while an attempt is left; a status that it does not name passes.
    """
    with Upstream(failing(1)) as upstream:
        text = config(upstream, "{attempts: 1, on_status: [503]}")
        with running_worker(text) as worker, Client(worker.address) as client:
            assert client.ask().status == 200
            upstream.use(failing(10**6))
            assert client.ask().status == 503
            upstream.use(failing(10**6, status="502 Bad Gateway"))
            seen = upstream.accepted
            assert client.ask().status == 502
            assert upstream.accepted == seen + 1
            worker.wait_for(in_flight=0)


def test_a_five_hundred_is_not_retried_by_default() -> None:
    """
    With attempts alone every answer of the API passes as it is.
    """
    with Upstream(failing(1)) as upstream, running_worker(config(upstream)) as worker, Client(worker.address) as client:
        assert client.ask().status == 503


def test_the_budget_bounds_the_retries_of_an_outage() -> None:
    """
    While every request fails, 3 retries are spent in the first second of a quiet API, not one for each request.
    """
    with Upstream(resetting(10**6)) as upstream, running_worker(config(upstream, "{attempts: 1}")) as worker:
        with Client(worker.address) as client:
            statuses = [client.ask().status for _ in range(30)]
        assert statuses == [502] * 30
        assert 33 <= upstream.accepted <= 36


STORM = """
upstream: {{endpoints: ["{url}"]}}
service: {{concurrency: {{max: 1}}}}
"""


def test_a_client_that_does_not_wait_is_told_to_wait_longer() -> None:
    """
    Asking again at once for what was refused makes Retry-After longer; another path begins with the usual one.
    """

    def waits_s(client: Client, path: str) -> int:
        answer = client.ask("GET", path)
        assert answer.problem["reason"] == "concurrency_limited"
        return int(answer.fields["retry-after"])

    go_on = threading.Event()

    def slow(conn: Conn) -> None:
        while conn.read() is not None:
            go_on.wait(60)
            conn.answer(b"ok")

    with Upstream(slow) as upstream, running_worker(STORM.format(url=upstream.url)) as worker:
        with Client(worker.address) as first, Client(worker.address) as client:
            first.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            worker.wait_for(in_flight=1)
            usual = waits_s(client, "/pay")
            longest = next(wait for _ in range(60) if (wait := waits_s(client, "/pay")) >= 64)
            assert usual <= 8 < longest
            assert waits_s(client, "/other") <= 8
            go_on.set()
        worker.wait_for(in_flight=0)
