"""How `sidecar simulate --record` gets its tape: a stream of the admin API, second by second, into a file."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from itertools import chain
from pathlib import Path
from typing import Final

from sidecar import clock
from sidecar.cli import given
from sidecar.cli.client import Answer, Exit, Failure, why
from sidecar.cli.session import Session

FOR: Final = "10m"
EARLY_S: Final = 5.0  # an end that comes so much too early was not asked for


def record(session: Session, file: Path, duration: str, past: str | None) -> None:
    """
    Record the running sidecar into *file* for *duration*, after what it remembers of *past*; Ctrl-C ends it early.

    What *file* held is replaced when the first line has come, not before: no sidecar, no loss.
    """
    for_s = given.seconds("--for", duration)
    if past is not None:
        given.seconds("--past", past)
    _prove_writable(file)
    began, count, stopped = clock.now(), 0, True
    with suppress(KeyboardInterrupt), closing(_tape(session, for_s, duration, past)) as lines:
        for _ in _written(lines, file):
            count += 1
        stopped = False
    answer = Answer.local({"file": str(file), "lines": count})
    if not stopped and clock.now() - began < for_s - EARLY_S:
        raise Failure(
            Exit.UNREACHABLE,
            f"the sidecar ended the recording after {clock.now() - began:.0f} s: {file} holds {count} lines",
            f"they can be replayed: sidecar simulate {file} -c CONFIG; for more, record again with --past {past or '2h'}",
        )
    if count:
        session.done(answer, f"{file} holds {count} lines; replay it: sidecar simulate {file} -c CONFIG")
    else:
        session.print(answer, lambda _, __: f"[yellow]![/] No request came in this time: {file} is not written.")


def _tape(session: Session, for_s: float, duration: str, past: str | None) -> Generator[str, None, None]:
    """Yield its lines; ends early, without a word, when the sidecar is lost once it has begun to send."""
    begun = False
    try:
        for line in session.client.lines("/tape", patience_s=for_s, past=past, **{"for": duration}):
            begun = True
            yield line
    except Failure as failure:
        if not begun or failure.code is not Exit.UNREACHABLE:
            raise


def _written(lines: Iterator[str], file: Path) -> Iterator[str]:
    for first in lines:
        try:
            with file.open("w", encoding="utf-8") as out:
                for line in chain((first,), lines):
                    out.write(line)
                    out.flush()
                    yield line
        except OSError as error:
            raise _unwritable(file, error) from error


def _prove_writable(file: Path) -> None:
    new = not file.exists()
    try:
        with file.open("a", encoding="utf-8"):
            pass
        if new:
            file.unlink()
    except OSError as error:
        raise _unwritable(file, error) from error


def _unwritable(file: Path, error: OSError) -> Failure:
    return Failure(Exit.USAGE, f"{file} cannot be written: {why(error)}", "name a writable file")
