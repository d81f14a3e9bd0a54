"""
The unit of `deploy/systemd/` under a real systemd, with all its hardening: dynamic user, system call filter, no
writable and executable memory, no capabilities, read-only system.

Everything happens in namespaces; see `tests/support/manager.py`. Root is needed.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.deployed import DEPLOY
from tests.support.manager import Manager, missing
from tests.support.sidecar import Reply, Shop, call, until

WHY_NOT = missing()
FILE = "/etc/sidecar/sidecar.yaml"

pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)


def config(upstream: str, more: str = "") -> str:
    return (
        "listen: 127.0.0.1:0\nobserve: 127.0.0.1:0\nadmin: {listen: '127.0.0.1:0'}\n"
        f"upstream: {{endpoints: [{upstream}]}}\ndrain: {{grace: 30s}}\n{more}"
    )


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with Shop() as made:
        yield made


@pytest.fixture(scope="module")
def manager(shop: Shop) -> Iterator[Manager]:
    unit = (DEPLOY / "systemd/sidecar.service").read_text()
    short = unit.replace("TimeoutStopSec=60s", "TimeoutStopSec=1s").replace("WatchdogSec=10s", "WatchdogSec=3s")
    assert short.count("=1s") == 2  # RestartSec is the other one
    with Manager(short, config(shop.url)) as made:
        yield made


@pytest.fixture
def started(manager: Manager, shop: Shop) -> Iterator[Manager]:
    """Give a started unit: the one that runs, if it does."""
    manager.writes(FILE, config(shop.url))
    manager.systemctl("start", "sidecar")
    yield manager
    shop.breaks()


def address(manager: Manager, listener: str) -> str:
    """Return where the running sidecar listens, from the journal of this start."""
    invocation = manager.shown("InvocationID")
    told = manager.run("journalctl", "--no-pager", "-o", "cat", f"_SYSTEMD_INVOCATION_ID={invocation}").stdout
    found = re.search(rf'"{listener}": "([^"]+)"', told)
    assert found is not None, told
    return found[1]


def metric(manager: Manager, name: str) -> float:
    found = re.search(rf"^{name} (\S+)$", call(address(manager, "observe"), "GET", "/metrics").text, re.MULTILINE)
    return float(found[1]) if found is not None else float("nan")


def test_started_means_that_it_serves(started: Manager) -> None:
    """
    `systemctl start` returns when READY=1 has come, and the API answers at that moment, before the controller has to; the
    status says how many serve, and when the controller does too.
    """
    assert started.shown("ActiveState") == "active"
    assert call(address(started, "listen"), "GET", "/api/products/7").status == 200
    assert started.shown("StatusText") in ("1 of 1 workers serve", "1 of 1 workers serve, the controller is starting")
    until(lambda: started.shown("StatusText") == "1 of 1 workers serve", "the controller is there too")


def test_every_process_is_confined(started: Manager) -> None:
    """
    A dynamic user, no capability, no new privileges, a system call filter: for supervisor, controller and worker.
    """
    until(lambda: len(processes(started)) == 3, "all three run: one that died at the start has its successor")
    for pid in processes(started):
        text = started.run("cat", f"/proc/{pid}/status").stdout
        rows = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
        assert 61184 <= int(rows["Uid"].split()[0]) <= 65519  # systemd's range for dynamic users
        assert {rows[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
        assert (rows["NoNewPrivs"], rows["Seccomp"]) == ("1", "2")


def test_its_state_is_its_own_and_durable(started: Manager) -> None:
    """
    The store lies in /var/lib/sidecar, open to nobody else, and takes writes.
    """
    until(lambda: metric(started, "sidecar_store_up") == 1, "the store takes writes")
    assert started.run("stat", "-c", "%a", "/var/lib/private/sidecar").stdout.strip() == "700"
    assert started.run("test", "-s", "/var/lib/private/sidecar/sidecar.db").returncode == 0


def test_reload_reads_the_file_and_comes_back_to_active(started: Manager, shop: Shop) -> None:
    """
    `systemctl reload` applies a good file; a bad one changes nothing, the unit stays active, the metric says it.
    """
    until(lambda: metric(started, "sidecar_config_version") > 0, "the controller serves")
    before, pid = metric(started, "sidecar_config_version"), started.shown("MainPID")
    started.writes(FILE, config(shop.url, "explain: none\n"))
    started.systemctl("reload", "sidecar")
    until(lambda: metric(started, "sidecar_config_version") == before + 1, "the file is applied")
    until(lambda: started.shown("ActiveState") == "active", "READY=1 has ended the reload")

    started.writes(FILE, config(shop.url, "explain: everything\n"))
    started.systemctl("reload", "sidecar")
    until(lambda: metric(started, "sidecar_config_last_apply_successful") == 0, "the metric says that it failed")
    until(lambda: started.shown("ActiveState") == "active", "READY=1 has ended this one too")
    assert metric(started, "sidecar_config_version") == before + 1
    assert started.shown("MainPID") == pid


def test_another_release_takes_over_in_the_same_unit(started: Manager) -> None:
    """
    SIGUSR2 replaces every process but the main pid, within the unit's confinement; the unit stays active and serves.
    """
    pid, restarts, listen = started.shown("MainPID"), started.shown("NRestarts"), address(started, "listen")
    until(lambda: len(processes(started)) == 3, "all three run")
    old = set(processes(started)) - {pid}
    started.systemctl("kill", "--kill-who=main", "-s", "USR2", "sidecar")
    until(lambda: not old & set(processes(started)), "the processes of the old release have left")
    until(lambda: started.shown("ActiveState") == "active", "READY=1 has ended the change")
    until(lambda: len(processes(started)) == 3, "those of the new one are there")

    assert call(listen, "GET", "/api/products/7").status == 200
    assert (started.shown("MainPID"), started.shown("NRestarts")) == (pid, restarts)
    until(lambda: started.shown("StatusText") == "1 of 1 workers serve", "the status is the new supervisor's")


def processes(manager: Manager) -> list[str]:
    """Return the unit's processes."""
    return manager.run("cat", f"/sys/fs/cgroup/systemd{manager.shown('ControlGroup')}/cgroup.procs").stdout.split()


