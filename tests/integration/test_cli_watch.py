"""Verbs that stay: watching and following end on Ctrl-C only, and outlive what they watch."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.admin import admin_server
from tests.support.control import SECRETS
from tests.support.patience import WAIT_S
from tests.support.running import running

SIDECAR = str(Path(sys.executable).with_name("sidecar"))


def hear_interrupts() -> None:
    """Let a child be interrupted also where this test run cannot be, as in the background of a shell."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def environ(url: str, token: str) -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "SIDECAR_ADMIN": url, "SIDECAR_TOKEN": token, "TERM": "xterm", "COLUMNS": "100"}


def test_watch_for_a_script() -> None:
    """`-w -o json` writes one document after the other; Ctrl-C is a good end."""
    with admin_server() as url:
        process = subprocess.Popen(
            [SIDECAR, "top", "-w", "-o", "json"],
            env=environ(url, SECRETS["viewer"]), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=hear_interrupts,  # noqa: PLW1509  no thread of ours holds a lock that it needs
        )  # fmt: skip
        assert process.stdout is not None
        ends = 0
        while ends < 2:
            ends += process.stdout.readline() == "}\n"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=WAIT_S)
    assert (process.returncode, errors) == (0, "")


def test_watch_for_a_person() -> None:
    """On a terminal the screen is repainted and given back as it was."""
    leader, follower = pty.openpty()
    with admin_server() as url:
        process = subprocess.Popen(
            [SIDECAR, "status", "-w"], env=environ(url, SECRETS["viewer"]), stdin=follower, stdout=follower,
            preexec_fn=hear_interrupts,  # noqa: PLW1509  no thread of ours holds a lock that it needs
        )  # fmt: skip
        os.close(follower)
        painted = b""
        while painted.count(b"1 incident") < 2:
            painted += os.read(leader, 65536)
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_S) == 0
    try:
        while b"\x1b[?1049l" not in painted:
            painted += os.read(leader, 65536)
    except OSError:
        pytest.fail("the screen was not given back")
    finally:
        os.close(leader)


def test_events_outlive_the_controller(tmp_path: Path) -> None:
    """`kill -9` of the controller ends no `sidecar events`: it goes on with the next event of the new one."""
    with running(tmp_path, "http://127.0.0.1:9") as made:
        process = subprocess.Popen(
            [SIDECAR, "events", "--since", "0", "--limit", "2", "-o", "json"],
            env=environ(made.admin, made.token), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        controller = next(line["pid"] for line in made.lines if line["event"] == "controller is ready")
        seen = len(made.lines)
        os.kill(controller, signal.SIGKILL)
        made.wait_for("controller is ready", after=seen)
        subprocess.run(
            [SIDECAR, "override", "set", "service", "observe", "--ttl", "1m", "--reason", "try"],
            env=environ(made.admin, made.token), check=True, capture_output=True,
        )  # fmt: skip
        rest, errors = process.communicate(timeout=WAIT_S)
    second = json.loads(rest.splitlines()[0])
    assert (process.returncode, errors, first["kind"], second["kind"]) == (0, "", "config.applied", "override.set")
    assert second["sequence"] > first["sequence"]
