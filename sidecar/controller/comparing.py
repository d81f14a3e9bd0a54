"""What differs between two config versions, and what that difference would have done on the stored history."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sidecar.config.diff import diff
from sidecar.controller.configuring import Configuring
from sidecar.controller.effects import PutVersion
from sidecar.controller.ports import ConfigRefused, Unavailable
from sidecar.controller.replaying import ReplayError, Replays
from sidecar.incident.words import rfc3339
from sidecar.replay.learned import Learned


class Comparing:
    """
    Compares versions.

    Args:
        configuring: Knows them.
        replays: Plays the history.
        learned: Returns what verdicts have taught.
    """

    def __init__(self, configuring: Configuring, replays: Replays, learned: Callable[[], Learned]) -> None:
        self._learned = learned
        self._configuring = configuring
        self._replays = replays

    def __repr__(self) -> str:
        return f"<Comparing {self._configuring!r}>"

    async def diff(self, older: int | None, newer: int | None, replay_s: float | None) -> dict[str, Any]:
        """
        Return what differs between two versions; by default between the active one and the one before it.

        Args:
            older, newer: Their numbers.
            replay_s: Also replay both over the history of this time.

        Raises:
            ConfigRefused: 404 for an unknown version.
            Unavailable: when the replay was not finished.
        """
        new = self._known(newer if newer is not None else self._configuring.active.version)
        before = next((row.version for row in self._configuring.versions() if row.version < new.version), None)
        if older is None and before is None:
            return {"from": None, "to": new.version, "changes": []}
        old = self._known(older if older is not None else before or 0)
        changes = [{"path": c.path, "old": c.old, "new": c.new} for c in diff(old.text, new.text)]
        answer = {"from": old.version, "to": new.version, "changes": changes}
        return answer if replay_s is None else answer | {"replay": await self._replay((old, new), replay_s)}

    async def _replay(self, rows: Sequence[PutVersion], window_s: float) -> dict[str, Any]:
        configs = [self._configuring.compiled(row) for row in rows]
        routes = dict.fromkeys(rule.name for compiled in configs for rule in compiled.proxy.routes)
        material = await self._replays.material(window_s, tuple(routes))
        span = material.span
        if span is None:
            raise Unavailable("nothing was recorded yet", "ask again in a minute")
        try:
            before, after = await self._replays.outcomes(material, configs, self._learned())
        except ReplayError as error:
            raise Unavailable(str(error), "ask for a shorter time, as --replay 2h") from error
        from sidecar.replay.compare import compare  # noqa: PLC0415  a start needs no replay

        since, until = (rfc3339(unix) for unix in span)
        return {"since_time": since, "until_time": until, **compare(before, after)}

    def _known(self, number: int) -> PutVersion:
        row = self._configuring.version(number)
        if row is None:
            raise ConfigRefused(404, f"there is no version {number}", "`sidecar config history` lists all")
        return row
