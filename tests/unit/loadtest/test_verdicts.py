"""Row 9: the episodes are what they say, and a run is counted right."""

from __future__ import annotations

from dataclasses import replace

from loadtest.detection.verdicts import (
    AFTER_S,
    APART_S,
    CALM_S,
    EACH,
    HICCUP_S,
    SETTINGS,
    WEAK,
    Episode,
    Learnt,
    episodes,
    seconds,
    summary,
)
from tests.support.traffic import Traffic


def test_twenty_of_each_in_an_order_of_their_own() -> None:
    """
    A seed gives twenty real and twenty false episodes, the same ones each time, far enough apart for no mark to count.
    """
    found = episodes(SETTINGS[0], 1)

    assert found == episodes(SETTINGS[0], 1) != episodes(SETTINGS[0], 2)
    assert [sum(episode.real is real for episode in found) for real in (True, False)] == [EACH, EACH]
    assert {episode.pause_s for episode in found} == {APART_S}
    assert {episode.failures for episode in found if not episode.real} == {WEAK}


def test_a_trigger_has_its_failures_and_no_more() -> None:
    """
    Six failures in six seconds between calm seconds, on top of what fails anyway.
    """
    rows = list(seconds(Traffic(3, error_ratio=0.0), Episode(False, 100.0, HICCUP_S, failures=WEAK)))
    failed = [i for i, row in enumerate(rows) if row.failures]

    assert len(rows) == CALM_S + HICCUP_S + AFTER_S
    assert sum(row.failures for row in rows) == WEAK
    assert (failed[0], failed[-1]) == (CALM_S, CALM_S + HICCUP_S - 1)
    assert all(row.successes + row.failures == row.judged == row.arrivals for row in rows)


def test_the_summary_is_over_all_runs() -> None:
    """
    Precision is that of all incidents together; hidden ones are added up; no incident at all is no precision.
    """
    run = Learnt(right=9, wrong=1, wrong_untaught=8, hidden=1, found_untaught=20, withheld=0, demoted=False, offset=1.0)
    found = summary([run, replace(run, wrong=3, demoted=True)])

    assert (found["precision"], found["hidden"], found["runs_demoted"], found["runs"]) == (18 / 22, 2, 1, 2)
    assert summary([replace(run, right=0, wrong=0)])["precision"] == 0.0
