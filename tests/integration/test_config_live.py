"""The configuration of a running sidecar: applied, refused, confirmed, reverted, reloaded, while requests flow."""

from __future__ import annotations

import copy
import resource
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.client import Client
from tests.support.load import Load, Shot
from tests.support.sidecar import Shop, Sidecar, gone, kill, sidecar, until

YAML = {"Content-Type": "application/yaml"}


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    """The sample API."""
    with Shop() as shop:
        yield shop


@pytest.fixture(scope="module")
def running(shop: Shop) -> Iterator[Sidecar]:
    """A sidecar of two workers, shared by the tests of this file."""
    with sidecar(shop.url, workers=2) as shared:
        yield shared


@pytest.fixture(autouse=True)
def settled(request: pytest.FixtureRequest) -> Iterator[None]:
    """Each test of the shared sidecar begins and ends with nothing pending and the file as it runs."""
    if "running" not in request.fixturenames:
        yield
        return
    shared: Sidecar = request.getfixturevalue("running")
    config = copy.deepcopy(shared.config)
    yield
    shared.config = config
    shared.write()
    if shared.get("/config")["confirm_by_time"]:
        assert shared.api("POST", "/config/confirm").status == 200


def limited(config: dict[str, Any], rate: str, burst: int = 1000) -> dict[str, Any]:
    """Return *config* with a limit on the default route."""
    made = copy.deepcopy(config)
    made["routes"][-1]["limit"] = {"rate": rate, "burst": burst}
    return made


def text_of(shared: Sidecar, rate: str, burst: int = 1000) -> str:
    """Return the shared config with a limit, as YAML."""
    kept, shared.config = shared.config, limited(shared.config, rate, burst)
    text, shared.config = shared.text, kept
    return text


def served(load: Load) -> None:
    """Every request of *load* was served."""
    assert not load.failed, load.said()


def test_fifty_applies_and_rollbacks_under_load(running: Sidecar) -> None:
    """
    200 requests a second through 50 applies and rollbacks: not one fails; every answer says that all workers have it.
    """
    before = running.get("/config")["version"]
    with running.load(200, connections=16) as load:
        load.wait(100)
        for number in range(25):
            applied = running.apply(text_of(running, f"{3000 + number}/s"), if_match=before + 2 * number)
            assert applied.status == 200, applied.text
            assert applied.body["workers"] == {"acknowledged": 2, "total": 2}
            back = running.api("POST", "/config/rollback", {"to": before, "reason": "a test"})
            assert back.status == 200, back.text
            assert back.body["workers"] == {"acknowledged": 2, "total": 2}
        load.wait(100)
    served(load)
    assert running.get("/config")["version"] == before + 50
    assert running.get("/config")["hash"] == running.get(f"/config/versions/{before}")["hash"]


def test_an_applied_limit_holds_at_once(running: Sidecar) -> None:
    """
    When the answer to an apply is there, the next request meets the new limit; after a rollback it passes again.
    """
    assert running.apply(text_of(running, "1/h", 2)).status == 200
    with Client(running.address()) as client:
        statuses = [client.ask("GET", "/api/products/1").status for _ in range(6)]
    passed = statuses.count(200)
    assert 1 <= passed <= 2  # this worker's half of the burst, and the other half once it is lent to it
    assert statuses == [200] * passed + [429] * (6 - passed)
    assert running.api("POST", "/config/rollback", {"reason": "too low"}).status == 200
    with Client(running.address()) as client:
        assert [client.ask("GET", "/api/products/1").status for _ in range(3)] == [200, 200, 200]


def test_refusals_change_nothing(running: Sidecar) -> None:
    """
    A stale or missing If-Match, an invalid text and a static change are refused with everything that is wrong.
    """
    before, versions = running.get("/config"), running.get("/config/versions")
    good = text_of(running, "999/s")
    assert running.apply(good, if_match=before["version"] - 1).status == 412
    assert running.api("PUT", "/config", good, headers=YAML, reason="a test").status == 428

    wrong = running.apply(running.text.replace("workers: 2", "workers: -2\nmode: enforced"))
    assert wrong.status == 422
    assert {error["path"] for error in wrong.body["errors"]} == {"workers", "mode"}
    assert all(error["line"] and error["column"] and error["hint"] for error in wrong.body["errors"])

    static = running.apply(running.text.replace("workers: 2", "workers: 3"))
    assert static.status == 422
    assert [(e["path"], "static" in e["problem"]) for e in static.body["errors"]] == [("workers", True)]

    assert running.apply("listen: [").status == 422
    assert (before, versions) == (running.get("/config"), running.get("/config/versions"))


def test_a_dry_run_changes_nothing(running: Sidecar) -> None:
    """
    A dry run says what would change and changes nothing.
    """
    before = running.get("/config")
    dry = running.apply(text_of(running, "77/s"), dry_run=1)
    assert (dry.status, dry.body["dry_run"]) == (200, True)
    assert any(change["path"].startswith("routes.default.limit") for change in dry.body["changes"])
    assert before == running.get("/config")


