"""
The bodies of one exchange on their way through: what a request carries, whether it may pass, how each part is written on.

A body leaves framed as it came, with one exception: an answer without length goes to a 1.1 client in chunks.
"""

from __future__ import annotations

from typing import Final

from sidecar.proxy.body import LAST_CHUNK, Body, ChunkedBody, LengthBody, encode_chunk
from sidecar.proxy.framing import RequestHead
from sidecar.proxy.headers import trailer_section
from sidecar.reasons import Reason, Refusal

NO_BODY: Final = LengthBody(0)  # complete from the start, so that one serves all
SKIPPED_BYTES: Final = 64 * 1024


def body_of(head: RequestHead) -> ChunkedBody | LengthBody:
    """Return the machine that finds the end of the request's body."""
    if head.chunked:
        return ChunkedBody()
    return LengthBody(head.content_length) if head.content_length else NO_BODY


def skippable(head: RequestHead, body: ChunkedBody | LengthBody, seen_bytes: int, *, done: bool) -> bool:
    """Tell whether what is missing of the body is little enough to be read and dropped, and sure to come."""
    if isinstance(body, ChunkedBody) or (head.expect_continue and not seen_bytes):
        return done
    return body.remaining <= SKIPPED_BYTES


def refusal_of(body: ChunkedBody | LengthBody, size: int, most: int | None) -> Refusal | None:
    """Refuse a body that is malformed, or has *size* bytes where *most* may pass."""
    if body.problem:
        return Refusal(Reason.BAD_REQUEST, 0.0, "framing", body.problem)
    if most is None or size <= most:
        return None
    return Refusal(Reason.BODY_TOO_LARGE, 0.0, "max_body", f"the body exceeds {most} bytes")


def request_part(head: RequestHead, body: ChunkedBody | LengthBody, payload: bytes, *, last: bool) -> bytes:
    """Write a part of the request's body as the API reads it."""
    if not head.chunked:
        return payload
    framed = encode_chunk(payload) if payload else b""
    return framed + trailer_section(body.trailers) if last else framed


def answer_part(payload: bytes, whole: Body | None) -> bytes:
    """Write a part of the answer's body in chunks; *whole* is the body when that was the last of it."""
    framed = encode_chunk(payload) if payload else b""
    if whole is None:
        return framed
    return framed + (trailer_section(whole.trailers) if whole.trailers else LAST_CHUNK)
