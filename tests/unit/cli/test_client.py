"""The CLI's line to the API: whatever answers, or does not, becomes one clear failure with the right exit code."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import pytest

from sidecar.cli.client import Client, Exit, Failure, find_admin, find_token, quoted, token_origin
from tests.support import documents as d
from tests.support.admin import admin_server
from tests.support.control import SECRETS


@pytest.fixture
def admin() -> Iterator[str]:
    with admin_server() as url:
        yield url


class Peer:
    """A listener that says so to one connection after the other, and is gone then; `unix` when *path* is given."""

    def __init__(self, *answers: bytes, path: Path | None = None) -> None:
        self._answers = answers
        self._socket = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
        self._socket.bind(str(path) if path else ("127.0.0.1", 0))
        self._socket.listen()
        self.url = f"unix:{path}" if path else f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self.heard: list[bytes] = []
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(10.0)

    @property
    def got(self) -> bytes:
        return self.heard[-1]

    def _serve(self) -> None:
        with self._socket:
            for answer in self._answers:
                connection, _ = self._socket.accept()
                with connection:
                    self.heard.append(connection.recv(65536))
                    connection.sendall(answer)


def key_of(request: bytes) -> bytes:
    (line,) = (line for line in request.split(b"\r\n") if line.lower().startswith(b"idempotency-key:"))
    return line.partition(b":")[2].strip()


def test_a_change_that_was_cut_off_is_asked_for_once_more() -> None:
    """A controller that dies under a call is asked again with the same key, so that nothing is done twice; never a third time."""
    done = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    with Peer(b"", done) as peer:
        assert Client(peer.url, "t").call("POST", "/incidents/1/confirm", body={}).body == {}
    assert key_of(peer.heard[0]) == key_of(peer.heard[1])
    with Peer(b"", b"") as peer, pytest.raises(Failure):
        Client(peer.url, "t").call("POST", "/incidents/1/confirm", body={})
    assert len(peer.heard) == 2


def test_every_change_has_a_key_of_its_own() -> None:
    """Two calls are two keys, and a reading call has none."""
    done = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    with Peer(done, done, done) as peer:
        client = Client(peer.url, "t")
        for _ in range(2):
            client.call("POST", "/drills/stop", body={})
        client.get("/status")
    assert key_of(peer.heard[0]) != key_of(peer.heard[1])
    assert b"idempotency-key" not in peer.heard[2].lower()


def test_answer_carries_time_and_etag(admin: str) -> None:
    """An answer knows the sidecar's own time and the version's ETag."""
    answer = Client(admin, SECRETS["viewer"]).get("/config")
    assert (answer.body, answer.now, answer.etag) == (d.CONFIG, datetime.fromisoformat(d.NOW), '"v7"')


def test_events_start_after_an_id(admin: str) -> None:
    """The stream goes on after the last id."""
    stream = Client(admin, SECRETS["viewer"]).events("40")
    assert next(iter(stream)) == d.EVENT


BROKEN = [
    (b"", "Remote end closed connection|no sidecar answers"),
    (b"SSH-2.0-OpenSSH_9.2\r\n", "no sidecar answers"),
    (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{", "no sidecar answers"),
    (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5\r\n\r\n{oops", "no sidecar answers"),
]


@pytest.mark.parametrize(("answer", "words"), BROKEN)
def test_whatever_answers_there_is_no_sidecar(answer: bytes, words: str) -> None:
    """Another server, a broken answer, a closed connection: exit 3, never a stack trace."""
    with Peer(answer) as peer, pytest.raises(Failure, match=words) as failed:
        Client(peer.url, "t").get("/status")
    assert failed.value.code is Exit.UNREACHABLE


def test_unix_socket(tmp_path: Path) -> None:
    """The admin API may be a Unix socket, and is asked as localhost."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
    with Peer(answer, path=tmp_path / "s") as peer:
        assert Client(peer.url, "secret").get("/status", limit=3, state=None).body == {}
    assert peer.got.startswith(b"GET /api/v1/status?limit=3 HTTP/1.1\r\nHost: localhost\r\n")
    assert b"Authorization: Bearer secret\r\n" in peer.got


STATUSES = [
    (400, 2),
    (413, 2),
    (422, 2),
    (401, 1),
    (403, 1),
    (404, 1),
    (409, 1),
    (412, 1),
    (429, 1),
    (500, 1),
    (503, 1),
]


