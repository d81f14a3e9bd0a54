"""How long to wait before a child that died is started again."""

from __future__ import annotations

from typing import Final

from sidecar import clock

FIRST_S: Final = 0.1
LONGEST_S: Final = 10.0
SETTLED_S: Final = 30.0
_MOST_DOUBLINGS: Final = 16


class Backoff:
    """
    The delays of one kind of child: they double while children keep dying young.

    Attributes:
        restarts: How many there were.
    """

    def __init__(self) -> None:
        self.restarts = 0
        self._young = 0

    def __repr__(self) -> str:
        return f"<Backoff {self._young} young of {self.restarts} restarts>"

    def after(self, lived_s: float) -> float:
        """Return the delay after a child that lived *lived_s*: up to half more by chance, so that children do not die in step."""
        self.restarts += 1
        self._young = 1 if lived_s >= SETTLED_S else self._young + 1
        delay_s: float = min(FIRST_S * 2 ** min(self._young - 1, _MOST_DOUBLINGS), LONGEST_S)
        return delay_s * (1 + clock.token_bytes(1)[0] / 512)
