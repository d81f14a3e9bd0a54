"""
Where the recordings that nobody here wrote are, and how they are unpacked: outside the repository, once.

`SIDECAR_DATA` names the directory that holds `nab.tar.gz`, `nab-expected/` and `petshop.tar.gz`; by default it is
`../shared/data` beside the repository. They are unpacked to `$XDG_CACHE_HOME/sidecar` (or `~/.cache`, or the temporary
directory when there is no home), into a folder named by the archive's size and age, so that a new archive is
unpacked anew.
"""

from __future__ import annotations

import os
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class RecordingsMissingError(Exception):
    """The archives are not on this machine."""


def directory() -> Path:
    """Return where the archives are, whether or not they are there."""
    return Path(os.environ.get("SIDECAR_DATA") or ROOT.parent / "shared" / "data")


def archive(name: str) -> Path:
    """Return the path of the file *name*, or say how to name another place."""
    path = directory() / name
    if not path.exists():
        raise RecordingsMissingError(f"{name} is not in {directory()}: set SIDECAR_DATA to the directory that holds it")
    return path


def unpacked(name: str) -> Path:
    """Return the folder in which the archive *name* is unpacked, doing so when it is not."""
    source = archive(name)
    state = source.stat()
    target = _cache() / f"{name.partition('.')[0]}-{state.st_size}-{int(state.st_mtime)}"
    if not target.is_dir():
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as fresh, tarfile.open(source) as packed:
            packed.extractall(fresh, filter="data")
            try:
                Path(fresh).rename(target)
            except OSError:
                if not target.is_dir():  # else somebody else unpacked it just now
                    raise
            Path(fresh).mkdir(exist_ok=True)  # what the context removes
    return target


def _cache() -> Path:
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sidecar"
        base.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        base = Path(tempfile.gettempdir()) / f"sidecar-{os.getuid()}"
        base.mkdir(mode=0o700, exist_ok=True)
    return base
