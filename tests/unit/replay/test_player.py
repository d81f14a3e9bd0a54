"""A replay is the product's own loop over a tape."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from sidecar.replay.player import Player
from sidecar.replay.seconds import seconds
from sidecar.replay.tape import read
from tests.support import cost
from tests.support.tapes import config, played, steady, texts

ROOT = Path(__file__).parents[3]


def test_an_outage_is_told_from_alarm_to_release() -> None:
    """
    All requests fail for a minute: it is isolated within 3 s, given back in steps, and let go.
    """
    happened = played(steady(400, bad={range(100, 160): 1.0}))
    kinds = [event.event for event in happened]
    assert kinds[:2] == ["alarm", "isolate"]
    assert kinds[-1] in ("clear", "release")
    assert "ramp" in kinds
    assert happened[0].t <= 103
    assert {event.scope for event in happened} == {"route:checkout"}
    assert happened[0].detector == "errors"
    assert happened[0].score >= happened[0].detail["threshold"]


def test_the_culprit_alone_is_isolated() -> None:
    """
    One client of four fails: scope and detail name it, and no other client loses a request.
    """
    player = Player(config())
    rows = list(steady(300, bad={range(100, 200): 1.0}, clients=4, culprit=True))
    happened = list(player.play(seconds(read(texts(rows)))))
    isolated = next(event for event in happened if event.event == "isolate")
    assert isolated.scope == "client:checkout:k0"
    assert isolated.route == "checkout"
    assert 0 < player.tolls["checkout"].refused["client_throttled"] <= 5 * 200


def test_quiet_traffic_says_nothing() -> None:
    """
    Half an hour without trouble is no event at all.
    """
    assert played(steady(1800)) == []


def test_in_observe_mode_it_proposes() -> None:
    """
    Nothing is isolated; what would have been is proposed.
    """
    happened = played(steady(200, bad={range(100, 160): 1.0}), config("mode: observe\n"))
    assert "isolate" not in {event.event for event in happened}
    proposed = next(event for event in happened if event.event == "propose")
    assert proposed.detail["because"] == "observe mode"


def test_a_hang_is_seen_by_what_is_in_flight() -> None:
    """
    Requests that come and do not end are slow long before any of them times out.
    """
    rows = list(steady(160, in_flight=1))
    for i, row in enumerate(row for row in rows if row["t"] >= 120):
        row |= {"in_flight": 20 * (i + 1), "latency": []}
    alarm = next(event for event in played(rows) if event.event == "alarm")
    assert alarm.detector == "latency"
    assert alarm.t < 130


def test_a_breaker_of_the_config_trips() -> None:
    """
    With a breaker the outage is told by its trip, in the first second.
    """
    with_breaker = config("detect: {warmup: 10s}\nroutes: [{name: checkout, match: {path: /**}, breaker: {}}]\n")
    happened = played(steady(150, bad={range(100, 150): 1.0}), with_breaker)
    assert (happened[0].event, happened[0].detector, happened[0].t) == ("alarm", "trip", 100.0)
    assert happened[1].event == "isolate"


def test_an_unknown_route_is_played_and_told() -> None:
    """
    The config need not know a tape's routes; they are told once.
    """
    told: list[str] = []
    only_other = config("routes: [{name: other, match: {path: /**}}]\n")
    player = Player(only_other, told.append)
    list(player.play(seconds(read(texts(steady(50))))))
    assert len(told) == 1
    assert "checkout" in told[0]
    assert player.tolls["checkout"].requests == 1000


def test_unix_times_and_offsets_are_alike() -> None:
    """
    The same traffic at another time is the same events at another time.
    """
    early = played(steady(260, bad={range(100, 160): 1.0}))
    base = 1_700_000_000
    rows = [row | {"t": row["t"] + base} for row in steady(260, bad={range(100, 160): 1.0})]
    late = played(rows)
    assert [(e.event, e.t + base) for e in early] == [(e.event, e.t) for e in late]


def test_the_same_tape_gives_the_same_bytes(tmp_path: Path) -> None:
    """
    In another process, with other hash seeds, byte for byte.
    """
    rows = [
        *steady(300, bad={range(100, 160): 0.9}, clients=4),
        *steady(300, route="search", bad={range(120, 180): 0.3}, clients=3),
    ]
    (tmp_path / "tape").write_text("".join(texts(rows)))
    outputs = set()
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-m", "sidecar", "simulate", str(tmp_path / "tape"), "-o", "json"],
            capture_output=True, check=True, cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": seed},
        )  # fmt: skip
        outputs.add(done.stdout)
    assert len(outputs) == 1
    assert outputs.pop().count(b"\n") > 5


def test_it_is_fast_enough() -> None:
    """
    100,000 lines a minute and more, trouble included, in processor time of the machine that the budgets were set on.
    """
    lines = texts([*steady(600, bad={range(200, 260): 1.0}, clients=8), *steady(600, route="search", clients=8)])
    player = Player(config())
    spent = cost.cpu_calls(lambda: list(player.play(seconds(read(lines)))))
    assert spent <= cost.budget(60.0 / 100_000 * len(lines))
