"""
Which fields cross the sidecar, and which it sets itself (RFC 9110, section 7.6; RFC 7239; W3C Trace Context).

Theory.   A field belongs to one hop or to the whole way. What belongs to the hop ends here, in both directions: the known
          hop-by-hop fields and those that Connection nominates. What the sidecar vouches for (who the client is, which way
          the message came) is removed first and set after, so that nobody outside can write it, neither by
          nominating it nor by a spelling that only the upstream equates (`X_Forwarded_For` under CGI and WSGI).

Tables.   field                          request                          response
          Connection, Keep-Alive,        dropped                          dropped; `close` or `keep-alive` as we decide
          Transfer-Encoding, Upgrade
          Proxy-*                        dropped                          dropped, but Proxy-Status
          nominated by Connection        dropped                          dropped
          spelled with `_` what is       dropped                          –
          in this table with `-`
          TE                             `trailers` only, as              dropped
                                         Connection: te asks
          Trailer                        with a chunked body only         with a chunked body only
          Expect                         `100-continue` passed: the       –
                                         upstream's own 100 is relayed
          Content-Length                 written from the number          written from the number; none on 1xx, 204
          Host                           written first                    –
          Via                            ours appended                    ours appended
          X-Forwarded-For, -Proto,       untrusted peer: overwritten;     –
          -Host, Forwarded               trusted: appended, kept
          X-Forwarded*, X-Real-IP        untrusted peer: dropped          –
          Client-Cert, -Chain            untrusted peer: dropped; ours    –
                                         where TLS verified one (RFC 9440)
          traceparent                    passed when valid, else new      –
          tracestate                     passed with a valid traceparent  –
          Cookie `sidecar_session`       removed (the console's)          –
          Date, Server, all others       passed                           passed

          Names come in few combinations, so what is to be done is planned once for each (512 combinations are remembered).

What can go wrong. A new traceparent says "sampled", as a service whose sampler follows its parent would trace nothing otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from sidecar.proxy.addresses import as_forwarded, as_forwarded_for, read_chain
from sidecar.proxy.framing import Memo, RequestHead, ResponseHead
from sidecar.proxy.hop import Hop, Peer
from sidecar.proxy.memory import Memory

CONSOLE_COOKIE: Final = b"sidecar_session"

_HOP_BY_HOP: Final = frozenset(
    (b"connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"te", b"trailer", b"http2-settings")
)
# These never pass a request as they came; what comes back is written by us.
_GUARDED: Final = _HOP_BY_HOP | {
    b"host", b"content-length", b"expect", b"via", b"traceparent", b"tracestate",
    b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"forwarded",
}  # fmt: skip
_GUARDED_BACK: Final = _HOP_BY_HOP | {b"content-length"}
# A trailer must not say what a head's reader has acted upon already (RFC 9110, section 6.5.1).
_NOT_IN_TRAILERS: Final = _GUARDED | {
    b"authorization", b"set-cookie", b"content-encoding", b"content-type", b"content-range", b"cache-control",
    b"expires", b"age", b"date", b"location", b"vary", b"range", b"max-forwards", b"pragma", b"cookie", b"proxy-status",
    b"client-cert", b"client-cert-chain",
}  # fmt: skip
_SPECIAL: Final = frozenset((b"via", b"te", b"trailer", b"traceparent", b"expect"))

_SUSPICIOUS: Final = (b"x-forwarded", b"x-real-ip", b"client-cert", b"proxy-")
_OF_THE_PEER: Final = frozenset((b"x-real-ip", b"client-cert", b"client-cert-chain"))
_TRACE: Final = re.compile(rb"(?!ff)([0-9a-f]{2})-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
_COOKIE: Final = re.compile(rb"(?:^|(?<=;))[ \t]*" + CONSOLE_COOKIE + rb"[ \t]*=[^;]*(?:;|$)")
_REMEMBERED_NAMES: Final = 1024
_MEMO_KEYS: Final = 8  # peers, or ways to answer, that are remembered with one head

_join_pair: Final = b": ".join


class _Plan(NamedTuple):
    """
    What a combination of names asks for.

    Attributes:
        sift: Some need a look at each line: forwarding fields beyond those that we write, Proxy-*, `_`.
        drop: Names that never pass as they came.
        special: Some of the rest have a meaning for us.
    """

    sift: bool
    drop: tuple[bytes, ...]
    special: bool


def _plan(names: tuple[bytes, ...]) -> _Plan:
    sift = any(name.startswith(_SUSPICIOUS) or b"_" in name for name in names if name not in _GUARDED)
    return _Plan(sift, tuple(_GUARDED.intersection(names)), not _SPECIAL.isdisjoint(names))


def _plan_back(names: tuple[bytes, ...]) -> _Plan:
    sift = any(name.startswith(b"proxy-") for name in names)
    return _Plan(sift, tuple(_GUARDED_BACK.intersection(names)), special=False)


_plans: Final[Memory[tuple[bytes, ...], _Plan]] = Memory(512)
_plans_back: Final[Memory[tuple[bytes, ...], _Plan]] = Memory(512)


def _plan_of(names: tuple[bytes, ...]) -> _Plan:
    """Make a plan that is not remembered yet."""
    plan = _plan(names)
    return _plans.keep(names, plan) if _short(names) and _plans.again(names) else plan


def _plan_back_of(names: tuple[bytes, ...]) -> _Plan:
    plan = _plan_back(names)
    return _plans_back.keep(names, plan) if _short(names) and _plans_back.again(names) else plan


def _short(names: tuple[bytes, ...]) -> bool:
    return sum(map(len, names)) <= _REMEMBERED_NAMES


def request_head(head: RequestHead, peer: Peer, hop: Hop, trace: bytes, authority: bytes = b"") -> bytes:
    """
    Write the request as it goes to the upstream, always as HTTP/1.1, from its first byte to the blank line.

    The body is framed as the client framed it: by length, or chunked.

    Args:
        head: The client's request.
        peer: The connection that it came on.
        hop: This install.
        trace: A new traceparent with the blank line (`trace.py`); used only when there is no valid one.
        authority: The Host for the upstream where the client (of HTTP/1.0) named none.
    """
    memo = head.memo
    if memo is None or not head.host:
        lines = _request_fields(head, peer, hop, head.host or authority)
    else:
        key = (hop, peer.lines, peer.trusted)  # address, scheme and certificate: two clients never share what names one
        lines = memo.get(key) or remember(memo, key, _request_fields(head, peer, hop, head.host))
    traced = not hop.tracing or (b"traceparent" in head.named and _traced(head))
    return b"".join((head.line, lines, b"\r\n" if traced else trace))


def remember(memo: Memo, key: tuple[object, ...], made: bytes) -> bytes:
    """Keep *made* under *key*, and few others; return it."""
    if len(memo) >= _MEMO_KEYS:
        memo.clear()
    memo[key] = made
    return made


def _request_fields(head: RequestHead, peer: Peer, hop: Hop, host: bytes) -> bytes:
    """Write the fields of a request, all but a new traceparent."""
    named = head.named
    plan = _plans.kept.get(head.names) or _plan_of(head.names)
    cookie = named.get(b"cookie")
    console = cookie is not None and CONSOLE_COOKIE in cookie
    if plan.sift or console or head.nominated or head.repeated is not None:
        text = _sifted(head, peer)
    else:
        if plan.drop:
            named = named.copy()
            for name in plan.drop:
                del named[name]
        text = b"\r\n".join(map(_join_pair, named.items())) + b"\r\n" if named else b""
    return b"".join(
        (
            b"host: ",
            host,
            b"\r\n",
            text,
            _from_trusted(head, peer, host) if peer.trusted else _from_peer(peer, host),
            _special(head, hop) if plan.special else hop.via[head.minor],
            _framing(head),
        )
    )


def _sifted(head: RequestHead, peer: Peer) -> bytes:
    """Look at the fields line by line: the way for heads with repeated, nominated or suspicious names."""
    lines = []
    for name, value in head.fields:
        if not _passes(name, head.nominated, peer):
            continue
        if name == b"cookie" and CONSOLE_COOKIE in value:
            value = _COOKIE.sub(b"", value).strip(b" \t;")  # noqa: PLW2901 - the line without the console's part
            if not value:
                continue
        lines.append(b"%b: %b\r\n" % (name, value))
    return b"".join(lines)


def _passes(name: bytes, nominated: frozenset[bytes], peer: Peer) -> bool:
    dashed = name.replace(b"_", b"-")
    if dashed in _GUARDED or name in nominated or dashed.startswith(b"proxy-"):
        return False
    return (peer.trusted and dashed == name) or not (dashed in _OF_THE_PEER or dashed.startswith(b"x-forwarded"))


def _from_peer(peer: Peer, host: bytes) -> bytes:
    """Write who the client is and what it asked for: an untrusted peer is the client."""
    return b'%bx-forwarded-host: %b\r\nforwarded: %b;host="%b"\r\n' % (peer.lines, host, peer.element, host)


def _from_trusted(head: RequestHead, peer: Peer, host: bytes) -> bytes:
    """Append the peer to the chains that it sent; where it sent one only, the other is made from it."""
    get = head.named.get
    known, before = get(b"x-forwarded-for"), get(b"forwarded")
    if known is None and before is not None:
        known = as_forwarded_for(read_chain(head.named))
    elif before is None and known is not None:
        before = as_forwarded(read_chain(head.named))
    address, element = peer.address.encode("ascii"), b'%b;host="%b"' % (peer.element, host)
    proto = get(b"x-forwarded-proto", b"").lower()
    return b"x-forwarded-for: %b\r\nx-forwarded-proto: %b\r\nx-forwarded-host: %b\r\nforwarded: %b\r\n" % (
        b"%b, %b" % (known, address) if known else address,
        proto if proto in (b"http", b"https") else peer.scheme,
        get(b"x-forwarded-host") or host,
        b"%b, %b" % (before, element) if before else element,
    )


def _special(head: RequestHead, hop: Hop) -> bytes:
    """Write the fields that pass under a condition, and our Via behind the others'."""
    get = head.named.get
    via = get(b"via")
    text = hop.via[head.minor] if not via else b"via: %b\r\n%b" % (via, hop.via[head.minor])
    trailer, te = get(b"trailer"), get(b"te")
    if trailer and head.chunked:
        text += b"trailer: %b\r\n" % trailer
    if te is not None and b"trailers" in te.lower().replace(b" ", b"").split(b","):
        text += b"te: trailers\r\nconnection: te\r\n"
    if head.expect_continue:
        text += b"expect: 100-continue\r\n"
    if _traced(head):
        state = get(b"tracestate")
        text += b"traceparent: %b\r\n%b" % (head.named[b"traceparent"], b"tracestate: %b\r\n" % state if state else b"")
    return text


