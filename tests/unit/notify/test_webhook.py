"""A webhook is signed, goes to its own address only, and knows which answers are worth a repetition."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from sidecar.config.policies import ReceiverPolicy
from sidecar.notify.message import Failed, Message, Sent
from sidecar.notify.webhook import WebhookReceiver, judge, signature
from tests.support import documents as d

MESSAGE = Message("id-1", "opened", d.INCIDENT, "checkout fails: ü", urgent=True, time=d.NOW)


class Hook:
    """A real HTTP server that remembers what it was sent."""

    def __init__(self) -> None:
        self.status = 200
        self.got: list[tuple[web.Request, bytes]] = []

    async def take(self, request: web.Request) -> web.Response:
        self.got.append((request, await request.read()))
        headers = {"Location": "/elsewhere", "Retry-After": "7"}
        return web.Response(status=self.status, headers=headers)


@pytest.fixture
async def hook() -> AsyncIterator[tuple[Hook, str]]:
    made = Hook()
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", made.take)
    async with TestServer(app) as server:
        yield made, str(server.make_url("/alerts"))


async def test_signed_message_arrives(hook: tuple[Hook, str], tmp_path: Path) -> None:
    """The body is the message, and its signature covers timestamp and body."""
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    made, url = hook
    receiver = WebhookReceiver(
        ReceiverPolicy("pager", "webhook", url, str(secret)), wall=lambda: datetime(2026, 3, 1, tzinfo=UTC)
    )
    assert await receiver.send(MESSAGE) == Sent()
    [(request, body)] = made.got
    stamp = "1772323200"
    expected = "sha256=" + hmac.new(b"s3cret", stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    assert request.headers["X-Sidecar-Signature"] == expected == signature(b"s3cret", stamp, body)
    assert (request.headers["X-Sidecar-Timestamp"], request.headers["X-Sidecar-Id"]) == (stamp, "id-1")
    assert json.loads(body) == {
        "version": 1, "id": "id-1", "kind": "opened", "time": d.NOW, "urgent": True, "text": "checkout fails: ü",
        "commands": d.INCIDENT["commands"], "incident": d.INCIDENT,
    }  # fmt: skip


async def test_rotated_secret_is_used_at_once(hook: tuple[Hook, str], tmp_path: Path) -> None:
    """The secret is read at each send."""
    secret = tmp_path / "secret"
    made, url = hook
    receiver = WebhookReceiver(ReceiverPolicy("pager", "webhook", url, str(secret)))
    for text in ("one", "two"):
        secret.write_text(text)
        await receiver.send(MESSAGE)
    for (request, body), text in zip(made.got, (b"one", b"two"), strict=True):
        stamp = request.headers["X-Sidecar-Timestamp"]
        assert request.headers["X-Sidecar-Signature"] == signature(text, stamp, body)


@pytest.mark.parametrize("content", [None, "", " \n"])
async def test_no_secret_no_message(hook: tuple[Hook, str], tmp_path: Path, content: str | None) -> None:
    """A secret file that is missing or empty sends nothing unsigned, and is worth a repetition."""
    secret = tmp_path / "secret"
    if content is not None:
        secret.write_text(content)
    made, url = hook
    outcome = await WebhookReceiver(ReceiverPolicy("pager", "webhook", url, str(secret))).send(MESSAGE)
    assert isinstance(outcome, Failed)
    assert not outcome.final
    assert str(secret) in outcome.problem
    assert made.got == []


async def test_unsigned_without_secret_file(hook: tuple[Hook, str]) -> None:
    """Without secret_file there is no signature."""
    made, url = hook
    assert await WebhookReceiver(ReceiverPolicy("hook", "webhook", url)).send(MESSAGE) == Sent()
    assert "X-Sidecar-Signature" not in made.got[0][0].headers


async def test_redirects_are_not_followed(hook: tuple[Hook, str]) -> None:
    """A redirect is final, and nothing goes to where it points."""
    made, url = hook
    made.status = 307
    outcome = await WebhookReceiver(ReceiverPolicy("hook", "webhook", url)).send(MESSAGE)
    assert outcome == Failed("answered 307: redirects are not followed; write the final url", final=True)
    assert [request.path for request, _ in made.got] == ["/alerts"]


async def test_nobody_listens(closed_port: int) -> None:
    """A refused connection is told, and worth a repetition."""
    receiver = WebhookReceiver(ReceiverPolicy("hook", "webhook", f"http://127.0.0.1:{closed_port}/"))
    outcome = await receiver.send(MESSAGE)
    assert isinstance(outcome, Failed)
    assert (outcome.final, "connection failed" in outcome.problem) == (False, True)


JUDGED = [
    (200, None, Sent()),
    (204, None, Sent()),
    (301, None, Failed("answered 301: redirects are not followed; write the final url", final=True)),
    (400, None, Failed("answered 400", final=True)),
    (404, "5", Failed("answered 404", final=True)),
    (408, None, Failed("answered 408")),
    (429, "30", Failed("answered 429", retry_after_s=30.0)),
    (429, "Wed, 21 Oct 2026 07:28:00 GMT", Failed("answered 429")),
    (500, None, Failed("answered 500")),
    (503, "9999999", Failed("answered 503")),
]


@pytest.mark.parametrize(("status", "retry_after", "expected"), JUDGED)
def test_judge(status: int, retry_after: str | None, expected: object) -> None:
    """Which answers are final, and which pause is honoured."""
    assert judge(status, retry_after) == expected
