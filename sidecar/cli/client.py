"""
The CLI's line to the admin API: one small blocking client on the standard library.

Every failure becomes a `Failure` with what went wrong, why, and what to type next; `cli/app.py` prints it and turns
its kind into the exit code.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from enum import IntEnum
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from sidecar import clock

DEFAULT_ADMIN: Final = "http://127.0.0.1:9901"
TIMEOUT_S: Final = 30.0
SILENCE_S: Final = 45.0  # three heartbeats of the event stream
_LOST: Final = (ConnectionResetError, BrokenPipeError, http.client.IncompleteRead)  # RemoteDisconnected is a reset, too


class Exit(IntEnum):
    """The exit codes that scripts rely on."""

    DONE = 0
    REFUSED = 1
    USAGE = 2
    UNREACHABLE = 3


class Failure(Exception):  # noqa: N818  a command that failed, not a kind of error
    """
    A command that did not do what it was asked.

    Attributes:
        code: The exit code.
        problem: What and where, in one sentence.
        hint: What to type next.
        errors: Single errors of an invalid config, as the API gives them.
    """

    def __init__(self, code: Exit, problem: str, hint: str = "", errors: tuple[Mapping[str, Any], ...] = ()) -> None:
        super().__init__(problem)
        self.code = code
        self.problem = problem
        self.hint = hint
        self.errors = errors


@dataclass(frozen=True, slots=True)
class Answer:
    """
    One answer.

    Attributes:
        body: Parsed JSON, or text where the API sends text.
        now: The sidecar's own wall time, so that "ago" is right although this machine's clock is wrong.
        etag: The ETag header; empty when there is none.
    """

    body: Any
    now: datetime
    etag: str = ""

    @classmethod
    def local(cls, body: Any) -> Answer:
        """Return an answer that this machine gives itself."""
        return cls(body, clock.wall())


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Client:
    """
    Calls the admin API.

    Args:
        admin: `http://HOST:PORT`, `https://…` or `unix:PATH`.
        token: The bearer token; empty sends none.
        origin: Where the token came from, for the message that it is refused.
    """

    def __init__(self, admin: str, token: str, origin: str = "") -> None:
        self._admin = admin
        self._token = token
        self._origin = origin

    def __repr__(self) -> str:
        return f"<Client of {self._admin}>"

    def get(self, path: str, **query: str | int | None) -> Answer:
        """Read *path* (below `/api/v1`); query values of None are left out."""
        return self.call("GET", path, query=query)

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | int | None] | None = None,
        body: bytes | Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        patience_s: float = 0.0,
    ) -> Answer:
        """
        Do one call; once more when the connection was lost meanwhile (a controller that starts anew), never twice.

        Args:
            body: A mapping goes as JSON, bytes as YAML.
            patience_s: How much longer than usual the answer may take.

        Raises:
            Failure: when there was no answer, or one of 400 and above.
        """
        key = {} if method == "GET" else {"Idempotency-Key": clock.token_bytes(16).hex()}
        sent = {**(headers or {}), **key}
        try:
            return self._call(method, path, query or {}, body, sent, patience_s)
        except Failure as failure:
            if not isinstance(failure.__cause__, _LOST):
                raise
        return self._call(method, path, query or {}, body, sent, patience_s)

    def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | int | None],
        body: bytes | Mapping[str, Any] | None,
        headers: Mapping[str, str],
        patience_s: float,
    ) -> Answer:
        connection, response = self._open(method, path, query, body, headers, TIMEOUT_S + patience_s)
        with contextlib.closing(connection):
            try:
                data = response.read()
            except (OSError, http.client.HTTPException) as error:
                raise self._unreachable(error) from error
        return self._judge(response, data)

    def events(self, last_id: str = "") -> Iterator[Mapping[str, Any]]:
        """Yield the live events; ends when the stream ends, or is silent for longer than its heartbeat."""
        return self.stream("/events", {}, {"Last-Event-ID": last_id} if last_id else {})

    def stream(
        self, path: str, query: Mapping[str, str | int | None], headers: Mapping[str, str] | None = None
    ) -> Iterator[Mapping[str, Any]]:
        """Yield the server-sent events of *path*; ends when they end, or are silent for longer than their heartbeat."""
        sent = {"Accept": "text/event-stream", **(headers or {})}
        connection, response = self._open("GET", path, query, None, sent, SILENCE_S)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            if response.status != http.HTTPStatus.OK:
                self._judge(response, response.read())
            for line in response:
                if line.startswith(b"data:"):
                    yield json.loads(line[5:])

    def lines(self, path: str, *, patience_s: float, **query: str | None) -> Iterator[str]:
        """Yield an endless answer's lines as they come; *patience_s* is the longest silence, on top of the usual one."""
        connection, response = self._open("GET", path, query, None, {}, TIMEOUT_S + patience_s)
        with contextlib.closing(connection):
            if response.status != http.HTTPStatus.OK:
                self._judge(response, response.read())
            try:
                for line in response:
                    yield line.decode("utf-8")
            except (OSError, http.client.HTTPException) as error:
                raise self._unreachable(error) from error

    def _open(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | int | None],
        body: bytes | Mapping[str, Any] | None,
        headers: Mapping[str, str],
        timeout_s: float,
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        sent = dict(headers)
        if self._token:
            sent["Authorization"] = f"Bearer {self._token}"
        data: bytes | None = None
        if isinstance(body, Mapping):
            sent["Content-Type"], data = "application/json", json.dumps(body).encode()
        elif body is not None:
            sent["Content-Type"], data = "application/yaml", body
        given = urlencode({name: value for name, value in query.items() if value is not None})
        target = f"/api/v1{path}" + (f"?{given}" if given else "")
        try:
            connection = self._connection(timeout_s)
            connection.request(method, target, body=data, headers=sent)
            return connection, connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        except UnicodeEncodeError as error:
            raise Failure(Exit.USAGE, "the token is not ASCII", "copy it again, without spaces and quotes") from error

    def _unreachable(self, error: Exception) -> Failure:
        return Failure(
            Exit.UNREACHABLE,
            f"no sidecar answers at {self._admin}: {why(error)}",
            "start one with `sidecar run -c config/sidecar.yaml`, or name it with --admin URL",
        )

    def _no_admin_api(self, status: int, kind: str) -> Failure:
        # An admin API says no with a problem only; another port of the sidecar, or another server, answers otherwise.
        return Failure(
            Exit.UNREACHABLE,
            f"what answers at {self._admin} is no admin API: {status} with {kind}",
            f"name the `admin` listener of the sidecar, such as --admin {DEFAULT_ADMIN}",
        )

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        if self._admin.startswith("unix:"):
            return _UnixConnection(self._admin.removeprefix("unix:"), timeout_s)
        try:
            parts = urlsplit(self._admin)
            host, port = parts.hostname, parts.port
        except ValueError:
            parts, host, port = urlsplit(""), None, None
        if parts.scheme not in ("http", "https") or not host:
            raise Failure(
                Exit.USAGE, f"--admin {self._admin!r} is not an address", f"use --admin {DEFAULT_ADMIN} or unix:PATH"
            )
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        return kind(host, port, timeout=timeout_s)

    def _judge(self, response: http.client.HTTPResponse, data: bytes) -> Answer:
        kind = response.headers.get_content_type()
        body: Any = data.decode("utf-8", "replace")
        if kind.endswith("json") and data:
            try:
                body = json.loads(data)
            except ValueError as error:
                raise self._unreachable(error) from error
        if response.status < http.HTTPStatus.BAD_REQUEST:
            return Answer(body, _time_of(response.headers.get("Date")), response.headers.get("ETag", ""))
        if kind != "application/problem+json" or not isinstance(body, dict):
            raise self._no_admin_api(response.status, kind)
        raise _failure(response.status, body, self._origin)


