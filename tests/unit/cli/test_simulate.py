"""`sidecar simulate` over files as they come: whole, cut off, compressed, of something else."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sidecar.cli.app import app
from tests.support.patience import WAIT_S
from tests.support.tapes import QUICK, steady, texts

NOBODY = "http://127.0.0.1:1"


def simulate(*words: object) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr."""
    result = CliRunner(env={"COLUMNS": "300", "TERM": "dumb"}).invoke(app, ["simulate", *map(str, words)])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def tape(tmp_path: Path) -> Path:
    """Return a short tape with an outage in it."""
    file = tmp_path / "tape.jsonl"
    file.write_text("".join(texts(steady(60, bad={range(40, 60): 1.0}))))
    return file


def test_the_same_tape_gives_the_same_bytes_everywhere(tape: Path) -> None:
    """
    Neither the hash seed nor the time zone nor the locale of the process is in what a replay prints.
    """
    config = tape.with_name("quick.yaml")
    config.write_text(QUICK)
    places = (
        {"PYTHONHASHSEED": "1", "TZ": "Asia/Tokyo"},
        {"PYTHONHASHSEED": "2", "TZ": "America/St_Johns", "LC_ALL": "C"},
    )
    words = [sys.executable, "-m", "sidecar", "simulate", str(tape), "-c", str(config), "-o", "json"]
    first, second = (
        subprocess.run(words, capture_output=True, check=True, timeout=WAIT_S, env={**os.environ, **place}).stdout
        for place in places
    )
    assert first == second
    assert b'"event": "isolate"' in first


def test_a_tape_that_ends_within_a_line_is_played_up_to_it(tape: Path) -> None:
    """
    Who records and is killed loses one line, not the tape; the message says which one is left out.
    """
    whole = simulate(tape, "-o", "json")[1]
    with tape.open("a") as out:
        out.write('{"t": 60.0, "route": "chec')
    code, played, told = simulate(tape, "-o", "json")
    assert (code, played) == (0, whole)
    assert "line 61 is cut off" in told


def test_a_byte_order_mark_is_no_fault(tape: Path) -> None:
    """
    Some editors begin a file with one.
    """
    whole = simulate(tape, "-o", "json")[1]
    tape.write_bytes(b"\xef\xbb\xbf" + tape.read_bytes())
    assert simulate(tape, "-o", "json")[:2] == (0, whole)


@pytest.mark.parametrize(
    ("content", "problem", "hint"),
    [
        (b"", "is empty", "simulate --record"),
        (b"\x00\xcc\xdd", "line 1: byte 1 is no UTF-8", "saved as UTF-8"),
        (b'{"t": 1, "route": "a", "requests": 1, "failures": 0}\n\xff', "line 2: byte 0", "saved as UTF-8"),
        (gzip.compress(b"{}", mtime=0), "is compressed", "gunzip"),
        (b'127.0.0.1 - - "GET / HTTP/1.0" 200\n', "line 1: no JSON", "one JSON object a line"),
        (json.dumps({"t": 1_790_000_000_000, "route": "a", "requests": 1, "failures": 0}).encode(), "t is '179", "no milliseconds"),
    ],
)  # fmt: skip
def test_what_is_no_tape_says_why(tmp_path: Path, content: bytes, problem: str, hint: str) -> None:
    """
    Exit 2, what is wrong and where, and what to do.
    """
    file = tmp_path / "other"
    file.write_bytes(content)
    code, _, told = simulate(file)
    assert (code, problem in told, hint in told) == (2, True, True), told


@pytest.mark.parametrize(
    ("content", "problem", "hint"),
    [
        ("", "has no rows", "timestamp,value"),
        ("timestamp,value\n", "has no rows", "timestamp,value"),
        ("time,load\n1,2\n", "line 1: the header 'time,load' has no timestamp and value", "name the columns"),
        ("nan,1\n", "line 1: 'nan' is not a timestamp", "Unix seconds"),
        ("1790000000000,1\n", "line 1: '1790000000000' is not a timestamp", "no milliseconds"),
    ],
)
def test_what_is_no_series_says_why(tmp_path: Path, content: str, problem: str, hint: str) -> None:
    """
    The same for a series.
    """
    file = tmp_path / "other.csv"
    file.write_text(content)
    code, _, told = simulate("--series", file)
    assert (code, problem in told, hint in told) == (2, True, True), told


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ((), "give one of TAPE, --series FILE.csv and --record FILE"),
        (("a", "--series", "b"), "give one of TAPE"),
        (("a", "--for", "5m"), "--for goes with --record FILE"),
        (("a", "--past", "5m"), "--past goes with --record FILE"),
        (("--series", "a", "-c", "b"), "-c goes with a TAPE"),
        (("--record", "a", "--for", "5"), "--for: '5' has no unit"),
        (("--record", "a", "--for", "0s"), "--for: '0s' is no time"),
        (("--record", "/nowhere/at/all", "--for", "5s"), "/nowhere/at/all cannot be written"),
        (("/nowhere/at/all",), "/nowhere/at/all cannot be read"),
    ],
)
def test_words_that_do_not_go_together_are_refused(words: tuple[str, ...], problem: str) -> None:
    """
    An option without a meaning is a mistake that is told, not ignored.
    """
    code, _, told = simulate(*words)
    assert (code, problem in told) == (2, True), told


def test_a_tape_is_not_lost_to_a_recording_that_never_began(tape: Path) -> None:
    """
    No sidecar answers: exit 3, and the file is as it was; one that did not exist does not begin to.
    """
    before, new = tape.read_bytes(), tape.with_name("new.jsonl")
    for file in (tape, new):
        assert simulate("--record", file, "--for", "5s", "--admin", NOBODY)[0] == 3
    assert (tape.read_bytes(), new.exists()) == (before, False)


def test_routes_that_the_config_does_not_know_are_told_at_once(tmp_path: Path) -> None:
    """
    One line for all of them, not one each.
    """
    file = tmp_path / "tape.jsonl"
    file.write_text("".join(texts(row for i in range(9) for row in steady(3, route=f"r{i}"))))
    code, _, told = simulate(file)
    assert (code, told.count("no route in the config")) == (0, 1)
    assert "r5 and 3 more" in told


@pytest.mark.parametrize(
    "line",
    ["config diff --replay 24", "config apply x.yaml --confirm-within 20", "proposal apply 1 --confirm-within soon"],
)
def test_a_duration_without_unit_is_told_by_the_name_of_its_option(line: str) -> None:
    """
    Before anything is asked: the option as it was typed, what is wrong, what to write.
    """
    *words, option, text = line.split()
    result = CliRunner().invoke(app, [*words, option, text, "--admin", NOBODY])
    assert (result.exit_code, f"{option}: " in result.stderr, "→" in result.stderr) == (2, True, True), result.stderr
