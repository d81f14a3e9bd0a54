"""The token of the first start: without `admin.tokens` the sidecar makes one, so that `sidecar status` works at once."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final

from sidecar import clock
from sidecar.config.policies import AdminPolicy, Token

TOKEN_FILE: Final = "admin.token"  # noqa: S105  the file's name, not a secret
_SIZE_BYTES: Final = 24


def first_token(state: Path, admin: AdminPolicy) -> Token | None:
    """
    Return the token in `<state>/admin.token` (mode 0600, made when it is missing); None when the config names tokens.

    Raises:
        OSError: when it can be neither read nor made.
    """
    if admin.tokens:
        return None
    path = state / TOKEN_FILE
    text = path.read_text(encoding="ascii").strip() if path.exists() else ""
    if not text:
        text = clock.token_bytes(_SIZE_BYTES).hex()
        draft = path.with_name(f"{TOKEN_FILE}.{os.getpid()}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
            file.write(text + "\n")
        draft.replace(path)
    return Token(TOKEN_FILE, "admin", hashlib.sha256(text.encode()).hexdigest())
