"""The store when the disk is full, the file is locked or damaged, or its writer is killed."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.controller.effects import AppendEvent, PutIncident, PutMark
from sidecar.store import file as store_file
from sidecar.store.errors import Cause, StoreError
from sidecar.store.store import Store

LARGE = {"text": "x" * 20_000}


def event(n: int) -> AppendEvent:
    return AppendEvent("incident.opened", 1000.0 + n, "automation", None, "service", {"n": n, **LARGE})


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "var"


WRITER = """
import sys
from pathlib import Path
from sidecar.controller.effects import AppendEvent, PutMark
from sidecar.store.store import Store

store = Store.open(Path(sys.argv[1]))
n = 0
while True:
    n += 1
    store.write([AppendEvent("x", float(n), sys.argv[2], body={"n": n}), PutMark("n", str(n)), PutMark("text", "x" * 50_000)])
    print(n, flush=True)
"""


@pytest.mark.parametrize("author", ["automation", "ops"])
def test_killed_writer_loses_nothing_that_it_was_told(author: str, state: Path) -> None:
    """After kill -9 in the middle of writing, all acknowledged batches are there, whole, and the chain goes on."""
    last = 0
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(state), author], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for _ in range(25):
            last += bool(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        acknowledged = last + len(process.stdout.read().splitlines())
        process.wait()

        store = Store.open(state)
        found = store.verify()
        assert found["ok"]
        assert acknowledged <= found["rows"] <= acknowledged + 1  # the last one may be stored and not acknowledged
        assert store.events(newest_first=True, limit=1)[0]["body"]["n"] == int(store.marks()["n"])
        assert store.set_aside is None
        last = found["rows"]
        store.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a small disk needs the right to mount one")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)  # also when a test left a file open


def fill(disk: Path) -> Path:
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as out:
        try:
            while True:
                out.write(b"\0" * 4096)
        except OSError:
            return filler


def test_full_disk_is_said_and_recovers_by_itself(small_disk: Path) -> None:
    """A full disk is `full`, nothing of the batch is stored, reads go on; with space again the next write succeeds."""
    store = Store.open(small_disk / "var")
    store.write([event(1)])
    filler = fill(small_disk)

    for _ in range(3):
        with pytest.raises(StoreError) as found:
            store.write([event(n) for n in range(2, 60)])
        assert found.value.cause is Cause.FULL
        assert found.value.retryable
        assert "free some space" in str(found.value)
        assert [row["sequence"] for row in store.events()] == [1]

    filler.unlink()
    assert [row["sequence"] for row in store.write([event(2)])] == [2]
    assert store.verify()["ok"]
    assert store.set_aside is None
    store.close()


def test_full_disk_at_the_first_start(small_disk: Path) -> None:
    """A store that cannot even begin says so, and begins by itself once there is space."""
    (small_disk / "var").mkdir()
    filler = fill(small_disk)
    store = Store(small_disk / "var")

    with pytest.raises(StoreError) as found:
        store.write([event(1)])
    assert found.value.cause is Cause.FULL

    filler.unlink()
    assert [row["sequence"] for row in store.write([event(1)])] == [1]
    store.close()


FILE_LIMIT = """
import resource, signal, sys
from pathlib import Path
from sidecar.controller.effects import AppendEvent
from sidecar.store.store import Store
from sidecar.store.errors import StoreError

store = Store.open(Path(sys.argv[1]))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
size = store.path.stat().st_size
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
try:
    for n in range(100):
        store.write([AppendEvent("x", 1.0, "automation", body={"t": "x" * 20_000})])
    print("never")
except StoreError as error:
    print(error.cause)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
before = len(store.events(limit=1000))
store.write([AppendEvent("x", 1.0, "automation")])
print(len(store.events(limit=1000)) - before, store.verify()["ok"])
"""


def test_write_that_fails_half_way_leaves_nothing(state: Path) -> None:
    """When the kernel cuts a write short (a quota), the batch is undone and the store goes on when it may again."""
    done = subprocess.run([sys.executable, "-c", FILE_LIMIT, str(state)], check=True, capture_output=True, text=True)

    assert done.stdout.splitlines() in (["io", "1 True"], ["full", "1 True"])


def test_locked_file_is_said_and_recovers(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another process holds the file a write is `locked` after a bounded wait; then it goes on."""
    monkeypatch.setattr(store_file, "BUSY_S", 0.05)
    store = Store.open(state)
    other = sqlite3.connect(state / "sidecar.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(StoreError, match="end the other process that holds it") as found:
        store.write([event(1)])
    assert found.value.cause is Cause.LOCKED
    assert store.events() == []

    other.execute("ROLLBACK")
    other.close()
    assert [row["sequence"] for row in store.write([event(1)])] == [1]
    store.close()


def filled(state: Path) -> Path:
    store = Store.open(state)
    store.write([event(n) for n in range(1, 30)] + [PutIncident(n, "open", 1.0, LARGE) for n in range(30)])
    store.close()  # the last one out moves the WAL into the file
    return state / "sidecar.db"


def damage_header(path: Path) -> None:
    path.write_bytes(b"not a database at all, but quite long enough to look like one" * 50)


def damage_pages(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096 : len(content) // 2] = os.urandom(len(content) // 2 - 4096)
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20_000])


