"""What must hold between sections and between the keys of one."""

from __future__ import annotations

import pytest

from sidecar.config.checks import covers_path
from sidecar.config.load import ConfigErrors, load

UP = "upstream: {endpoints: [http://127.0.0.1:9000]}\n"


def _faults(text: str) -> list[tuple[str, str]]:
    try:
        load(text, name="f", environ={}, flags={})
    except ConfigErrors as refused:
        return [(error.path, error.problem) for error in refused.errors]
    return []


@pytest.mark.parametrize(
    ("wide", "narrow", "covers"),
    [
        ("/**", "/", True),
        ("/**", "/a/b/**", True),
        ("/a/**", "/a", True),
        ("/a/**", "/a/*/c", True),
        ("/a/*", "/a/b", True),
        ("/a/*", "/a/*", True),
        ("/a/*", "/a/**", False),
        ("/a/*", "/a", False),
        ("/a/b", "/a/*", False),
        ("/a", "/a/", False),
        ("/a/b", "/b/b", False),
        ("/a/**", "/ab", False),
    ],
)
def test_a_pattern_covers_another_when_it_matches_all_its_paths(wide: str, narrow: str, covers: bool) -> None:
    """
    `*` stands for exactly one segment and `**` for any rest, none included.
    """
    assert covers is covers_path(wide, narrow)


@pytest.mark.parametrize(
    ("first", "second", "reachable"),
    [
        ("{path: /a/**}", "{path: /a/b}", False),
        ("{path: /a/**}", "{path: /a/b, methods: [GET]}", False),
        ("{path: /a/**, methods: [GET]}", "{path: /a/b}", True),
        ("{path: /a/**, methods: [GET, POST]}", "{path: /a/b, methods: [POST]}", False),
        ("{path: /a/**, hosts: [x.example]}", "{path: /a/b, hosts: [y.example]}", True),
        ("{path: /a/**, hosts: [x.example]}", "{path: /a/b, hosts: [X.example]}", False),
        ("{path: /b}", "{path: /a}", True),
    ],
)
def test_a_route_that_no_request_reaches_is_an_error(first: str, second: str, reachable: bool) -> None:
    """
    A route is refused when an earlier one takes all its paths, methods and hosts, and only then.
    """
    text = UP + f"routes:\n- {{name: one, match: {first}}}\n- {{name: two, match: {second}}}\n"
    expected = [] if reachable else [("routes.1", "no request reaches two: one, above it, takes them all")]
    assert expected == _faults(text)


