"""
When a score becomes an alarm, and when the alarm ends: one small machine that every detector holds.

Theory
    One level for both would chatter. So an alarm begins at h and ends only when its score stayed below 0.2·h, or its
    effect below what is worth speaking of, for `clear_after_s`. In between the thing is known to be abnormal and nothing
    may be learnt from it. The second way out matters as much as the first: a score that was raised by a large effect may
    be held up for ever by a small one that would never have raised it.

Tables (`q`: the claim qualifies: it is repeated and large enough to speak of; once it stands: it still is)

    from                 when                                   to
    normal               score ≥ h/2 and q                      suspect
    normal, suspect      score ≥ h and q                        alarm
    suspect              score < h/4, or no longer q            normal
    alarm                score < 0.2·h, or no longer q          recovering
    recovering           score ≥ 0.2·h and q                    alarm
    recovering           `clear_after_s` later                  normal    (cleared: the score starts anew)
    alarm, recovering    no request judged for `idle_s`         normal    (cleared)

    `learning` is not a sixth place in this table but how `normal` is called while the baseline is cold.

What can go wrong
    A route that nobody calls any more would alarm for ever, since only requests make a score fall: `idle_s`, ten
    times `clear_after_s` and at least ten minutes, ends that.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, Final

from sidecar.detect.keep import Names

TRIGGER_SUSPECT: Final = 0.5
CLEAR_SUSPECT: Final = 0.25
CLEAR_ALARM: Final = 0.2
IDLE_S: Final = 600.0


class State(StrEnum):
    """Where one detector of one route stands."""

    LEARNING = "learning"
    NORMAL = "normal"
    SUSPECT = "suspect"
    ALARM = "alarm"
    RECOVERING = "recovering"


class Alarm:
    """
    The state of one claim.

    Attributes:
        state: Never `learning`.
        since_at: Estimated onset of what the alarm is about; None without one.
        fired_at: When the alarm began.
    """

    __slots__ = ("_judged_at", "_low_at", "fired_at", "since_at", "state")
    KEPT: ClassVar[Names] = ("state",)
    TIMES: ClassVar[Names] = ("since_at", "fired_at", "_low_at", "_judged_at")

    def __init__(self) -> None:
        self.state = State.NORMAL
        self.since_at: float | None = None
        self.fired_at: float | None = None
        self._low_at: float | None = None
        self._judged_at: float | None = None

    def __repr__(self) -> str:
        return f"<Alarm {self.state} since {self.since_at}>"

    @property
    def fading(self) -> bool:
        """Tell whether it only waits for its end."""
        return self.state is State.RECOVERING

    @property
    def stands(self) -> bool:
        """Tell whether the alarm is not closed yet."""
        return self.state in (State.ALARM, State.RECOVERING)

    def step(
        self, score: float, threshold: float, now: float, clear_after_s: float, *, qualifies: bool, judged: bool
    ) -> bool:
        """
        Move by one second's score.

        Args:
            score: The test's statistic.
            threshold: h.
            now: Monotonic seconds.
            clear_after_s: How long the score must stay low.
            qualifies: The claim is repeated and large enough to speak of; while it stands: the effect still is.
            judged: Something was measured in this second.

        Returns:
            Whether an alarm began or ended just now.
        """
        if judged or self._judged_at is None:
            self._judged_at = now
        if self.stands:
            return self._step_alarm(now, clear_after_s, loud=qualifies and score >= CLEAR_ALARM * threshold)
        if score >= threshold and qualifies:
            self.state, self.fired_at, self._low_at = State.ALARM, now, None
            return True
        if not qualifies or score < CLEAR_SUSPECT * threshold:
            self.state = State.NORMAL
        elif score >= TRIGGER_SUSPECT * threshold:
            self.state = State.SUSPECT
        return False

    def _step_alarm(self, now: float, clear_after_s: float, *, loud: bool) -> bool:
        idle_s = now - (self._judged_at if self._judged_at is not None else now)
        if idle_s >= max(IDLE_S, 10 * clear_after_s):
            self.close()
            return True
        if loud:
            self.state, self._low_at = State.ALARM, None
            return False
        if self._low_at is None or self._low_at > now:
            self.state, self._low_at = State.RECOVERING, now
        if now - self._low_at >= clear_after_s:
            self.close()
            return True
        return False

    def close(self) -> None:
        """End the alarm, by evidence or by a verdict."""
        self.state = State.NORMAL
        self.since_at = self.fired_at = self._low_at = None
