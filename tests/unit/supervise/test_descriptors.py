"""The file limit that children inherit."""

from __future__ import annotations

import resource
import subprocess
import sys

SHOWS = """
import resource
from sidecar.supervise.descriptors import raise_limit
print(raise_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def limits_with(soft: int, hard: int) -> list[int]:
    """Return what `raise_limit` says and leaves in a process that begins with these limits."""
    done = subprocess.run(
        [sys.executable, "-c", SHOWS],
        capture_output=True, text=True, check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard)),
    )  # fmt: skip
    return [int(word) for word in done.stdout.split()]


def test_the_soft_limit_becomes_the_hard_one() -> None:
    """
    A low soft limit is raised as far as the process may; one that is there already stays.
    """
    assert limits_with(100, 300) == [300, 300, 300]
    assert limits_with(300, 300) == [300, 300, 300]
