"""
A shop's traffic against a running sidecar: many shoppers who think, some who search, and one abuser who does not stop.

`make loadtest` (with `make run` in another terminal). At the end it says who was answered 429; exit 0 only if the
abuser was limited and nobody else was.
"""

from __future__ import annotations

import itertools
import os
import random
from collections import Counter
from typing import Any

import gevent
from locust import HttpUser, between, constant_pacing, events, task
from locust.env import Environment
from locust.stats import StatsEntry
from urllib3 import PoolManager

LIMIT_PER_S = 50  # of one client on products, in config/sidecar.yaml
BURST = 30
_numbers = itertools.count(1)
_seen: dict[str, Counter[int]] = {}


class Client(HttpUser):
    """One client with an API key of its own."""

    abstract = True
    kind = "client"

    def on_start(self) -> None:
        self.key = f"{self.kind}-{next(_numbers)}"

    def call(self, method: str, path: str, name: str | None = None, **more: Any) -> None:
        headers = {"x-api-key": self.key}
        with self.client.request(
            method, path, name=name or path, headers=headers, catch_response=True, **more
        ) as answer:
            _seen.setdefault(self.kind, Counter())[answer.status_code] += 1
            if answer.status_code == 429:
                answer.success()  # being limited is what this test looks at, not a failure of the server


class Shopper(Client):
    """Looks, thinks, sometimes buys."""

    weight = 30
    kind = "shopper"
    wait_time = between(0.5, 2.0)

    @task(10)
    def look(self) -> None:
        self.call("GET", f"/api/products/{random.randint(1, 100)}", name="/api/products/{id}")

    @task(4)
    def list_products(self) -> None:
        self.call("GET", "/api/products")

    @task(2)
    def buy(self) -> None:
        items = [{"product": random.randint(1, 100), "quantity": 1}]
        self.call("POST", "/api/checkout", json={"items": items})

    @task(1)
    def upload(self) -> None:
        self.call("POST", "/api/uploads", data=random.randbytes(20_000))


class Searcher(Client):
    """Searches, and reads a slow report now and then."""

    weight = 8
    kind = "searcher"
    wait_time = between(0.3, 1.5)

    @task(6)
    def search(self) -> None:
        self.call("GET", f"/api/search?q={random.choice(['blue', 'lamp', 'warm', 'desk'])}", name="/api/search")

    @task(1)
    def report(self) -> None:
        self.call("GET", "/api/reports/daily", name="/api/reports/{name}")


class Abuser(Client):
    """One key, a few connections' worth of requests, no thinking."""

    fixed_count = 1
    kind = "abuser"
    wait_time = constant_pacing(0.1)
    pool_manager = PoolManager(maxsize=BURST)  # a connection for each; fewer make urllib3 warn at each answer

    @task
    def hammer(self) -> None:
        # BURST at once, ten times a second: far beyond one client's share.
        jobs = [gevent.spawn(self.call, "GET", "/api/products/7", "/api/products/{id} (abuser)") for _ in range(BURST)]
        gevent.joinall(jobs)


@events.quitting.add_listener
def judge(environment: Environment, **_: Any) -> None:
    """Say who was limited, and fail when it was not the abuser alone."""
    for kind, counts in sorted(_seen.items()):
        limited, total = counts[429], counts.total()
        print(
            f"{kind:10} {total:6} answers, {limited:6} of them 429 ({limited / total:.0%}), {dict(sorted(counts.items()))}"
        )
    innocent = sum(counts[429] for kind, counts in _seen.items() if kind != "abuser")
    abuser = _seen.get("abuser", Counter())
    failed = sum((counts for counts in _seen.values()), Counter()) - Counter({429: abuser.total() + innocent})
    failed = Counter({status: count for status, count in failed.items() if status >= 400})
    well = abuser[429] > 0 and innocent == 0
    print("only the abuser was limited" if well else reason(abuser, innocent, environment.stats.total))
    if failed:
        print(
            f"NOT as expected: {dict(sorted(failed.items()))} beside that. `sidecar status` shows what refuses: an isolation from "
            "an earlier fault ends by itself, or with `sidecar incident release ID`; else the API itself fails"
        )
    environment.process_exit_code = 0 if well and not failed else 1


def reason(abuser: Counter[int], innocent: int, total: StatsEntry) -> str:
    """Say why the run does not prove what it should: nothing answered, this machine was too slow, or the limits are wrong."""
    if abuser.total() == abuser[0]:
        return "NOT as expected: no answer came; is `make run` up in another terminal?"
    rate = abuser.total() / max(total.last_request_timestamp - total.start_time, 1.0)
    if not abuser[429] and rate < LIMIT_PER_S:
        return (
            f"NOT as expected, and nothing is proven: the abuser came to {rate:.0f} requests/s only, below its limit of "
            f"{LIMIT_PER_S}/s; this machine is too busy (load {os.getloadavg()[0]:.1f}): run it again when it is idle"
        )
    return (
        f"NOT as expected: abuser {abuser[429]} × 429, others {innocent} × 429; `sidecar top` shows what is refused, "
        "`sidecar config show` the limits"
    )
