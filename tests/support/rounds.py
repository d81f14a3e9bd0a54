"""How often the sidecar is changed under load: two rounds in `make test`, ten by `make rounds`."""

from __future__ import annotations

import os

from tests.support.load import Load

ROUNDS = int(os.environ.get("SIDECAR_ROUNDS", "2"))
RATE = 500.0


def none_failed(load: Load, what: str) -> None:
    """Every request of *load* was served; say how many there were."""
    print(f"{what}: {ROUNDS} rounds, {load.said()}")
    assert not load.failed, load.said()
    assert len(load.results) > 100 * ROUNDS