def _framing(head: RequestHead) -> bytes:
    if head.chunked:
        return b"transfer-encoding: chunked\r\n"
    return b"" if head.content_length is None else b"content-length: %d\r\n" % head.content_length


def _traced(head: RequestHead) -> bool:
    """Tell whether the request brings a valid traceparent (W3C Trace Context, level 2, section 3.2)."""
    parent = head.named.get(b"traceparent")
    match = None if parent is None or b"traceparent" in head.nominated else _TRACE.fullmatch(parent)
    return match is not None and (match[1] != b"00" or match[2] is None)


def trace_id(head: RequestHead, hop: Hop, trace: bytes) -> str:
    """Return the trace id that `request_head` sent; empty when it sent none."""
    if _traced(head):
        return head.named[b"traceparent"][3:35].decode("ascii")
    return trace[16:48].decode("ascii") if hop.tracing else ""


def response_head(
    response: ResponseHead,
    hop: Hop,
    minor: int,
    close: bool,  # noqa: FBT001 - hot path: positional
    limits: bytes = b"",
) -> bytes:
    """
    Write the response as it goes to the client, always as HTTP/1.1, from its first byte to the blank line.

    A body without length becomes chunked for a 1.1 client and lasts until close for a 1.0 client; see `rechunks`.

    Args:
        response: The upstream's response.
        hop: This install.
        minor: The client's HTTP/1.x.
        close: The connection ends with this response.
        limits: The field lines of our own limits. They are lists, of which a client heeds the strictest member
            (draft-ietf-httpapi-ratelimit-headers, section 2), so behind the API's own they never loosen it.
    """
    memo = response.memo
    if memo is None:
        text = _response_head(response, hop, minor, close=close)
    else:
        key = (hop, minor, close)
        text = memo.get(key) or remember(memo, key, _response_head(response, hop, minor, close=close))
    return b"%b%b\r\n" % (text, limits)


