"""Hypotheses: ranked by the share of the failures, and by whether the rest is well."""

from __future__ import annotations

from sidecar.incident.postmortem.hypotheses import ranked


def test_what_explains_stands_first() -> None:
    """
    A path with nearly all failures beside a healthy rest comes before a client that fails as often as the others.
    """
    first, *others = ranked({"client": [("a", 80, 40), ("b", 20, 10)], "path": [("/x", 52, 49), ("/y", 48, 1)]})
    assert (first.name, first.explains, first.reading) == ("/x", True, "explains it: the rest is well")
    assert [(each.name, each.reading) for each in others] == [("a", "as bad as the rest"), ("b", "as bad as the rest")]


def test_a_part_without_a_rest_says_nothing() -> None:
    """
    The only method has all failures; that is no finding, and stands last.
    """
    rows = ranked({"method": [("GET", 100, 50)], "client": [("a", 50, 40), ("b", 50, 10)]})
    assert [each.name for each in rows] == ["a", "b", "GET"]
    assert rows[-1].reading == "nothing to compare with"


def test_without_failures_nothing_is_ranked() -> None:
    """
    Slow answers and refusals leave the table empty.
    """
    assert ranked({"client": [("a", 50, 0)], "path": []}) == []
