"""A detector's record on a route, by what people said."""

from __future__ import annotations

import json

from sidecar.incident.scorecard import KEPT, Judgement, Scorecard


def card(*verdicts: str) -> Scorecard:
    made = Scorecard()
    for number, verdict in enumerate(verdicts):
        made = made.judge(Judgement(number, verdict, float(number), delay_s=float(number), pages=1, refused_s=10.0))
    return made


def test_precision_is_right_over_right_and_wrong() -> None:
    """
    Benign says that the detector was right about something wanted: it counts for neither.
    """
    assert card().precision is None
    assert card("benign").precision is None
    assert card("confirmed", "false_positive", "confirmed", "benign").precision == 2 / 3


def test_it_is_demoted_when_wrong_more_often_than_right() -> None:
    """
    Five verdicts at least, below one half.
    """
    assert not card(*["false_positive"] * 4).too_often_wrong()
    assert card(*["false_positive"] * 5).too_often_wrong()
    assert not card(*["confirmed", "false_positive"] * 3).too_often_wrong()
    assert card("confirmed", "confirmed", *["false_positive"] * 3).too_often_wrong()


def test_what_the_threshold_has_learnt_demotes_nobody() -> None:
    """
    False positives that would be silent at the present offset do not count; those above it do, and survive as JSON.
    """
    made = Scorecard()
    for number, hushed_at in enumerate((0.5, 1.0, 1.5, 2.0, 9.0)):
        made = made.judge(Judgement(number, "false_positive", float(number), 1.0, 1, 0.0, 0.9, hushed_at))
    assert made.too_often_wrong(0.0)
    assert not made.too_often_wrong(3.0)
    assert Scorecard.from_json(json.loads(json.dumps(made.to_json()))) == made


def test_a_promotion_starts_the_count_anew() -> None:
    """
    Verdicts of before do not demote again; later ones do.
    """
    promoted = card(*["false_positive"] * 6).demote(5.5, "automation").promote(6.0)
    assert not promoted.too_often_wrong()
    for number in range(10, 15):
        promoted = promoted.judge(Judgement(number, "false_positive", float(number), 1.0, 1, 0.0))
    assert promoted.too_often_wrong()


def test_a_changed_verdict_replaces_the_old_one() -> None:
    """
    One incident has one verdict.
    """
    made = card("false_positive").judge(Judgement(0, "confirmed", 9.0, 1.0, 1, 0.0))
    assert made.precision == 1.0


def test_the_shadow_record_is_kept_while_it_is_demoted() -> None:
    """
    What it would have raised is told with the promotion's hint.
    """
    made = card(*["false_positive"] * 5).demote(9.0, "automation").shadow(began=True).shadow(began=False)
    document = made.document()
    assert document["demoted"]["would_have_raised"] == 1
    assert document["demoted"]["seconds"] == 2
    assert "0 of 5 verdicts confirm it; would have raised 1 since" in made.words()
    assert made.promote(10.0).document()["demoted"] is None


def test_the_document_says_what_a_detector_is_worth() -> None:
    """
    Precision, delay of the real ones, pages, seconds of false refusal, the last ten verdicts.
    """
    document = card("confirmed", "false_positive", "confirmed").document()
    assert (document["confirmed"], document["false_positive"], document["delay_s"]) == (2, 1, 1.0)
    assert (document["pages"], document["falsely_refused_s"]) == (3, 10.0)
    assert [row["incident"] for row in document["last"]] == [2, 1, 0]


def test_memory_is_bounded_and_survives_as_json() -> None:
    """
    The oldest verdicts go first.
    """
    made = card(*["confirmed"] * (KEPT + 10)).demote(1.0, "ops")
    assert len(made.judged) == KEPT
    assert Scorecard.from_json(made.to_json()) == made