def _time_of(date: str | None) -> datetime:
    try:
        return parsedate_to_datetime(date or "")
    except ValueError:
        return clock.wall()


_HINTS: Final = {
    401: "the first token lies in the sidecar's state directory, by default var/admin.token; name the file with "
    "--token-file or SIDECAR_TOKEN_FILE",
    403: "use a token with that role or a higher one; an admin makes one with `sidecar token new`",
    404: "list what there is, such as `sidecar incident list`",
    503: "the store does not take writes; `sidecar status` says why",
}
_OUR_HINT: Final = (401, 403)  # the CLI knows better than the API what to type
_INVALID: Final = (400, 413, 415, 422)


def _failure(status: int, problem: Mapping[str, Any], origin: str = "") -> Failure:
    text = str(problem.get("detail") or problem.get("title") or f"the sidecar answered {status}")
    if status == http.HTTPStatus.UNAUTHORIZED and origin:
        text += f" ({origin})"
    own = _HINTS.get(status, "")
    hint = own if own and status in _OUR_HINT else str(problem.get("hint") or own)
    errors = tuple(problem.get("errors") or ())
    return Failure(Exit.USAGE if status in _INVALID else Exit.REFUSED, text, hint, errors)


def find_token(token_file: Path | None, environ: Mapping[str, str]) -> str:
    """
    Return the token: `--token-file`, then SIDECAR_TOKEN, SIDECAR_TOKEN_FILE, then `<state>/admin.token`; or "".

    Raises:
        Failure: when a file that was named cannot be read.
    """
    if token_file is None and (given := environ.get("SIDECAR_TOKEN")):
        return given.strip()
    named = token_file or (Path(name) if (name := environ.get("SIDECAR_TOKEN_FILE")) else None)
    fallback = Path(environ.get("SIDECAR__STATE", "var")) / "admin.token"
    try:
        return (named or fallback).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        if named is None:
            return ""
        raise Failure(
            Exit.USAGE, f"the token file {named} cannot be read: {why(error)}", "name a readable file with --token-file"
        ) from error


def token_origin(token_file: Path | None, environ: Mapping[str, str]) -> str:
    """Return in words where `find_token` takes the token from, or would."""
    if token_file is not None:
        return f"from --token-file {token_file}"
    for name in ("SIDECAR_TOKEN", "SIDECAR_TOKEN_FILE"):
        if given := environ.get(name):
            return f"from {name}" if name == "SIDECAR_TOKEN" else f"from {name}, {given}"
    fallback = Path(environ.get("SIDECAR__STATE", "var")) / "admin.token"
    return f"from {fallback}" if fallback.exists() else f"none was given, and there is no {fallback} here"


def find_admin(admin: str | None, environ: Mapping[str, str] = os.environ) -> str:
    """Return where the admin API is: `--admin`, then SIDECAR_ADMIN, then the default listener."""
    return admin or environ.get("SIDECAR_ADMIN") or DEFAULT_ADMIN


def why(error: Exception) -> str:
    """Return why, in words: an OSError without its number and repeated path."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def quoted(part: str) -> str:
    """Return *part* as one path segment."""
    return quote(part, safe="")
