"""A tape is read strictly, and told apart line by line."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sidecar.facts import ClientSecond, RouteSecond
from sidecar.measure import histogram
from sidecar.replay.tape import EXAMPLE, KNOWN, TapeError, read, write

GOOD: dict[str, Any] = {"t": 12.0, "route": "checkout", "requests": 41, "failures": 2}
CONTRACT = (
    '{"t": 12.0, "route": "checkout", "requests": 41, "failures": 2, "ignored": 1, "latency": [[0.012, 30], [0.050, 11]],'
    ' "refused": 0, "in_flight": 3, "clients": {"k1": [20, 0]}}'
)


def test_the_line_of_the_contract_is_read() -> None:
    """
    Every field of the contract's example arrives.
    """
    (line,) = read([CONTRACT])
    assert (line.t, line.route, line.requests, line.failures, line.ignored) == (12.0, "checkout", 41, 2, 1)
    assert line.latency == {histogram.index(0.012): 30, histogram.index(0.05): 11}
    assert (line.in_flight, line.refused, line.clients) == (3, {}, {"k1": (20, 0)})


def test_four_fields_are_enough() -> None:
    """
    All after `failures` is optional, and blank lines are no lines.
    """
    (line,) = read([EXAMPLE, "\n"])
    assert (line.number, line.in_flight, line.clients) == (1, None, None)


@pytest.mark.parametrize(
    ("text", "problem", "hint"),
    [
        ("{", "line 2: no JSON", "one JSON object a line"),
        ("[1]", "line 2: not a JSON object", "one JSON object a line"),
        ('{"t": 13, "route": "a", "requests": 1}', "line 2: 'failures' is missing", "at least t, route"),
        (json.dumps(GOOD | {"t": "noon"}), "line 2: t is 'noon'", "Unix seconds or an offset"),
        ('{"t": NaN, "route": "a", "requests": 1, "failures": 0}', "line 2: no JSON: NaN", "JSON object"),
        (json.dumps(GOOD | {"route": "Check out"}), "line 2: route is 'Check out'", "a-z, 0-9"),
        (json.dumps(GOOD | {"requests": -1}), "line 2: requests is -1, not a count", '"requests": 3'),
        (json.dumps(GOOD | {"failures": 1.5}), "line 2: failures is 1.5", '"failures": 3'),
        (json.dumps(GOOD | {"failures": True}), "line 2: failures is true", '"failures": 3'),
        (json.dumps(GOOD | {"latency": [0.1]}), "line 2: latency is not a list of [seconds, count]", "[[0.012, 30]"),
        (json.dumps(GOOD | {"clients": {"k1": 3}}), "line 2: clients is not a table", '{"k1": [20, 0]}'),
        (json.dumps(GOOD | {"clients": {"k1": [1, 2]}}), "line 2: clients is not a table", "all of them, then"),
        (json.dumps(GOOD | {"slow": 3}), "line 2: slow is not a table of counts", '"slow": {"k1": 3}'),
        (json.dumps(GOOD | {"t": 11.0}), "line 2: t 11 comes after 12", "sort the lines"),
    ],
)  # fmt: skip
def test_a_fault_says_line_and_remedy(text: str, problem: str, hint: str) -> None:
    """
    Whatever is wrong, the message has the line's number and the hint what to write instead.
    """
    with pytest.raises(TapeError) as caught:
        list(read([json.dumps(GOOD), text]))
    assert problem in str(caught.value)
    assert hint in caught.value.hint
    assert caught.value.line == 2


def test_unknown_fields_are_told_once_and_left_out() -> None:
    """
    A tape from elsewhere may hold more; a slip of the pen does not go unnoticed.
    """
    told: list[str] = []
    lines = list(read([json.dumps(GOOD | {"inflight": 3})] * 2, told.append))
    assert len(lines) == 2
    assert len(told) == 1
    assert "'inflight'" in told[0]
    assert all(name in told[0] for name in KNOWN)


def test_what_is_written_is_read_again() -> None:
    """
    A recorded second comes back as it was: counts, buckets, ages, clients with their slow and refused requests.
    """
    second = RouteSecond(
        "checkout", 5.0, arrivals=50, successes=40, failures=4, ignored=2, cancelled=4, refused={"rate_limited": 4},
        latency=histogram.of_values([0.01] * 44), waiting={0: 1, 145: 2}, in_flight=3,
        clients={"k1": ClientSecond(20, 4, 1, 4)}, methods={"POST": (46, 4)}, paths={"/pay/{id}": (46, 4)},
    )  # fmt: skip
    (line,) = read([write(second, 5.0)])
    assert (line.requests, line.failures, line.ignored, line.refused) == (50, 4, 2, {"rate_limited": 4})
    assert (line.latency, line.waiting, line.in_flight) == (second.latency, second.waiting, 3)
    assert (line.clients, line.slow, line.turned) == ({"k1": (24, 4)}, {"k1": 1}, {"k1": 4})
    assert line.tables == {"methods": {"POST": (46, 4)}, "paths": {"/pay/{id}": (46, 4)}}
