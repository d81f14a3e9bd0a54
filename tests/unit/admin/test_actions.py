"""The action of an override: what is documented as its pattern is exactly what is accepted."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.admin.actions import PATTERN, ActionError, ParsedAction, parse_action
from sidecar.facts import Action

GOOD = [
    ("isolate", ParsedAction(Action.ISOLATE)),
    ("allow", ParsedAction(Action.ALLOW)),
    ("observe", ParsedAction(Action.OBSERVE)),
    ("throttle=10/s", ParsedAction(Action.THROTTLE, rate_per_s=10.0)),
    ("throttle=30/m", ParsedAction(Action.THROTTLE, rate_per_s=0.5)),
    ("throttle=0.5/s", ParsedAction(Action.THROTTLE, rate_per_s=0.5)),
    ("throttle=25%", ParsedAction(Action.THROTTLE, share_ratio=0.25)),
    ("throttle=0.25", ParsedAction(Action.THROTTLE, share_ratio=0.25)),
]
BAD = [
    ("", "is not an action"),
    ("explode", "is not an action"),
    ("ISOLATE", "is not an action"),
    ("isolate=1", "is not an action"),
    ("throttle", "needs a rate or a share"),
    ("throttle=", "needs a rate or a share"),
    ("throttle=10", "lies between 0% and 100%|write 10%"),
    ("throttle=10 /s", "has a space"),
    ("throttle=10/d", "is not a unit"),
    ("throttle=0/s", "passes nothing or everything"),
    ("throttle=0%", "passes nothing or everything"),
    ("throttle=0.0", "passes nothing or everything"),
    ("throttle=100%", "passes nothing or everything"),
    ("throttle=1", "passes nothing or everything"),
    ("throttle=10/s\n", "is not"),
]


@pytest.mark.parametrize(("text", "expected"), GOOD)
def test_good(text: str, expected: ParsedAction) -> None:
    """Each form has its meaning, and a throttle exactly one amount."""
    assert parse_action(text) == expected


@pytest.mark.parametrize(("text", "words"), BAD)
def test_bad(text: str, words: str) -> None:
    """Anything else is refused with what to type."""
    with pytest.raises(ActionError, match=words):
        parse_action(text)


@settings(max_examples=200, deadline=None)
@given(st.from_regex(re.compile(PATTERN, re.ASCII), fullmatch=True).filter(lambda text: not text.endswith("\n")))
def test_documented_pattern_is_accepted(text: str) -> None:
    """Whatever the documented pattern allows is an action, whose amount is positive and passes less than all."""
    parsed = parse_action(text)
    amounts = [amount for amount in (parsed.rate_per_s, parsed.share_ratio) if amount is not None]
    assert len(amounts) == (parsed.action is Action.THROTTLE)
    assert all(amount > 0 for amount in amounts)
    assert parsed.share_ratio is None or parsed.share_ratio < 1


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=24) | st.from_regex(r"throttle=[0-9./%sm]{0,8}", fullmatch=True))
def test_only_the_documented_pattern_is_accepted(text: str) -> None:
    """Whatever is accepted matches the documented pattern; nothing but ActionError is raised."""
    try:
        parse_action(text)
    except ActionError:
        return
    assert re.fullmatch(PATTERN, text)
