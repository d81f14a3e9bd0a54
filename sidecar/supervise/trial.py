"""
Finds out whether another release could run here, before it takes this one's place.

The running supervisor starts the new release's own command line, with a `SIDECAR_HANDOVER` that says "on trial". There the
new code reads the command line and the configuration, starts one worker of its own on a private socket and with a copy of
what the running workers boot from, waits until that is ready, imports the controller, and prints the static keys. Nothing
that runs is touched: not the state directory, not the listeners, not the link.

What can go wrong: the new code cannot be imported, the configuration or the active version means nothing to it, its worker
dies or is silent. The exit code says so, and stderr why; the running release stays. What only a real controller would meet
(the store) is not tried: it is the last to be replaced, and traffic goes on without one.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from sidecar import __version__, clock
from sidecar.link.runtime import BOOT_FILE
from sidecar.supervise.child import Child, Kind, spawn
from sidecar.supervise.handover import Handover
from sidecar.supervise.listeners import bind_unix
from sidecar.supervise.start import Flags, StartError, resolve

WORKER_S: Final = 30.0
LONGEST_S: Final = 90.0  # for the whole trial, as its supervisor counts
FAILED: Final = 1


def try_release(flags: Flags, handover: Handover) -> int:
    """
    Print what the running supervisor must know of this release, and return 0.

    Raises:
        StartError: when this release could not run.
    """
    static = resolve(flags)
    with tempfile.TemporaryDirectory(prefix="sidecar-trial-") as folder:
        with contextlib.suppress(FileNotFoundError):
            shutil.copy2(Path(handover.runtime) / BOOT_FILE, folder)
        _try_worker(flags, static, Path(folder))
    _try_controller()
    print(json.dumps({"release": __version__, "static": dict(static)}))  # noqa: T201  the answer
    return 0


def _try_worker(flags: Flags, static: Mapping[str, Any], folder: Path) -> None:
    told = {
        "runtime": str(folder),
        "config_file": static["config_file"],
        "flags": dict(flags.values),
        "static": {**static, "access_log": "stderr"},  # stdout is the answer's
    }
    with bind_unix(folder / "listen.sock") as listening:
        child = spawn(Kind.WORKER, "worker on trial", 0, {"listen": [listening]}, told, clock.now())
        try:
            _wait_until_ready(child)
        finally:
            child.process.kill()
            os.waitpid(child.process.pid, 0)
            child.heart.close()


def _wait_until_ready(child: Child) -> None:
    until_at = clock.now() + WORKER_S
    while not child.ready:
        left_s = until_at - clock.now()
        if left_s <= 0 or not select.select([child.heart], [], [], left_s)[0]:
            raise StartError(FAILED, f"a worker of release {__version__} was not ready within {WORKER_S:.0f} s")
        if not child.listen(clock.now()):
            raise StartError(FAILED, f"a worker of release {__version__} ends by itself", "see above for its reason")


def _try_controller() -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import {Kind.CONTROLLER.value}"], stdin=subprocess.DEVNULL, check=False
    )
    if done.returncode != 0:
        raise StartError(
            FAILED, f"the controller of release {__version__} cannot be imported", "see above for the reason"
        )
