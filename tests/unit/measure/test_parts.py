"""When a part of the traffic explains why a whole fails."""

from __future__ import annotations

import pytest

from sidecar.measure.parts import Counts, comparable, rest_is_well


@pytest.mark.parametrize(
    ("own", "rest", "told", "well"),
    [
        ((100, 60), (100, 0), True, True),
        ((100, 60), (100, 15), True, True),
        ((100, 60), (100, 16), True, False),
        ((20, 19), (1, 0), False, False),
        ((20, 19), (2, 0), True, True),
        ((20, 10), (6, 0), False, False),
        ((20, 10), (7, 0), True, True),
        ((20, 20), (1, 0), True, True),
        ((20, 10), (0, 0), False, False),
        ((20, 10), (9, 5), False, False),
    ],
)
def test_the_rest_is_well(own: Counts, rest: Counts, told: bool, well: bool) -> None:
    """
    A quarter as bad at most; ten others are enough, or so few that they would hardly all be good by chance.
    """
    assert (comparable(own, rest), rest_is_well(own, rest)) == (told, well)
