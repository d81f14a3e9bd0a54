"""
What the data plane shows of single requests: decisions for `sidecar explain`, redacted samples for the evidence.

A flood of refusals must not become a flood of frames, so both are bounded each second and what is beyond is counted:

    decisions   50 a second and worker; the id in the client's answer is given to each, also to those not told
    samples     5 a second and route: 2 of any kind, the rest for failures, which are what evidence is about

Nothing secret is shown: the client key (a header's value only as its HMAC), the path's template, the names of the
fields; never a query, a body or a value.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from sidecar import clock
from sidecar.link.frames import Decided, Sample, Tapped
from sidecar.reasons import Refusal

DECISIONS_PER_S: Final = 50
SAMPLES_PER_S: Final = 5
ANY_SAMPLES_PER_S: Final = 2
KEPT: Final = 256
_JITTER_BITS: Final = 16


class Samples:
    """One route's allowance of samples for this second."""

    __slots__ = ("any", "failures")

    def __init__(self) -> None:
        self.any = ANY_SAMPLES_PER_S
        self.failures = SAMPLES_PER_S - ANY_SAMPLES_PER_S

    def __repr__(self) -> str:
        return f"<Samples {self.any} of any kind and {self.failures} failures to go>"

    def take(self, *, failed: bool) -> bool:
        """Tell whether one more request may be shown."""
        if failed and self.failures:
            self.failures -= 1
            return True
        if self.any:
            self.any -= 1
            return True
        return False

    def renew(self) -> None:
        """Begin a new second."""
        self.any = ANY_SAMPLES_PER_S
        self.failures = SAMPLES_PER_S - ANY_SAMPLES_PER_S


class Tap:
    """
    Ids, allowances and rings of one worker.

    Args:
        epoch: The worker's, so that ids of two workers or two lives never meet.
        send: Where frames go; it may drop them.

    Attributes:
        recent: The last samples.
        decisions: The last decisions.
        dropped: Decisions that were not told.
    """

    def __init__(self, epoch: str, send: Callable[[Decided | Sample | Tapped], object]) -> None:
        self._prefix = epoch[:6]
        self.send = send
        self._count = 0
        self._left = DECISIONS_PER_S
        self._samples: dict[str, Samples] = {}
        self.recent: deque[Sample] = deque(maxlen=KEPT)
        self.decisions: deque[Decided] = deque(maxlen=KEPT)
        self.dropped = 0

    def __repr__(self) -> str:
        return f"<Tap {self._count} decisions, {self.dropped} not told>"

    def samples(self, route: str) -> Samples:
        """Return the allowance of *route*."""
        return self._samples.setdefault(route, Samples())

    def second(self) -> None:
        """Begin a new second."""
        self._left = DECISIONS_PER_S
        for samples in self._samples.values():
            samples.renew()

    def next_id(self) -> str:
        """Return a new decision id."""
        self._count += 1
        return f"{self._prefix}-{self._count:x}"

    def decided(
        self,
        decision: str,
        refusal: Refusal,
        now: float,
        *,
        route: str,
        client: str,
        method: str,
        path: str,
        version: int,
        enforced: bool,
    ) -> None:
        """Tell why a request was refused, or would have been (not *enforced*)."""
        if not self._left:
            self.dropped += 1
            return
        self._left -= 1
        made = Decided(
            id=decision,
            route=route,
            at=now,
            client=client,
            method=method,
            path=path,
            reason=refusal.reason,
            rule=refusal.rule,
            detail=refusal.detail,
            config_version=version,
            incident=refusal.incident,
            enforced=enforced,
        )
        self.decisions.append(made)
        self.send(made)

    def show(self, sample: Sample) -> None:
        """Show one request."""
        self.recent.append(sample)
        self.send(sample)


def jitter_ratio() -> float:
    """Return a number in 0..1 that spreads the Retry-After of one answer."""
    return clock.random_bits(_JITTER_BITS) / (1 << _JITTER_BITS)
