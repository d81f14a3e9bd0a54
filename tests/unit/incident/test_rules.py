"""Rules: what a config value must not be set below again."""

from __future__ import annotations

import pytest

from sidecar.facts import Detector
from sidecar.incident.rules import Normal, Rule, rule_of

NORMAL = Normal(
    seconds=300, rate_per_s=41.0, clients={"a": 12.0, "b": 9.0}, p99_s=0.21, in_flight=7, longest_s=1.0
)  # fmt: skip
REFUSED = frozenset((Detector.REFUSALS,))
FAILED = frozenset((Detector.ERRORS,))


@pytest.mark.parametrize(
    ("path", "causes", "rule"),
    [
        ("routes.a.limit.rate", REFUSED, "41/s"),
        ("service.limit.rate", REFUSED, "41/s"),
        ("routes.a.limit.burst", REFUSED, "41"),
        ("routes.a.limit.per_client.rate", REFUSED, "12/s"),
        ("routes.a.limit.per_client.burst", REFUSED, "12"),
        ("routes.a.concurrency.max", REFUSED, "7"),
        ("routes.a.response_timeout", FAILED, "0.5s"),
        ("upstream.response_timeout", FAILED, "0.5s"),
    ],
)
def test_each_setting_has_what_normal_traffic_needs_of_it(path: str, causes: frozenset[Detector], rule: str) -> None:
    """
    Rates and bursts as asked, permits as held, a timeout of twice the normal p99, rounded up.
    """
    made = rule_of({"path": path, "old": None, "new": "1"}, causes, NORMAL, 1.0)
    assert (str(made), made and made.path) == (rule, path)


@pytest.mark.parametrize(
    ("change", "causes", "normal"),
    [
        ({"path": "routes.a.limit.rate", "old": "9/s", "new": None}, REFUSED, NORMAL),
        ({"path": "routes.a.limit.rate", "old": "9/s", "new": "1/s"}, FAILED, NORMAL),
        ({"path": "routes.a.response_timeout", "old": "9s", "new": "1s"}, REFUSED, NORMAL),
        ({"path": "routes.a.breaker.slow", "old": "9s", "new": "1s"}, FAILED, NORMAL),
        ({"path": "routes.a.limit.rate", "old": "9/s", "new": "1/s"}, REFUSED, Normal(seconds=20, rate_per_s=4.0)),
        ({"path": "routes.a.limit.rate", "old": "9/s", "new": "1/s"}, REFUSED, Normal(seconds=300)),
    ],
)
def test_what_says_nothing_makes_no_rule(
    change: dict[str, object], causes: frozenset[Detector], normal: Normal
) -> None:
    """
    A value that was taken away, an incident of another kind, another setting, little or no traffic before.
    """
    assert rule_of(change, causes, normal, 1.0) is None


def test_a_limit_counts_tokens() -> None:
    """
    Where a request takes two tokens, normal traffic needs twice the rate.
    """
    assert rule_of({"path": "routes.a.limit.rate", "new": "1/s"}, REFUSED, NORMAL, 2.0) == Rule(
        "routes.a.limit.rate", 82.0
    )
