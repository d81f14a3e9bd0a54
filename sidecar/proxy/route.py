"""
Which route a request belongs to, and the bounded names of paths.

Theory.   Routes are tried in the config's order and the first match wins. Host and method are exact; the path's pattern
          is a list of segments where `*` is one segment (never empty) and a trailing `**` any rest, also none.
          A path with readings (see `target.py`) must lead to the same route in every reading, else it is refused.

          All patterns of one (method, host) become one regular expression of alternatives, each with its own group, so a
          match is one call in C whatever the number of routes; Python's alternation also takes the first.
"""

from __future__ import annotations

import re
from typing import Final

from sidecar.config.policies import RouteRule
from sidecar.proxy.framing import RequestHead
from sidecar.proxy.memory import Memory
from sidecar.reasons import Reason, Refusal

MAX_SEGMENTS: Final = 6
MAX_TEMPLATE: Final = 120
_REMEMBERED_PATH: Final = 128
_LONG: Final = 40
_ID: Final = re.compile(
    r"[0-9]+"
    r"|[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
    r"|(?=[a-fA-F-]*[0-9])[0-9a-fA-F-]{8,}"
    r"|(?=[^0-9]*[0-9])(?=[^A-Za-z]*[A-Za-z])[A-Za-z0-9_.~=+:@-]{16,}"
    rf"|.{{{_LONG},}}"
    r"|(?:.*%.*)"
)

_NO_ROUTE: Final = Refusal(Reason.NO_ROUTE, 0.0, "route", "no route matches host, method and path")
_AMBIGUOUS: Final = Refusal(
    Reason.BAD_REQUEST,
    0.0,
    "route",
    "the path can be read as paths of different routes; send it without //, ;, %2F or %5C",
)


def _pattern(path: str) -> str:
    """Translate a route's path pattern into a regular expression."""
    if path == "*":
        return r"\*"
    parts = path.lstrip("/").split("/")
    rest = ""
    if parts and parts[-1] == "**":
        parts.pop()
        rest = r"(?:/.*)?"
    if not parts or parts == [""]:
        return r"(?:/.*|\*)" if rest else "/"
    return "".join("/[^/]+" if part == "*" else "/" + re.escape(part) for part in parts) + rest


class Router:
    """The routes of one config, ready to match; `asks_host` tells whether any of them names a host."""

    def __init__(self, routes: tuple[RouteRule, ...]) -> None:
        self._routes = routes
        self._hosts = frozenset(host for rule in routes for host in rule.match.hosts)
        self._methods = frozenset(method for rule in routes for method in rule.match.methods)
        self._tables = {
            (method, host): self._table(method, host) for method in (*self._methods, "") for host in (*self._hosts, "")
        }
        self.asks_host = bool(self._hosts)

    def __repr__(self) -> str:
        return f"<Router {', '.join(rule.name for rule in self._routes)}>"

    def _table(self, method: str, host: str) -> tuple[re.Pattern[str], tuple[RouteRule, ...]] | None:
        """Join the patterns of the rules that take this method and host; "" stands for any that no rule names."""
        rules = tuple(
            rule
            for rule in self._routes
            if (not rule.match.methods or method in rule.match.methods)
            and (not rule.match.hosts or host in rule.match.hosts)
        )
        if not rules:
            return None
        return re.compile("|".join(f"({_pattern(rule.match.path)})" for rule in rules), re.DOTALL), rules

    def match(self, method: str, host: str, path: str) -> RouteRule | None:
        """
        Return the first rule that takes the request, or None.

        Args:
            method: As sent.
            host: Lower case, without port; see `host_name`.
            path: Normalised, without query.
        """
        method = method if method in self._methods else ""
        host = host if host in self._hosts else ""
        return self._match(method, host, path)

    def _match(self, method: str, host: str, path: str) -> RouteRule | None:
        table = self._tables[method, host]
        if table is None:
            return None
        found = table[0].fullmatch(path)
        return None if found is None or found.lastindex is None else table[1][found.lastindex - 1]

    def route(self, head: RequestHead) -> RouteRule | Refusal:
        """Return the request's rule, or the refusal when none matches or its path reads as paths of several."""
        host = host_name(head.host) if self._hosts else ""
        rule = self.match(head.method, host, head.path)
        for reading in head.readings:
            if self.match(head.method, host, reading) is not rule:
                return _AMBIGUOUS
        return _NO_ROUTE if rule is None else rule


def host_name(host: bytes) -> str:
    """Return a valid host in lower case without port and trailing dot; an IPv6 address keeps its brackets."""
    text = host.decode("ascii").lower()
    name = text[: text.index("]") + 1] if text.startswith("[") else text.partition(":")[0]
    return name.rstrip(".")


def path_template(path: str, regular: bool = False) -> str:  # noqa: FBT001, FBT002 - hot path: positional
    """
    Name the kind of a path: segments that look like ids become `{id}`, at most six are kept.

    Bounded in length, but not in number: whoever keeps templates bounds their count (heavy hitters only).

    Args:
        path: Normalised.
        regular: It comes again and again (`RequestHead.regular`): remember the answer.
    """
    known = _templates.kept.get(path)
    if known is not None:
        return known
    made = _template(path)
    return _templates.keep(path, made) if regular and len(path) <= _REMEMBERED_PATH else made


def _template(path: str) -> str:
    parts = path.split("/", MAX_SEGMENTS + 1)[: MAX_SEGMENTS + 1]
    # Words and plain numbers are most of what comes; the expression decides about the rest.
    named = "/".join(
        [
            part if not part or (part.isalpha() and len(part) < _LONG) else
            "{id}" if part.isdigit() or _ID.fullmatch(part) else part
            for part in parts
        ]
    )  # fmt: skip
    cut = path.count("/") > MAX_SEGMENTS or len(named) > MAX_TEMPLATE
    return named[:MAX_TEMPLATE] + "/…" if cut else named


_templates: Final[Memory[str, str]] = Memory(1024)
