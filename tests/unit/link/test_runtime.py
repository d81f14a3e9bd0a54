"""The private runtime directory and the file that a worker boots from."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.facts import Action, Directive, Scope
from sidecar.link.frames import BreakerOpen
from sidecar.link.runtime import (
    BOOT_FILE,
    MAX_SOCKET_PATH_BYTES,
    BootConfig,
    RuntimeDirError,
    link_path,
    read_boot,
    runtime_dir,
    write_boot,
)

BOOT = BootConfig(
    version=7,
    text="listen: 0.0.0.0:8080\n# grüße\n",
    hash="ab12",
    directives=(Directive("isolation-1", Scope.client("checkout", "::1"), Action.THROTTLE, 99.5, share_ratio=0.1),),
    breakers=(BreakerOpen("checkout", 12.5, "5 of 5"),),
    shares={0: {"*": 0.5, "route:checkout": 0.9}, 1: {"*": 0.5}},
)


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


def test_directory_is_private_and_below_xdg_runtime_dir(base: Path, tmp_path: Path) -> None:
    """The directory is made with mode 0700 below XDG_RUNTIME_DIR, and is the same at the second call."""
    first = runtime_dir(tmp_path / "var")

    assert base == first.parent
    assert stat.S_IMODE(first.stat().st_mode) == 0o700
    assert first == runtime_dir(tmp_path / "var")


def test_name_follows_the_state_directory(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two spellings of one state directory agree, two state directories differ."""
    (tmp_path / "var").mkdir()
    (tmp_path / "alias").symlink_to(tmp_path / "var")
    monkeypatch.chdir(tmp_path)

    assert runtime_dir(tmp_path / "var") == runtime_dir(Path("var/")) == runtime_dir(tmp_path / "alias")
    assert runtime_dir(tmp_path / "var") != runtime_dir(tmp_path / "other")


def test_long_base_is_left_for_a_shorter_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket's path never exceeds what a Unix socket can have."""
    deep = tmp_path / ("x" * 100)
    deep.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))

    path = link_path(runtime_dir(tmp_path / ("s" * 200)))

    assert len(os.fsencode(path)) <= MAX_SOCKET_PATH_BYTES
    assert deep not in path.parents
    path.parent.rmdir()


@pytest.mark.parametrize("given", ["", "relative", "/nowhere/at/all", "/proc"])
def test_unusable_xdg_runtime_dir_is_left(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative, missing or unwritable XDG_RUNTIME_DIR falls back to the temporary directory."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", given if given != "/proc" else str(tmp_path / "file"))
    (tmp_path / "file").touch()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    assert tmp_path == runtime_dir(tmp_path / "var").parent


def test_directory_open_to_others_is_refused(base: Path, tmp_path: Path) -> None:
    """A directory that others can enter is refused with the remedy."""
    runtime_dir(tmp_path / "var").chmod(0o750)

    with pytest.raises(RuntimeDirError, match=r"mode 0750\); chmod 700 it"):
        runtime_dir(tmp_path / "var")


def test_something_else_in_its_place_is_refused(base: Path, tmp_path: Path) -> None:
    """A link that somebody planted under the name is not followed."""
    path = runtime_dir(tmp_path / "var")
    path.rmdir()
    path.symlink_to(tmp_path)

    with pytest.raises(RuntimeDirError, match="is no directory; remove it"):
        runtime_dir(tmp_path / "var")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_foreign_directory_is_refused(base: Path, tmp_path: Path) -> None:
    """A directory of another user is refused: its owner could answer in the controller's place."""
    os.chown(runtime_dir(tmp_path / "var"), 12345, 12345)

    with pytest.raises(RuntimeDirError, match="belongs to user 12345"):
        runtime_dir(tmp_path / "var")


def test_import_is_light() -> None:
    """The supervisor imports it: nothing beyond the standard library may come along."""
    code = "import sys, sidecar.link.runtime; print([m for m in ('asyncio', 'yaml', 'pydantic', 'aiohttp') if m in sys.modules])"

    assert (
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip() == "[]"
    )


def test_boot_file_round_trip(tmp_path: Path) -> None:
    """What was written is read, and only the owner may read it."""
    write_boot(tmp_path, BOOT)

    assert read_boot(tmp_path) == BOOT
    assert stat.S_IMODE((tmp_path / BOOT_FILE).stat().st_mode) == 0o600
    assert [tmp_path / BOOT_FILE] == list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"version": 1}', '{"version": "x", "boot": ""}', "\udcff"])
def test_unreadable_boot_file_is_absent(text: str, tmp_path: Path) -> None:
    """A torn or foreign file reads as none, it never raises."""
    (tmp_path / BOOT_FILE).write_bytes(text.encode("utf-8", "surrogateescape"))

    assert read_boot(tmp_path) is None
    assert read_boot(tmp_path / "nowhere") is None


def test_leases_of_another_boot_are_dropped(tmp_path: Path) -> None:
    """Monotonic ends of another boot mean nothing here: the config stays, leases and breakers go."""
    write_boot(tmp_path, BOOT)
    row = json.loads((tmp_path / BOOT_FILE).read_text())
    (tmp_path / BOOT_FILE).write_text(json.dumps(row | {"boot": "another"}))

    assert BootConfig(7, BOOT.text, "ab12") == read_boot(tmp_path)


def test_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    """A write that fails half-way changes nothing and leaves no draft."""
    write_boot(tmp_path, BOOT)

    with pytest.raises(TypeError):
        write_boot(tmp_path, BootConfig(8, object(), "x"))  # type: ignore[arg-type]

    assert read_boot(tmp_path) == BOOT
    assert [tmp_path / BOOT_FILE] == list(tmp_path.iterdir())
