"""A tape of a running sidecar, recorded by its own command and replayed by it."""

from __future__ import annotations

import yaml

from sidecar.replay.tape import read
from tests.support.load import Shot
from tests.support.sidecar import Shop, sidecar, until


def test_what_was_recorded_is_replayed() -> None:
    """
    The tape holds each second with its clients, what is remembered and what follows; replayed under the running config
    it tells of the outage that was in it.
    """
    with Shop() as shop, sidecar(shop.url) as running, running.load(60.0, (Shot(),)):
        until(lambda: sum(1 for _ in read(running.api("GET", "/tape", past="5m").text.splitlines())) >= 8, "8 seconds")
        shop.breaks(errors=1.0)
        until(lambda: running.get("/incidents")["items"], "an incident")
        admin = "http://{}:{}".format(*running.address("admin"))
        done = running.cli("--admin", admin, "simulate", "--record", "tape.jsonl", "--for", "2s", "--past", "10m")
        assert done.returncode == 0, done.stderr
        lines = list(read((running.folder / "tape.jsonl").read_text().splitlines()))
        assert lines[-1].t - lines[0].t >= 9
        assert all(line.clients for line in lines if line.requests)
        assert sum(line.failures for line in lines) > 0
        played = running.cli("simulate", "tape.jsonl", "-c", str(running.file), "-o", "json")
        assert played.returncode == 0, played.stderr
        assert '"event": "alarm"' in played.stdout


def test_versions_are_compared_on_what_was_recorded() -> None:
    """
    A limit of a tenth of the traffic would have refused most of it; nobody has to try that live.
    """
    with Shop() as shop, sidecar(shop.url) as running, running.load(60.0, (Shot(),)):
        until(lambda: running.api("GET", "/tape", past="5m").text.count("\n") >= 8, "8 seconds are recorded")
        tight = dict(running.config)
        tight["routes"] = [{"name": "default", "match": {"path": "/**"}, "limit": {"rate": "5/s", "burst": 5}}]
        applied = running.apply(yaml.safe_dump(tight))
        assert applied.status == 200, applied
        found = running.get("/config/diff", **{"from": 1, "to": 2, "replay": "1h"})["replay"]
        assert found["refused"]["to"] > found["refused"]["from"]
        admin = "http://{}:{}".format(*running.address("admin"))
        told = running.cli("--admin", admin, "config", "diff", "1", "2", "--replay", "1h")
        assert told.returncode == 0, told.stderr
        assert "Refused" in told.stdout
