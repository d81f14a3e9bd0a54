"""Which code runs: the extensions, or their source."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.compiled import LIBRARY, SUFFIX, WHY, choose

ROOT = Path(__file__).parents[2]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A tree of sources whose one hot module was compiled after it was written."""
    stage = tmp_path / "sidecar" / "guard"
    stage.mkdir(parents=True)
    for age_s, path in (
        (20, tmp_path / "setup.py"),
        (20, stage / "ring.py"),
        (10, stage / f"ring{SUFFIX}"),
        (10, tmp_path / f"{LIBRARY}{SUFFIX}"),
    ):
        path.touch()
        os.utime(path, (1_000_000 - age_s, 1_000_000 - age_s))
    return tmp_path / "sidecar"


def test_what_was_compiled_runs(package: Path) -> None:
    """Extensions that are newer than their source are taken."""
    assert choose(package, None) == ""


def test_without_extensions_the_source_runs(package: Path) -> None:
    """A tree that was never compiled says how it would be."""
    (package.parent / f"{LIBRARY}{SUFFIX}").unlink()
    assert "make compiled" in choose(package, None)


def test_a_newer_source_runs_and_is_named(package: Path) -> None:
    """Who edits a hot module gets what was typed, never the old code."""
    os.utime(package / "guard" / "ring.py", (1_000_000, 1_000_000))
    assert choose(package, None) == "sidecar/guard/ring.py is newer than what was compiled: `make compiled`"


def test_an_installed_package_compares_nothing(package: Path) -> None:
    """A wheel's files carry the times of their unpacking, which mean nothing."""
    (package.parent / "setup.py").unlink()
    os.utime(package / "guard" / "ring.py", (1_000_000, 1_000_000))
    assert choose(package, None) == ""


def test_the_source_can_be_asked_for(package: Path) -> None:
    """SIDECAR_INTERPRETED is for profilers, debuggers and fuzzers."""
    assert choose(package, "1") == "SIDECAR_INTERPRETED is set"


@pytest.mark.parametrize("asked", ["", "1"])
def test_all_hot_modules_are_of_one_kind(asked: str) -> None:
    """What was chosen holds for every module that was compiled, from whatever folder the program starts."""
    program = (
        "import importlib, sys\n"
        "from sidecar.compiled import WHY\n"
        "for name in sys.argv[1:]: print(importlib.import_module(name).__file__)\n"
        "print(WHY, file=sys.stderr)\n"
    )
    names = [
        f"sidecar.{path.parent.name}.{path.name.removesuffix(SUFFIX)}"
        for path in sorted((ROOT / "sidecar").glob("*/*" + SUFFIX))
    ]
    done = subprocess.run(
        [sys.executable, "-c", program, *names],
        env={**os.environ, "SIDECAR_INTERPRETED": asked, "PYTHONPATH": str(ROOT)},
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    ending = SUFFIX if not asked and not WHY else ".py"
    assert [line for line in done.stdout.splitlines() if not line.endswith(ending)] == []
    assert bool(done.stderr.strip()) == (ending == ".py")
