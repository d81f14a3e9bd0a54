"""Who asks again too soon: measured on what is refused or fails, in constant memory, and told to wait longer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sidecar.proxy.storm import HOLD_S, MOST_DOUBLINGS, PLACES, RAGING_PLACES, Storm
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


def test_a_tenth_of_all_is_a_storm_and_it_ends() -> None:
    """
    It rages while re-arrivals are five and a tenth of what the route is asked, and ten seconds more.
    """
    storm = Storm()
    storm.second({"shop": (1000, 99), "mail": (30, 0)}, 1.0)
    assert storm.raging == set()
    storm.second({"shop": (1000, 199), "mail": (60, 1)}, 2.0)
    assert storm.raging == {"shop"}
    storm.second({"shop": (90_000, 199), "mail": (90, 2)}, 1.9 + HOLD_S)
    assert storm.raging == {"shop"}
    storm.second({"shop": (90_001, 199), "mail": (120, 3)}, 2.0 + HOLD_S)
    assert storm.raging == set()


def test_a_few_are_no_storm() -> None:
    """
    Four of four requests that come again are somebody who tries twice.
    """
    storm = Storm()
    storm.second({"shop": (4, 4)}, 1.0)
    assert storm.raging == set()


def test_a_route_that_is_gone_rages_no_more() -> None:
    """
    A live change takes the route away: what stays is looked up no more.
    """
    storm = Storm()
    storm.second({"shop": (10, 10), "mail": (0, 0)}, 1.0)
    storm.second({"mail": (0, 0)}, 2.0)
    assert (storm.raging, len(storm._keys)) == (set(), PLACES)


def test_who_comes_again_is_known_while_the_storm_rages() -> None:
    """
    In calm nobody is looked up; in a storm who was refused before it is known, until its wait is over.
    """
    play = Play()
    play.refused(0.0, client="a")
    asked = ("shop", "a", "GET", "/a", 1.5)
    assert not play.storm.comes_again(*asked)
    play.storm.second({"shop": (10, 10)}, 1.0)
    assert len(play.storm._keys) == RAGING_PLACES
    assert play.storm.comes_again(*asked)
    assert not play.storm.comes_again("shop", "a", "GET", "/a", 2.0), "it waited"
    assert not play.storm.comes_again("shop", "b", "GET", "/a", 1.5)
    assert not play.storm.comes_again("mail", "a", "GET", "/a", 1.5)


def test_ten_thousand_are_known_in_a_storm() -> None:
    """
    The table grows with the storm: of 10,000 who were refused nearly all are known, and in calm it is small again.
    """
    play = Play()
    play.storm.second({"shop": (10, 10)}, 0.0)
    for number in range(10_000):
        play.refused(0.0, client=str(number))
    known = sum(play.storm.comes_again("shop", str(number), "GET", "/a", 1.0) for number in range(10_000))
    assert known > 9_000
    for at in (1000.0, 2000.0):
        play.storm.second({"shop": (10, 10)}, at)
    assert len(play.storm._keys) == PLACES


def test_when_the_table_shrinks_who_waits_longest_stays() -> None:
    """
    Of those who share a place in the small table the one with the longest wait is still known.
    """
    play = Play()
    play.storm.second({"shop": (10, 10)}, 0.0)
    for number in reversed(range(10_000)):
        wait_s = 5000.0 if number < 100 else 3000.0
        play.refused(0.0, Refusal(Reason.BREAKER_OPEN, wait_s), client=str(number))
    for at in (1000.0, 2000.0):
        play.storm.second({"shop": (10, 10)}, at)
    assert len(play.storm._keys) == PLACES
    play.storm.raging = {"shop"}
    known = sum(play.storm.comes_again("shop", str(number), "GET", "/a", 2001.0) for number in range(100))
    assert known >= 85


def test_in_a_storm_a_shared_limit_spreads_those_who_return() -> None:
    """
    The next token of all is nobody's: a re-arrival at a shared limit waits longer and jittered, at its own it is exact.
    """
    shared, own = Refusal(Reason.RATE_LIMITED, 0.1, "limit"), Refusal(Reason.RATE_LIMITED, 0.1, "limit.per_client")
    play = Play()
    play.storm.second({"shop": (10, 10)}, 0.0)
    waits = set()
    for client in "abcdefgh":
        assert play.refused(0.0, shared, client) == 0.1, "a first try learns the truth"
        wait = play.refused(0.1, shared, client)
        assert 2.0 <= wait <= 3.0
        waits.add(wait)
    assert len(waits) > 4
    assert [play.refused(0.0, own, "own"), play.refused(0.0, own, "own")] == [0.1, 0.1]


def test_advice_grows_with_each_try() -> None:
    """
    Who failed once is told a second or two, who comes again too soon twice as much, at most 96 s.
    """
    play = Play()
    told = []
    for at in range(9):
        play.failed(0.1 * at)
        name, _, seconds = play.storm.advice("shop", "c", "GET", "/a").decode().partition(": ")
        assert (name, seconds[-2:]) == ("retry-after", "\r\n")
        told.append(int(seconds))
    assert all(2**at <= seconds <= 1.5 * 2**at + 1 for at, seconds in enumerate(told[:7]))
    assert told[6] == told[8]


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