def test_while_a_version_waits_for_its_confirmation(running: Sidecar) -> None:
    """
    A pending version refuses other applies with 409 until it is confirmed; confirming twice is a conflict.
    """
    pending = running.apply(text_of(running, "888/s"), confirm_within="5m")
    assert (pending.status, pending.body["state"]) == (200, "confirming")
    assert pending.body["confirm_by_time"]
    assert running.apply(text_of(running, "889/s")).status == 409
    assert running.api("POST", "/config/confirm").body["state"] == "active"
    assert running.api("POST", "/config/confirm").status == 409
    assert running.get("/config")["confirm_by_time"] is None


def test_an_unconfirmed_version_reverts_by_itself_across_a_controller_kill(running: Sidecar) -> None:
    """
    A version that nobody confirms is reverted at its deadline, although the controller was killed meanwhile; once.
    """
    for within in ("8s", "40s", "80s"):  # on a busy machine the next controller may come after the first deadline
        before = running.get("/config")
        assert running.apply(text_of(running, "887/s"), confirm_within=within).status == 200
        old = running.controller()
        kill(old)
        until(lambda old=old: gone(old), "the controller is gone")
        until(running.serving, "a new controller serves")
        now = running.get("/config")
        if now["state"] == "confirming":
            break
    assert (now["state"], bool(now["confirm_by_time"])) == ("confirming", True)
    until(lambda: running.get("/config")["state"] == "active", "it reverts by itself")
    after = running.get("/config")
    assert (after["hash"], after["version"]) == (before["hash"], before["version"] + 2)
    history = running.get("/config/versions", limit=3)["items"]
    assert [row["state"] for row in history] == ["active", "reverted", "superseded"]
    assert (history[0]["author"], history[0]["reason"]) == ("automation", "nobody confirmed it in time")


def test_a_version_that_makes_things_worse_reverts_at_once(running: Sidecar) -> None:
    """
    A version that waits for its confirmation and refuses most requests is reverted long before its deadline.
    """
    before = running.get("/config")
    with running.load(60) as load:
        load.wait(150)
        assert running.apply(text_of(running, "4/s", 4), confirm_within="1h").status == 200
        until(lambda: running.get("/config")["state"] == "active", "it is reverted")
        reverted = time.monotonic()
        load.wait(60)
    assert running.get("/config")["hash"] == before["hash"]
    assert "requests are refused" in running.get("/config/versions", limit=1)["items"][0]["reason"]
    assert not [row for row in load.since(reverted) if not row.served], load.said(load.since(reverted))


def test_a_worker_that_cannot_prepare_stops_the_change(running: Sidecar) -> None:
    """
    When one worker cannot have a version ready nobody runs it: it is marked failed, the old one stays everywhere.
    """
    before = running.get("/config")
    worker = running.workers()[0]
    limits = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (3, limits[1]))  # it cannot start its compiler
    try:
        refused = running.apply(text_of(running, "1/m", 2))
    finally:
        resource.prlimit(worker, resource.RLIMIT_NOFILE, limits)
    assert refused.status == 503
    assert "worker" in refused.body["detail"], refused.text
    assert before == running.get("/config")
    newest = running.get("/config/versions", limit=1)["items"][0]
    assert (newest["version"], newest["state"]) == (before["version"] + 1, "failed")
    assert running.api("POST", "/config/rollback", {"to": newest["version"], "reason": "a test"}).status == 409
    with Client(running.address()) as client:
        assert {client.ask("GET", "/api/products/1").status for _ in range(6)} == {200}
    metrics = running.observe("/metrics").text
    assert "sidecar_config_last_apply_successful 0" in metrics
    assert running.apply(text_of(running, "2999/s")).body["version"] == before["version"] + 2
    assert "sidecar_config_last_apply_successful 1" in running.observe("/metrics").text


def test_sighup_applies_the_file_and_an_unchanged_one_undoes_no_rollback(running: Sidecar) -> None:
    """
    SIGHUP makes a version of a changed file; after a rollback an unchanged file leaves it alone and `diverged` says so.
    """
    version = running.get("/config")["version"]
    running.config = limited(running.config, "1234/s")
    running.write()
    running.signal(signal.SIGHUP)
    until(lambda: running.get("/config")["version"] == version + 1, "the file is applied")
    assert running.get("/config/versions", limit=1)["items"][0]["source"] == "file"
    assert running.get("/config")["diverged_from_file"] is False
    assert running.api("POST", "/config/rollback", {"to": version, "reason": "a test"}).status == 200
    assert running.get("/config")["diverged_from_file"] is True
    before = len(running.events())
    running.signal(signal.SIGHUP)
    assert running.until_said("the file has not changed", after=before)["diverged"] is True
    assert running.get("/config")["version"] == version + 2
    assert running.get("/status")["config"]["diverged_from_file"] is True
    kill(running.controller())
    until(lambda: "the supervisor lives" in running.observe("/livez").text or running.serving(), "somebody answers")
    until(running.serving, "a new controller serves")
    assert running.get("/config")["version"] == version + 2


