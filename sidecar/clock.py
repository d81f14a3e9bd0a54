"""
The only caller of `time.*` and `random.*`: everything else is handed `now`, or a seed.

Monotonic seconds are CLOCK_MONOTONIC, which all processes of one boot share, so a lease's end means the same moment
in the controller and in every worker. Wall time is for people and for the store only.
"""

from __future__ import annotations

import os
import random
import time
from datetime import UTC, datetime
from pathlib import Path

now = time.monotonic


def wall() -> datetime:
    """Return the aware UTC wall time, for people and the store."""
    return datetime.now(UTC)


def wall_of(at: float) -> datetime:
    """Return the wall time of a monotonic moment of this boot, by the clocks' present distance."""
    return datetime.fromtimestamp(time.time() + (at - time.monotonic()), UTC)


def monotonic_of(moment: datetime) -> float:
    """Return the monotonic seconds of a wall time, by the clocks' present distance."""
    return time.monotonic() + (moment.timestamp() - time.time())


def boot_id() -> str:
    """Return the kernel's id of this boot: monotonic seconds of another boot mean nothing here."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"


def token_bytes(size: int) -> bytes:
    """Return *size* bytes from the kernel's secure source."""
    return os.urandom(size)


random_bits = random.getrandbits
"""Return that many random bits from a cheap source: for trace ids and jitter, never for secrets."""