def test_stopping_takes_the_time_that_the_answer_needs(started: Manager, shop: Shop) -> None:
    """
    With a TimeoutStopSec of 1 s a request of 3 s still gets its answer: the sidecar asks for its grace time itself.
    """
    shop.breaks(delay_ms=3000, path="/api/products")
    listen, answers = address(started, "listen"), list[Reply]()
    asking = threading.Thread(target=lambda: answers.append(call(listen, "GET", "/api/products/7")))
    asking.start()
    flying = 'sidecar_in_flight{route="default"} 1.0'
    until(lambda: flying in call(address(started, "observe"), "GET", "/metrics").text, "it is in flight")
    started.systemctl("stop", "sidecar")
    asking.join()

    assert [answer.status for answer in answers] == [200]
    assert (started.shown("Result"), started.shown("ExecMainStatus")) == ("success", "0")


def test_a_hung_supervisor_is_replaced(started: Manager) -> None:
    """
    Without WATCHDOG=1 for WatchdogSec the unit is ended and started again, and serves.
    """
    pid, restarts = started.shown("MainPID"), int(started.shown("NRestarts"))
    started.run("kill", "-STOP", pid)
    until(lambda: int(started.shown("NRestarts")) == restarts + 1, "the watchdog bites")
    until(lambda: started.shown("ActiveState") == "active", "the next one is ready")

    assert started.shown("MainPID") != pid
    assert call(address(started, "listen"), "GET", "/api/products/7").status == 200


def test_nothing_of_it_is_left_on_the_machine() -> None:
    """
    Units, users and files of the test live in its namespaces only.
    """
    assert not Path("/etc/systemd/system/sidecar.service").exists()
    assert not Path("/var/lib/private/sidecar").exists()
