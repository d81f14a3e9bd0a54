"""Routes: first match wins, no reading leads elsewhere, templates are bounded."""

from __future__ import annotations

import pytest

from sidecar.config.policies import Match, RouteRule
from sidecar.proxy.framing import RequestHead, parse_request_head
from sidecar.proxy.route import MAX_TEMPLATE, Router, host_name, path_template
from sidecar.reasons import Reason, Refusal


def router(*matches: Match) -> Router:
    """Build a router whose rules are named r0, r1, …"""
    return Router(tuple(RouteRule(f"r{index}", match) for index, match in enumerate(matches)))


def name(rule: RouteRule | None) -> str | None:
    """Name a match's outcome."""
    return None if rule is None else rule.name


def routed(routes: Router, target: str, method: str = "GET", host: str = "a") -> str:
    """Route a request; return its rule's name or its refusal's reason."""
    head = parse_request_head(f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert isinstance(head, RequestHead), head
    found = routes.route(head)
    return found.reason.value if isinstance(found, Refusal) else found.name


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("/**", "/", True), ("/**", "/a/b", True), ("/**", "*", True), ("**", "/a", True),
        ("/a", "/a", True), ("/a", "/a/", False), ("/a", "/ab", False), ("/a", "/A", False), ("/", "/", True), ("/", "/a", False), ("/", "*", False),
        ("/a/", "/a/", True), ("/a/", "/a", False),
        ("/a/**", "/a", True), ("/a/**", "/a/", True), ("/a/**", "/a/b/c", True), ("/a/**", "/ab", False), ("/a/**", "*", False),
        ("/a/*", "/a/b", True), ("/a/*", "/a", False), ("/a/*", "/a/", False), ("/a/*", "/a/b/c", False),
        ("/a/*/c", "/a/b/c", True), ("/a/*/c", "/a//c", False), ("/*/**", "/a/b", True), ("/*/**", "/", False),
        ("/a.b", "/a.b", True), ("/a.b", "/axb", False), ("/a+(b)", "/a+(b)", True), ("/a/**", "/a/b\nc", True), ("*", "*", True), ("*", "/", False),
    ],
)  # fmt: skip
def test_patterns(pattern: str, path: str, *, matches: bool) -> None:
    """`*` is one segment, a trailing `**` any rest or none; all else is literal."""
    assert (router(Match(pattern)).match("GET", "", path) is not None) is matches


def test_the_first_match_wins() -> None:
    """In the config's order, whatever is more specific."""
    routes = router(Match("/a/**"), Match("/a/b"), Match("/**"))
    assert name(routes.match("GET", "", "/a/b")) == "r0"
    assert name(routes.match("GET", "", "/b")) == "r2"
    assert repr(routes) == "<Router r0, r1, r2>"


def test_methods_and_hosts() -> None:
    """Exact sets; empty means all; an unknown one meets the rules without a set."""
    routes = router(
        Match("/a", methods=("POST", "PUT")),
        Match("/a", hosts=("x.example",)),
        Match("/b", methods=("POST",), hosts=("x.example",)),
    )
    assert name(routes.match("POST", "", "/a")) == "r0"
    assert name(routes.match("POST", "x.example", "/a")) == "r0"
    assert name(routes.match("GET", "x.example", "/a")) == "r1"
    assert routes.match("GET", "y.example", "/a") is None
    assert routes.match("post", "y.example", "/a") is None
    assert name(routes.match("POST", "x.example", "/b")) == "r2"
    assert Router(()).match("GET", "", "/") is None


def test_long_paths_are_matched_without_being_remembered() -> None:
    """The memory of answers holds short paths only."""
    routes = router(Match("/a/**"))
    assert name(routes.match("GET", "", "/a/" + "b" * 5000)) == "r0"
    assert routes.match("GET", "", "/" + "b" * 5000) is None


def test_routing_a_request() -> None:
    """Hosts without port and in any case; no rule is a refusal."""
    routes = router(Match("/a", hosts=("x.example",)), Match("/b"))
    assert routed(routes, "/a", host="X.example.:80") == "r0"
    assert routed(routes, "/b") == "r1"
    assert routed(routes, "/c") == Reason.NO_ROUTE
    assert routed(routes, "http://x.example/a") == "r0"


@pytest.mark.parametrize("target", ["/admin%2Fx", "/admin;v=1/x", "//admin/x", "/admin%5cx", "/%61dmin%2fx"])
def test_a_path_of_two_routes_is_refused(target: str) -> None:
    """What one server reads as /x and another as /admin/… meets neither's rules."""
    routes = router(Match("/admin/**"), Match("/**"))
    assert routed(routes, target) == Reason.BAD_REQUEST


@pytest.mark.parametrize("target", ["/api/a%2Fb", "/api//x", "/api/x;v=1", "/api/a%5Cb", "/static/x;y//z"])
def test_a_path_of_one_route_in_every_reading_passes(target: str) -> None:
    """APIs that use encoded slashes, parameters or empty segments keep working."""
    assert routed(router(Match("/api/**"), Match("/static/**")), target) in ("r0", "r1")


def test_an_ambiguous_path_may_not_slip_past_a_missing_route() -> None:
    """No route in one reading and one in another is ambiguous too."""
    routes = router(Match("/api/**"))
    assert routed(routes, "/api%2Fx") == Reason.BAD_REQUEST
    assert routed(routes, "//x") == Reason.NO_ROUTE


@pytest.mark.parametrize(
    ("host", "text"),
    [(b"A.b", "a.b"), (b"a:80", "a"), (b"[::1]:80", "[::1]"), (b"[::1]", "[::1]"), (b"a.", "a"), (b"", "")],
)
def test_host_name(host: bytes, text: str) -> None:
    """Lower case, without port and trailing dot."""
    assert host_name(host) == text


@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/", "/"), ("*", "*"), ("/orders", "/orders"), ("/orders/12/items", "/orders/{id}/items"), ("/o/550e8400-e29b-41d4-a716-446655440000", "/o/{id}"),
        ("/o/deadbeef01", "/o/{id}"), ("/o/deadbeef", "/o/deadbeef"), ("/o/abc123", "/o/abc123"), ("/v1/users", "/v1/users"), ("/o/Ab3xYz81kLmN0pQrs", "/o/{id}"),
        ("/o/a%20b", "/o/{id}"), ("/o/" + "x" * 50, "/o/{id}"), ("/a/b/c/d/e/f", "/a/b/c/d/e/f"), ("/a/b/c/d/e/f/g", "/a/b/c/d/e/f/…"), ("/o/12/", "/o/{id}/"),
    ],
)  # fmt: skip
def test_path_template(path: str, template: str) -> None:
    """Ids become {id}; six segments are kept."""
    assert path_template(path) == template


def test_a_template_is_short() -> None:
    """Whatever the path is."""
    assert len(path_template("/" + "/".join(["x" * 39] * 300))) <= MAX_TEMPLATE + 2
