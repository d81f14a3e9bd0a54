"""
The receiver `webhook`: a signed POST of JSON.

Theory
    `X-Sidecar-Signature: sha256=HEX` with HEX = HMAC-SHA256(secret, timestamp + "." + body), as Stripe and GitHub do
    it. The timestamp is inside the signature, so a receiver that refuses old ones cannot be fed a recorded message.
    `X-Sidecar-Id` is the same for every repetition of one message.

Table
    answer                              then
    2xx                                 sent
    408, 429, 5xx, no answer, timeout   again later; `Retry-After` is honoured
    3xx                                 final: redirects are not followed, a signed message goes where it was meant to
    other 4xx                           final

What can go wrong
    The secret is rotated: it is read from its file at each send. The file is missing: an unsigned message would be
    worse than a late one, so this counts as "again later". The answer's body is never read: it may be endless.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

import aiohttp

from sidecar import __version__, clock
from sidecar.config.policies import ReceiverPolicy
from sidecar.notify.message import Failed, Message, Sent

TIMEOUT_S: Final = 10.0
_AGAIN: Final = frozenset({408, 425, 429})


def signature(secret: bytes, timestamp: str, body: bytes) -> str:
    """Return the value of `X-Sidecar-Signature`."""
    return "sha256=" + hmac.new(secret, timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


class WebhookReceiver:
    """Posts each message to one URL."""

    def __init__(self, policy: ReceiverPolicy, wall: Callable[[], datetime] = clock.wall) -> None:
        self._policy = policy
        self._wall = wall

    def __repr__(self) -> str:
        return f"<WebhookReceiver {self._policy.name}>"

    async def send(self, message: Message) -> Sent | Failed:
        """Post *message* once."""
        try:
            secret = await asyncio.to_thread(self._secret)
        except OSError as error:
            return Failed(f"secret_file {self._policy.secret_file} cannot be read: {error.strerror}")
        body = json.dumps(message.document(), ensure_ascii=False).encode()
        try:
            return await self._post(body, self._headers(message.id, secret, body))
        except TimeoutError:
            return Failed(f"no answer within {TIMEOUT_S:g} s")
        except aiohttp.InvalidURL:
            return Failed("the url is not valid", final=True)
        except (aiohttp.ClientError, OSError) as error:
            return Failed(f"the connection failed: {error or type(error).__name__}")

    def _secret(self) -> bytes | None:
        if not self._policy.secret_file:
            return None
        secret = Path(self._policy.secret_file).read_bytes().strip()
        if not secret:
            raise OSError(0, "it is empty")
        return secret

    def _headers(self, message_id: str, secret: bytes | None, body: bytes) -> dict[str, str]:
        timestamp = str(int(self._wall().timestamp()))
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"sidecar/{__version__}",
            "X-Sidecar-Id": message_id,
            "X-Sidecar-Timestamp": timestamp,
        }
        if secret is not None:
            headers["X-Sidecar-Signature"] = signature(secret, timestamp, body)
        return headers

    async def _post(self, body: bytes, headers: dict[str, str]) -> Sent | Failed:
        # A session for each message: there are a few an hour, and nothing then has to be kept alive or closed.
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with (
            aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.post(self._policy.url, data=body, headers=headers, allow_redirects=False) as response,
        ):
            return judge(response.status, response.headers.get("Retry-After"))


def judge(status: int, retry_after: str | None) -> Sent | Failed:
    """Return what an answer means."""
    if 200 <= status < 300:
        return Sent()
    if 300 <= status < 400:
        return Failed(f"answered {status}: redirects are not followed; write the final url", final=True)
    if status < 500 and status not in _AGAIN:
        return Failed(f"answered {status}", final=True)
    pause = float(retry_after) if retry_after and retry_after.isdecimal() and len(retry_after) < 6 else None
    return Failed(f"answered {status}", retry_after_s=pause)
