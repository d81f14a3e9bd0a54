"""
Who may have sent this request at all: the two checks that keep a web page from using an operator's browser.

DNS rebinding: a page of evil.example can point its own name at 127.0.0.1 and then reads us as "same origin". Its
requests still carry `Host: evil.example`, so only names that are ours are served. An IP address in `Host` is always
fine, because rebinding needs a name.

Cross-site requests: browsers say on each request where it came from (`Sec-Fetch-Site`, Fetch Metadata) and, on unsafe
ones, from which origin (`Origin`, RFC 6454). Programs such as the CLI send neither.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping
from typing import Final
from urllib.parse import urlsplit

LOOPBACK_NAMES: Final = frozenset({"localhost", "localhost."})
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_OWN_SITES: Final = frozenset({"same-origin", "none"})
_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]/@\s]+)(?::[0-9]{1,5})?")


def host_name(host: str) -> str | None:
    """Return the name or address in a `Host` value, lower case, without port and brackets; None when it is neither."""
    found = _HOST.fullmatch(host)
    return found.group(1).strip("[]").lower() if found else None


def is_ours(host: str, allowed: Collection[str]) -> bool:
    """Tell whether a request with this `Host` may be meant for us."""
    name = host_name(host)
    if name is None:
        return False
    return name in LOOPBACK_NAMES or name in allowed or _is_address(name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def cross_site(method: str, headers: Mapping[str, str]) -> str | None:
    """
    Return why an unsafe request comes from a foreign page, or None when it does not.

    Args:
        method: Upper case.
        headers: Case-insensitive, as aiohttp's.
    """
    if method in SAFE_METHODS:
        return None
    site = headers.get("Sec-Fetch-Site")
    if site is not None and site not in _OWN_SITES:
        return f"Sec-Fetch-Site is {site!r}"
    origin = headers.get("Origin")
    if origin is None or _authority(origin) == headers.get("Host", "").lower():
        return None
    return f"Origin is {origin!r}"


def _authority(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
