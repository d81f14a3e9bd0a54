"""Where a person may point at: scopes that exist, and clients as they are known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sidecar.controller.commands import RejectedKind
from sidecar.controller.history import History
from sidecar.controller.places import Places
from sidecar.facts import Scope
from tests.support.world import compiled


def places() -> Places:
    """One route whose clients are a header's hash, one whose clients are addresses, one endpoint."""
    config = compiled(("checkout", "search"))
    first, second = config.proxy.routes
    routes = (replace(first, client_key="header:x-api-key"), second)
    made = Places(History(("checkout", "search")))
    made.configured(replace(config, proxy=replace(config.proxy, routes=routes)))
    return made


@pytest.mark.parametrize(
    "scope",
    [
        "service",
        "route:checkout",
        "client:checkout:h-0123456789abcdef",
        "client:search:203.0.113.7",
        "endpoint:127.0.0.1:9000",
    ],
)
def test_what_exists_may_be_named(scope: str) -> None:
    """The service, a route, a client as the incident shows it, and an endpoint of the config."""
    assert places().problem(Scope.parse(scope)) is None


@pytest.mark.parametrize(
    ("scope", "kind", "words"),
    [
        ("route:nowhere", RejectedKind.NOT_FOUND, "the routes are checkout, search"),
        ("client:nowhere:a", RejectedKind.NOT_FOUND, "the routes are checkout, search"),
        ("endpoint:127.0.0.1:9", RejectedKind.NOT_FOUND, "the endpoints are endpoint:127.0.0.1:9000"),
        ("client:checkout:secret", RejectedKind.INVALID, "--header-value"),
    ],
)
def test_what_would_never_match_is_refused(scope: str, kind: RejectedKind, words: str) -> None:
    """A typo, and a header's value where its hash is known, would do nothing at 3 a.m.: it is said at once."""
    found = places().problem(Scope.parse(scope))
    assert found is not None
    assert (found.kind, words in found.hint) == (kind, True)
    assert "secret" not in found.problem + found.hint
