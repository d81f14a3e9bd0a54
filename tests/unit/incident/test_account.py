"""What an incident costs: exact by scope, bounded in time and names, the same after a restart."""

from __future__ import annotations

import json

from sidecar.facts import ClientSecond, RouteSecond, Scope
from sidecar.incident.account import NAMES, OTHER, STEPS, Account, Held
from sidecar.incident.postmortem.hypotheses import ranked

ROUTE = Scope.route("checkout")
CLIENT = Scope.client("checkout", "c1")


def second(at: float, failures: int = 2, route: str = "checkout", **given: object) -> RouteSecond:
    row = RouteSecond(
        route, at, arrivals=10, successes=5, failures=failures, refused={"isolated": 2, "breaker_open": 1},
        clients={"c1": ClientSecond(4, failures), "c2": ClientSecond(3, 0)},
        methods={"POST": (7, failures)}, statuses={"500": (failures, failures)},
    )  # fmt: skip
    return row if not given else RouteSecond(route, at, failures=failures, **given)  # type: ignore[arg-type]


def test_a_route_s_cost_is_all_that_it_refused_and_failed() -> None:
    """
    Failed, refused by reason, the isolation's part of it with its collateral, and the seconds.
    """
    account = Account(100.0)
    for place in range(3):
        account.take([second(place)], ROUTE, {"checkout": Held(2, 2, 1.0)}, 101.0 + place)
    (row,) = account.costs()
    assert row == {
        "scope": "route:checkout", "failed": 6, "refused": 9, "reasons": {"breaker_open": 3, "isolated": 6},
        "isolated": 6, "would_have_succeeded_ratio": 0.5, "drilled": 0, "seconds": 3,
    }  # fmt: skip


def test_a_client_s_cost_is_its_own() -> None:
    """
    What the route refuses of others is not the client's; the others of its route are bystanders.
    """
    account, rows = Account(100.0), [second(1.0)]
    account.take(rows, CLIENT, {"checkout": Held(3, 0, 0.0)}, 101.0)
    account.bystanders(rows, CLIENT, [second(1.0, route="search")])
    (row,) = account.costs()
    assert (row["scope"], row["failed"], row["reasons"]) == ("client:checkout:c1", 2, {"client_throttled": 3})
    assert account.others == {"requests": 3 + 7, "failed": 2}


def test_the_course_is_bounded() -> None:
    """
    A long incident has longer steps, never more of them, and loses no request; where it did not run there is a gap.
    """
    account = Account(0.0)
    for at in range(5 * STEPS):
        if not 100 <= at < 200:
            account.take([second(at)], ROUTE, {}, float(at))
    document = account.document()
    arrived = document["course"]["arrived"]
    assert len(arrived) <= STEPS
    assert document["step_s"] == 8.0
    assert sum(count or 0 for count in arrived) == 10 * (5 * STEPS - 100)
    assert None in arrived


def test_names_and_scopes_are_bounded() -> None:
    """
    The names that failed most stay; routes beyond the last row are one row together.
    """
    account = Account(0.0)
    for n in range(3 * NAMES):
        paths = {f"/p{n}": (5, n)}
        account.take([second(1.0, 1, f"r{n}", successes=1, paths=paths)], Scope.service(), {}, 1.0)
    parts = account.document()["parts"]["path"]
    assert [name for name, _, _ in parts] == [f"/p{n}" for n in range(3 * NAMES - 1, 2 * NAMES - 1, -1)]
    assert OTHER in [row["scope"] for row in account.costs()]
    assert sum(row["failed"] for row in account.costs()) == 3 * NAMES


def test_it_survives_a_restart_as_it_is() -> None:
    """
    What was stored and read is the same document, and goes on counting.
    """
    account = Account(100.25)
    account.lead_in([second(0.0)], ROUTE, 100.5)
    account.take([second(1.0)], ROUTE, {"checkout": Held(2, 1, 0.3)}, 101.25)
    read = Account.of(json.loads(json.dumps(account.document())))
    assert read.document() == account.document()
    for each in (account, read):
        each.take([second(2.0)], ROUTE, {}, 102.25)
    assert read.document() == account.document()


def test_a_steady_course_stays_steady_when_its_steps_grow() -> None:
    """
    Ten a second for ten minutes: whatever the steps became, each whole one holds as many.
    """
    account = Account(0.0)
    for at in range(600):
        account.take([second(at)], ROUTE, {}, at + 0.3)
        document = account.document()
        assert set(document["course"]["arrived"][:-1]) <= {10 * document["step_s"]}


def test_who_begins_to_fail_late_is_counted_too() -> None:
    """
    The table is full of names that failed before; one that fails from now on, and steadily, takes a place and keeps it.
    """
    account = Account(0.0)
    for n in range(NAMES):
        account.take([second(1.0, 6, successes=0, paths={f"/p{n}": (6, 6)})], ROUTE, {}, 1.0)
    for at in range(2, 600):
        paths = {"/pay": (5, 5), f"/once{at}": (1, 1)}
        account.take([second(at, 6, successes=4, paths=paths)], ROUTE, {}, float(at))
    name, requests, failures = account.document()["parts"]["path"][0]
    assert (name, requests, failures) == ("/pay", 5 * 598, 5 * 598)


def test_the_rest_of_a_part_is_all_that_was_judged() -> None:
    """
    One client fails, thousands of others come once and are well: the table forgets them, the totals do not.
    """
    account = Account(0.0)
    for at in range(60):
        clients = {"bad": ClientSecond(10, 10)} | {f"c{at}-{n}": ClientSecond(1, n == 0) for n in range(20)}
        account.take([second(at, 11, successes=19, clients=clients)], ROUTE, {}, float(at))
    document = account.document()
    assert document["judged"] == [60 * 30, 60 * 11]
    first = ranked(document["parts"], tuple(document["judged"]))[0]
    assert (first.name, first.explains, first.rest) == ("bad", True, (60 * 20, 60))