@pytest.mark.parametrize(
    ("text", "path", "problem"),
    [
        (UP + "listen: 127.0.0.1:9902", "observe", "0.0.0.0:9902 is taken by listen"),
        (UP + "observe: 0.0.0.0:9901", "admin.listen", "127.0.0.1:9901 is taken by observe"),
        (UP + "observe: unix:/a\nadmin: {listen: 'unix:/a'}", "admin.listen", "unix:/a is taken by observe"),
        (UP + "listen: 127.0.0.1:9000", "upstream.endpoints.0", "127.0.0.1:9000 is the sidecar's own listen address"),
        (UP + "listen: 0.0.0.0:9000", "upstream.endpoints.0", "127.0.0.1:9000 is the sidecar's own listen address"),
        (UP + "listen: '[::1]:9000'", "upstream.endpoints.0", "127.0.0.1:9000 is the sidecar's own listen address"),
        ("upstream: {endpoints: [http://a, http://A:80]}", "upstream.endpoints.1", "a:80 stands here a second time"),
        (UP + "notify: [{type: log}, {type: log}]", "notify.1.type", "a second receiver is called 'log'"),
        (UP + "respond: {lease: 10s}", "respond.lease", "is not longer than ramp.hold, so no recovery could finish a step"),
        (
            UP + "respond: {if_unanswered: [{after: 5m, do: hold}, {after: 5m, do: release}]}",
            "respond.if_unanswered.1.after",
            "is not later than the rung before",
        ),
        (UP + "routes: [{name: _other}]", "routes.0.name", "_other is the overflow series of the metrics"),
        (
            UP + "routes: [{name: a, client_key: 'header:a', limit: {per_client: {rate: 1/s, key: 'header:b'}}}]",
            "routes.0.limit.per_client.key",
            "the route's client_key is header:a",
        ),
        (UP + "routes: [{name: a, concurrency: {}}]", "routes.0.concurrency", "max is missing"),
        (
            UP + "routes: [{name: a, concurrency: {max: 5, min: 2}}]",
            "routes.0.concurrency.min",
            "min does nothing without adaptive",
        ),
        (
            UP + "routes: [{name: a, concurrency: {adaptive: true, max: 5, min: 9}}]",
            "routes.0.concurrency.min",
            "min is above max, which is 5",
        ),
        (
            UP + "routes: [{name: a, limit: {rate: 10/s, burst: 4, per_client: {rate: 1/s}, cost: 5}}]",
            "routes.0.limit.cost",
            "a cost of 5 never passes a burst of 4",
        ),
        (
            UP + "routes: [{name: a, limit: {per_client: {rate: 2/s}, cost: 2.5}}]",
            "routes.0.limit.cost",
            "a cost of 2.5 never passes a burst of 2",
        ),
        (
            UP + "service: {limit: {rate: 100/s, burst: 20}}\nroutes: [{name: b, match: {path: /b}}, {name: a, limit: {cost: 30}}]",
            "routes.1.limit.cost",
            "a cost of 30 never passes a burst of 20",
        ),
        (
            UP + "routes: [{name: a, priority: probe, breaker: {}}]",
            "routes.0.breaker",
            "probes pass every guard, so breaker does nothing",
        ),
        (UP + "service: {limit: {rate: 1/s, mode: shape}}", "service.limit.mode", "'shape' is not one of off, observe, enforce"),
        (
            UP + "routes: [{name: a, limit: {rate: 1/s, max_wait: 2s}}]",
            "routes.0.limit.max_wait",
            "max_wait does nothing where nobody waits",
        ),
        (UP + "routes: [{name: a, breaker: {consecutive: 1}}]", "routes.0.breaker.consecutive", "one failure would open it"),
        (
            UP + "routes: [{name: a, breaker: {close_successes: 11}}]",
            "routes.0.breaker.close_successes",
            "is more than close_window, so it would never close",
        ),
        (
            UP + "routes: [{name: a, breaker: {reopen_failures: 4}}]",
            "routes.0.breaker.reopen_failures",
            "leaves probes that neither close nor re-open it",
        ),
        (UP + "routes: [{name: a, match: {methods: [GET, GET]}}]", "routes.0.match.methods.1", "GET stands here a second time"),
        (UP + "admin: {listen: '0.0.0.0:9901'}", "admin.listen", "0.0.0.0:9901 is beyond loopback, and tokens would travel in plain text"),
    ],
)  # fmt: skip
def test_a_contradiction_is_an_error_at_its_place(text: str, path: str, problem: str) -> None:
    """
    Keys that are each valid and contradict each other give exactly one error, at the one to change.
    """
    assert [(path, problem)] == _faults(text)


@pytest.mark.parametrize(
    "text",
    [
        UP + "listen: 127.0.0.1:0\nobserve: 127.0.0.1:0\nadmin: {listen: '127.0.0.1:0'}",
        UP + "listen: 127.0.0.1:7000\nobserve: 127.0.0.2:7000",
        UP + "admin: {listen: '0.0.0.0:9901', insecure: true}",
        UP + "admin: {listen: 'unix:/run/a.sock'}",
        "upstream: {endpoints: [http://192.0.2.1:8080]}",
        UP + "respond: {if_unanswered: []}",
        UP + "routes: [{name: a, limit: {rate: 1/s, mode: shape, max_wait: 2s, max_queue: 5}}]",
        UP + "service: {limit: {rate: 100/s}, concurrency: {adaptive: true, min: 300}}",
        UP + "routes: [{name: a, limit: {cost: 5}, concurrency: {adaptive: true, max: 2}}]",
        UP + "routes: [{name: a, client_key: 'header:a', limit: {per_client: {rate: 1/s, key: 'header:A'}}}]",
    ],
)
def test_what_only_looks_like_a_contradiction_passes(text: str) -> None:
    """
    Free ports, two addresses with one port, an allowed plain listener, a socket and another host's port are fine.
    """
    assert _faults(text) == []


def test_a_broken_section_does_not_hide_or_invent_faults_elsewhere() -> None:
    """
    With one broken route and a broken upstream the shadowed route is still found, at its own number, and nothing else.
    """
    text = "upstream: {endpoints: [nowhere]}\nroutes:\n- {name: x, nam: y}\n- {name: a, match: {path: /a/**}}\n- {name: b, match: {path: /a/b}}\n"
    assert [path for path, _ in _faults(text)] == ["upstream.endpoints.0", "routes.0.nam", "routes.2"]


def test_routes_are_bounded() -> None:
    """
    More routes than metrics and detectors can bear are one error, not a slow start.
    """
    text = UP + "routes:\n" + "".join(f"- {{name: r{n}, match: {{path: /r{n}}}}}\n" for n in range(501))
    assert _faults(text) == [("routes", "501 routes are more than 500")]
