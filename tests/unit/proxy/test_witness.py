"""Who hears of a request: the access log's share without chance, taps within their bounds."""

from __future__ import annotations

import dataclasses
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.facts import RequestFacts
from sidecar.link.frames import Tap, Tapped
from sidecar.proxy.witness import LOG, MAX_TAPS, SHOWN_PER_S, TAP, Witness
from sidecar.reasons import Reason

FACTS = RequestFacts(
    0.0,
    "checkout",
    "h-1",
    "GET",
    "/secret/1",
    1,
    "/secret/{id}",
    503,
    "breaker_open",
    "UH",
    0.0,
    None,
    0.25,
    0,
    10,
    "d-1",
)
BY_API = dataclasses.replace(FACTS, status=500, reason="", decision="")


@pytest.fixture
def heard() -> list[RequestFacts]:
    return []


@pytest.fixture
def sent() -> list[Tapped]:
    return []


@pytest.fixture
def witness(heard: list[RequestFacts], sent: list[Tapped]) -> Witness:
    made = Witness(sent.append)
    made.log_to(heard.append, 0.01)
    return made


def test_every_failure_and_refusal_is_logged(witness: Witness) -> None:
    """
    A status of 400 and above, or a reason (an answer that was cut keeps its 200), is always wanted.
    """
    assert [witness.wants(status, None) for status in (400, 404, 500, 503)] == [LOG] * 4
    assert witness.wants(200, Reason.UPSTREAM_RESET) == LOG


def test_of_the_successes_every_kth_is_logged(witness: Witness) -> None:
    """
    With 1 % it is the 100th, the 200th and so on; failures between them do not move it.
    """
    wanted = []
    for number in range(1, 301):
        if witness.wants(200, None):
            wanted.append(number)
        witness.wants(500, None)
    assert wanted == [100, 200, 300]


@settings(max_examples=100, deadline=None)
@given(ratio=st.integers(0, 1000).map(lambda n: n / 1000), count=st.integers(0, 3000))
def test_the_share_is_exact_and_even(ratio: float, count: int) -> None:
    """
    Of any number of successes the share is logged, off by less than one, and the gaps differ by one at most.
    """
    witness = Witness(lambda _: None)
    witness.log_to(lambda _: None, ratio)
    turns = [number for number in range(count) if witness.wants(200, None)]
    assert abs(len(turns) - ratio * count) < 1
    gaps = {b - a for a, b in itertools.pairwise(turns)}
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_without_a_log_nobody_is_asked(witness: Witness, heard: list[RequestFacts]) -> None:
    """
    `format: off` costs nothing and tells nothing, refusals neither.
    """
    witness.log_to(None, 1.0)
    assert (witness.wants(200, None), witness.wants(503, Reason.BREAKER_OPEN)) == (0, 0)
    assert repr(witness) == "<Witness does not log, 0 taps>"
    witness.take(LOG, FACTS, 0.0)
    assert heard == []


def test_a_tap_sees_what_the_log_does_not(witness: Witness, heard: list[RequestFacts], sent: list[Tapped]) -> None:
    """
    While somebody looks on every request is wanted; only the log's part goes to the log, and no path goes up.
    """
    witness.tap(Tap("t1", 5.0), 0.0)
    assert witness.wants(200, None) == TAP
    assert witness.wants(503, Reason.BREAKER_OPEN) == LOG | TAP
    witness.take(TAP, FACTS, 1.0)
    assert heard == []
    assert sent == [Tapped("t1", 0, dataclasses.replace(FACTS, path=""))]


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        (Tap("t", 9.0), True),
        (Tap("t", 9.0, route="checkout"), True),
        (Tap("t", 9.0, route="other"), False),
        (Tap("t", 9.0, client="h-1"), True),
        (Tap("t", 9.0, client="h-2"), False),
        (Tap("t", 9.0, least_status=500, most_status=599), True),
        (Tap("t", 9.0, least_status=400, most_status=499), False),
        (Tap("t", 9.0, slower_s=0.25), True),
        (Tap("t", 9.0, slower_s=0.251), False),
        (Tap("t", 9.0, refused=True), True),
        (Tap("t", 9.0, route="checkout", slower_s=1.0), False),
    ],
)
def test_filters(witness: Witness, sent: list[Tapped], wanted: Tap, fits: bool) -> None:
    """
    A request is shown when it fits every part of the filter.
    """
    witness.tap(wanted, 0.0)
    witness.take(TAP, FACTS, 1.0)
    assert bool(sent) is fits


def test_refused_means_by_us(witness: Witness, sent: list[Tapped]) -> None:
    """
    The API's own 500, and a client that left, are no refusals.
    """
    witness.tap(Tap("t", 9.0, refused=True), 0.0)
    witness.take(TAP, BY_API, 1.0)
    witness.take(TAP, dataclasses.replace(FACTS, reason="client_disconnected"), 1.0)
    assert sent == []


def test_a_tap_shows_so_many_a_second_and_counts_the_rest(witness: Witness, sent: list[Tapped]) -> None:
    """
    What is beyond the bound is told with the first request of the next second.
    """
    witness.tap(Tap("t", 9.0), 0.0)
    for _ in range(SHOWN_PER_S + 7):
        witness.take(TAP, FACTS, 1.0)
    witness.second(2.0)
    witness.take(TAP, FACTS, 2.0)
    witness.take(TAP, FACTS, 2.0)
    assert [shown.missed for shown in sent[-3:]] == [0, 7, 0]
    assert len(sent) == SHOWN_PER_S + 2


def test_a_tap_ends_by_itself(witness: Witness, sent: list[Tapped]) -> None:
    """
    Without a renewal nothing is wanted any more after its time; with one it goes on; told to end it ends at once.
    """
    witness.tap(Tap("a", 5.0), 0.0)
    witness.tap(Tap("b", 5.0), 0.0)
    witness.tap(Tap("b", 5.0), 4.0)
    witness.second(6.0)
    witness.take(TAP, FACTS, 6.0)
    assert [shown.tap for shown in sent] == ["b"]
    witness.tap(Tap("b", 0.0), 7.0)
    assert witness.wants(200, None) == 0
    witness.tap(Tap("never", 0.0), 7.0)
    assert witness.wants(200, None) == 0


def test_taps_are_bounded(witness: Witness) -> None:
    """
    However many a controller asks for, so many are open.
    """
    for number in range(MAX_TAPS + 5):
        witness.tap(Tap(str(number), 5.0), 0.0)
    assert repr(witness) == f"<Witness logs, {MAX_TAPS} taps>"
