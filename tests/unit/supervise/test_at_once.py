"""Writing without waiting for the reader, on the kernel's own pipes, sockets and terminals."""

from __future__ import annotations

import io
import os
import pty
import socket
import tty
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.supervise.at_once import AtOnce

LINE = "x" * 99 + "\n"
MANY = 20_000  # lines: 2 MB, more than any of these buffers holds


def pipe() -> tuple[int, int]:
    return os.pipe()


def terminal() -> tuple[int, int]:
    reader, writer = pty.openpty()
    tty.setraw(writer)
    return reader, writer


def sockets() -> tuple[int, int]:
    one, two = socket.socketpair()
    return one.detach(), two.detach()


@pytest.mark.parametrize("made", [pipe, terminal, sockets])
def test_who_does_not_read_is_not_waited_for(
    made: Callable[[], tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Far more than the kernel keeps is written and comes back; what there was room for is read, and the next line too. The
    descriptor that others share stays blocking.
    """
    monkeypatch.setattr("sidecar.supervise.at_once.WAIT_S", 0.0)
    reader, writer = made()
    with os.fdopen(writer, "w", encoding="utf-8") as stream, os.fdopen(reader, "rb", buffering=0) as other:
        out = AtOnce(stream)
        for _ in range(MANY):
            assert out.write(LINE) == len(LINE)
        assert os.get_blocking(writer)
        assert other.read(len(LINE)) == LINE.encode()

        os.set_blocking(reader, False)
        while other.read(65_536):
            pass
        os.set_blocking(reader, True)
        out.write("again\n")
        assert other.read(6) == b"again\n"


def test_a_file_takes_everything_where_others_write_too(tmp_path: Path) -> None:
    """
    A file's position is shared with whoever inherited it: lines of both follow each other.
    """
    with (tmp_path / "log").open("w+", encoding="utf-8") as stream:
        out = AtOnce(stream)
        out.write("one\n")
        os.write(stream.fileno(), b"two\n")
        out.write("three \N{SNOWMAN}\n")
        stream.seek(0)
        assert stream.read() == "one\ntwo\nthree \N{SNOWMAN}\n"


def test_a_stream_in_memory_and_one_without_a_reader() -> None:
    """
    Without a descriptor it is written as it is; a pipe that nobody reads any more is an error, as always.
    """
    memory = io.StringIO()
    AtOnce(memory).write(LINE)
    assert memory.getvalue() == LINE
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", encoding="utf-8") as stream, pytest.raises(BrokenPipeError):
        AtOnce(stream).write(LINE)
