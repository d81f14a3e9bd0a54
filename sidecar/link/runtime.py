"""
The private runtime directory: the link's socket, and the file that a worker boots from while no controller lives.

It stands under `$XDG_RUNTIME_DIR` or the temporary directory and never under `state`, whose path may be longer than a
Unix socket's may be (107 bytes, unix(7)). Standard library only: the supervisor imports this.

What can go wrong: somebody else made the directory first (refused: they could read the link or answer it); the
directory survived a reboot (the boot id tells: leases in monotonic seconds of another boot mean nothing and are
dropped, the config stays); the file is torn or from a newer release (read as absent).
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sidecar import clock
from sidecar.facts import Directive
from sidecar.link.frames import BreakerOpen
from sidecar.link.wire import directive_from_json, directive_to_json

LINK_SOCKET: Final = "link.sock"
BOOT_FILE: Final = "worker-boot.json"
MAX_SOCKET_PATH_BYTES: Final = 107  # sun_path is 108 bytes with its closing zero: unix(7)
_OTHERS: Final = 0o077


class RuntimeDirError(OSError):
    """The private directory cannot be had; the message says why and what to do."""


def runtime_dir(state: Path) -> Path:
    """
    Make, check and return the private directory (mode 0700) that belongs to the state directory *state*.

    Two spellings of one state directory have one runtime directory; two users never share one.

    Raises:
        RuntimeDirError: when it belongs to somebody else, is open to others, or cannot be made.
    """
    digest = hashlib.sha256(os.fsencode(os.path.realpath(state))).hexdigest()[:12]
    name = f"sidecar-{os.geteuid()}-{digest}"
    for base in _bases():
        path = base / name
        if len(os.fsencode(path / LINK_SOCKET)) <= MAX_SOCKET_PATH_BYTES:
            _make_private(path)
            return path
    raise RuntimeDirError(
        f"no directory is short enough for a socket path of {MAX_SOCKET_PATH_BYTES} bytes: "
        "set XDG_RUNTIME_DIR or TMPDIR to a short path, such as /tmp"
    )


def link_path(runtime: Path) -> Path:
    """Return where the supervisor listens for the workers' links."""
    return runtime / LINK_SOCKET


def _bases() -> Iterator[Path]:
    given = os.environ.get("XDG_RUNTIME_DIR", "")
    if given and _usable(Path(given)):
        yield Path(given)
    yield Path(tempfile.gettempdir())
    yield Path("/tmp")  # noqa: S108  the directory inside is made 0700 and its owner is checked


def _usable(path: Path) -> bool:
    try:
        owner = path.stat().st_uid
    except OSError:
        return False
    return path.is_absolute() and path.is_dir() and owner == os.geteuid() and os.access(path, os.W_OK | os.X_OK)


def _make_private(path: Path) -> None:
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise RuntimeDirError(
            f"cannot make {path}: {error.strerror}; set XDG_RUNTIME_DIR to a directory of yours"
        ) from error
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise RuntimeDirError(f"{path} is no directory; remove it")
    if found.st_uid != os.geteuid():
        raise RuntimeDirError(f"{path} belongs to user {found.st_uid}; remove it or set XDG_RUNTIME_DIR elsewhere")
    if found.st_mode & _OTHERS:
        raise RuntimeDirError(f"{path} is open to others (mode {stat.S_IMODE(found.st_mode):04o}); chmod 700 it")


@dataclass(frozen=True, slots=True)
class BootConfig:
    """
    What a worker runs with when it is born while no controller lives.

    Attributes:
        version, text, hash: The active config version.
        directives: Isolations and overrides in force; each ends by its own `end_at`.
        breakers: Breakers that were opened by another worker's trip and are still open.
        file_hash: The file's, when this was written: a start after the file has changed must not boot from this.
        unhealthy: Endpoints that fail their health checks, each until a moment.
        shares: Worker → bucket → its part of the limit (`controller/shares.py`); empty where one worker serves alone.
    """

    version: int
    text: str
    hash: str
    directives: tuple[Directive, ...] = ()
    breakers: tuple[BreakerOpen, ...] = ()
    file_hash: str = ""
    shares: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    unhealthy: Mapping[str, float] = field(default_factory=dict)


def write_boot(runtime: Path, boot: BootConfig) -> None:
    """
    Replace `worker-boot.json` as a whole: a reader sees the old one or the new one.

    Not synced to disk: after a crash of the machine no worker of this boot is left to read it.

    Raises:
        OSError: when the directory is gone or full; the old file stays.
    """
    document = {
        "version": boot.version,
        "text": boot.text,
        "hash": boot.hash,
        "file_hash": boot.file_hash,
        "boot": clock.boot_id(),
        "directives": [directive_to_json(item) for item in boot.directives],
        "breakers": [[item.route, item.until_at, item.detail] for item in boot.breakers],
        "unhealthy": dict(boot.unhealthy),
        "shares": {str(worker): dict(parts) for worker, parts in boot.shares.items()},
    }
    path = runtime / BOOT_FILE
    draft = path.with_name(f"{BOOT_FILE}.{os.getpid()}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            json.dump(document, file)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def read_boot(runtime: Path) -> BootConfig | None:
    """Return what `write_boot` wrote, without directives, breakers and shares of another boot; None when it is not there or not readable."""
    try:
        row = json.loads((runtime / BOOT_FILE).read_text(encoding="utf-8"))
        same_boot = row["boot"] == clock.boot_id()
        return BootConfig(
            version=int(row["version"]),
            text=str(row["text"]),
            hash=str(row["hash"]),
            directives=tuple(directive_from_json(item) for item in row["directives"]) if same_boot else (),
            breakers=tuple(BreakerOpen(*item) for item in row["breakers"]) if same_boot else (),
            file_hash=str(row.get("file_hash", "")),
            shares={int(n): dict(parts) for n, parts in row.get("shares", {}).items()} if same_boot else {},
            unhealthy=dict(row.get("unhealthy", {})) if same_boot else {},
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
