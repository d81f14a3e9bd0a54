"""What stands between the command line and a running supervisor: flags, static keys, the state's lock."""

from __future__ import annotations

import argparse
import fcntl
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TextIO

from sidecar.link.runtime import BOOT_FILE, RuntimeDirError, read_boot, runtime_dir

INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it
_FLAGS: Final = (("--upstream", "URL"), ("--listen", "ADDR"), ("--workers", "N"))


def _meant(word: str) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - a supervisor that runs does not carry it

    near = get_close_matches(word.partition("=")[0], ["--config", *(flag for flag, _ in _FLAGS)], 1)
    return f"did you mean {near[0]}?" if near else "sidecar run --help shows what there is"


class StartError(Exception):
    """
    The sidecar cannot start; `code` is the exit code, `problem` and `hint` are for a person.

    A `problem` of "" was printed already, by the child that found it.
    """

    def __init__(self, code: int, problem: str = "", hint: str = "") -> None:
        super().__init__(problem)
        self.code = code
        self.problem = problem
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Flags:
    """The command line of `sidecar run`, as given."""

    config_file: str | None
    values: Mapping[str, str]

    @classmethod
    def parse(cls, argv: Sequence[str]) -> Flags:
        """Read *argv*; exits with 2 and the usage when it is wrong."""
        parser = argparse.ArgumentParser(prog="sidecar run", allow_abbrev=False)
        parser.add_argument("-c", "--config", metavar="FILE", help="the configuration file")
        for flag, metavar in _FLAGS:
            parser.add_argument(flag, metavar=metavar)
        known, unknown = parser.parse_known_args(argv)
        if unknown:
            parser.error(f"{unknown[0]} is no option of sidecar run; {_meant(unknown[0])}")
        given = vars(known)
        values = {f"--{name}": value for name, value in given.items() if name != "config" and value is not None}
        return cls(given["config"], values)

    @property
    def command(self) -> list[str]:
        """Return the child's command line that resolves the static keys."""
        words = [sys.executable, "-m", "sidecar.config.static"]
        if self.config_file is not None:
            words += ["-c", self.config_file]
        return words + [f"{name}={value}" for name, value in self.values.items()]


def resolve(flags: Flags) -> Mapping[str, Any]:
    """
    Return the static keys.

    Raises:
        StartError: when the config is not valid; the child has printed why.
    """
    try:
        done = subprocess.run(flags.command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
    except KeyboardInterrupt:
        raise StartError(INTERRUPTED) from None
    if done.returncode != 0:
        raise StartError(done.returncode if done.returncode > 0 else 1)
    static: Mapping[str, Any] = json.loads(done.stdout)
    return static


def lock_state(state: Path) -> TextIO:
    """
    Make the state directory and return its lock, held as long as the file is open.

    Raises:
        StartError: when it cannot be written, or another supervisor holds it.
    """
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = (state / "lock").open("a", encoding="ascii")
    except OSError as error:
        problem, hint = state_problem(state, error)
        raise StartError(1, problem, hint) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.close()
        raise StartError(
            1,
            f"another sidecar runs on the state directory {state}",
            "stop it, or give this one its own: SIDECAR__STATE=/path",
        ) from error
    return lock


def state_problem(state: Path, error: OSError) -> tuple[str, str]:
    """Return what is wrong with the state directory, and what to do."""
    in_the_way = next((path for path in (state, *state.parents) if path.exists() and not path.is_dir()), None)
    if in_the_way is not None:
        return (
            f"the state directory {state} cannot be made: {in_the_way} is a file",
            "name a directory, there or new: `state:` in the file, or SIDECAR__STATE=/path",
        )
    return (
        f"the state directory {state} cannot be written: {error.strerror}",
        "give this user write access, or name another: `state:` in the file, or SIDECAR__STATE=/path",
    )


def private_runtime(state: Path) -> Path:
    """
    Return the private runtime directory.

    Raises:
        StartError: when there is none to be had.
    """
    try:
        return runtime_dir(state)
    except RuntimeDirError as error:
        problem, _, hint = str(error).partition("; ")
        raise StartError(1, problem, hint or "set XDG_RUNTIME_DIR to a directory of yours") from error


def forget_stale_boot(runtime: Path, file_hash: str) -> None:
    """Drop what an earlier run left for its workers when the file has changed since: the file is what counts then."""
    boot = read_boot(runtime)
    if boot is None or boot.file_hash != file_hash:
        (runtime / BOOT_FILE).unlink(missing_ok=True)
