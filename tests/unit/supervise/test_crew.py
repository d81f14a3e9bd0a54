"""The supervisor's children as real processes: who is started again, when, and who is ended."""

from __future__ import annotations

import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from sidecar import clock
from sidecar.supervise import child as module
from sidecar.supervise.child import Kind
from sidecar.supervise.crew import LONGEST_TURN_S, SILENCE_S, START_S, Crew
from tests.support.patience import WAIT_S

PROGRAM = """
import json, os, socket
heart = socket.socket(fileno=json.loads(os.environ["SIDECAR_CHILD"])["fds"]["heartbeat"])
heart.sendall(json.dumps({"ready": True}).encode() + b"\\n")
for line in heart.makefile():
    heart.sendall(json.dumps({"ready": False, "heard": json.loads(line)}).encode() + b"\\n")
    if json.loads(line)["do"] == "drain":
        break
"""


class Desk:
    """A crew that turns when its test says so."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.sockets = {name: socket.create_server(("127.0.0.1", 0)) for name in ("listen", "observe", "admin", "link")}
        self.turned_at = clock.now()
        self.crew = Crew(self.selector, self.sockets, dict)

    def until(self, true: Callable[[], object]) -> None:
        """Turn until it is true."""
        deadline = time.monotonic() + WAIT_S
        while not true():
            assert time.monotonic() < deadline, self.crew
            for key, _ in self.selector.select(0.01):
                key.data(clock.now())
            self.turned_at = clock.now()
            self.crew.turn(self.turned_at)

    def turns(self, seconds: float, *, step_s: float = 0.05) -> None:
        """Let the crew turn as if so much time passed, without hearing anybody."""
        for number in range(1, round(seconds / step_s) + 1):
            self.crew.turn(self.turned_at + number * step_s)
        self.turned_at += seconds

    def close(self) -> None:
        """End everybody."""
        for child in self.crew.everybody:
            child.process.kill()
            child.process.wait()
            child.heart.close()
        for listening in self.sockets.values():
            listening.close()
        self.selector.close()


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A desk whose children are real processes with a program of ours."""
    command = subprocess.Popen
    monkeypatch.setattr(
        module.subprocess, "Popen", lambda _, **given: command([sys.executable, "-c", PROGRAM], **given)
    )
    made = Desk()
    yield made
    made.close()


def test_who_dies_is_started_again_and_later_each_time(desk: Desk) -> None:
    """
    A killed worker has a successor under the same index; the delay doubles, and each restart is counted.
    """
    desk.crew.start(Kind.WORKER)
    pauses = []
    for number in range(1, 4):
        desk.until(lambda: desk.crew.serving == 1)
        (worker,) = desk.crew.workers
        worker.process.kill()
        worker.process.wait()
        now = clock.now()
        desk.crew.turn(now)
        assert desk.crew.workers_coming == 1
        pauses.append(desk.crew.pause_s(now, 10.0))
        assert desk.crew.facts()["restarts"]["worker"] == number
    assert all(least <= pause <= 1.5 * least for pause, least in zip(pauses, (0.1, 0.2, 0.4), strict=True)), pauses
    desk.until(lambda: desk.crew.serving == 1)
    assert desk.crew.workers[0].index == 0


def test_who_is_silent_is_killed(desk: Desk, capfd: pytest.CaptureFixture[str]) -> None:
    """
    A child that was heard has five seconds, one that starts has thirty; that it is killed is said once.
    """
    desk.crew.start(Kind.WORKER)
    (worker,) = desk.crew.workers
    desk.until(lambda: worker.ready)
    worker.process.send_signal(signal.SIGSTOP)
    desk.turns(SILENCE_S - worker.silent_s - 0.1)
    assert worker.process.poll() is None
    desk.turns(0.2)
    assert worker.process.wait(WAIT_S) == -signal.SIGKILL

    desk.crew.start(Kind.CONTROLLER)
    (controller,) = desk.crew.controllers
    controller.process.send_signal(signal.SIGSTOP)
    desk.turns(START_S - 0.1)
    assert controller.process.poll() is None
    desk.turns(0.2)
    assert controller.process.wait(WAIT_S) == -signal.SIGKILL
    assert capfd.readouterr().err.count("is killed") == 2


def test_a_pause_that_nobody_could_speak_in_kills_nobody(desk: Desk) -> None:
    """
    After a minute in which the supervisor itself did not turn, its children still have their time to be heard.
    """
    desk.crew.start(Kind.WORKER)
    (worker,) = desk.crew.workers
    desk.until(lambda: worker.ready)
    worker.process.send_signal(signal.SIGSTOP)
    before_s = worker.silent_s
    desk.turns(60.0, step_s=60.0)
    assert worker.silent_s == before_s + LONGEST_TURN_S
    desk.turns(SILENCE_S - worker.silent_s - 0.1)
    assert worker.process.poll() is None
    desk.turns(0.2)
    assert worker.process.wait(WAIT_S) == -signal.SIGKILL


def test_who_leaves_in_order_is_no_death(desk: Desk) -> None:
    """
    A worker that stops to be ready by itself drains and is not counted; a controller that was told to has a successor.
    """
    for kind in (Kind.WORKER, Kind.CONTROLLER):
        desk.crew.start(kind)
    desk.until(lambda: all(child.ready for child in desk.crew.everybody))
    (worker,), (first,) = desk.crew.workers, desk.crew.controllers
    worker.tell(do="drain")
    first.draining = True
    first.tell(do="drain")
    desk.until(lambda: not desk.crew.workers and desk.crew.controllers not in ([], [first]))
    assert worker.draining
    assert desk.crew.facts()["restarts"] == {"worker": 0, "controller": 0}
    assert desk.crew.workers_coming == 0


def test_nobody_is_replaced_once_the_sidecar_leaves(desk: Desk) -> None:
    """
    After `leave` a death is only noticed, and who was about to be started is not.
    """
    for _ in range(2):
        desk.crew.start(Kind.WORKER)
    one, two = desk.crew.workers
    one.process.kill()
    desk.until(lambda: desk.crew.workers_coming)
    desk.crew.leave()
    two.process.kill()
    desk.until(lambda: not desk.crew)
    assert (desk.crew.workers_coming, desk.crew.pause_s(clock.now(), 0.25)) == (0, 0.25)
    assert repr(desk.crew) == "<Crew [], nobody is replaced>"
