"""What an incident teaches, in words."""

from __future__ import annotations

import pytest

from sidecar.incident.learn import Effect, Kind, predicted


@pytest.mark.parametrize(
    ("kind", "effect", "words"),
    [
        (Kind.THRESHOLD, Effect(7.0, over_s=86_400.0), "found 7s earlier, no alarm hidden, none added (over 24h)"),
        (Kind.THRESHOLD, Effect(-3.0, 2, 1, over_s=60.0), "found 3s later, 2 alarms hidden, 1 added (over 1m)"),
        (
            Kind.TIMEOUT, Effect(requests=9_000, slower=1_204, over_s=3600.0),
            "no alarm hidden, none added, 1,204 of 9,000 answers took longer (over 1h)",
        ),
        (
            Kind.LIMIT, Effect(hidden=1, requests=9_000, refused=40, innocent_ratio=0.001, over_s=3600.0),
            "1 alarm hidden, none added, 40 more of 9,000 requests refused, 0.1 % of all others' (over 1h)",
        ),
        (Kind.VALIDATION, Effect(over_s=90.0), "measured over 1m30s"),
    ],
)  # fmt: skip
def test_a_predicted_effect_reads_the_same_everywhere(kind: Kind, effect: Effect, words: str) -> None:
    """
    Earlier or later, what is hidden and added, and of a timeout the answers that it would have cut off.
    """
    assert predicted(kind, effect.to_json()) == words


def test_an_effect_of_an_older_release_is_told_as_far_as_it_is_known() -> None:
    """
    A figure that was not written then counts as none.
    """
    assert predicted("timeout", {}) == "no alarm hidden, none added, 0 of 0 answers took longer (over 0ms)"