@pytest.mark.parametrize("damage", [damage_header, damage_pages, cut], ids=lambda damage: damage.__name__)
def test_damaged_file_is_set_aside_not_deleted(damage, state: Path) -> None:  # type: ignore[no-untyped-def]
    """A damaged file is renamed with its bytes kept, a new store begins, and the old one's place is known."""
    path = filled(state)
    damage(path)
    content = path.read_bytes()

    store = Store.open(state)

    assert store.set_aside is not None
    assert store.set_aside.name.startswith("sidecar.db.corrupt-2")
    # SQLite counts its own opening in the first page; what was damaged is kept byte for byte.
    assert store.set_aside.read_bytes()[4096:] == content[4096:]
    assert store.events() == []
    assert [row["sequence"] for row in store.write([event(1)])] == [1]
    assert store.verify()["ok"]
    store.close()
    assert Store.open(state).events(limit=1)[0]["sequence"] == 1


@pytest.mark.parametrize("content", [b"", b"short", b"SQLite format 3\0\x10\0 and no more", b"x" * 10_000])
def test_side_files_go_with_the_damaged_file(content: bytes, state: Path) -> None:
    """A WAL whose database lost its beginning is kept beside it, so that it can still be looked into."""
    filled(state).write_bytes(content)
    (state / "sidecar.db-wal").write_bytes(b"some wal")

    store = Store.open(state)

    assert store.set_aside is not None
    assert (state / f"{store.set_aside.name}-wal").read_bytes() == b"some wal"
    store.close()


@pytest.mark.parametrize("call", ["read", "write"])
def test_damage_that_shows_later_is_set_aside_at_the_next_call(
    call: str, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large file is not read through at open; damage that shows later fails one call, and the next one begins anew."""
    path = filled(state)
    damage_pages(path)
    monkeypatch.setattr(store_file, "CHECK_AT_OPEN_BYTES", 1000)
    store = Store.open(state)
    assert store.set_aside is None

    with pytest.raises(StoreError) as found:
        store.events(limit=1000) if call == "read" else store.write([event(99)])
    assert found.value.cause is Cause.CORRUPT
    assert found.value.retryable

    store.write([event(99), PutMark("k", "v")])
    assert store.set_aside is not None
    assert store.marks() == {"k": "v"}
    assert store.verify()["ok"]
    store.close()


def test_memory_survives_a_restart_on_a_full_disk(small_disk: Path) -> None:
    """With the disk full a new process still reads what is stored, so a restart forgets no config and no override."""
    store = Store.open(small_disk / "var")
    store.write([event(1), PutMark("k", "v")])
    store.close()
    filler = fill(small_disk)

    again = Store(small_disk / "var")
    assert again.marks() == {"k": "v"}
    assert again.verify()["ok"]
    with pytest.raises(StoreError) as found:
        again.write([event(2)])
    assert found.value.cause is Cause.FULL
    assert again.marks() == {"k": "v"}

    filler.unlink()
    assert [row["sequence"] for row in again.write([event(2)])] == [2]
    again.close()


@pytest.mark.parametrize("kind", ["file in its place", "directory as file", "read only"])
def test_unwritable_state_is_named(kind: str, state: Path) -> None:
    """A state directory that cannot be used is `unwritable`, with its path and the remedy."""
    if kind == "file in its place":
        state.write_text("x")
    elif kind == "directory as file":
        (state / "sidecar.db").mkdir(parents=True)
    else:
        state.mkdir(mode=0o500)
    with (
        read_only(state) if kind == "read only" else contextlib.nullcontext(),
        pytest.raises(StoreError, match=str(state)) as found,
    ):
        Store.open(state)
    assert found.value.cause is Cause.UNWRITABLE


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Make *folder* unwritable for root, too, whom its mode does not stop."""
    if os.geteuid() != 0:
        yield
        return
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "ro", "none", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"root may write everywhere, and no read-only file system can be mounted: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_deleted_file_is_begun_anew(state: Path) -> None:
    """A store whose file somebody removed fails or begins anew, and never crashes."""
    store = Store.open(state)
    store.write([event(1)])
    for path in state.glob("sidecar.db*"):
        path.unlink()
    store.close()

    assert [row["sequence"] for row in store.write([event(2)])] == [1]
    store.close()
