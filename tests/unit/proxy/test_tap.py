"""Ids, and the bounds of what is told of single requests."""

from __future__ import annotations

from sidecar.link.frames import Decided, Sample
from sidecar.proxy.tap import ANY_SAMPLES_PER_S, DECISIONS_PER_S, KEPT, SAMPLES_PER_S, Samples, Tap, jitter_ratio
from sidecar.reasons import Reason, Refusal

REFUSAL = Refusal(Reason.RATE_LIMITED, 1.0, "limit.route", "10/s burst 20", "12")


def tap() -> tuple[Tap, list[Decided | Sample]]:
    sent: list[Decided | Sample] = []
    return Tap("0123456789abcdef", sent.append), sent


def decide(made: Tap) -> str:
    decision = made.next_id()
    made.decided(
        decision, REFUSAL, 5.0, route="r", client="c", method="GET", path="/{id}", version=3, enforced=True
    )  # fmt: skip
    return decision


def test_a_decision_tells_the_rule_and_its_values() -> None:
    """
    A decision carries what `sidecar explain` shows, under the id that the client was given.
    """
    made, sent = tap()

    decision = decide(made)

    assert sent == [
        Decided(decision, "r", 5.0, "c", "GET", "/{id}", "rate_limited", "limit.route", "10/s burst 20", 3, "12")
    ]


def test_ids_are_unique_and_name_the_worker() -> None:
    """
    Every decision has its own id, and two workers' ids never meet.
    """
    made, _ = tap()

    ids = [made.next_id() for _ in range(100)]

    assert len(set(ids)) == 100
    assert {decision.partition("-")[0] for decision in ids} == {"012345"}


def test_decisions_beyond_the_allowance_are_counted_and_not_told() -> None:
    """
    In one second so many are told; the next second begins anew.
    """
    made, sent = tap()

    for _ in range(DECISIONS_PER_S + 7):
        decide(made)
    told, dropped = len(sent), made.dropped
    made.second()
    decide(made)

    assert (told, dropped) == (DECISIONS_PER_S, 7)
    assert len(sent) == DECISIONS_PER_S + 1


def test_failures_have_samples_kept_for_them() -> None:
    """
    Successes take two samples a second; failures find the rest, and then what successes left.
    """
    samples = Samples()

    successes = [samples.take(failed=False) for _ in range(5)].count(True)
    failures = [samples.take(failed=True) for _ in range(9)].count(True)
    samples.renew()
    only_failures = [samples.take(failed=True) for _ in range(9)].count(True)

    assert (successes, failures) == (ANY_SAMPLES_PER_S, SAMPLES_PER_S - ANY_SAMPLES_PER_S)
    assert only_failures == SAMPLES_PER_S


def test_a_route_keeps_its_allowance() -> None:
    """
    One route has one allowance, whichever config version asks for it; a new second renews it.
    """
    made, _ = tap()
    samples = made.samples("r")
    while samples.take(failed=True):
        pass

    assert made.samples("r") is samples
    made.second()
    assert samples.take(failed=False)


def test_the_rings_are_bounded() -> None:
    """
    Only the last samples are kept, whatever was shown.
    """
    made, sent = tap()
    for number in range(KEPT + 10):
        made.show(Sample("r", float(number), "c", "GET", "/", 200, "", 0.0, ()))

    assert (len(made.recent), len(sent)) == (KEPT, KEPT + 10)
    assert made.recent[0].at == 10.0


def test_jitter_is_a_ratio() -> None:
    """
    The spread of Retry-After lies in 0..1.
    """
    drawn = [jitter_ratio() for _ in range(100)]

    assert all(0.0 <= ratio < 1.0 for ratio in drawn)
    assert len(set(drawn)) > 1