@pytest.mark.parametrize(("status", "code"), STATUSES)
def test_exit_codes_of_statuses(status: int, code: int) -> None:
    """Invalid input is 2, every other no is 1; the problem's own words are kept."""
    body = b'{"detail": "no, because", "hint": "type this"}'
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/problem+json\r\nContent-Length: {len(body)}\r\n\r\n"
    with Peer(head.encode() + body) as peer, pytest.raises(Failure, match="no, because") as failed:
        Client(peer.url, "t").get("/status")
    assert (failed.value.code, bool(failed.value.hint)) == (code, True)


@pytest.mark.parametrize("kind", ["text/plain", "text/html", "application/json"])
def test_another_server_is_told_from_an_admin_api(kind: str) -> None:
    """A refusal that is no problem document comes from another port or server: it says so and is 3, whatever its body."""
    head = f"HTTP/1.1 404 Not Found\r\nContent-Type: {kind}\r\nContent-Length: 2\r\n\r\n{{}}"
    with Peer(head.encode()) as peer, pytest.raises(Failure, match=f"is no admin API: 404 with {kind}") as failed:
        Client(peer.url, "t").get("/status")
    assert failed.value.code is Exit.UNREACHABLE
    assert "--admin http://127.0.0.1:9901" in failed.value.hint


@pytest.mark.parametrize("url", ["localhost", "ftp://h", "http://", "http://h:99999", "http://h:port", "http://[::1"])
def test_bad_address(url: str) -> None:
    """An address that is none is a usage error."""
    with pytest.raises(Failure, match="is not an address") as failed:
        Client(url, "t").get("/status")
    assert failed.value.code is Exit.USAGE


def test_token_that_is_not_ascii() -> None:
    """A token that no header can carry is a usage error."""
    with Peer(b"") as peer:
        with pytest.raises(Failure, match="not ASCII") as failed:
            Client(peer.url, "sécrét…").get("/status")
        socket.create_connection(("127.0.0.1", int(peer.url.rpartition(":")[2]))).close()
    assert failed.value.code is Exit.USAGE


def test_where_the_token_is_found(tmp_path: Path) -> None:
    """First --token-file, then SIDECAR_TOKEN, SIDECAR_TOKEN_FILE, then <state>/admin.token; else none."""
    flag, named, state = tmp_path / "flag", tmp_path / "named", tmp_path / "var"
    state.mkdir()
    for file, text in ((flag, "flag\n"), (named, "named\n"), (state / "admin.token", "state\n")):
        file.write_text(text)
    environ = {"SIDECAR__STATE": str(state)}
    assert find_token(None, environ) == "state"
    environ["SIDECAR_TOKEN_FILE"] = str(named)
    assert find_token(None, environ) == "named"
    assert token_origin(None, environ) == f"from SIDECAR_TOKEN_FILE, {named}"
    environ["SIDECAR_TOKEN"] = " variable "
    assert find_token(None, environ) == "variable"
    assert token_origin(None, environ) == "from SIDECAR_TOKEN"
    assert find_token(flag, environ) == "flag"
    assert token_origin(flag, environ) == f"from --token-file {flag}"
    assert token_origin(None, {"SIDECAR__STATE": "/none"}) == "none was given, and there is no /none/admin.token here"
    assert find_token(None, {"SIDECAR__STATE": str(tmp_path)}) == ""
    with pytest.raises(Failure, match="cannot be read"):
        find_token(tmp_path / "none", environ)


def test_where_the_api_is_found() -> None:
    """First --admin, then SIDECAR_ADMIN, then the default."""
    environ = {"SIDECAR_ADMIN": "unix:/run/s"}
    assert [find_admin("http://h:1", environ), find_admin(None, environ), find_admin(None, {})] == [
        "http://h:1", "unix:/run/s", "http://127.0.0.1:9901",
    ]  # fmt: skip


def test_a_scope_is_one_segment() -> None:
    """Colons and slashes of a scope are percent-encoded."""
    assert quoted("client:a:2001:db8::/64") == "client%3Aa%3A2001%3Adb8%3A%3A%2F64"


def test_local_answers_have_the_present_time() -> None:
    """An answer that this machine gives itself is as of now."""
    from sidecar.cli.client import Answer

    assert Answer.local({}).now.tzinfo is UTC
