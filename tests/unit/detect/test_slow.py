"""The slow path: what it raises, once per episode, in constant memory and without future."""

import json
import sys
from math import inf, nan, pi, sin
from random import Random

import pytest

from sidecar.detect.slow import RECORD_BYTES, Episodes, SlowDetector, SlowPolicy

STEP_S = 300.0


def steady(seed: int, count: int) -> list[float]:
    rng = Random(seed)
    return [50.0 + 2.0 * rng.gauss(0, 1) for _ in range(count)]


def alarms(values: list[float], detector: SlowDetector | None = None) -> list[int]:
    detector = detector or SlowDetector()
    return [i for i, value in enumerate(values) if detector.observe(i * STEP_S, value).alarm]


def test_the_first_values_are_learnt_and_never_judged() -> None:
    """
    Nothing is raised in the first 144 values.
    """
    assert alarms([10.0**i for i in range(144)]) == []


def test_a_spike_raises_at_once() -> None:
    """
    A single value far outside of everything seen raises in its own row.
    """
    values = steady(1, 1000)
    values[900] = 150.0

    assert 900 in alarms(values)


def test_a_lasting_shift_raises_once() -> None:
    """
    One alarm speaks for the whole episode.
    """
    values = steady(2, 1000)
    values[850:950] = [value + 30.0 for value in values[850:950]]

    raised = [i for i in alarms(values) if i >= 850]

    assert raised == [850]


def test_a_missing_night_is_found_although_its_values_are_usual() -> None:
    """
    A day that does not fall in the night is unusual for the hour only, and is raised.
    """
    rng = Random(3)
    values = [1000.0 + 800.0 * sin(i / 288 * 2 * pi) + 20.0 * rng.gauss(0, 1) for i in range(288 * 12)]
    values[288 * 10 + 180 : 288 * 10 + 260] = [1000.0] * 80

    assert any(288 * 10 + 180 <= i < 288 * 10 + 260 for i in alarms(values))


def test_a_daily_peak_is_no_news_after_some_days() -> None:
    """
    What comes every day at the same time is raised on the first days only.
    """
    values = steady(4, 288 * 12)
    for day in range(12):
        values[288 * day + 100] = 150.0

    peaks = [i // 288 for i in alarms(values) if i % 288 == 100]

    assert peaks
    assert max(peaks) <= 3


def test_the_score_says_the_alarm() -> None:
    """
    The score lies in [0, 1], and is 0.5 or more exactly where an alarm is raised.
    """
    detector, values = SlowDetector(), steady(5, 3000)
    values[2000] = 90.0

    for i, value in enumerate(values):
        reading = detector.observe(i * STEP_S, value)
        assert 0.0 <= reading.score <= 1.0
        assert (reading.score >= 0.5) == reading.alarm


def test_what_nearly_raises_is_told_once_too() -> None:
    """
    Between 0.8 of the threshold and the threshold the score says so, once per episode, and raises nothing.
    """
    episodes = Episodes(SlowPolicy(threshold=2.5))

    first, second = episodes.judge(0.0, 2.2), episodes.judge(STEP_S, 2.2)

    assert first == (pytest.approx(2.2 / 4.7), False)
    assert second[0] < 0.8 / 1.8


def test_values_that_are_no_numbers_are_left_out() -> None:
    """
    NaN and infinity change nothing.
    """
    left_out, plain = SlowDetector(), SlowDetector()
    for i, value in enumerate(steady(6, 500)):
        left_out.observe(i * STEP_S, value)
        left_out.observe(i * STEP_S, nan if i % 2 else inf)
        plain.observe(i * STEP_S, value)

    assert left_out.snapshot() == plain.snapshot()


@pytest.mark.parametrize("values", [[0.0] * 2000, [7.0] * 2000, [-1e-300] * 2000, [1e300, -1e300] * 1000])
def test_odd_streams_raise_nothing_and_break_nothing(values: list[float]) -> None:
    """
    Constant, tiny and huge streams are ordinary streams.
    """
    assert alarms(values) == []


def test_a_snapshot_goes_on_as_if_nothing_happened() -> None:
    """
    Snapshot, JSON and restore raise the same alarms from there on.
    """
    values = steady(7, 3000)
    values[2500] = 150.0
    first, second = SlowDetector(), SlowDetector()
    alarms(values[:2000], first)
    second.restore(json.loads(json.dumps(first.snapshot())))

    assert alarms(values[2000:], second) == alarms(values[2000:], first)


def test_a_stream_sleeps_as_one_record() -> None:
    """
    Packed after each value and unpacked for the next, a stream raises what one that stays awake raises.
    """
    values = steady(9, 1500)
    values[1200] = 150.0
    awake, record, raised = SlowDetector(), SlowDetector().pack(), []
    for i, value in enumerate(values):
        woken = SlowDetector.unpacked(SlowPolicy(), record)
        raised += [i] if woken.observe(i * STEP_S, value).alarm else []
        record = woken.pack()

    assert raised == alarms(values, awake)
    assert SlowDetector.unpacked(SlowPolicy(), record).snapshot() == awake.snapshot()
    assert len(record) == RECORD_BYTES


def test_a_document_of_another_shape_is_refused() -> None:
    """
    Restoring a document with other scales is a ValueError.
    """
    with pytest.raises(ValueError, match="1 means instead of 12"):
        SlowDetector().restore({**SlowDetector().snapshot(), "means": [0.0]})


def test_a_stream_costs_less_than_16_kib() -> None:
    """
    Memory is constant: below 16 KiB a stream after any number of values.
    """
    detector = SlowDetector()
    alarms(steady(8, 5000), detector)

    assert size(detector, set()) < 16 * 1024


def size(thing: object, counted: set[int]) -> int:
    """Return the bytes of *thing* and of all that hangs on it, policies left out."""
    if id(thing) in counted or isinstance(thing, (SlowPolicy, type)):
        return 0
    counted.add(id(thing))
    inner: list[object] = list(thing) if isinstance(thing, list) else []
    inner += [getattr(thing, name) for name in getattr(type(thing), "__slots__", ()) if hasattr(thing, name)]
    return sys.getsizeof(thing) + sum(size(part, counted) for part in inner)
