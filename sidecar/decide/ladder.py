"""
What happens when nobody answers.

Theory
    A provisional isolation asks a person a question. The ladder is a list of (after, do): *after* counts from the moment
    since which the question is unanswered. An acknowledgement stops it; an acknowledgement that goes quiet for
    `QUIET_S` is withdrawn and the ladder starts anew. Waiting never switches protection off (flagger#1801): only a rung
    that says `release` does.

Tables
    escalate   the alert again, urgent
    probe      one step of the ramp as a trial: sick goes back, healthy goes on
    hold       nothing changes, and the lease is renewed even without traffic
    release    the isolation ends

What can go wrong
    A rung whose time passed while no controller lived: it runs at once after the restart, each rung once.
    A live change of the ladder: rungs are counted, not named, so a shorter ladder simply has no next rung.
"""

from __future__ import annotations

from typing import Final

from sidecar.decide.policies import Rung

QUIET_S: Final = 15 * 60.0  # behaviour.md: an acknowledgement that goes quiet is withdrawn


def due(rung: Rung, unanswered_at: float, now: float) -> bool:
    """Tell whether *rung*'s time has come."""
    return now - unanswered_at >= rung.after_s


def gone_quiet(spoke_at: float, now: float) -> bool:
    """Tell whether an acknowledgement has to be withdrawn."""
    return now - spoke_at >= QUIET_S