def test_sighup_with_an_invalid_file_changes_nothing(running: Sidecar) -> None:
    """
    An invalid file is refused with its places in the log; the version, the workers and the requests stay as they were.
    """
    before, workers = running.get("/config"), running.workers()
    with running.load(50) as load:
        said = len(running.events())
        running.write(running.text + "\nnonsense: 1\n")
        running.signal(signal.SIGHUP)
        running.until_said("the configuration is not valid", after=said)
        load.wait(50)
    served(load)
    assert "nonsense" in running.log()
    assert (before, workers) == (running.get("/config"), running.workers())


def test_a_killed_controller_lives_with_an_invalid_file(running: Sidecar) -> None:
    """
    A new controller that finds an invalid file, or none, goes on with the version that ran.
    """
    before = running.get("/config")
    for spoil in (lambda: running.write("nonsense: 1\n"), running.file.unlink):
        spoil()
        old = running.controller()
        kill(old)
        until(lambda old=old: gone(old), "the controller is gone")
        until(running.serving, "a new controller serves")
        now = running.get("/config")
        assert (now["version"], now["hash"]) == (before["version"], before["hash"])
        assert now["diverged_from_file"] is True


def test_changed_workers_replace_the_old_ones_without_a_failure(shop: Shop) -> None:
    """
    `workers` 1 → 3 → 1 in the file and SIGHUP: new processes one by one, no failed request.
    """
    with sidecar(shop.url) as alone, alone.load(120) as load:
        for count in (3, 1):
            old = set(alone.workers())
            alone.config["workers"] = count
            alone.write()
            alone.signal(signal.SIGHUP)

            def replaced(count: int = count, old: set[int] = old) -> bool:
                now = alone.workers()
                return alone.serving() and len(now) == count and not old & set(now)

            until(replaced, f"{count} new workers serve, and no old one")
            load.wait(60)
        load.stop()
        served(load)
        assert alone.apply(alone.text).status == 200  # what runs and what the text says are one


def test_a_moved_listener_serves_and_the_old_one_leaves(shop: Shop) -> None:
    """
    `listen` and `admin` move with SIGHUP: the new addresses serve, the old one lets go; a taken address changes nothing.
    """
    with sidecar(shop.url, listen="127.0.0.9:0") as alone:  # an address that nobody else listens on
        first, workers = alone.address(), alone.workers()
        with alone.load(60) as load:
            taken = "%s:%d" % alone.address("observe")  # noqa: UP031
            alone.config["listen"] = taken
            alone.write()
            alone.signal(signal.SIGHUP)
            alone.until_said("what runs stays")
            assert alone.workers() == workers
            load.wait(60)
        served(load)
        alone.config["listen"], alone.config["admin"]["listen"] = "127.0.0.2:0", "127.0.0.3:0"
        alone.write()
        alone.signal(signal.SIGHUP)
        alone.until_said("listen moves to")
        until(lambda: alone.address()[0] == "127.0.0.2" and alone.serving(), "the new addresses serve")
        until(lambda: not set(workers) & set(alone.workers()), "the old worker has left")
        with Client(alone.address()) as client:
            assert client.ask("GET", "/api/products/1").status == 200
        with pytest.raises(ConnectionRefusedError):
            Client(first)


def test_a_restart_restores_what_ran_and_takes_a_changed_file(shop: Shop) -> None:
    """
    A restart keeps a rollback while the file is the same, and takes a changed file; it ends overrides on what it changes.
    """
    with sidecar(shop.url) as alone:
        alone.config["routes"][0]["limit"] = {"rate": "50/s", "burst": 50}
        assert alone.apply(alone.text).status == 200
        override = {"action": "throttle=50%", "ttl": "10m", "reason": "a test"}
        for scope in ("route:checkout", "route:default"):
            assert alone.api("PUT", f"/overrides/{scope}", override).status == 200
        before = alone.get("/config")
        alone.restart()
        assert before == alone.get("/config")
        assert {row["scope"] for row in alone.get("/overrides")["items"]} == {"route:checkout", "route:default"}

        alone.config["routes"][0]["limit"] = {"rate": "1/m", "burst": 1}
        alone.write()
        alone.restart()
        now = alone.get("/config")
        assert (now["version"], now["diverged_from_file"]) == (before["version"] + 1, False)
        assert [row["scope"] for row in alone.get("/overrides")["items"]] == ["route:default"]
        with Client(alone.address()) as client:
            shot = Shot("/api/checkout", "POST", body=b'{"items": []}')
            client.send(shot.data + shot.data)
            assert [client.read().status, client.read().status] == [201, 429]
