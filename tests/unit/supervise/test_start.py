"""Flags, static keys and the state's lock; the reading of a reload; the tether. On real processes and files."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.link.runtime import BOOT_FILE, BootConfig, read_boot, write_boot
from sidecar.supervise.reading import LONGEST_S, Reading
from sidecar.supervise.start import Flags, StartError, forget_stale_boot, lock_state, resolve
from tests.support.patience import WAIT_S

OK = [sys.executable, "-c", "print('{\"workers\": 2}')"]
BAD = [sys.executable, "-c", "import sys; sys.exit(2)"]
SLOW = [sys.executable, "-c", "import time; time.sleep(600)"]


def within(ask: Callable[[], object]) -> object:
    """Ask until there is an answer."""
    deadline = time.monotonic() + WAIT_S
    while (answer := ask()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return answer


def test_flags_become_the_childs_command() -> None:
    """
    What was given is handed on, a value that looks like a flag too; what was not given is not.
    """
    flags = Flags.parse(["-c", "a.yaml", "--listen", ":8080", "--upstream=--odd"])
    assert flags.values == {"--listen": ":8080", "--upstream": "--odd"}
    assert flags.command[1:] == ["-m", "sidecar.config.static", "-c", "a.yaml", "--upstream=--odd", "--listen=:8080"]
    assert Flags.parse([]).command[1:] == ["-m", "sidecar.config.static"]


@pytest.mark.parametrize(
    ("word", "hint"), [("--lissen=:1", "did you mean --listen?"), ("--zzz", "sidecar run --help shows what there is")]
)
def test_a_wrong_flag_is_told_which_was_meant(word: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    """
    The nearest flag, or where they all stand.
    """
    with pytest.raises(SystemExit):
        Flags.parse([word])
    assert f"{word} is no option of sidecar run; {hint}" in capsys.readouterr().err


@pytest.mark.parametrize("argv", [["--nope"], ["--listen"], ["extra"], ["--up", "x"]])
def test_wrong_flags_are_usage_errors(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """
    Unknown, incomplete and shortened flags exit with 2 and the usage.
    """
    with pytest.raises(SystemExit) as found:
        Flags.parse(argv)
    assert found.value.code == 2
    assert "usage: sidecar run" in capsys.readouterr().err


def test_static_keys_come_from_the_child(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """
    A good file gives its keys; a bad one has been told by the child, and its exit code is ours.
    """
    file = tmp_path / "a.yaml"
    file.write_text("upstream: {endpoints: [http://127.0.0.1:9]}\nworkers: 2\n")
    assert resolve(Flags.parse(["-c", str(file)]))["workers"] == 2
    file.write_text("workers: -1\n")
    with pytest.raises(StartError) as found:
        resolve(Flags.parse(["-c", str(file)]))
    assert (found.value.code, found.value.problem) == (2, "")
    assert f"{file}:1:" in capfd.readouterr().err


def test_the_state_is_held_by_one(tmp_path: Path) -> None:
    """
    The directory is made private; a second holder is refused until the first one lets go.
    """
    state = tmp_path / "deep" / "state"
    lock = lock_state(state)
    assert state.stat().st_mode & 0o777 == 0o700
    with pytest.raises(StartError, match="another sidecar runs on the state directory") as found:
        lock_state(state)
    assert found.value.code == 1
    lock.close()
    lock_state(state).close()


def test_a_state_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    """
    A file in the way is an error with a remedy.
    """
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match=r"cannot be made: .*/file is a file$") as found:
        lock_state(tmp_path / "file" / "state")
    assert "SIDECAR__STATE" in found.value.hint


def test_what_an_earlier_run_left_counts_while_the_file_is_the_same(tmp_path: Path) -> None:
    """
    `worker-boot.json` is kept for the file that it was written beside, and dropped for any other one, or torn.
    """
    write_boot(tmp_path, BootConfig(7, "text", "hash", file_hash="same"))
    forget_stale_boot(tmp_path, "same")
    assert read_boot(tmp_path) is not None
    forget_stale_boot(tmp_path, "other")
    assert not (tmp_path / BOOT_FILE).exists()
    (tmp_path / BOOT_FILE).write_text("{")
    forget_stale_boot(tmp_path, "same")
    assert not (tmp_path / BOOT_FILE).exists()
    forget_stale_boot(tmp_path, "same")


def test_a_reading_gives_the_keys_once() -> None:
    """
    Nothing while it runs, the keys once it has ended, nothing afterwards.
    """
    reading = Reading(OK)
    assert reading.take(0.0) is None
    reading.ask(0.0)
    assert within(lambda: reading.take(0.0)) == {"workers": 2}
    assert reading.take(0.0) is None


@pytest.mark.parametrize("command", [BAD, [sys.executable, "-c", "print('[1')"], [sys.executable, "-c", "print(1)"]])
def test_a_reading_that_fails_says_so(command: list[str]) -> None:
    """
    A bad exit code and an answer that is no object are an invalid configuration.
    """
    reading = Reading(command)
    reading.ask(0.0)
    assert within(lambda: reading.take(0.0)) == "the configuration is not valid"


def test_a_wish_during_a_reading_is_read_afterwards(tmp_path: Path) -> None:
    """
    What is asked meanwhile is read anew, because the file may have changed after the first look; one answer comes.
    """
    count = tmp_path / "count"
    program = f"import json; open({str(count)!r}, 'a').write('x'); print(json.dumps({{'n': len(open({str(count)!r}).read())}}))"
    reading = Reading([sys.executable, "-c", program])
    for _ in range(3):
        reading.ask(0.0)
    assert within(lambda: reading.take(0.0)) == {"n": 2}
    assert reading.take(0.0) is None
    reading.ask(0.0)
    assert within(lambda: reading.take(0.0)) == {"n": 3}


def test_a_reading_without_end_is_ended() -> None:
    """
    A child that does not answer is killed at the deadline, and said; one that nobody waits for is ended, too.
    """
    reading = Reading(SLOW)
    reading.ask(0.0)
    assert reading.take(LONGEST_S - 0.1) is None
    assert "could not be read within" in str(reading.take(LONGEST_S))
    reading.ask(0.0)
    reading.end()
    assert reading.take(0.0) is None


PARENT = """
import os, subprocess, sys
child = ("import os, signal, sys; from sidecar.supervise.tether import tether; tether(int(sys.argv[1])); "
         "print(os.getpid(), flush=True); os.kill(os.getpid(), signal.SIGSTOP)")
subprocess.Popen([sys.executable, "-c", child, sys.argv[1] if len(sys.argv) > 1 else str(os.getpid())]).wait()
print("ended", flush=True)
"""


def test_a_hung_child_ends_with_its_parent() -> None:
    """
    A stopped child hears nothing, and is gone all the same when its parent is killed.
    """
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    within(lambda: _gone(child) or None)
    parent.stdout.close()


def _gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_child_whose_parent_is_gone_already_ends_at_once() -> None:
    """
    A child that comes too late, and belongs to somebody else by then, does not begin.
    """
    parent = subprocess.Popen([sys.executable, "-c", PARENT, "1"], stdout=subprocess.PIPE, text=True)
    assert parent.communicate(timeout=WAIT_S)[0] == "ended\n"
    assert parent.returncode == 0
