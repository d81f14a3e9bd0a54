"""What differs between two texts, by meaning, and which scopes that touches."""

from __future__ import annotations

import pytest

from sidecar.config.diff import Change, diff, touches
from sidecar.config.load import ConfigErrors
from sidecar.config.mask import mask
from sidecar.facts import Scope

A, B = "0" * 64, "f" * 64
ROUTES = "routes:\n- {name: a, match: {path: /a}, limit: {rate: 5/s}}\n- {name: b}\n"


def test_spellings_of_one_meaning_do_not_differ() -> None:
    """
    Units, comments, order of keys and repeated defaults are no change.
    """
    assert (
        diff(
            "drain: {grace: 30s, delay: 0s}\nmode: enforce\n",
            "# all defaults\nmode: enforce\ndrain: {grace: 30000ms}\n",
        )
        == []
    )


def test_a_route_is_compared_by_its_name() -> None:
    """
    A changed key of a route reads `routes.NAME.key`, and a default shows as its value.
    """
    new = ROUTES.replace("5/s", "50/s").replace("{name: b}", "{name: b, breaker: {}, response_timeout: 5s}")
    assert diff(ROUTES, new) == [
        Change("routes.a.limit.rate", "5/s", "50/s"),
        Change("routes.b.breaker", None, {}),
        Change("routes.b.response_timeout", None, "5s"),
    ]


def test_a_new_section_shows_what_is_not_default() -> None:
    """
    An added route shows the keys that were given; a removed one shows them as gone.
    """
    more = ROUTES.replace(
        "- {name: b}", "- {name: c, match: {path: /c}, breaker: {consecutive: 0}, concurrency: {max: 5}}\n- {name: b}"
    )
    assert [
        Change("routes.c.match.path", None, "/c"),
        Change("routes.c.concurrency.max", None, 5),
        Change("routes.c.breaker.consecutive", None, 0),
    ] == diff(ROUTES, more)
    assert [Change(each.path, each.new, each.old) for each in diff(ROUTES, more)] == diff(more, ROUTES)


def test_the_default_route_counts_as_a_route() -> None:
    """
    A config without routes has the route `default`; its replacement says that it is gone.
    """
    changes = diff("", "routes: [{name: a}]")
    assert {"routes.default", "routes.a"} == {change.path for change in changes}


def test_moving_a_route_is_one_change_of_the_order() -> None:
    """
    The first match wins, so another order is a change even when every route stays as it was.
    """
    text = "routes:\n- {name: a, match: {path: /a}}\n- {name: b, match: {path: /b}}\n"
    turned = "routes:\n- {name: b, match: {path: /b}}\n- {name: a, match: {path: /a}}\n"
    assert [Change("routes", ["a", "b"], ["b", "a"])] == diff(text, turned)


def test_hashes_are_hidden_and_their_change_is_still_seen() -> None:
    """
    A token's new hash is a change whose two values are hidden.
    """
    text = "admin: {{tokens: [{{name: ops, role: {}, sha256: {}}}]}}\n"
    changes = diff(text.format("viewer", A), text.format("admin", B))
    assert [
        Change("admin.tokens.ops.role", "viewer", "admin"),
        Change("admin.tokens.ops.sha256", "(hidden)", "(hidden)"),
    ] == changes
    assert A not in repr(diff("", text.format("viewer", A)))


def test_what_the_environment_sets_never_differs() -> None:
    """
    Values are the effective ones: a variable over both texts hides their difference, and may complete both.
    """
    text = "notify: [{type: webhook}]\ndrain: {grace: 5s}\n"
    environ = {"SIDECAR__DRAIN__GRACE": "9s", "SIDECAR__NOTIFY__0__URL": "https://a.example"}
    assert diff(text, text.replace("5s", "6s"), environ=environ) == []


def test_what_is_not_valid_is_compared_as_it_was_written() -> None:
    """
    A text of another release, or one that its environment completes, still has its differences shown, hashes hidden.
    """
    old = f"routes: [{{name: a, weight: 5}}]\nadmin: {{tokens: [{{name: x, sha256: {A}}}]}}\n"
    new = old.replace("weight: 5", "weight: 6") + "nonsense: 1\n"
    assert diff(old, new) == [Change("routes.a.weight", 5, 6), Change("nonsense", None, 1)]
    assert A not in repr(diff("nonsense: 1", old))


def test_what_is_no_yaml_cannot_be_compared() -> None:
    """
    A text that is no YAML at all is the one thing that is refused.
    """
    with pytest.raises(ConfigErrors, match="new:2:1: this is no YAML"):
        diff("", "a: [")


@pytest.mark.parametrize(
    ("paths", "scopes"),
    [
        (["routes.a.limit.rate", "routes.a.match.path"], {Scope.route("a")}),
        (["routes.a.limit", "routes.b.slo.availability"], {Scope.route("a"), Scope.route("b")}),
        (["service.limit.rate"], {Scope.service()}),
        (["upstream.endpoints", "mode", "trust.proxies", "downstream.idle_timeout", "routes"], {Scope.service()}),
        (["detect.warmup", "respond.lease", "notify.log", "drain.grace", "admin.tokens.a.role", "explain"], set()),
    ],
)
def test_a_change_touches_the_scope_whose_traffic_it_affects(paths: list[str], scopes: set[Scope]) -> None:
    """
    A route's key touches that route, a key of the whole data plane the service, and all others nothing.
    """
    assert scopes == touches(Change(path, None, 1) for path in paths)


def test_a_hash_against_its_mask_is_no_change() -> None:
    """
    A text that was shown, edited and applied again differs by what was edited.
    """
    text = 'admin: {tokens: [{name: ops, role: admin, sha256: "' + "a" * 64 + '"}]}\nmode: enforce\n'
    assert [change.path for change in diff(text, mask(text).replace("enforce", "observe"))] == ["mode"]
    assert [change.path for change in diff(text, text.replace("a" * 64, "b" * 64))] == ["admin.tokens.ops.sha256"]
