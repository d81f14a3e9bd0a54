"""
The child process of `replaying.py`: `python -m sidecar.controller.replayer`.

    stdin   the pickled work            from our own parent over our own pipe
    stdout  the pickled answer          the same
"""

from __future__ import annotations

import os
import pickle
import sys
from typing import Final

from sidecar.controller.studying import answer

NICE: Final = 15


def main() -> int:
    """Answer one question on stdin."""
    os.nice(NICE)
    work = pickle.load(sys.stdin.buffer)  # noqa: S301  our own parent's
    pickle.dump(answer(work), sys.stdout.buffer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
