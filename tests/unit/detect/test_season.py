"""The day's profile and the custom of its hours."""

import json

import pytest

from sidecar.detect.season import CYCLE, DAY_S, KEPT_VISITS, LEAST_VALUES, QUARTER_S, VISITS, Custom, Profile

HOUR_S = 3600.0


def test_an_unknown_hour_is_expected_to_be_as_the_long_run() -> None:
    """
    Before a slot has two values the long-run mean is expected.
    """
    profile = Profile()
    for _ in range(LEAST_VALUES):
        profile.observe(0.0, 10.0)

    assert profile.expected(12 * HOUR_S) == 10.0


def test_the_profile_learns_what_each_hour_is_like() -> None:
    """
    After some days the residual of a daily rhythm is 0.
    """
    profile = Profile()
    for day in range(5):
        for hour in range(24):
            profile.observe(day * DAY_S + hour * HOUR_S, float(hour))

    residuals = [profile.observe(5 * DAY_S + hour * HOUR_S, float(hour)) for hour in range(24)]

    assert residuals == pytest.approx([0.0] * 24)


def test_what_is_rare_for_the_first_time_is_news() -> None:
    """
    A rarity that the hour never showed is news, and 0 never is.
    """
    custom = Custom()

    assert custom.observe(0.0, 3.0)
    assert not custom.observe(0.0, 0.0)


def test_what_comes_at_the_same_time_every_day_is_news_three_times() -> None:
    """
    A daily peak is news for three days, then it is the custom; a rarer one is news again.
    """
    custom = Custom()
    told = []
    for day in range(6):
        for hour in range(24):
            news = custom.observe(day * DAY_S + hour * HOUR_S, 3.0 if hour == 2 else 0.0)
            told += [news] if hour == 2 else []

    assert told == [True, True, True, False, False, False]
    assert custom.observe(6 * DAY_S + 2 * HOUR_S, 4.0)


def test_a_custom_is_forgotten_in_three_days() -> None:
    """
    When three of the last five visits did not show it, it is news again.
    """
    custom = Custom()
    for day in range(8):
        for hour in range(24):
            custom.observe(day * DAY_S + hour * HOUR_S, 3.0 if hour == 2 and day < 5 else 0.0)

    assert custom.observe(8 * DAY_S + 2 * HOUR_S, 3.0)


def test_snapshots_go_on_as_if_nothing_happened() -> None:
    """
    Snapshot, JSON and restore keep the profile and the custom.
    """
    profile, custom = Profile(), Custom()
    for day in range(4):
        for hour in range(24):
            profile.observe(day * DAY_S + hour * HOUR_S, float(hour))
            custom.observe(day * DAY_S + hour * HOUR_S, 3.0 if hour == 2 else 0.0)

    other_profile, other_custom = Profile(), Custom()
    other_profile.restore(json.loads(json.dumps(profile.snapshot())))
    other_custom.restore(json.loads(json.dumps(custom.snapshot())))

    assert other_profile.expected(7 * HOUR_S) == profile.expected(7 * HOUR_S)
    assert not other_custom.observe(4 * DAY_S + 2 * HOUR_S, 3.0)


def test_documents_of_another_shape_are_refused() -> None:
    """
    A profile or custom with another number of slots is a ValueError.
    """
    with pytest.raises(ValueError, match="1 slots instead of 48"):
        Profile().restore({"seen": 1, "long_run": 0.0, "means": [1.0], "counts": [1]})
    with pytest.raises(ValueError, match="1 visits, or one outside of five days"):
        Custom().restore({**Custom().snapshot(), "visits": [[480, 60]]})


def test_only_the_rarest_visits_are_kept() -> None:
    """
    Of more rare visits than a custom has room for the rarest stay, and of those equally rare the latest.
    """
    custom = Custom()
    for hour in range(KEPT_VISITS + 10):
        custom.observe(hour * HOUR_S, 4.0 if hour % 2 else 3.0)
    custom.observe((KEPT_VISITS + 10) * HOUR_S, 0.0)

    kept = custom.snapshot()["visits"]

    assert len(kept) == KEPT_VISITS
    assert sum(rarity == 80 for _, rarity in kept) == (KEPT_VISITS + 10) // 2
    assert [0, 60] not in kept


def test_a_custom_of_an_older_release_forms_anew() -> None:
    """
    A document that knew no days is taken as an empty one.
    """
    custom = Custom()
    custom.restore({"shown": "AAAA", "next": "AAAA", "slot": 3, "greatest": 4.0})

    assert custom.snapshot() == Custom().snapshot()


def test_a_packed_profile_and_custom_are_the_same() -> None:
    """
    Packed and unpacked, both have the memory they had.
    """
    profile, custom = Profile(), Custom()
    for hour in range(100):
        profile.observe(hour * HOUR_S, float(hour))
        custom.observe(hour * HOUR_S, 3.0 if hour % 24 == 2 else 0.0)

    other_profile, other_custom = Profile(), Custom()
    other_profile.unpack(profile.pack())
    other_custom.unpack(custom.pack())

    assert other_profile.snapshot() == profile.snapshot()
    assert other_custom.snapshot() == custom.snapshot()


def test_a_quarter_without_a_value_was_a_visit_that_showed_nothing() -> None:
    """
    What was rare on three days is no custom when nothing was seen at its time on the following three.
    """
    custom = Custom()
    for day in range(8):
        for hour in range(24):
            if hour != 2 or day < 3:
                custom.observe(day * DAY_S + hour * HOUR_S, 3.0 if hour == 2 else 0.0)

    assert custom.observe(8 * DAY_S + 2 * HOUR_S, 3.0)


def test_a_place_that_was_passed_over_forgets_what_it_held() -> None:
    """
    Quarters that come round again without a value hold what five days ago was there no longer.
    """
    custom = Custom()
    for at_s in (0.0, QUARTER_S, 2 * QUARTER_S, 3 * QUARTER_S):
        custom.observe(at_s, 3.0)
    custom.observe(VISITS * DAY_S - HOUR_S, 0.0)
    custom.observe(VISITS * DAY_S + 2 * QUARTER_S, 0.0)

    assert [place for place, _ in custom.snapshot()["visits"]] == [2, 3]


@pytest.mark.parametrize(("pause", "left"), [(CYCLE, [288]), (CYCLE + 1, []), (10**12, [])])
def test_after_more_than_five_days_without_a_value_nothing_is_known(pause: int, left: list[int]) -> None:
    """
    A pause of any length costs one memory's worth of forgetting; what was seen last is five days old, then gone.
    """
    custom = Custom()
    for day in range(4):
        custom.observe(day * DAY_S, 3.0)
    custom.observe(3 * DAY_S + pause * QUARTER_S, 3.0)

    assert [place for place, _ in custom.snapshot()["visits"]] == left
