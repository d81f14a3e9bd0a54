"""
Addresses as forwarding fields write them (X-Forwarded-For by habit, Forwarded by RFC 7239), read and written strictly.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from typing import Final

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_HOPS: Final = 32  # of a chain, from the right; a longer one is somebody's joke

_FOR: Final = re.compile(r'(?:^|;)\s*for\s*=\s*(?:"([^"]*)"|([^;"\s]*))', re.IGNORECASE)
_WITH_PORT: Final = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]+)?|([0-9.]+):[0-9]+")


def read_address(text: str) -> IPAddress | None:
    """
    Read an address, with or without port and brackets, or return None.

    An IPv4-mapped IPv6 address (`::ffff:192.0.2.1`, as dual-stack sockets report it) is the IPv4 one; a zone is dropped.
    """
    text = text.partition("%")[0]
    match = _WITH_PORT.fullmatch(text)
    if match is not None:
        text = match[1] or match[2]
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def client_key_of(address: IPAddress) -> str:
    """Return the key of a client that is known by its address: an IPv6 one by its /64, which one host can fill."""
    if address.version == 4:
        return str(address)
    return f"{ipaddress.IPv6Address(int(address) >> 64 << 64)}/64"


def node(address: IPAddress | None) -> str:
    """Name an address as Forwarded does."""
    if address is None:
        return "unknown"
    return f'"[{address}]"' if address.version == 6 else str(address)


def read_chain(named: Mapping[bytes, bytes]) -> list[str]:
    """List the hops that a message names, the nearest last; X-Forwarded-For before Forwarded."""
    chain = named.get(b"x-forwarded-for")
    if chain is not None:
        return [hop.strip(" \t") for hop in chain.decode("latin-1").split(",")[-MAX_HOPS:]]
    forwarded = named.get(b"forwarded")
    if forwarded is None:
        return []
    found = [_FOR.search(element) for element in forwarded.decode("latin-1").split(",")[-MAX_HOPS:]]
    return [match[1] or match[2] or "unknown" if match is not None else "unknown" for match in found]


def as_forwarded(chain: Iterable[str]) -> bytes:
    """Write hops as elements of Forwarded."""
    return ", ".join(f"for={node(read_address(hop))}" for hop in chain).encode("ascii")


def as_forwarded_for(chain: Iterable[str]) -> bytes:
    """Write hops as X-Forwarded-For."""
    return ", ".join(str(read_address(hop) or "unknown") for hop in chain).encode("ascii")