def _response_head(response: ResponseHead, hop: Hop, minor: int, *, close: bool) -> bytes:
    named = response.named
    plan = _plans_back.kept.get(response.names) or _plan_back_of(response.names)
    if plan.sift or response.nominated or response.repeated is not None:
        nominated = response.nominated
        text = b"".join([b"%b: %b\r\n" % pair for pair in response.fields if _returns(pair[0], nominated)])
    else:
        if plan.drop:
            named = named.copy()
            for name in plan.drop:
                del named[name]
        text = b"\r\n".join(map(_join_pair, named.items())) + b"\r\n" if named else b""
    return b"".join(
        (
            response.line,
            text,
            _framing_back(response, minor),
            hop.via[response.minor],
            b"connection: close\r\n" if close else b"" if minor else b"connection: keep-alive\r\n",
        )
    )


def _returns(name: bytes, nominated: frozenset[bytes]) -> bool:
    if name in _GUARDED_BACK or name in nominated:
        return False
    return not name.startswith(b"proxy-") or name == b"proxy-status"


def _framing_back(response: ResponseHead, minor: int) -> bytes:
    if response.status < 200 or response.status == 204:
        return b""
    if response.content_length is not None:
        return b"content-length: %d\r\n" % response.content_length
    if not rechunks(response, minor):
        return b""
    trailer = response.named.get(b"trailer")
    announced = b"trailer: %b\r\n" % trailer if trailer and response.chunked else b""
    return b"transfer-encoding: chunked\r\n" + announced


def rechunks(response: ResponseHead, minor: int) -> bool:
    """Tell whether the body goes to a client of HTTP/1.*minor* in chunks."""
    return minor == 1 and not response.bodiless and response.content_length is None


def must_close(response: ResponseHead, minor: int) -> bool:
    """Tell whether only closing can end the body: it has no length and the client knows no chunks."""
    return minor == 0 and not response.bodiless and response.content_length is None


def trailer_section(trailers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Write the last chunk with the trailer fields that may stand there."""
    kept = [b"%b: %b\r\n" % pair for pair in trailers if pair[0].replace(b"_", b"-") not in _NOT_IN_TRAILERS]
    return b"0\r\n%b\r\n" % b"".join(kept)
