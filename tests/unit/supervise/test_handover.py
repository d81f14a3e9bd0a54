"""What goes from one release to the next: text, descriptors, children, the command line. On real sockets and processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from sidecar.supervise.child import Adopted, Child, Kind
from sidecar.supervise.handover import PROTOCOL, VARIABLE, Handover, command, execute, listeners, pack, unpack
from sidecar.supervise.signals import TAKEN
from sidecar.supervise.start import StartError

SLEEPS = [sys.executable, "-c", "import time; time.sleep(600)"]


def test_the_variable_is_read_once() -> None:
    """
    What is left is read as it was written, and no child of the new release sees it.
    """
    left = Handover("1.0", "/run/x", static={"workers": 2}, sockets={"listen": 3}, lock=4, restarts={"a": 1})
    environ = {VARIABLE: left.text, "OTHER": "1"}
    assert Handover.take(environ) == left
    assert environ == {"OTHER": "1"}
    assert Handover.take(environ) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (json.dumps({"protocol": PROTOCOL + 1}), f"hands over by protocol {PROTOCOL + 1}, this one by {PROTOCOL}"),
        (json.dumps({"protocol": PROTOCOL, "unknown": 1}), "cannot be read"),
        ("nonsense", "cannot be read"),
        ("[1]", "cannot be read"),
    ],
)
def test_what_is_not_understood_is_said(text: str, problem: str) -> None:
    """
    Another protocol, and what is none, is an error with the remedy.
    """
    with pytest.raises(StartError, match=problem) as found:
        Handover.take({VARIABLE: text})
    assert found.value.code == 1
    assert found.value.hint


def test_a_child_goes_along() -> None:
    """
    A child is the same one afterwards: known by its pid and heartbeat, half of a line included; its silence begins anew.
    """
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(SLEEPS)
    with theirs:
        child = Child("worker-0", Kind.WORKER, 0, "e", process, ours, 1.0)
        theirs.sendall(b'{"ready": true, "in_flight": 3}\n{"ready": fal')
        child.listen(2.0)
        row = json.loads(json.dumps(pack(child)))
        ours.detach()
        heir = unpack(row)
        assert (heir.ready, heir.facts["in_flight"], heir.silent_s) == (True, 3, 0.0)
        theirs.sendall(b"se}\n")
        assert heir.listen(3.0)
        assert (heir.name, heir.kind, heir.ready, heir.heard_at, heir.process.poll()) == (
            "worker-0", Kind.WORKER, False, 3.0, None,
        )  # fmt: skip
        heir.process.kill()
        while heir.process.poll() is None:
            time.sleep(0.01)
        assert heir.process.returncode == -signal.SIGKILL
        heir.heart.close()
    process.returncode = heir.process.returncode  # its status was taken by the heir


def test_an_adopted_child_tells_how_it_ended() -> None:
    """
    The exit status is kept; a child whose status somebody else took counts as ended, and is not signalled.
    """
    process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"])
    adopted = Adopted(process.pid)
    while adopted.poll() is None:
        time.sleep(0.01)
    assert (adopted.returncode, adopted.poll()) == (7, 7)
    process.returncode = 7
    other = Adopted(process.pid)
    other.kill()
    assert other.returncode == 0


def test_listeners_are_not_inherited_further() -> None:
    """
    A listening socket is taken by its number, and closed in children that are not meant to have it.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        number = os.dup(listening.fileno())
        os.set_inheritable(number, True)
        found = listeners(Handover("1.0", "", sockets={"listen": number}))
        assert found["listen"].getsockname()[1] == port
        assert not os.get_inheritable(number)
        found["listen"].close()


def test_the_command_leads_to_what_is_installed_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A script is executed by its name, whatever interpreter ran it; a module by the interpreter.
    """
    monkeypatch.setattr(sys, "orig_argv", ["/old/python", "/bin/sh", "run", "-c", "x"])
    monkeypatch.setattr(sys, "argv", ["/bin/sh", "run", "-c", "x"])
    assert command() == ["/bin/sh", "run", "-c", "x"]
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "sidecar", "run"])
    monkeypatch.setattr(sys, "argv", ["/x/sidecar/__main__.py", "run"])
    assert command() == [sys.executable, "-m", "sidecar", "run"]


def test_a_program_that_is_gone_changes_nothing() -> None:
    """
    When exec fails the descriptors are private again and signals come in.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.socket() as lock:
        left = Handover("1.0", "", sockets={"listen": listening.fileno()}, lock=lock.fileno())
        error = execute(["/nowhere/sidecar", "run"], left)
        assert isinstance(error, FileNotFoundError)
        assert not listening.get_inheritable()
        assert not lock.get_inheritable()
    assert not set(TAKEN) & signal.pthread_sigmask(signal.SIG_BLOCK, ())
    assert VARIABLE not in os.environ
