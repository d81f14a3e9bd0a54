"""Who asks again too soon: measured on what is refused or fails, in constant memory, and told to wait longer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidecar.proxy.storm import MOST_DOUBLINGS, PLACES, Storm
from sidecar.reasons import Reason, Refusal

OPEN = Refusal(Reason.BREAKER_OPEN, 2.0, "breaker")
LIMITED = Refusal(Reason.RATE_LIMITED, 3.0, "limit.per_client")


class Counter:
    """Counts re-arrivals."""

    def __init__(self) -> None:
        self.again = 0

    def rearrived(self) -> None:
        self.again += 1


class Play:
    """One worker's memory, asked at moments of the test's choice."""

    def __init__(self) -> None:
        self.storm, self.counter = Storm(), Counter()

    def refused(
        self, at: float, refusal: Refusal = OPEN, client: str = "c", method: str = "GET", path: str = "/a"
    ) -> float:
        return self.storm.refused(self.counter, "shop", client, method, path, refusal, at).retry_after_s

    def failed(self, at: float, path: str = "/a") -> None:
        self.storm.failed(self.counter, "shop", "c", "GET", path, at)


def test_a_first_try_is_none() -> None:
    """
    Another client, method or path, and the same one after its wait, ask for the first time.
    """
    play = Play()
    waits = [
        play.refused(0.0), play.refused(0.1, client="d"), play.refused(0.1, method="PUT"), play.refused(0.1, path="/b"),
        play.refused(2.0),
    ]  # fmt: skip
    assert (waits, play.counter.again) == ([2.0] * 5, 0)


def test_who_asks_again_too_soon_waits_longer() -> None:
    """
    Each re-arrival in a row doubles the wait, up to 64 s; one that waited begins anew.
    """
    play = Play()
    waits = [play.refused(0.1 * n) for n in range(9)]
    assert waits == [2.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 64.0, 64.0]
    assert play.counter.again == 8
    assert play.refused(0.8 + 64.0) == 2.0


def test_an_exact_wait_stays_exact() -> None:
    """
    The time to the next token is the truth: it is counted, and not made longer.
    """
    play = Play()
    assert [play.refused(0.1 * n, LIMITED) for n in range(4)] == [3.0] * 4
    assert play.counter.again == 3


def test_answers_of_the_api_count_too() -> None:
    """
    After a 5xx the same request within a second is a re-arrival, a refused one as well.
    """
    play = Play()
    for at in (0.0, 0.5, 1.0):
        play.failed(at)
    assert play.counter.again == 2
    assert play.refused(2.0) == 8.0
    play.failed(100.0)
    assert play.counter.again == 3


def test_a_drill_leaves_no_trace() -> None:
    """
    What a drill answers is no refusal of anybody.
    """
    play = Play()
    for at in (0.0, 0.1):
        play.refused(at, Refusal(Reason.DRILL, 1.0))
    assert play.counter.again == 0


def test_a_million_keys_need_no_more_memory() -> None:
    """
    Places are overwritten; the tables keep their length.
    """
    play = Play()
    for number in range(50_000):
        play.refused(0.0, client=str(number))
    assert play.counter.again == 0
    assert [len(table) for table in (play.storm._keys, play.storm._until, play.storm._tries)] == [PLACES] * 3


@given(st.lists(st.tuples(st.floats(0, 1e9), st.sampled_from("abc"), st.booleans()), max_size=50))
def test_time_may_do_what_it_wants(asked: list[tuple[float, str, bool]]) -> None:
    """
    Whatever the order of moments: no more re-arrivals than requests, no wait beyond the longest.
    """
    play = Play()
    for at, path, fails in asked:
        if fails:
            play.failed(at, path)
        else:
            assert 2.0 <= play.refused(at, path=path) <= 2.0**MOST_DOUBLINGS
    assert 0 <= play.counter.again <= max(len(asked) - 1, 0)
