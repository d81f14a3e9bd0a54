"""
Watches the configuration file, so that a changed one is read without a SIGHUP: on with `SIDECAR_WATCH=1`.

Theory
    Kubernetes replaces a mounted ConfigMap by swapping the symbolic link `..data`; editors rename a new file over the
    old one; `cp` writes into it. All three change what `stat` says of the path, followed to its end. So once a second
    the path is looked at, and only a look that differs leads to reading: the text counts, not the time stamps. A text
    counts once two looks in a row saw the same file, because half of a file may be valid YAML.

    It is off by default: a file that is being edited should not go live by being saved. And it is a variable, not a
    setting: what decides whether the file is obeyed cannot stand in it.

What can go wrong
    The path lies on a dead network mount: the looks happen in a thread of their own, which then hangs; nothing else
    does. The file vanishes, or cannot be read: this counts as a change, once, so that the reading says what is wrong;
    what runs stays.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from sidecar.supervise.start import StartError

VARIABLE: Final = "SIDECAR_WATCH"
EVERY_S: Final = 1.0
_YES: Final = frozenset({"1", "true", "yes", "on"})
_NO: Final = frozenset({"", "0", "false", "no", "off"})
GONE: Final = ""
INVALID: Final = 2


class Look:
    """
    What the last looks at one file have shown.

    Args:
        path: Followed to its end at every look.
        known: SHA-256 of the text that was read last, in hex.
    """

    def __init__(self, path: Path, known: str) -> None:
        self._path = path
        self._known = known
        self._seen: tuple[object, ...] | None = ()
        self._settled = False

    def __repr__(self) -> str:
        return f"<Look at {self._path}: {self._known[:8] or 'gone'}{'' if self._settled else ', not settled'}>"

    def again(self) -> bool:
        """Look; tell whether there is another text than the known one, which is then the known one."""
        seen = self._stat()
        if seen != self._seen:
            self._seen, self._settled = seen, False
            return False
        if self._settled:
            return False
        self._settled = True
        found = self._hash()
        changed, self._known = found != self._known, found
        return changed

    def _stat(self) -> tuple[object, ...] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return os.path.realpath(self._path), found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size

    def _hash(self) -> str:
        try:
            return hashlib.sha256(self._path.read_bytes()).hexdigest()
        except OSError:
            return GONE


class Watch:
    """Looks once a second, in a thread that ends with the process."""

    def __init__(self, path: Path, known: str) -> None:
        self._look = Look(path, known)
        self._changed = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<Watch {self._look}>"

    def take(self) -> bool:
        """Tell whether the text has changed since the last call."""
        if not self._changed.is_set():
            return False
        self._changed.clear()
        return True

    def end(self) -> None:
        """Look no more."""
        self._ended.set()

    def _run(self) -> None:
        while not self._ended.wait(EVERY_S):
            if self._look.again():
                self._changed.set()


def watch(environ: Mapping[str, str], static: Mapping[str, Any]) -> Watch | None:
    """
    Begin to watch the file of *static* when *environ* wants it.

    Raises:
        StartError: when it says neither yes nor no, or there is no file.
    """
    word = environ.get(VARIABLE, "").strip().lower()
    if word in _NO:
        return None
    if word not in _YES:
        raise StartError(
            INVALID, f"{VARIABLE}={word} says neither yes nor no", f"{VARIABLE}=1 watches the file; unset it else"
        )
    if static["config_file"] is None:
        raise StartError(
            INVALID, f"{VARIABLE} is set, but no file is there to be watched", "name one: sidecar run -c FILE"
        )
    return Watch(Path(static["config_file"]), static["file_hash"])
