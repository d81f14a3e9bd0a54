"""The `action` of an override, as people write it: `isolate`, `throttle=10/s`, `throttle=25%`, `allow`, `observe`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from sidecar.config.units import UnitError, parse_rate, parse_ratio, shown
from sidecar.facts import Action

_SHARE: Final = r"(?!0+(\.0+)?%)[0-9]{1,2}(\.[0-9]{1,6})?%|0\.(?!0+$)[0-9]{1,6}"
_RATE: Final = r"(?!0+(\.0+)?/)[0-9]{1,7}(\.[0-9]{1,6})?/[smh]"
PATTERN: Final = rf"^(isolate|allow|observe|throttle=({_RATE}|{_SHARE}))$"
EXAMPLES: Final = "isolate, throttle=10/s, throttle=25%, allow or observe"
_WHOLE: Final = re.compile(PATTERN, re.ASCII)


class ActionError(ValueError):
    """A text that is no action; the message says what to type instead."""


@dataclass(frozen=True, slots=True)
class ParsedAction:
    """An action and, for `throttle`, exactly one of the two amounts."""

    action: Action
    rate_per_s: float | None = None
    share_ratio: float | None = None


def parse_action(text: str) -> ParsedAction:
    """
    Return what *text* asks for.

    Raises:
        ActionError: for any other text, and for a throttle that would pass nothing or everything.
    """
    verb, equals, amount = text.partition("=")
    if not equals and verb in (Action.ISOLATE, Action.ALLOW, Action.OBSERVE):
        return ParsedAction(Action(verb))
    if verb != Action.THROTTLE:
        raise ActionError(f"{shown(text)} is not an action: use {EXAMPLES}")
    if not amount:
        raise ActionError("throttle needs a rate or a share: use throttle=10/s or throttle=25%")
    parsed = _throttle(amount)
    if _WHOLE.fullmatch(text) is None:
        raise ActionError(f"{shown(amount)} passes nothing or everything: use {EXAMPLES}")
    return parsed


def _throttle(amount: str) -> ParsedAction:
    try:
        if "/" in amount:
            return ParsedAction(Action.THROTTLE, rate_per_s=parse_rate(amount))
        return ParsedAction(Action.THROTTLE, share_ratio=parse_ratio(amount))
    except UnitError as error:
        raise ActionError(f"throttle: {error.problem}: {error.hint}") from error
