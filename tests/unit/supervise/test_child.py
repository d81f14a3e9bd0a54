"""A child as the supervisor sees it: heartbeats over a real socket pair, a real process."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from sidecar.supervise import child as module
from sidecar.supervise.child import MAX_LINE_BYTES, Child, Kind, spawn
from tests.support.patience import WAIT_S

ECHO = """
import json, os, socket
told = json.loads(os.environ["SIDECAR_CHILD"])
heart = socket.socket(fileno=told["fds"]["heartbeat"])
listening = socket.socket(fileno=told["fds"]["listen"][0])
told["port"] = listening.getsockname()[1]
told["parent"], told["session"] = os.getppid(), os.getsid(0) == os.getpid()
heart.sendall(json.dumps({"ready": True, "told": told}).encode() + b"\\n")
order = heart.makefile().readline()
heart.sendall(json.dumps({"ready": False, "order": json.loads(order)}).encode() + b"\\n")
"""


@pytest.fixture
def pair() -> Iterator[tuple[Child, socket.socket]]:
    """A child of which only the heartbeat is there."""
    ours, theirs = socket.socketpair()
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    with ours, theirs:
        yield Child("worker-0", Kind.WORKER, 0, "e", process, ours, 0.0), theirs
    process.wait()


def test_a_heartbeat_moves_what_is_known(pair: tuple[Child, socket.socket]) -> None:
    """
    The last whole line counts, with its moment; half a line waits for its end.
    """
    child, theirs = pair
    assert child.listen(1.0)
    assert child.heard_at is None
    theirs.sendall(b'{"ready": false}\n{"ready": true, "in_flight": 3}\n{"ready": fal')
    assert child.listen(2.0)
    assert (child.ready, child.facts["in_flight"], child.heard_at) == (True, 3, 2.0)
    theirs.sendall(b"se}\n")
    assert child.listen(3.0)
    assert (child.ready, child.heard_at) == (False, 3.0)


def test_lines_that_say_nothing_are_no_heartbeat(pair: tuple[Child, socket.socket]) -> None:
    """
    What is no JSON object counts for nothing, and a line without end does not fill the memory.
    """
    child, theirs = pair
    theirs.sendall(b'nonsense\n[1]\n"x"\n\n')
    assert child.listen(1.0)
    assert child.heard_at is None
    for _ in range(5):
        theirs.sendall(b"x" * 40_000)
        assert child.listen(1.0)
    assert len(child.unread) <= MAX_LINE_BYTES
    theirs.sendall(b'\n{"ready": true}\n')
    while not child.ready:
        assert child.listen(2.0)


def test_the_end_is_told(pair: tuple[Child, socket.socket]) -> None:
    """
    A closed heartbeat is the end; telling a child that is gone raises nothing.
    """
    child, theirs = pair
    theirs.close()
    assert child.listen(1.0) is False
    child.tell(do="drain")


def test_a_child_that_does_not_read_holds_up_nobody(pair: tuple[Child, socket.socket]) -> None:
    """
    Orders to a child that does not read are dropped, not waited for.
    """
    child, _ = pair
    began = time.monotonic()
    for _ in range(5_000):
        child.tell(do="facts", workers=["x" * 200])
    assert time.monotonic() - began < WAIT_S


def test_a_spawned_child_is_told_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A child gets its name, its sockets and its heartbeat, in a session of its own, and both sides hear each other.
    """
    command = subprocess.Popen
    monkeypatch.setattr(  # the process is real, only its program is ours
        module.subprocess, "Popen", lambda _, **given: command([sys.executable, "-c", ECHO], **given)
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        child = spawn(Kind.WORKER, "worker-3", 3, {"listen": [listening]}, {"runtime": "/run/x"}, 5.0)
        port = listening.getsockname()[1]
    child.heart.setblocking(True)
    child.heart.settimeout(WAIT_S)
    while child.heard_at is None:
        _wait(child)
    told = child.facts["told"]
    assert (told["name"], told["index"], told["runtime"], told["port"]) == ("worker-3", 3, "/run/x", port)
    assert (told["parent"], told["supervisor"], told["session"]) == (os.getpid(), os.getpid(), True)
    assert (child.ready, repr(child)) == (True, f"<worker-3 pid {child.process.pid} ready>")
    child.tell(do="drain")
    while child.ready:
        _wait(child)
    assert child.facts["order"] == {"do": "drain"}
    assert child.process.wait(20) == 0
    assert told["epoch"] == child.epoch
    child.heart.close()


def _wait(child: Child) -> None:
    child.heart.recv(1, socket.MSG_PEEK)
    assert child.listen(6.0)
