"""When the watched configuration file counts as changed, on real files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from sidecar.supervise.start import StartError
from sidecar.supervise.watch import Look, Watch, watch

TEXT = "upstream: {endpoints: [http://127.0.0.1:9000]}\n"


def hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def mounted(volume: Path, version: int, text: str) -> Path:
    """Put *text* where Kubernetes puts a ConfigMap: behind the symbolic link `..data`, swapped in one step."""
    folder = volume / f"..2026_01_01_{version}"
    folder.mkdir(parents=True)
    (folder / "sidecar.yaml").write_text(text)
    swap = volume / "..data_tmp"
    swap.symlink_to(folder.name)
    swap.rename(volume / "..data")
    file = volume / "sidecar.yaml"
    if not file.is_symlink():
        file.symlink_to("..data/sidecar.yaml")
    return file


def test_an_unchanged_file_never_counts(tmp_path: Path) -> None:
    """
    The text that was read at the start is known; looking at it, or a new time stamp, changes nothing.
    """
    file = tmp_path / "sidecar.yaml"
    file.write_text(TEXT)
    look = Look(file, hashed(TEXT))

    assert [look.again() for _ in range(3)] == [False] * 3
    file.touch()
    assert [look.again() for _ in range(3)] == [False] * 3


def test_a_swapped_config_map_counts_once(tmp_path: Path) -> None:
    """
    A swap of `..data` to another text counts at the second look that sees it; a swap to the same text does not.
    """
    file = mounted(tmp_path, 1, TEXT)
    look = Look(file, hashed(TEXT))
    assert [look.again() for _ in range(2)] == [False, False]

    mounted(tmp_path, 2, TEXT + "mode: observe\n")
    assert [look.again() for _ in range(4)] == [False, True, False, False]
    mounted(tmp_path, 3, TEXT + "mode: observe\n")
    assert [look.again() for _ in range(3)] == [False] * 3


def test_a_change_between_the_start_and_the_first_look_counts(tmp_path: Path) -> None:
    """
    What is known is the text that was read, not the text of the first look.
    """
    file = tmp_path / "sidecar.yaml"
    file.write_text(TEXT + "mode: observe\n")
    look = Look(file, hashed(TEXT))

    assert [look.again() for _ in range(3)] == [False, True, False]


def test_a_file_that_is_still_being_written_does_not_count(tmp_path: Path) -> None:
    """
    As long as two looks differ the text is not read: half of a file may be valid YAML.
    """
    file = tmp_path / "sidecar.yaml"
    file.write_text(TEXT)
    look = Look(file, hashed(TEXT))
    look.again()
    look.again()

    for length in range(1, 5):
        file.write_text(TEXT + "m" * length)
        assert not look.again()
    assert look.again()


def test_a_vanished_file_counts_once_and_so_does_its_return(tmp_path: Path) -> None:
    """
    That it is gone is said once; that it is back leads to reading it again, so that what was wrong is over.
    """
    file = tmp_path / "sidecar.yaml"
    file.write_text(TEXT)
    look = Look(file, hashed(TEXT))
    look.again()
    look.again()

    file.unlink()
    assert [look.again() for _ in range(4)] == [False, True, False, False]
    file.write_text(TEXT)
    assert [look.again() for _ in range(3)] == [False, True, False]


@pytest.mark.parametrize("word", ["", "0", "no", "Off", "false"])
def test_a_no_watches_nothing(word: str) -> None:
    """
    Unset, empty and every no leave the file alone.
    """
    assert watch({"SIDECAR_WATCH": word} if word else {}, {"config_file": None, "file_hash": ""}) is None


@pytest.mark.parametrize("word", ["1", "yes", "On", "true"])
def test_a_yes_watches_the_file(tmp_path: Path, word: str) -> None:
    """
    Every yes begins to watch, and ending it is quiet.
    """
    made = watch({"SIDECAR_WATCH": word}, {"config_file": str(tmp_path / "a"), "file_hash": "ab"})

    assert isinstance(made, Watch)
    assert not made.take()
    made.end()


@pytest.mark.parametrize(
    ("word", "file", "problem"),
    [("maybe", "a", "SIDECAR_WATCH=maybe says neither yes nor no"), ("1", None, "no file is there to be watched")],
)
def test_what_cannot_be_watched_stops_the_start(word: str, file: str | None, problem: str) -> None:
    """
    An unclear word, and a yes without a file, are errors of use with their remedy.
    """
    with pytest.raises(StartError) as raised:
        watch({"SIDECAR_WATCH": word}, {"config_file": file, "file_hash": ""})

    assert raised.value.code == 2
    assert problem in raised.value.problem
    assert raised.value.hint
