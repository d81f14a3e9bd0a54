"""Where a person may point at: the scopes that exist under the config in force."""

from __future__ import annotations

import re
from typing import Final

from sidecar.config.policies import Compiled
from sidecar.controller.commands import Rejected
from sidecar.controller.history import History
from sidecar.facts import OVERFLOW, Scope, ScopeKind

_HASHED: Final = re.compile(r"h-[0-9a-f]{16}")


class Places:
    """
    Knows the routes, the endpoints, and where a client is the hash of a header.

    Args:
        history: Knows the routes.
    """

    def __init__(self, history: History) -> None:
        self._history = history
        self._endpoints: tuple[str, ...] = ()
        self._headers: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"<Places {len(self._history.routes)} routes, {len(self._endpoints)} endpoints>"

    def configured(self, compiled: Compiled) -> None:
        """Know what this config has."""
        self._endpoints = tuple(str(endpoint) for endpoint in compiled.proxy.upstream.endpoints)
        self._headers = {
            rule.name: rule.client_key.removeprefix("header:")
            for rule in compiled.proxy.routes
            if rule.client_key.startswith("header:")
        }

    def problem(self, scope: Scope) -> Rejected | None:
        """Say why nothing can ever be at *scope*; None when something may."""
        name = scope.name
        if scope.kind in (ScopeKind.ROUTE, ScopeKind.CLIENT) and name not in self._history.routes:
            return _unknown(f"there is no route '{name}'", f"the routes are {', '.join(self._history.routes)}")
        if scope.kind is ScopeKind.ENDPOINT and self._endpoints and name not in self._endpoints:
            known = ", ".join(f"endpoint:{each}" for each in self._endpoints)
            return _unknown(f"there is no endpoint '{name}'", f"the endpoints are {known}")
        hashed = scope.kind is ScopeKind.CLIENT and name in self._headers and scope.key != OVERFLOW
        if hashed and not _HASHED.fullmatch(scope.key):
            problem = f"a client of {name} is the hash of its header {self._headers[name]}, as h-0123456789abcdef"
            hint = "take the key that the incident shows, or `sidecar override set … --header-value VALUE`"
            return Rejected.invalid(problem, hint)
        return None


def _unknown(problem: str, hint: str) -> Rejected:
    return Rejected.not_found(problem, hint)
