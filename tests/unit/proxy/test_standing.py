"""One endpoint's standing: four witnesses, each with its own clock."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sidecar.config.policies import EjectionPolicy
from sidecar.facts import Mode
from sidecar.proxy.standing import LEAST_START_RATIO, Stand, Standing

POLICY = EjectionPolicy()


def standing(policy: EjectionPolicy = POLICY, seed: str = "") -> Standing:
    return Standing(policy, seed, 0.0)


def test_failures_in_a_row_make_an_outlier() -> None:
    """
    The fifth failure in a row does; one answer in between begins the count anew.
    """
    it = standing()

    assert [it.ended(1.0, failed=failed) for failed in (True, True, True, True, False)] == [False] * 5
    assert [it.ended(1.0, failed=True) for _ in range(5)] == [False, False, False, False, True]


def test_a_ratio_of_failures_makes_an_outlier() -> None:
    """
    Half of at least twenty requests within the window does; what is older than the window does not count.
    """
    it = standing(replace(POLICY, consecutive=0))

    verdicts = [it.ended(1.0, failed=index % 2 == 1) for index in range(20)]
    assert verdicts == [False] * 19 + [True]
    assert it.failures(1.0) == (10, 20)
    assert it.failures(20.0) == (0, 0)
    assert not it.ended(20.0, failed=True)


def test_ejections_grow_and_fade() -> None:
    """
    The n-th ejection takes up to n times the base, at most `max`; each base in service takes one step back.
    """
    it = standing()
    now, spans = 0.0, []
    for _ in range(12):
        spans.append(it.eject(now))
        now += spans[-1]

    assert all(0.75 * min(30.0 * n, 300.0) <= span <= min(30.0 * n, 300.0) for n, span in enumerate(spans, 1))
    assert it.ejections == 12
    assert it.eject(now + 12 * 30.0) <= 30.0


def test_jitter_is_a_hash() -> None:
    """
    Endpoints and workers return at different times, each of them at the same one every time.
    """
    assert standing(seed="a").eject(0.0) == standing(seed="a").eject(0.0)
    assert len({standing(seed=f"worker-{index}").eject(0.0) for index in range(20)}) == 20


def test_late_answers_do_not_count() -> None:
    """
    What comes while it is ejected was asked before.
    """
    it = standing()
    it.eject(0.0)

    assert [it.ended(1.0, failed=True) for _ in range(10)] == [False] * 10
    assert it.failures(1.0) == (0, 0)


def test_observing_ejects_nothing() -> None:
    """
    In observe mode an ejection is counted and the endpoint stays; a change to it ends an ejection.
    """
    it = standing(replace(POLICY, mode=Mode.OBSERVE))
    it.eject(0.0)
    assert (it.stand(1.0), it.ejections) == (Stand.UP, 1)

    other = standing()
    other.eject(0.0)
    other.apply(replace(POLICY, mode=Mode.OBSERVE), 1.0)
    assert other.stand(1.0) is Stand.UP


@pytest.mark.parametrize(("tries", "span_s"), [(1, 1.0), (2, 2.0), (3, 4.0), (9, 30.0), (50, 30.0)])
def test_an_endpoint_that_cannot_be_reached_is_passed_over(tries: int, span_s: float) -> None:
    """
    For 1 s after the first failure, doubling to 30 s; a connection that stands ends it at once and begins the slow start.
    """
    it = standing()
    for _ in range(tries):
        it.unreached(100.0)

    assert it.stand(100.0 + span_s - 0.01) is Stand.UNREACHABLE
    assert it.stand(100.0 + span_s) is Stand.UP
    assert it.reached(100.5)
    assert it.stand(100.5) is Stand.UP
    assert it.start_ratio(10.0, 100.5) == LEAST_START_RATIO
    assert not it.reached(101.0)


def test_the_slow_start_grows_to_the_whole_weight() -> None:
    """
    A tenth at first, then by the time; none at all without the setting.
    """
    it = standing()
    it.came_back(50.0)

    assert [it.start_ratio(10.0, at) for at in (50.0, 55.0, 59.0, 60.0)] == [0.1, 0.5, 0.9, 1.0]
    assert it.start_ratio(0.0, 50.0) == 1.0


def test_the_most_deliberate_witness_is_named() -> None:
    """
    An operator before a health check before the outlier rule before a connection.
    """
    it = standing()
    it.unreached(0.0)
    assert it.stand(0.5) is Stand.UNREACHABLE
    it.eject(0.0)
    assert it.stand(0.5) is Stand.EJECTED
    it.checked(1.0)
    assert it.stand(0.5) is Stand.UNHEALTHY
    assert it.stand(1.5) is Stand.EJECTED
    it.isolated = True
    assert it.stand(0.5) is Stand.ISOLATED
    it.isolated = False
    it.checked(None)
    assert it.stand(0.5) is Stand.EJECTED
