"""One setting is changed; every other byte stays."""

from __future__ import annotations

import pytest

from sidecar.config.diff import diff
from sidecar.config.edit import EditError, put

BLOCK = """\
# ours
upstream: {endpoints: ["http://127.0.0.1:9000"]}  # the API
routes:
  - name: checkout        # money
    match: {path: /api/checkout/**}
    limit:
      rate: 100/s
      burst: 200
  - name: search
    match: {path: /**}
detect:
  warmup: 60s             # a minute
"""


def changed(text: str, path: tuple[str, ...], value: str) -> dict[str, object]:
    """Change the text, check that only lines around the place changed, and return the diff by path."""
    new = put(text, path, value)
    assert new != text
    for line in text.splitlines():
        comment = line.partition("#")[2]
        assert comment in new
    return {change.path: change.new for change in diff(text, new)}


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (("routes", "checkout", "limit", "rate"), "50/s", {"routes.checkout.limit.rate": "50/s"}),
        (("routes", "checkout", "limit", "per_client"), "{rate: 5/s, burst: 10}", None),
        (("routes", "search", "breaker"), "{}", None),
        (("routes", "search", "response_timeout"), "2s", {"routes.search.response_timeout": "2s"}),
        (("detect", "sensitivity"), "high", {"detect.sensitivity": "high"}),
        (("respond", "share"), "20%", {"respond.share": "20%"}),
        (("upstream", "response_timeout"), "3s", {"upstream.response_timeout": "3s"}),
    ],
)
def test_a_setting_is_put_where_it_belongs(
    path: tuple[str, ...], value: str, expected: dict[str, object] | None
) -> None:
    """
    Replaced, or put beside its neighbours in block and in flow; nothing else differs, comments stay.
    """
    found = changed(BLOCK, path, value)
    assert found
    assert all(name.startswith(".".join(path)) for name in found)
    assert expected is None or found == expected


def test_a_text_without_routes_gets_the_default_one() -> None:
    """
    What every request meets is written out.
    """
    new = put("mode: enforce\n", ("routes", "default", "breaker"), "{}")
    assert 'routes: [{name: default, match: {path: "/**"}, breaker: {}}]' in new
    assert put("", ("detect", "sensitivity"), "low") == "detect: {sensitivity: low}\n"


def test_an_empty_section_is_filled() -> None:
    """
    `limit:` without a value becomes a map.
    """
    text = "routes:\n  - name: a\n    match: {path: /**}\n    limit: {}\n"
    assert "limit: {rate: 5/s}" in put(text, ("routes", "a", "limit", "rate"), "5/s")


@pytest.mark.parametrize(
    ("text", "path", "problem"),
    [
        ("a: &x {b: 1}\nc: *x\n", ("a", "b"), "aliases"),
        (BLOCK, ("routes", "cart", "breaker"), "no entry named cart"),
        ("mode: enforce\n", ("mode", "x"), "a value stands"),
        ("a: [\n", ("a",), "no YAML"),
        ("mode: enforce\n", ("routes", "cart", "breaker"), "no route named cart"),
    ],
)
def test_where_it_cannot_be_changed(text: str, path: tuple[str, ...], problem: str) -> None:
    """
    The message says why.
    """
    with pytest.raises(EditError, match=problem):
        put(text, path, "1")
