"""How `sidecar simulate --record` gets its tape: a stream of the admin API, second by second, into a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sidecar.cli.client import Answer, Exit, Failure, why
from sidecar.cli.session import Session
from sidecar.config.units import UnitError, parse_duration


def record(session: Session, file: Path, duration: str, past: str | None) -> None:
    """Record the running sidecar into *file* for *duration*, after what it remembers of *past*; Ctrl-C ends it early."""
    for_s = _seconds("--for", duration)
    if past is not None:
        _seconds("--past", past)
    lines = session.client.lines("/tape", patience_s=for_s, past=past, **{"for": duration})
    count = 0
    try:
        with file.open("w", encoding="utf-8") as out:
            for line in _until_interrupted(lines):
                out.write(line)
                out.flush()
                count += 1
    except OSError as error:
        raise Failure(Exit.USAGE, f"{file} cannot be written: {why(error)}", "name a writable file") from error
    answer = Answer.local({"file": str(file), "lines": count})
    session.done(answer, f"{file} holds {count} lines; replay it: sidecar simulate {file}")


def _until_interrupted(lines: Iterator[str]) -> Iterator[str]:
    try:
        yield from lines
    except KeyboardInterrupt:
        return


def _seconds(option: str, text: str) -> float:
    try:
        return parse_duration(text)
    except UnitError as error:
        raise Failure(Exit.USAGE, f"{option}: {error.problem}", error.hint) from error
