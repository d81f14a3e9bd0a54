"""What a worker is told by the supervisor, and what it knows of the install that it belongs to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sidecar import clock
from sidecar.proxy.plane import Install
from sidecar.store.errors import StoreError
from sidecar.store.key import load_install_key
from sidecar.supervise.say import say


@dataclass(frozen=True, slots=True)
class Told:
    """What the supervisor told this child in SIDECAR_CHILD."""

    name: str
    index: int
    epoch: str
    supervisor: int
    listen: tuple[int, ...]
    heartbeat: int
    runtime: Path
    config_file: Path | None
    flags: Mapping[str, str]
    static: Mapping[str, Any]

    @property
    def workers(self) -> int:
        """How many workers serve beside each other."""
        return int(self.static.get("workers", 1))

    @classmethod
    def read(cls, text: str) -> Told:
        """Read the variable's JSON."""
        row = json.loads(text)
        return cls(
            row["name"],
            row["index"],
            row["epoch"],
            row.get("supervisor", 0),
            tuple(row["fds"]["listen"]),
            row["fds"]["heartbeat"],
            Path(row["runtime"]),
            Path(row["config_file"]) if row["config_file"] else None,
            row["flags"],
            row["static"],
        )


def install_of(state: Path) -> Install:
    """Return what tells this install from others; a state directory that cannot be written costs stable client keys only."""
    try:
        key = load_install_key(state)
    except StoreError as error:
        say(
            "the install key cannot be read: client keys from headers will differ",
            level="error",
            process="worker",
            problem=str(error),
        )
        key = clock.token_bytes(32)
    return Install("sidecar-" + hashlib.sha256(key).hexdigest()[:8], key)
