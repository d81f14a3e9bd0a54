"""YAML as a tree with places: 1.2 scalars, no duplicate keys, bounded in every dimension."""

from __future__ import annotations

import pytest

from sidecar.config import tree
from sidecar.config.errors import ConfigErrors


def _error(text: str) -> str:
    with pytest.raises(ConfigErrors) as refused:
        tree.parse(text, "f")
    return str(refused.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"), ("10:30", "10:30"), ("010", "010"), ("1_000", "1_000"), ("1.10", "1.10"), ("true", True),
        ("-7", -7), ("~", None), ("'1'", "1"), ("0x1f", "0x1f"), ("2026-01-01", "2026-01-01"),
    ],
)  # fmt: skip
def test_scalars_mean_what_yaml_1_2_says(text: str, value: object) -> None:
    """
    Only true, false, null and decimal integers are more than text; YAML 1.1's surprises stay as they were written.
    """
    assert value == tree.scalar_of(text.strip("'"), plain=not text.startswith("'"))


def test_every_node_knows_its_place() -> None:
    """
    A value's mark is its line and column from 1, and its characters.
    """
    text = "a:\n  - b: [x, yy]\n"
    node = tree.parse(text, "f").entries["a"].items[0].entries["b"].items[1]
    assert (node.mark.line, node.mark.column) == (2, 12)
    assert text[node.mark.start : node.mark.end] == "yy"


def test_a_duplicate_key_is_an_error_with_both_places() -> None:
    """
    The second of two equal keys is refused where it stands, and the first is named.
    """
    assert _error("a: 1\nb: 2\na: 3\n") == "f:3:1: a: 'a' stands here a second time (remove it, or the one on line 1)"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: [1, 2", "this is no YAML"),
        ("a:\n\tb: 1", "indent with spaces, not with tabs"),
        ("a: 1\n---\nb: 2", "a second document begins here"),
        ("a: !!python/object x", "the tag 'tag:yaml.org,2002:python/object' means nothing here"),
        ("<<: {a: 1}", "merge keys are not part of YAML 1.2"),
        ("? [a]\n: 1", "a key must be a word"),
        ("a: *b", "refers to an anchor that is not there"),
        ("a: &x [*x]", "refers to a value that contains it"),
        ("a: &x 1\n*x : 2", "an alias cannot be a key"),
        ("a: \x00", "this is no YAML"),
        ("a: " + "[" * 40 + "]" * 40, "nested more than 32 levels deep"),
        ("a: " + "x" * (1024 * 1024), "are more than the 1048576 that a config may have"),
    ],
)
def test_what_a_config_never_needs_is_refused(text: str, problem: str) -> None:
    """
    Broken YAML, second documents, tags, merge keys, cycles, depth and size each give one error, not a crash.
    """
    assert problem in _error(text)


def test_an_alias_bomb_costs_what_it_stands_for() -> None:
    """
    Nine levels of nine aliases are refused before they are expanded.
    """
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    assert "more than 100000 values, aliases expanded" in _error("\n".join(lines))


def test_all_faults_of_one_text_come_at_once() -> None:
    """
    Two duplicate keys and a tag give three errors.
    """
    assert len(_error("a: 1\na: 2\nb: !x 3\nb: 4\n").splitlines()) == 3
