"""The file limit: raised once by the supervisor, inherited by every child."""

from __future__ import annotations

import resource


def raise_limit() -> int:
    """
    Raise the soft limit of open files to the hard one, and return what holds then.

    Soft limits are low (1024) for the sake of programs that use select(2), which cannot see descriptors beyond that; none
    of our processes does, and Go programs raise theirs in the same way (os.init, since Go 1.19). A limit that may not be raised
    (a seccomp filter) stays: the workers take fewer connections then.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            return soft
    return hard
