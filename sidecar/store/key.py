"""
The install key: 32 random bytes that belong to one installation, in `<state>/install.key` (0600).

It signs the head of the event chain and its checkpoints, and it turns a header's value into a client key
(`h-` + 16 hex digits), so that secrets never reach URLs, alerts, evidence or tapes. Who replaces it gives every client
a new key and makes `sidecar audit verify` say that the signature does not fit.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import stat
from pathlib import Path
from typing import Final

from sidecar import clock
from sidecar.store.errors import Cause, StoreError, unwritable

KEY_FILE: Final = "install.key"
_SIZE_BYTES: Final = 32


def load_install_key(state: Path) -> bytes:
    """
    Return the key of the state directory *state*; make it when there is none. Two processes that make it at once agree.

    Raises:
        StoreError: when it cannot be read or made, is damaged, or everybody may read it.
    """
    path = state / KEY_FILE
    try:
        if not path.exists():
            _make(path)
        mode = path.stat().st_mode
        text = path.read_text(encoding="ascii", errors="replace").strip()
    except OSError as error:
        raise unwritable(error, path) from error
    if mode & stat.S_IROTH:
        raise StoreError(Cause.UNWRITABLE, f"{path}: everybody may read it", f"chmod 600 {path}")
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != _SIZE_BYTES:
        raise StoreError(
            Cause.CORRUPT,
            f"{path}: not {_SIZE_BYTES * 2} hex digits",
            "restore it from a backup; or remove it: client keys change, and the audit says that its signature does not fit",
        )
    return key


def client_key(install_key: bytes, header_value: str) -> str:
    """Return the key that a header's value has on this installation: `h-` and 16 hex digits."""
    return "h-" + hmac.digest(install_key, header_value.encode("utf-8", "surrogateescape"), "sha256").hex()[:16]


def _make(path: Path) -> None:
    draft = path.with_name(f"{KEY_FILE}.{os.getpid()}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
            file.write(clock.token_bytes(_SIZE_BYTES).hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # another process was first: its key counts
            os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
