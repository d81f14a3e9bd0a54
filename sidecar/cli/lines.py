"""
The lines of a text file, one after another, with what can be wrong with it said by its line.

A tape whose recorder was killed ends in the middle of a line: `whole_lines` tells it and leaves that line out.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from sidecar.cli.client import Exit, Failure, why

GZIP: Final = b"\x1f\x8b"
BOM: Final = b"\xef\xbb\xbf"


def text_lines(file: Path) -> Iterator[str]:
    """
    Yield the lines of *file*, of stdin for `-`, with their line feeds.

    Raises:
        Failure: when it cannot be read, or is no text.
    """
    for number, line in enumerate(_opened(file), 1):
        text = line.removeprefix(BOM) if number == 1 else line
        if number == 1 and line.startswith(GZIP):
            raise Failure(Exit.USAGE, f"{file} is compressed", f"unpack it first: gunzip {file}")
        try:
            yield text.decode("utf-8")
        except UnicodeDecodeError as error:
            raise Failure(
                Exit.USAGE, f"{file}: line {number}: byte {error.start} is no UTF-8", "name a text file, saved as UTF-8"
            ) from error


def whole_lines(file: Path, tell: Callable[[str], None]) -> Iterator[str]:
    """
    Yield the lines of a tape; one at its end that was cut off is told and left out.

    Raises:
        Failure: as `text_lines`.
    """
    number = 0
    for number, text in enumerate(text_lines(file), 1):
        if not text.endswith("\n") and _cut_off(text):
            tell(f"{file}: line {number} is cut off, as of a recording that was ended; it is left out")
            return
        yield text
    if not number:
        hint = "record one while there is traffic: sidecar simulate --record tape.jsonl --for 10m"
        raise Failure(Exit.USAGE, f"{file} is empty", hint)


def _opened(file: Path) -> Iterator[bytes]:
    if str(file) == "-":
        yield from sys.stdin.buffer
        return
    try:
        with file.open("rb") as stream:
            yield from stream
    except OSError as error:
        raise Failure(
            Exit.USAGE, f"{file} cannot be read: {why(error)}", "name a readable file, or - for stdin"
        ) from error


def _cut_off(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return text.lstrip().startswith("{")
    return False
