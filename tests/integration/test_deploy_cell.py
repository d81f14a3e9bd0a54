"""
The sidecar under the constraints of the image and the manifests: unprivileged, no capabilities, a read-only root.

No container engine is needed: `tests/support/cell.py` makes the same constraints with namespaces. Root is.
"""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cell import USER, Cell, missing, mounted, status
from tests.support.patience import WAIT_S
from tests.support.sidecar import Reply, Shop, call, until

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy/docker/Dockerfile"
WHY_NOT = missing()

pytestmark = pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)


def config(upstream: str, more: str = "") -> str:
    return (
        "listen: 127.0.0.1:0\nobserve: 127.0.0.1:0\nadmin: {listen: '127.0.0.1:0'}\n"
        f"upstream: {{endpoints: [{upstream}]}}\ndrain: {{grace: 20s}}\n{more}"
    )


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with Shop() as made:
        yield made


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory, shop: Shop) -> Path:
    made = tmp_path_factory.mktemp("config")
    mounted(made, 1, config(shop.url))
    return made


@pytest.fixture(scope="module")
def cell(volume: Path) -> Iterator[Cell]:
    with Cell(volume, "SIDECAR_WATCH=1") as made:
        yield made


def observed(cell: Cell, path: str) -> Reply:
    return call(cell.address("observe"), "GET", path)


def metric(cell: Cell, name: str) -> float:
    found = re.search(rf"^{name} (\S+)$", observed(cell, "/metrics").text, re.MULTILINE)
    assert found is not None, name
    return float(found[1])


def test_it_serves(cell: Cell) -> None:
    """
    The API answers through it, it is ready, and its store takes writes on the emptyDir.
    """
    assert call(cell.address("listen"), "GET", "/api/products/7").status == 200
    assert observed(cell, "/readyz").status == 200
    assert metric(cell, "sidecar_store_up") == 1


def test_no_process_has_any_privilege(cell: Cell) -> None:
    """
    Supervisor, controller and worker run as the image's user, without capabilities and without a way to gain any.
    """
    pids = cell.pids()
    assert len(pids) == 3
    for pid in pids:
        rows = status(pid)
        assert rows["Uid"].split() == [str(USER)] * 4
        assert {rows[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
        assert rows["NoNewPrivs"] == "1"
        assert rows["NSpid"].split()[-1] == "1" or pid != pids[0]


def test_nothing_but_the_state_and_tmp_can_be_written(cell: Cell) -> None:
    """
    Even root finds the root file system, the sources and the configuration read only.
    """
    root = Path(f"/proc/{cell.supervisor()}/root")
    for folder in (".", "etc/sidecar", "usr", str(ROOT).lstrip("/")):
        with pytest.raises(OSError, match="Read-only") as raised:
            (root / folder / "written").touch()
        assert raised.value.errno == errno.EROFS
    written = {path.name for path in (root / "var/lib/sidecar").iterdir()}
    assert {"sidecar.db", "lock", "install.key", "admin.token"} <= written


def test_the_images_health_check_follows_readiness(cell: Cell) -> None:
    """
    The HEALTHCHECK of the Dockerfile exits with 0 while `/readyz` says yes, and with another code when nobody answers.
    """
    text = DOCKERFILE.read_text().replace("\\\n", " ")
    found = re.search(r"^HEALTHCHECK .*? CMD (\[.*\])$", text, re.MULTILINE)
    assert found is not None
    _, *words = json.loads(found[1])

    def check(observe: str) -> int:
        environ = {**os.environ, "SIDECAR__OBSERVE": observe}
        done = subprocess.run([sys.executable, *words], env=environ, capture_output=True, timeout=WAIT_S, check=False)
        return done.returncode

    assert check(cell.address("observe")) == 0
    assert check("127.0.0.1:1") != 0


def test_a_swapped_config_map_is_read(cell: Cell, volume: Path, shop: Shop) -> None:
    """
    A swap of `..data` makes a version without a signal; a bad one changes nothing, is said in the log and in the
    metric, and the next good one mends it.
    """
    before = metric(cell, "sidecar_config_version")
    mounted(volume, 2, config(shop.url, "explain: none\n"))
    until(lambda: metric(cell, "sidecar_config_version") == before + 1, "the new text is a version")
    assert cell.said("the file has changed: reading the configuration again")

    seen = len(cell.events())
    mounted(volume, 3, config(shop.url, "explain: everything\n"))
    until(lambda: metric(cell, "sidecar_config_last_apply_successful") == 0, "the metric says that it failed")
    assert metric(cell, "sidecar_config_version") == before + 1
    assert cell.said("the configuration is not valid; the running one stays", after=seen)
    assert re.search(r"^/etc/sidecar/sidecar\.yaml:6:\d+: explain: ", cell.log(), re.MULTILINE)
    assert call(cell.address("listen"), "GET", "/api/products/7").status == 200

    mounted(volume, 4, config(shop.url, "explain: full\n"))
    until(lambda: metric(cell, "sidecar_config_version") == before + 2, "the mended text is a version")
    assert metric(cell, "sidecar_config_last_apply_successful") == 1


def test_a_dead_worker_is_replaced(cell: Cell) -> None:
    """
    Without any privilege the supervisor still replaces a killed worker.
    """
    supervisor, *children = cell.pids()
    worker = next(pid for pid in children if "sidecar.entry.worker" in Path(f"/proc/{pid}/cmdline").read_text())
    os.kill(worker, signal.SIGKILL)

    until(lambda: metric(cell, "sidecar_worker_restarts_total") == 1, "the worker is replaced")
    until(lambda: call(cell.address("listen"), "GET", "/api/products/7").status == 200, "the next one serves")
    assert cell.supervisor() == supervisor


def test_sigterm_to_pid_1_drains_and_exits_with_0(tmp_path: Path, shop: Shop) -> None:
    """
    A request in flight gets its whole answer; then pid 1 ends with 0, and nothing is left in its namespace.
    """
    mounted(tmp_path, 1, config(shop.url))
    answers: list[Reply] = []
    shop.breaks(delay_ms=2500, path="/api/reports")
    with Cell(tmp_path) as cell:
        asking = threading.Thread(target=lambda: answers.append(call(cell.address("listen"), "GET", "/api/reports/q3")))
        asking.start()
        until(lambda: 'sidecar_in_flight{route="default"} 1.0' in observed(cell, "/metrics").text, "it is in flight")
        pids = cell.pids()
        assert cell.leave() == 0
        asking.join()

    assert [answer.status for answer in answers] == [200]
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
