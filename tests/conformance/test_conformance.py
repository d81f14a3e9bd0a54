"""
The recorded HTTP/1.1 cases, sent through a real worker: an evenly spread part here, all of them with `make conformance`.

Known and wanted: methods that are tokens but unknown (`MKCOLA`, `ANNOUNCE` of RTSP) are forwarded, as RFC 9110, section 9.1 has
methods extensible; the suite of llhttp refuses them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.conformance import cases
from tests.conformance.cases import Case
from tests.conformance.judge import Seen, Verdict, judge_request, judge_response
from tests.conformance.runner import report, run_requests, run_responses

FULL = os.environ.get("SIDECAR_CONFORMANCE") == "full"
MOST = 10_000 if FULL else 200
LOOSE = {"llhttp/invalid-4", "llhttp/invalid-14"}

REQUEST = b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n"
CANARY = b"GET /canary-0 HTTP/1.1\r\nhost: canary\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n</a>"
CANARY_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n</canary-0>"
REFUSED = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


def directory() -> Path:
    """Return where the cases are; without them a developer's run skips and CI fails."""
    path = cases.directory()
    if path is None:
        text = "the HTTP cases are not here: set SIDECAR_DATA to the directory that holds http/"
        if os.environ.get("CI"):
            pytest.fail(text)
        pytest.skip(text)
    return path


def check(verdicts: Sequence[Verdict]) -> None:
    """Let nothing unsafe pass, and nothing loose but what is known."""
    print(report(verdicts))
    assert [verdict for verdict in verdicts if not verdict.safe] == []
    assert {verdict.case.id for verdict in verdicts if not verdict.strict} <= LOOSE


@pytest.mark.timeout(900)
@pytest.mark.parametrize("suite", cases.REQUEST_SUITES)
async def test_requests(suite: str) -> None:
    """What a client sends is forwarded exactly or refused, and never confuses anybody."""
    check(await run_requests(cases.stratified(cases.load(directory(), [suite]), MOST)))


@pytest.mark.timeout(900)
async def test_responses() -> None:
    """What an upstream sends reaches the client clean, as 502, or visibly cut."""
    check(await run_responses(cases.stratified(cases.load(directory(), cases.RESPONSE_SUITES), MOST)))


def case(kind: str, raw: bytes = REQUEST) -> Case:
    """Make a case of our own."""
    return Case("own/1", "own", kind, ((raw, 0.0),), 1, "")


@pytest.mark.parametrize(
    ("kind", "client", "closed", "up"),
    [
        ("accept", ANSWER + CANARY_ANSWER, False, (REQUEST + CANARY,)),
        ("accept", ANSWER + CANARY_ANSWER, False, (CANARY, REQUEST)),
        ("accept", ANSWER, True, (REQUEST,)),
        ("reject", REFUSED, True, ()),
        ("reject", b"", True, ()),
        ("either", REFUSED, True, ()),
        ("either", ANSWER + REFUSED, True, (REQUEST,)),
    ],
)
def test_the_judge_knows_the_good(kind: str, client: bytes, closed: bool, up: tuple[bytes, ...]) -> None:
    """Forwarded and answered, or refused and closed."""
    verdict = judge_request(case(kind), Seen(client, closed, up))
    assert (verdict.safe, verdict.strict) == (True, True), verdict.why


@pytest.mark.parametrize(
    ("kind", "client", "closed", "up", "safe"),
    [
        ("reject", ANSWER, True, (REQUEST,), True),  # forwarded what it must refuse
        ("reject", REFUSED, True, (REQUEST[:-2],), True),  # a part of it
        ("accept", REFUSED, True, (), True),  # refused what it must forward
        ("accept", ANSWER, True, (REQUEST.replace(b"GET", b"PUT"),), True),  # forwarded something else
        ("either", ANSWER + ANSWER + REFUSED, True, (REQUEST + REQUEST,), False),  # one became two
        ("either", ANSWER, True, (REQUEST.replace(b"\r\n\r\n", b"\r\nx : y\r\n\r\n"),), False),  # unreadable
        ("either", ANSWER, True, (REQUEST.replace(b"/a ", b"/\x80 "),), False),  # h11 is lenient there, the grammar is not
        ("either", ANSWER, False, (REQUEST + CANARY,), False),  # the canary hangs
        ("either", ANSWER + ANSWER, True, (REQUEST,), False),  # an answer too many
        ("either", CANARY_ANSWER + ANSWER, True, (REQUEST + CANARY,), False),  # crossed answers
        ("either", REFUSED + CANARY_ANSWER, False, (CANARY,), False),  # went on after a refusal
        ("either", b"garbage\r\n\r\n", True, (), False),
        ("either", ANSWER, True, (REQUEST, CANARY + CANARY), False),  # sent twice
        ("either", ANSWER, True, (REQUEST + CANARY.replace(b"\r\n\r\n", b"\r\ncontent-length: 1\r\n\r\nx"),), False),  # swallowed
    ],
)  # fmt: skip
def test_the_judge_knows_the_bad(kind: str, client: bytes, closed: bool, up: tuple[bytes, ...], safe: bool) -> None:
    """Each way of going wrong is found, and only deception is unsafe."""
    verdict = judge_request(case(kind), Seen(client, closed, up))
    assert (verdict.safe, verdict.strict) == (safe, False)


@pytest.mark.parametrize(
    ("client", "closed", "safe", "strict"),
    [
        (ANSWER + CANARY_ANSWER, False, True, True),
        (ANSWER[:-1], True, True, True),
        (REFUSED.replace(b"400", b"502"), True, True, True),
        (b"", True, True, True),
        (REFUSED.replace(b"400", b"500"), True, True, False),
        (ANSWER + ANSWER, False, False, False),
        (ANSWER + CANARY_ANSWER + ANSWER, False, False, False),
        (ANSWER, False, False, False),
        (b"", False, False, False),
        (b"HTTP/1.1 200 OK\r\nx : y\r\n\r\n", True, False, False),
    ],
)
def test_the_judge_of_responses(client: bytes, closed: bool, safe: bool, strict: bool) -> None:
    """Clean, 502 or cut; never an answer to the next request, never 500, never silence."""
    verdict = judge_response(case("accept", ANSWER), Seen(client, closed, ()))
    assert (verdict.safe, verdict.strict) == (safe, strict), verdict.why
