"""What a new controller reads of the store; each part may be missing, for traffic must not wait for a disk."""

from __future__ import annotations

from typing import Any

import structlog

from sidecar import clock
from sidecar.controller.answers import MAX_ANSWERS
from sidecar.controller.engine import Restored
from sidecar.controller.journal import Journal
from sidecar.controller.tokens import MARK_TOKENS
from sidecar.replay.reel import KEEP_S
from sidecar.store.errors import StoreError
from sidecar.store.writes import ANSWERS_KEPT_S

_log = structlog.get_logger("controller")


async def engine(journal: Journal) -> Restored | None:
    """Return what the engine takes up again; None when nothing can be read."""
    try:
        return await journal.read(Restored.of)
    except StoreError as error:
        _log.error("nothing could be restored; the sidecar starts without its memory", problem=str(error))
        return None


async def seconds(journal: Journal) -> list[tuple[int, bytes]]:
    """Return the recorded minutes of the tape."""
    since = clock.wall().timestamp() - KEEP_S
    try:
        return await journal.read(lambda store: store.seconds(since_unix=since))
    except StoreError:
        return []


async def proposals(journal: Journal) -> list[dict[str, Any]]:
    """Return the proposals, the newest first."""
    try:
        return await journal.read(lambda store: store.proposals())
    except StoreError:
        return []


async def tokens(journal: Journal) -> str:
    """Return what `Keyring.remembered` stored."""
    try:
        marks = await journal.read(lambda store: store.marks())
    except StoreError as error:
        _log.error("issued and revoked tokens are not known: the file's are good", problem=str(error))
        return ""
    return marks.get(MARK_TOKENS, "")


async def answers(journal: Journal) -> list[tuple[str, dict[str, Any]]]:
    """Return what calls with an Idempotency-Key were answered within a day, the oldest first."""
    since = clock.wall().timestamp() - ANSWERS_KEPT_S
    try:
        return await journal.read(lambda store: store.answers(since_unix=since, limit=MAX_ANSWERS))
    except StoreError:
        return []
