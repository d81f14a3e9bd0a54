"""The hash chain, apart from any database."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.store.chain import GENESIS, Row, Seal, Walk, canonical, is_signed, next_hash, sign

KEY = b"k" * 32


def chain(length: int) -> list[Row]:
    rows: list[Row] = []
    for n in range(1, length + 1):
        row = Row(n, 1000.0 + n, "incident.opened", "automation", n % 3 or None, "service", canonical({"n": n}))
        rows.append(replace(row, hash=next_hash(rows[-1].hash if rows else GENESIS, row)))
    return rows


def walked(rows: list[Row]) -> Walk:
    walk = Walk()
    walk.follow(rows)
    return walk


def test_whole_chain_has_no_fault() -> None:
    """An untouched chain is followed to its end."""
    rows = chain(5)

    assert walked(rows) == Walk(5, rows[-1].hash, 5)
    assert walked([]) == Walk()


def test_formula_is_the_documented_one() -> None:
    """hash_n = SHA-256(hash_{n-1} ‖ canonical JSON), computed here by hand."""
    from hashlib import sha256

    row = Row(1, 2.5, "a.b", "ops", None, "service", "{}")
    expected = sha256((GENESIS + '[1,2.5,"a.b","ops",null,"service","{}"]').encode()).hexdigest()

    assert next_hash(GENESIS, row) == expected


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 5), st.sampled_from(["unix", "kind", "author", "incident", "scope", "body"]))
def test_any_edit_is_found_where_it_is(at: int, field: str) -> None:
    """Each field of each row is covered: an edit is found at its row."""
    rows = chain(6)
    other = {"unix": 7.25, "incident": 77}.get(field, "edited")
    rows[at] = replace(rows[at], **{field: other})

    assert walked(rows).first_bad == at + 1


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 4))
def test_edit_with_its_own_hash_made_right_is_found_at_the_next_row(at: int) -> None:
    """Who also repairs the edited row's hash breaks the row after it."""
    rows = chain(6)
    edited = replace(rows[at], author="nobody")
    rows[at] = replace(edited, hash=next_hash(rows[at - 1].hash if at else GENESIS, edited))

    assert walked(rows).first_bad == at + 2


@settings(max_examples=100, deadline=None)
@given(st.sets(st.integers(0, 5), min_size=1, max_size=5))
def test_any_removal_but_at_the_end_is_found(removed: set[int]) -> None:
    """A gap is named by its first missing row; what is missing at the end is for the signed head to find."""
    rows = chain(6)
    left = [row for at, row in enumerate(rows) if at not in removed]
    inner = [at for at in removed if at < max(row.sequence for row in left) - 1]

    assert walked(left).first_bad == (min(inner) + 1 if inner else 0)


@settings(max_examples=100, deadline=None)
@given(st.permutations(range(6)))
def test_any_move_is_found(order: list[int]) -> None:
    """Rows that changed places under the old numbers are found."""
    rows = chain(6)
    moved = [replace(rows[at], sequence=n) for n, at in enumerate(order, 1)]

    assert bool(walked(moved).problem) == (order != sorted(order))


def test_seal_is_bound_to_key_purpose_and_content() -> None:
    """A signature holds for one key, one purpose and one content only."""
    seal = sign(KEY, "head", Seal(5, "ab"))

    assert is_signed(KEY, "head", seal)
    assert not is_signed(b"other", "head", seal)
    assert not is_signed(KEY, "base", seal)
    for changed in (
        replace(seal, sequence=4),
        replace(seal, hash="ac"),
        replace(seal, problem="x"),
        replace(seal, mac=""),
    ):
        assert not is_signed(KEY, "head", changed)
    assert Seal.from_text(seal.to_text()) == seal
    assert str(seal) == "5:ab"


@pytest.mark.parametrize("text", ["", "{}", "[]", "[1,2,3,4]", '["1","a","","m"]', '[true,"a","","m"]', "null"])
def test_damaged_seal_is_refused(text: str) -> None:
    """A stored seal that is none raises ValueError and nothing else."""
    with pytest.raises(ValueError):
        Seal.from_text(text)
