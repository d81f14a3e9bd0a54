"""Delays before a child is started again."""

from __future__ import annotations

import pytest

from sidecar.supervise.backoff import FIRST_S, LONGEST_S, SETTLED_S, Backoff


def test_the_delay_doubles_while_children_die_young() -> None:
    """
    The n-th young death in a row waits 0.1·2ⁿ⁻¹ s and up to half more, never more than 10 s and half.
    """
    backoff = Backoff()
    for number in range(40):
        least = min(FIRST_S * 2**number, LONGEST_S)
        assert least <= backoff.after(1.0) <= 1.5 * least
    assert backoff.restarts == 40


def test_a_settled_child_begins_anew() -> None:
    """
    A child that lived long is replaced at once, whatever was before it.
    """
    backoff = Backoff()
    for _ in range(10):
        backoff.after(0.0)
    assert backoff.after(SETTLED_S) == pytest.approx(FIRST_S, rel=0.5)
    assert backoff.after(0.0) >= 2 * FIRST_S


def test_children_do_not_die_in_step() -> None:
    """
    Equal deaths have different delays.
    """
    assert len({Backoff().after(0.0) for _ in range(50)}) > 5
