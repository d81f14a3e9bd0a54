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
          TE                             `trailers` only                  dropped
          Trailer                        with a chunked body only         with a chunked body only
          Expect                         `100-continue` passed: the       –
                                         upstream's own 100 is relayed
          Content-Length                 written from the number          written from the number; none on 1xx, 204
          Host                           written first                    –
          Via                            ours appended                    ours appended
          X-Forwarded-For, -Proto,       untrusted peer: overwritten;     –
          -Host, Forwarded               trusted: appended, kept
          X-Forwarded-*, X-Real-IP       untrusted peer: dropped          –
          traceparent                    passed when valid, else new      –
          tracestate                     passed with a valid traceparent  –
          Cookie `sidecar_session`       removed (the console's)          –
          Date, Server, all others       passed                           passed

What can go wrong. Of the two chains of a trusted peer X-Forwarded-For is believed before Forwarded, because proxies that know only
          one of them pass the other as the client wrote it, and nearly all of them know X-Forwarded-For. The client is the
          first address from the right that is not trusted; a hop that is no address ends the walk at its right neighbour.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from sidecar.proxy.framing import RequestHead, ResponseHead
from sidecar.reasons import Reason, Refusal

CONSOLE_COOKIE: Final = b"sidecar_session"
MAX_HOPS: Final = 32  # of a forwarding chain are looked at

_HOP_BY_HOP: Final = frozenset(
    (b"connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"te", b"trailer", b"http2-settings")
)
# Removed from every request; what comes back is written by us.
_OURS: Final = _HOP_BY_HOP | {b"host", b"content-length", b"expect", b"via"}
_FORWARDING: Final = frozenset((b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"forwarded"))
_SPOOFABLE: Final = _FORWARDING | {b"x-real-ip"}
_GUARDED: Final = _OURS | _SPOOFABLE | {b"traceparent", b"tracestate", b"cookie"}
_RESPONSE_OURS: Final = _HOP_BY_HOP | {b"content-length"}
# A trailer must not say what a head's reader has acted upon already (RFC 9110, section 6.5.1).
_NOT_IN_TRAILERS: Final = _GUARDED | {
    b"authorization", b"set-cookie", b"content-encoding", b"content-type", b"content-range", b"cache-control",
    b"expires", b"age", b"date", b"location", b"vary", b"range", b"max-forwards", b"pragma", b"proxy-status",
}  # fmt: skip

_TRACE: Final = re.compile(rb"(?!ff)([0-9a-f]{2})-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
_ELEMENT_FOR: Final = re.compile(r'(?:^|[;\s])for\s*=\s*(?:"([^"]*)"|([^;,\s"]*))', re.IGNORECASE)
_PORT: Final = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::\S*)?|([0-9.]+)(?::[0-9]+)?")
_COOKIE: Final = re.compile(rb"(?:^|(?<=;))[ \t]*" + CONSOLE_COOKIE + rb"[ \t]*=[^;]*(?:;|$)")

_join_pair: Final = b": ".join
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


class Peer(NamedTuple):
    """
    The other end of one downstream connection; computed once for all its requests.

    Attributes:
        address: Its address as text; `unknown` when the socket could not tell.
        key: Its client key: the address, an IPv6 one by its /64.
        trusted: Its forwarding fields count.
        node: How Forwarded names it.
        forwarded: Its element of Forwarded up to the host.
    """

    address: str
    key: str
    trusted: bool
    node: str
    lines: bytes
    forwarded: bytes


class Hop:
    """
    What this install adds to every message: its pseudonym, whom it trusts, its key.

    Immutable but for bounded memories of addresses and hashed values; a new config makes a new one.
    """

    def __init__(
        self, *, pseudonym: str, install_key: bytes, trusted: Sequence[str] = (), tracing: bool = True
    ) -> None:
        """
        Prepare all constant bytes.

        Args:
            pseudonym: This install's token in Via, as `sidecar-1a2b3c4d`.
            install_key: Secret of this install, for header client keys.
            trusted: CIDR texts or addresses.
            tracing: Make a traceparent where there is none.
        """
        self.pseudonym = pseudonym.encode("ascii")
        self.tracing = tracing
        self.via = (b"via: 1.0 %b\r\n" % self.pseudonym, b"via: 1.1 %b\r\n" % self.pseudonym)
        self._own = re.compile(rb"(?:^|[\s,])" + re.escape(self.pseudonym) + rb"(?:$|[\s,])")
        self._key = install_key
        self._networks: tuple[IPNetwork, ...] = tuple(ipaddress.ip_network(text, strict=False) for text in trusted)
        self._trusts = lru_cache(maxsize=4096)(self._is_trusted)
        self._hashed = lru_cache(maxsize=4096)(self._hash)

    def __repr__(self) -> str:
        return f"<Hop {self.pseudonym.decode()} trusting {len(self._networks)} networks>"

    def peer(self, address: str | None, scheme: str = "http") -> Peer:
        """Describe the other end of a connection; None is a peer that has gone before it could be asked."""
        found = _address(address or "")
        if found is None:
            return _peer("unknown", "unknown", "unknown", scheme, trusted=False)
        node = f'"[{found}]"' if found.version == 6 else str(found)
        return _peer(str(found), _key_of(found), node, scheme, trusted=self._trusts(str(found)))

    def loops(self, head: RequestHead) -> Refusal | None:
        """Refuse a request that has passed here before: its Via holds our own token."""
        via = head.named.get(b"via")
        return _LOOP if via is not None and self._own.search(via) else None

    def client_address(self, peer: Peer, head: RequestHead) -> str:
        """Return the client's address: the peer's own, or from the right the first one that no trusted peer has."""
        if not peer.trusted:
            return peer.address
        client = peer.address
        for hop in reversed(_chain(head)[-MAX_HOPS:]):
            found = _address(hop)
            if found is None:
                return client
            client = str(found)
            if not self._trusts(client):
                return client
        return client

    def client_key(self, rule: str, peer: Peer, head: RequestHead) -> str:
        """
        Return who the client is on a route.

        Args:
            rule: `address` or `header:NAME` in lower case; a request without that field falls back to the address.
            peer: The connection's other end.
            head: The request.

        Returns:
            An address, an IPv6 /64 as `2001:db8:1:2::/64`, or `h-` and 16 hex digits of HMAC(install key, value).
        """
        if rule.startswith("header:"):
            value = head.named.get(rule[7:].encode("ascii"))
            if value:
                return self._hashed(value) if len(value) <= 256 else self._hash(value)
        if not peer.trusted:
            return peer.key
        found = _address(self.client_address(peer, head))
        return peer.key if found is None else _key_of(found)

    def _hash(self, value: bytes) -> str:
        return "h-" + hmac.new(self._key, value, hashlib.sha256).hexdigest()[:16]

    def _is_trusted(self, address: str) -> bool:
        found = ipaddress.ip_address(address)
        return any(found.version == network.version and found in network for network in self._networks)


def request_head(head: RequestHead, peer: Peer, hop: Hop, trace: int) -> bytes:
    """
    Write the request as it goes to the upstream, always as HTTP/1.1, from its first byte to the blank line.

    The body is framed as the client framed it: by length, or chunked.

    Args:
        head: The client's request.
        peer: The connection that it came on.
        hop: This install.
        trace: 192 random bits for a new traceparent; used only when there is no valid one.
    """
    named = head.named
    names = b"\n".join(named)
    strict = b"x-forw" in names or b"_" in names or b"proxy-" in names or bool(head.nominated)
    if strict or head.repeated is not None:
        text = _filtered(head, peer)
    else:
        kept = named.copy()
        for name in _GUARDED.intersection(named):
            del kept[name]
        text = b"\r\n".join(map(_join_pair, kept.items()))
    return b"%b %b HTTP/1.1\r\nhost: %b\r\n%b%b%b\r\n" % (
        head.method.encode("ascii"),
        head.target,
        head.host,
        text + b"\r\n" if text else b"",
        _forwarding(head, peer),
        _special(head, hop, trace),
    )


def _special(head: RequestHead, hop: Hop, trace: int) -> bytes:
    """Write what depends on the message: framing, Via, trace, TE, Trailer, Cookie."""
    named = head.named
    get = named.get
    text = hop.via[head.minor]
    via = get(b"via")
    if via is not None:
        text = b"via: %b\r\n%b" % (via, text)
    if head.chunked:
        text += b"transfer-encoding: chunked\r\n"
        trailer = get(b"trailer")
        if trailer is not None:
            text += b"trailer: %b\r\n" % trailer
    elif head.content_length is not None:
        text += b"content-length: %d\r\n" % head.content_length
    if head.expect_continue:
        text += b"expect: 100-continue\r\n"
    te = get(b"te")
    if te is not None and b"trailers" in te.lower().replace(b" ", b"").split(b","):
        text += b"te: trailers\r\n"
    cookie = get(b"cookie")
    if cookie is not None and b"cookie" not in head.nominated:
        kept = _COOKIE.sub(b"", cookie).strip(b" \t;") if CONSOLE_COOKIE in cookie else cookie
        text += b"cookie: %b\r\n" % kept if kept else b""
    return text + _trace(head, hop, trace)


def _trace(head: RequestHead, hop: Hop, trace: int) -> bytes:
    parent = head.named.get(b"traceparent")
    if parent is not None:
        match = _TRACE.fullmatch(parent)
        if match is not None and (match[1] != b"00" or match[2] is None):
            state = head.named.get(b"tracestate")
            return b"traceparent: %b\r\n%b" % (parent, b"tracestate: %b\r\n" % state if state else b"")
    if not hop.tracing:
        return b""
    return b"traceparent: 00-%032x-%016x-01\r\n" % ((trace >> 64) & _ID_128 or 1, trace & _ID_64 or 1)


_ID_128: Final = 2**128 - 1
_ID_64: Final = 2**64 - 1


def _forwarding(head: RequestHead, peer: Peer) -> bytes:
    """Write who the client is and what it asked for."""
    host = head.host
    if not peer.trusted:
        return b'%bx-forwarded-host: %b\r\n%bhost="%b"\r\n' % (peer.lines, host, peer.forwarded, host)
    get = head.named.get
    chain = get(b"x-forwarded-for")
    ours = peer.forwarded[11:] + b'host="%b"' % host
    before = get(b"forwarded") or b", ".join(b"for=" + _node(hop) for hop in (_chain(head) if chain else ()))
    known = chain or ", ".join(_chain(head)).encode("ascii", "replace")
    proto = (get(b"x-forwarded-proto") or b"").lower()
    return b"x-forwarded-for: %b\r\nx-forwarded-proto: %b\r\nx-forwarded-host: %b\r\nforwarded: %b\r\n" % (
        b"%b, %b" % (known, peer.address.encode()) if known else peer.address.encode(),
        proto if proto in (b"http", b"https") else b"http",
        get(b"x-forwarded-host") or host,
        b"%b, %b" % (before, ours) if before else ours,
    )


def _filtered(head: RequestHead, peer: Peer) -> bytes:
    """Join the fields that pass, one by one: the way for heads with repeated, nominated or suspicious names."""
    return b"\r\n".join(b"%b: %b" % pair for pair in head.fields if _passes(pair[0], head.nominated, peer))


def _passes(name: bytes, nominated: frozenset[bytes], peer: Peer) -> bool:
    dashed = name.replace(b"_", b"-")
    if dashed in _GUARDED or name in nominated or dashed.startswith(b"proxy-"):
        return False
    return not dashed.startswith(b"x-forwarded-") or (peer.trusted and dashed == name)


def response_head(response: ResponseHead, hop: Hop, *, minor: int, close: bool) -> bytes:
    """
    Write the response as it goes to the client, always as HTTP/1.1, from its first byte to the blank line.

    A body without length becomes chunked for a 1.1 client and lasts until close for a 1.0 client; see `rechunks`.

    Args:
        response: The upstream's response.
        hop: This install.
        minor: The client's HTTP/1.x.
        close: The connection ends with this response.
    """
    named = response.named
    names = b"\n".join(named)
    if response.repeated is not None or response.nominated or b"proxy-" in names:
        text = b"\r\n".join(b"%b: %b" % pair for pair in response.fields if _returns(pair[0], response.nominated))
    else:
        drop = _RESPONSE_OURS.intersection(named)
        if drop:
            named = named.copy()
            for name in drop:
                del named[name]
        text = b"\r\n".join(map(_join_pair, named.items()))
    framing = b""
    if response.status >= 200 and response.status != 204:
        if response.content_length is not None:
            framing = b"content-length: %d\r\n" % response.content_length
        elif rechunks(response, minor):
            framing = b"transfer-encoding: chunked\r\n"
    return b"HTTP/1.1 %d %b\r\n%b%b%b%b\r\n" % (
        response.status,
        response.phrase,
        text + b"\r\n" if text else b"",
        framing,
        hop.via[response.minor],
        b"connection: close\r\n" if close else b"" if minor else b"connection: keep-alive\r\n",
    )


def rechunks(response: ResponseHead, minor: int) -> bool:
    """Tell whether the body goes to a client of HTTP/1.*minor* in chunks."""
    return minor == 1 and not response.bodiless and response.content_length is None


def must_close(response: ResponseHead, minor: int) -> bool:
    """Tell whether only closing can end the body: it has no length and the client knows no chunks."""
    return minor == 0 and not response.bodiless and response.content_length is None


def _returns(name: bytes, nominated: frozenset[bytes]) -> bool:
    if name in _RESPONSE_OURS or name in nominated:
        return False
    return not name.startswith(b"proxy-") or name == b"proxy-status"


def trailer_section(trailers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Write the last chunk with the trailer fields that may stand there."""
    kept = [b"%b: %b\r\n" % pair for pair in trailers if pair[0].replace(b"_", b"-") not in _NOT_IN_TRAILERS]
    return b"0\r\n%b\r\n" % b"".join(kept)


_LOOP: Final = Refusal(Reason.LOOP_DETECTED, 0.0, "via", "the request has passed this sidecar before")


def _peer(address: str, key: str, node: str, scheme: str, *, trusted: bool) -> Peer:
    lines = f"x-forwarded-for: {address}\r\nx-forwarded-proto: {scheme}\r\n".encode("ascii")
    return Peer(address, key, trusted, node, lines, f"forwarded: for={node};proto={scheme};".encode("ascii"))


def _address(text: str) -> IPAddress | None:
    """Read an address with or without port and brackets; an IPv4-mapped IPv6 address is the IPv4 one."""
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        match = _PORT.fullmatch(text)
        if match is None:
            return None
        try:
            found = ipaddress.ip_address(match[1] or match[2])
        except ValueError:
            return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def _key_of(address: IPAddress) -> str:
    if address.version == 4:
        return str(address)
    return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))


def _chain(head: RequestHead) -> list[str]:
    """List the hops that the request names, the nearest last."""
    chain = head.named.get(b"x-forwarded-for")
    if chain is not None:
        return [hop.strip() for hop in chain.decode("latin-1").split(",")]
    forwarded = head.named.get(b"forwarded")
    if forwarded is None:
        return []
    found = [_ELEMENT_FOR.search(element) for element in forwarded.decode("latin-1").split(",")]
    return [(match[1] or match[2]) if match is not None else "unknown" for match in found]


def _node(hop: str) -> bytes:
    """Name a hop as Forwarded does."""
    found = _address(hop)
    if found is None:
        return b"unknown"
    return f'"[{found}]"'.encode() if found.version == 6 else str(found).encode()
