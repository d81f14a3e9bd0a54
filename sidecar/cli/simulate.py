"""`sidecar simulate`: what the sidecar would have done with recorded traffic; and how to record some."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from sidecar.cli import played, recording
from sidecar.cli.client import Exit, Failure, why
from sidecar.cli.lines import text_lines, whole_lines
from sidecar.cli.session import Session

if TYPE_CHECKING:
    from sidecar.config.policies import Compiled
    from sidecar.replay.player import Event
    from sidecar.replay.series import Row

NO_UPSTREAM: Final = "http://127.0.0.1:9"  # a replay asks nobody; a config without an upstream may be replayed too


def simulate(
    session: Session,
    tape: Annotated[
        Path | None, typer.Argument(metavar="TAPE", help="Recorded traffic, JSON Lines; - reads stdin.")
    ] = None,
    config_file: Annotated[
        Path | None, typer.Option("-c", "--config", help="The configuration to replay under; the defaults without it.")
    ] = None,
    series: Annotated[
        Path | None, typer.Option("--series", help="A CSV of timestamp,value: run the slow path over it.")
    ] = None,
    record: Annotated[Path | None, typer.Option("--record", help="Write a tape of the running sidecar here.")] = None,
    duration: Annotated[
        str | None, typer.Option("--for", help="How long to record, as 10m.", show_default=recording.FOR)
    ] = None,
    past: Annotated[
        str | None, typer.Option("--past", help="Begin the recording with what is remembered of this time, as 1h.")
    ] = None,
) -> None:
    """
    Replay a tape through guard, detection, policy, incident and recovery; print one line for each event.

    The same tape and configuration give the same bytes.
    """
    if sum(given is not None for given in (tape, series, record)) != 1:
        raise Failure(
            Exit.USAGE,
            "give one of TAPE, --series FILE.csv and --record FILE",
            "sidecar simulate tape.jsonl -c config/sidecar.yaml -o json",
        )
    _belongs("-c", config_file, "a TAPE", tape)
    _belongs("--for", duration, "--record FILE", record)
    _belongs("--past", past, "--record FILE", record)
    if record is not None:
        recording.record(session, record, duration or recording.FOR, past)
    elif series is not None:
        _slow_path(session, series)
    elif tape is not None:
        _replay(session, tape, config_file)


def _belongs(option: str, given: object, to: str, there: object) -> None:
    if given is not None and there is None:
        raise Failure(Exit.USAGE, f"{option} goes with {to}", "sidecar simulate --help has examples")


def _replay(session: Session, tape: Path, config_file: Path | None) -> None:
    from sidecar.replay.player import Player  # noqa: PLC0415  the engine is needed by this verb only
    from sidecar.replay.seconds import seconds  # noqa: PLC0415
    from sidecar.replay.tape import TapeError, read  # noqa: PLC0415

    player = Player(_config(config_file), _warn)
    out = session.console.file
    line = _json_line if session.wants_json else played.event_line
    try:
        for event in player.play(seconds(read(whole_lines(tape, _warn), _warn))):
            out.write(line(event))
    except TapeError as error:
        raise Failure(Exit.USAGE, f"{tape}: {error}", error.hint) from error
    finally:
        out.flush()
    if not session.wants_json:
        out.writelines(played.summary(player.seconds, player.tolls, player.incidents()))
    out.flush()


def _slow_path(session: Session, file: Path) -> None:
    from sidecar.replay.series import SeriesError, rows  # noqa: PLC0415  as above

    out, row = session.console.file, None
    try:
        for row in rows(text_lines(file)):
            out.write(f"{row.to_json()}\n" if session.wants_json else _table_row(row))
    except SeriesError as error:
        raise Failure(Exit.USAGE, f"{file}: {error}", error.hint) from error
    finally:
        out.flush()
    if row is None:
        raise Failure(Exit.USAGE, f"{file} has no rows", "write timestamp,value, such as 2026-01-05 12:00:00,41.5")


def _json_line(event: Event) -> str:
    return event.to_json() + "\n"


def _table_row(row: Row) -> str:
    return f"{row.row:>8}  {row.score:.4f}{'  alarm' if row.alarm else ''}\n"


def _config(file: Path | None) -> Compiled:
    from sidecar.config.errors import ConfigErrors  # noqa: PLC0415  yaml and pydantic are slow to import
    from sidecar.config.load import load  # noqa: PLC0415

    name = str(file or "the defaults")
    try:
        text = file.read_text(encoding="utf-8") if file is not None else ""
        return load(text, name=name, environ=os.environ, flags={"--upstream": NO_UPSTREAM})
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(Exit.USAGE, f"{file} cannot be read: {why(error)}", "name a readable YAML file") from error
    except ConfigErrors as invalid:
        rows = [error.to_json() for error in invalid.errors]
        raise Failure(Exit.USAGE, f"{name} is not valid", "", tuple(rows)) from invalid


_warn: Callable[[str], None] = lambda text: print(f"! {text}", file=sys.stderr)  # noqa: E731, T201
