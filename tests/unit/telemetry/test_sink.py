"""The access log's writer: never waits, never tears a line, counts what it drops."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.telemetry.sink import FLUSH_BYTES, MAX_WAITING_BYTES, PIPE_BYTES, Sink
from tests.support.patience import WAIT_S


class Complaints(list[str]):
    """What the sink said, and a way to wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.said = threading.Event()

    def __call__(self, problem: str) -> None:
        self.append(problem)
        self.said.set()


@pytest.fixture
def complaints() -> Complaints:
    return Complaints()


def numbered(count: int) -> list[bytes]:
    return [b"line %d\n" % number for number in range(count)]


def test_lines_come_in_order_after_a_flush(tmp_path: Path, complaints: Complaints) -> None:
    """
    What was put is in the file, in the order in which it came, behind what was there.
    """
    file = tmp_path / "access.log"
    file.write_bytes(b"old\n")
    sink = Sink(str(file), complaints)
    for line in numbered(5000):
        sink.put(line)
    sink.close()
    assert file.read_bytes() == b"old\n" + b"".join(numbered(5000))
    assert (sink.dropped, sink.waiting_bytes, complaints) == (0, 0, [])


def test_the_file_is_private(tmp_path: Path, complaints: Complaints) -> None:
    """
    Paths and addresses are nobody else's business: a new file is not for others to read.
    """
    Sink(str(tmp_path / "access.log"), complaints).close()
    assert (tmp_path / "access.log").stat().st_mode & 0o007 == 0


def test_a_rotated_file_is_left_at_reopen(tmp_path: Path, complaints: Complaints) -> None:
    """
    What came before `reopen` is in the file that was renamed, what came after in a new one.
    """
    file, rotated = tmp_path / "access.log", tmp_path / "access.log.1"
    sink = Sink(str(file), complaints)
    sink.put(b"before\n")
    sink.flush()
    while not file.exists() or not file.stat().st_size:
        pass  # the thread has it next
    file.rename(rotated)
    sink.put(b"still before\n")
    sink.reopen(str(file))
    sink.put(b"after\n")
    sink.close()
    assert rotated.read_bytes() == b"before\nstill before\n"
    assert file.read_bytes() == b"after\n"


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """A named pipe and its reading end."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    yield str(path), reading
    os.close(reading)


def test_a_reader_that_stalls_costs_lines_and_no_time(pipe: tuple[str, int], complaints: Complaints) -> None:
    """
    While nobody reads, at most 1 MiB waits and the rest is dropped and counted; nothing that was taken is lost later.
    """
    path, reading = pipe
    sink = Sink(path, complaints)
    line = b"x" * 99 + b"\n"
    count = 2 * MAX_WAITING_BYTES // len(line)
    for _ in range(count):
        sink.put(line)
    sink.flush()
    dropped, waiting = sink.dropped, sink.waiting_bytes
    assert 0 < waiting <= MAX_WAITING_BYTES
    assert 0 < dropped < count

    os.set_blocking(reading, True)
    missing, received = (count - dropped) * len(line), b""
    while len(received) < missing:
        received += os.read(reading, 1 << 16)
    sink.close()
    assert received == line * (count - dropped)
    assert sink.waiting_bytes == 0


def test_a_pipe_gets_whole_lines(pipe: tuple[str, int], complaints: Complaints) -> None:
    """
    Each write to a pipe is one that the kernel takes in one piece: two workers never tear each other's lines.
    """
    path, reading = pipe
    sinks = [Sink(path, complaints) for _ in range(2)]
    lines = [letter * size + b"\n" for letter in (b"a", b"b") for size in (10, 500, PIPE_BYTES - 1)] * 20
    os.set_blocking(reading, True)
    received: list[bytes] = []

    def read() -> None:
        while part := os.read(reading, 1 << 16):
            received.append(part)

    reader = threading.Thread(target=read)
    reader.start()
    for line in lines:
        sinks[line.startswith(b"b")].put(line)
    for sink in sinks:
        sink.close()
    reader.join(WAIT_S)
    assert sorted(b"".join(received).splitlines(keepends=True)) == sorted(lines)


def test_a_full_disk_is_said_once_and_counted(complaints: Complaints) -> None:
    """
    Every line that could not be written counts; the complaint comes once, not once a line.
    """
    sink = Sink("/dev/full", complaints)
    for _ in range(3):
        for line in numbered(10):
            sink.put(line)
        sink.flush()
    sink.close()
    assert sink.dropped == 30
    assert complaints == ["/dev/full cannot be written: No space left on device"]


def test_a_file_that_cannot_be_opened_can_be_opened_later(tmp_path: Path, complaints: Complaints) -> None:
    """
    Until its folder exists lines are counted as dropped; after a reopen they are written.
    """
    file = tmp_path / "later" / "access.log"
    sink = Sink(str(file), complaints)
    sink.put(b"lost\n")
    sink.flush()
    assert complaints.said.wait(5.0)
    file.parent.mkdir()
    sink.reopen(str(file))
    sink.put(b"kept\n")
    sink.close()
    assert complaints[0] == f"{file} cannot be opened: No such file or directory"
    assert file.read_bytes().splitlines()[-1] == b"kept"
    assert file.read_bytes().count(b"\n") + sink.dropped == 2


def test_a_large_batch_does_not_wait_for_the_next_flush(tmp_path: Path, complaints: Complaints) -> None:
    """
    Beyond 32 KiB lines are handed over at once.
    """
    file = tmp_path / "access.log"
    sink = Sink(str(file), complaints)
    sink.put(b"x" * FLUSH_BYTES + b"\n")
    while not file.exists() or not file.stat().st_size:
        pass  # no flush: the thread has it already
    sink.close()
    assert "0 bytes waiting, 0 dropped" in repr(sink)
