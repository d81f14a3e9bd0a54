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
    ("path", "causes", "new", "rule"),
    [
        ("routes.a.limit.rate", REFUSED, "60/m", "41/s"),
        ("service.limit.rate", REFUSED, "1/s", "41/s"),
        ("routes.a.limit.burst", REFUSED, 1, "41"),
        ("routes.a.limit.per_client.rate", REFUSED, "1/s", "12/s"),
        ("routes.a.limit.per_client.burst", REFUSED, 1, "12"),
        ("routes.a.concurrency.max", REFUSED, 1, "7"),
        ("routes.a.response_timeout", FAILED, "100ms", "0.5s"),
        ("upstream.response_timeout", FAILED, "100ms", "0.5s"),
    ],
)
def test_each_setting_has_what_normal_traffic_needs_of_it(
    path: str, causes: frozenset[Detector], new: object, rule: str
) -> None:
    """
    Rates and bursts as asked, permits as held, a timeout of twice the normal p99, rounded up.
    """
    made = rule_of({"path": path, "old": None, "new": new}, causes, NORMAL, 1.0)
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
        ({"path": "routes.a.response_timeout", "old": "5s", "new": "30s"}, FAILED, NORMAL),
        ({"path": "routes.a.limit.rate", "old": "50/s", "new": "100/s"}, REFUSED, NORMAL),
        ({"path": "routes.a.limit.rate", "old": "10/s", "new": "20/s"}, REFUSED, NORMAL),
        ({"path": "routes.a.limit.rate", "old": "100/s", "new": "41/s"}, REFUSED, NORMAL),
        ({"path": "routes.a.concurrency.max", "old": 100, "new": "auto"}, REFUSED, NORMAL),
    ],
)
def test_what_says_nothing_makes_no_rule(
    change: dict[str, object], causes: frozenset[Detector], normal: Normal
) -> None:
    """
    A value that was taken away, an incident of another kind, another setting, little or no traffic before, and a value
    that was raised, is enough as it is, or is no number.
    """
    assert rule_of(change, causes, normal, 1.0) is None


def test_a_limit_counts_tokens() -> None:
    """
    Where a request takes two tokens, normal traffic needs twice the rate.
    """
    assert rule_of({"path": "routes.a.limit.rate", "new": "1/s"}, REFUSED, NORMAL, 2.0) == Rule(
        "routes.a.limit.rate", 82.0
    )


def test_no_rule_forbids_what_ran_before() -> None:
    """
    The value before the change was below what normal traffic needs: the rule goes no higher than that.
    """
    change = {"path": "routes.a.limit.rate", "old": "30/s", "new": "10/s"}
    made = rule_of(change, REFUSED, NORMAL, 1.0)
    assert made is not None
    assert (str(made), made.forbids(made.path, "30/s"), made.forbids(made.path, "29/s")) == ("30/s", False, True)


def test_a_rule_is_written_as_the_config_reads_it() -> None:
    """
    Large numbers have no exponent; a rule of a release that had no units is of a rate.
    """
    rule = Rule.from_json({"path": "service.limit.rate", "at_least": 12_345_678.0})
    assert (rule.words, Rule.from_json(rule.to_json())) == ("never below 12345678/s", rule)
    assert Rule.from_json({"path": "a", "at_least": 0.4, "unit": "s"}).words == "never below 0.4s"
