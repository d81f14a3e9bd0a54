"""What is recorded all the time is bounded, and comes back as it went in."""

from __future__ import annotations

from sidecar.facts import ClientSecond, RouteSecond
from sidecar.replay.reel import KEEP_S, MOST, Minute, Reel, heaviest
from sidecar.replay.tape import read


def second(requests: int = 10) -> RouteSecond:
    clients = {f"10.0.0.{i}": ClientSecond(i) for i in range(40)}
    return RouteSecond("checkout", 0.0, arrivals=requests, successes=requests, clients=clients)


def test_the_last_seconds_come_back_in_order() -> None:
    """
    Whole minutes and the one that is not over are one tape; each second is later than the one before.
    """
    reel = Reel()
    for i in range(150):
        reel.take([second(i + 1)], 1_000_000 + i * 0.999)
    lines = list(read(reel.lines(0)))
    assert [line.requests for line in lines] == list(range(1, 151))
    assert len({line.t for line in lines}) == 150
    assert [line.requests for line in read(reel.lines(1_000_120))][-1] == 150


def test_a_minute_is_handed_out_when_it_is_over() -> None:
    """
    What the store gets is what a new reel can be filled with.
    """
    reel = Reel()
    closed = [minute for i in range(130) if (minute := reel.take([second()], 1_000_020.0 + i)[1]) is not None]
    assert len(closed) == 2
    other = Reel()
    other.put_back(Minute(minute.unix, minute.data) for minute in closed)
    assert list(other.lines(0)) == [line for minute in closed for line in minute.lines()]


def test_two_hours_are_kept() -> None:
    """
    Older minutes go; what is kept of a busy route is a few hundred bytes a second at most.
    """
    reel = Reel()
    for i in range(KEEP_S + 600):
        reel.take([second()], 1_000_000.0 + i)
    kept = sum(1 for _ in reel.lines(0))
    assert KEEP_S <= kept <= KEEP_S + 120
    assert reel.size_bytes < 300 * KEEP_S


def test_idle_routes_have_no_line_and_only_heavy_clients_a_name() -> None:
    """
    The tables are bounded; the heaviest stay.
    """
    lines, _ = Reel().take([RouteSecond("idle", 0.0), second()], 5.0)
    assert len(lines) == 1
    assert set(heaviest(second()).clients) == {f"10.0.0.{i}" for i in range(40 - MOST, 40)}
