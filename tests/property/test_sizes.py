"""Whatever people say, and in whatever order, nothing that was confirmed becomes silent."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from sidecar.controller.book import Book
from sidecar.controller.episodes import GROWTH, Episodes
from sidecar.decide import sticky
from sidecar.decide.policies import RespondPolicy
from sidecar.decide.policy import Case
from sidecar.decide.size import LONGEST_S, Size, Sizes
from sidecar.facts import Detector, Moment, Scope, Signal

SCOPES = (Scope.route("a"), Scope.client("a", "x"), Scope.service())
DETECTORS = (Detector.ERRORS, Detector.LATENCY, Detector.SURGE)
EXCESS = st.floats(0.0, 1e6)
NOW = Moment(1000.0, 1_800_000_000.0)

rows = st.builds(
    Size,
    incident=st.integers(1, 12),
    scope=st.sampled_from(SCOPES),
    detector=st.sampled_from(DETECTORS),
    real=st.booleans(),
    excess=EXCESS,
    severe=st.booleans(),
)
said = st.lists(st.tuples(rows, st.sampled_from(("judge", "withdraw", "miss", "grow"))), max_size=60)


def after(verdicts: list[tuple[Size, str]]) -> Sizes:
    """Return what is known after these, one after another, by way of the store each time."""
    sizes = Sizes()
    for row, what in verdicts:
        match what:
            case "judge":
                sizes = sizes.judged(row.incident, [row])
            case "withdraw":
                sizes = sizes.judged(row.incident, [])
            case "miss":
                sizes = sizes.forgotten([old for old in sizes.rows if old.scope == row.scope])
            case _:
                sizes = sizes.grown(row.incident, row.scope, row.detector, row.excess)
        sizes = Sizes.from_json(sizes.to_json())
    return sizes


def claim(row: Size, excess: float, *, severe: bool = False) -> Signal:
    return Signal(row.detector, row.scope, 0.3, 0.001, 60, 25.0, 20.0, 0.0, severe=severe, excess=excess)


def decided(verdicts: list[tuple[Size, str]]) -> Book:
    """Return the books after these verdicts, a mark of this day on each fingerprint that was last called false."""
    book = Book(RespondPolicy(), "boot")
    book.sizes = after(verdicts)
    marks: dict[tuple[Detector, Scope], sticky.Mark] = {}
    for row, what in verdicts:
        if what == "judge" and not row.real:
            made = sticky.make(
                claim(row, row.excess, severe=row.severe), row.scope, "false_positive", row.incident, "ops", NOW
            )
            marks[row.detector, row.scope] = replace(made, sounding=False)
    book.marks = list(marks.values())
    return book


def silent(book: Book, signal: Signal, harmed_s: float) -> bool:
    """Tell whether the episodes keep an alarm silent that has done harm for so long and has come to this."""
    episodes, began = Episodes(book), replace(signal, since_at=NOW.at, excess=0.0)
    for said, passed_s in ((began, 0.0), (replace(signal, since_at=NOW.at), harmed_s)):
        now = Moment(NOW.at + passed_s, NOW.unix + passed_s)
        case = Case(said.scope, (said,), severe=said.severe, agreed=False, sample=60)
        episodes.follow([case], now)
    return episodes.silenced(case, now)


@given(said, rows, st.floats(0.0, 2 * LONGEST_S))
def test_no_mark_hides_what_its_size_tells(verdicts: list[tuple[Size, str]], row: Size, harmed_s: float) -> None:
    """
    Within the day of a false verdict too: what is as large as a confirmed one, and five minutes of harm, are told.
    """
    book = decided(verdicts)
    told = [(claim(real, real.excess, severe=real.severe), 0.0) for real in book.sizes.rows if real.real]
    if row.excess > GROWTH:
        told += [(claim(row, row.excess), LONGEST_S + 1 + harmed_s), (claim(row, row.excess, severe=True), harmed_s)]
        assert silent(book, claim(row, row.excess), harmed_s) is (
            book.sizes.silences(claim(row, row.excess), row.scope, harmed_s) is not None
        )
    for signal, lasted_s in told:
        assert signal.excess <= GROWTH or not silent(book, signal, lasted_s)


@given(said)
def test_no_sequence_of_verdicts_hides_a_confirmed_incident(verdicts: list[tuple[Size, str]]) -> None:
    """
    A signal as large as a confirmed incident of its fingerprint is told, at any time after any other verdicts.
    """
    sizes = after(verdicts)
    for row in sizes.rows:
        if row.real:
            assert sizes.silences(claim(row, row.excess, severe=row.severe), row.scope, 0.0) is None


@given(said, rows, st.floats(0.0, 2 * LONGEST_S))
def test_nothing_is_silent_for_ever(verdicts: list[tuple[Size, str]], row: Size, harmed_s: float) -> None:
    """
    Five minutes of harm, or half of the requests, are told whatever was said; and without a false verdict so is everything.
    """
    sizes = after(verdicts)
    silent = sizes.silences(claim(row, row.excess, severe=row.severe), row.scope, harmed_s)
    if silent is not None:
        assert harmed_s <= LONGEST_S
        assert not row.severe
        assert not silent.real
        assert (silent.scope, silent.detector) == (row.scope, row.detector)


@given(said, rows)
def test_the_same_again_is_silent(verdicts: list[tuple[Size, str]], row: Size) -> None:
    """
    What was just called false is silent when it comes again as large, unless a confirmed one was as small.
    """
    sizes = after(verdicts).judged(99, [Size(99, row.scope, row.detector, False, row.excess)])
    real = [r for r in sizes.rows if r.real and not r.severe and (r.scope, r.detector) == (row.scope, row.detector)]
    again = sizes.silences(claim(row, row.excess), row.scope, 0.0)
    assert (again is not None) or row.excess == 0.0 or any(r.excess < row.excess + 2 * r.excess**0.5 + 1 for r in real)
