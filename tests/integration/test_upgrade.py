"""Another release in the place of the running one: SIGUSR2, on real processes, under load."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator

import pytest

from tests.support.load import Load
from tests.support.releases import Releases
from tests.support.rounds import RATE, ROUNDS, none_failed
from tests.support.sidecar import Shop, Sidecar, gone, kill, settings, until

OVERRIDE = {"action": "throttle=5000/s", "ttl": "10m", "reason": "a test"}
UNIMPORTABLE = "from __future__ import nonsense"
NO_WORKER = "import os, sys\nif '\"name\": \"worker on trial\"' not in os.environ['SIDECAR_CHILD']:\n    sys.exit(7)"


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with Shop() as made:
        yield made


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Releases:
    made = Releases(tmp_path_factory.mktemp("releases"))
    for version in ("1.0.0", "2.0.0"):
        made.make(version)
    return made


@pytest.fixture(scope="module")
def running(shop: Shop, releases: Releases) -> Iterator[Sidecar]:
    """A sidecar of two workers, of release 1.0.0."""
    releases.use("1.0.0")
    made = Sidecar(settings(shop.url, workers=2), program=releases.program)
    try:
        made.start()
        yield made
    finally:
        made.end()


def release(running: Sidecar) -> str:
    """Return the controller's release."""
    pattern = r'sidecar_build_info\{version="(.*?)"\}'
    found = until(lambda: re.search(pattern, running.observe("/metrics").text), "a controller answers")
    return found[1]


def upgrade(running: Sidecar, version: str) -> None:
    """Let *version*, to which the link leads, take over, and wait until every process is of it."""
    old = running.pids()
    running.signal(signal.SIGUSR2)
    until(lambda: all(map(gone, old)), lambda: f"every old process has left; it said:\n{running.log()[-3000:]}")
    until(lambda: running.serving() and release(running) == version, "the new release serves")


def test_another_release_takes_over_and_no_request_fails(running: Sidecar, releases: Releases) -> None:
    """
    Under 500 requests a second every process but the supervisor's pid is replaced, round after round; no request fails,
    and versions, overrides and the audit chain are as they were.
    """
    assert running.process is not None
    assert running.api("PUT", "/overrides/route:checkout", OVERRIDE).body["durable"] is True
    known = {path: running.get(path) for path in ("/config", "/config/versions", "/overrides")}
    with running.load(RATE) as load:
        load.wait(100)
        for number in range(ROUNDS):
            version = ("2.0.0", "1.0.0")[number % 2]
            releases.use(version)
            upgrade(running, version)
            load.wait(100)
    none_failed(load, "upgrade")
    assert running.process.poll() is None
    assert known == {path: running.get(path) for path in known}
    assert running.get("/audit/verify")["ok"] is True


def test_what_was_handed_over_works_on(running: Sidecar, releases: Releases) -> None:
    """
    After a handover the supervisor still replaces a killed worker and controller, reloads on SIGHUP, and keeps others out.
    """
    releases.use("2.0.0")
    upgrade(running, "2.0.0")
    victims = [running.workers()[0], running.controller()]
    for victim in victims:
        kill(victim)
    until(lambda: running.serving() and not set(victims) & set(running.pids()), "others are in their places")
    running.config["workers"] = 1
    running.write()
    running.signal(signal.SIGHUP)
    until(lambda: running.serving() and len(running.workers()) == 1, "the reload is in force")
    assert running.cli("run", "-c", str(running.file)).returncode == 1


BAD = {
    "its supervisor": ({"supervisor": UNIMPORTABLE}, "future feature nonsense is not defined"),
    "its worker": ({"entry_worker": UNIMPORTABLE}, "a worker of release 3.1.0 ends by itself"),
    "its controller": ({"entry_controller": UNIMPORTABLE}, "the controller of release 3.2.0 cannot be imported"),
    "its reader": ({"config_static": UNIMPORTABLE}, "future feature nonsense is not defined"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_release_that_cannot_run_changes_nothing(running: Sidecar, releases: Releases, what: str) -> None:
    """
    When a part of the new release cannot be imported, the old one goes on with every process, and says why.
    """
    spoilt, why = BAD[what]
    version = f"3.{list(BAD).index(what)}.0"
    releases.use(releases.make(version, **spoilt))
    stays(running, running.load(50), f"the installed release cannot run; release {release(running)} goes on")
    assert why in running.log()


def test_a_config_that_the_release_refuses_changes_nothing(running: Sidecar, releases: Releases) -> None:
    """
    When the file is not valid for the new release, the old one goes on with what it runs, and says every place.
    """
    releases.use("1.0.0")
    running.write(running.text + "nonsense: 1\n")
    stays(running, running.load(50), "the installed release cannot run")
    assert "nonsense" in running.log()
    running.write()


def test_a_release_that_is_gone_changes_nothing(running: Sidecar, releases: Releases) -> None:
    """
    When nothing is installed any more, the old one goes on.
    """
    releases.current.unlink()
    stays(
        running,
        running.load(50),
        f"No such file or directory: '{releases.program[0]}'; release {release(running)} goes on",
    )
    releases.use("1.0.0")


def stays(running: Sidecar, load: Load, word: str) -> None:
    """SIGUSR2 is answered by *word*, and no process was replaced, no request failed."""
    before = running.pids()
    said = running.log().count(word)
    with load:
        load.wait(20)
        running.signal(signal.SIGUSR2)
        until(lambda: running.log().count(word) > said, lambda: f"it says {word!r}: {running.log()[-3000:]}")
        load.wait(20)
    assert not load.failed, load.said()
    assert running.pids() == before


def test_workers_that_cannot_live_replace_nobody(running: Sidecar, releases: Releases) -> None:
    """
    When the new workers die although the trial was passed, the old ones serve on; the next release mends it.
    """
    releases.use(releases.make("4.0.0", entry_worker=NO_WORKER))
    old = running.workers()
    with running.load(100) as load:
        load.wait(20)
        running.signal(signal.SIGUSR2)
        until(lambda: running.log().count("died (status 7)"), "new workers die")
        assert set(old) <= set(running.workers())  # beside them the next one may just be dying
        load.wait(20)
        releases.use("2.0.0")
        upgrade(running, "2.0.0")
        load.wait(20)
    assert not load.failed, load.said()


def test_a_signal_in_the_handover_is_not_lost(shop: Shop, releases: Releases) -> None:
    """
    SIGTERM that comes while one program becomes the other drains as always, with exit code 0.
    """
    releases.use("1.0.0")
    with Sidecar(settings(shop.url), program=releases.program) as leaving:
        releases.use("2.0.0")
        leaving.signal(signal.SIGUSR2)
        leaving.until_said("release 2.0.0 can run")
        assert leaving.leave() == 0
        assert leaving.said("stopped")
        assert not leaving.pids()
