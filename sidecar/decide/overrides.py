"""A person's decision about a scope, for a time, with a reason: it outranks everything that automation does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sidecar.facts import Action, Directive, Moment, Scope
from sidecar.incident.words import rfc3339


@dataclass(frozen=True, slots=True)
class Override:
    """
    One override in force.

    Attributes:
        scope, action: What it does to what.
        rate_per_s, share_ratio: Of `throttle`, exactly one of them.
        author, reason: Who and why.
        started, end: On both clocks.
    """

    scope: Scope
    action: Action
    author: str
    reason: str
    started: Moment
    end: Moment
    rate_per_s: float | None = None
    share_ratio: float | None = None

    @property
    def id(self) -> str:
        """Return its name in decisions and in the store; one scope has at most one override."""
        return f"override-{self.scope}"

    @property
    def directive(self) -> Directive:
        """Return what the workers need of it."""
        share = 0.0 if self.action is Action.ISOLATE else self.share_ratio
        return Directive(
            self.id, self.scope, self.action, self.end.at, share_ratio=share, rate_per_s=self.rate_per_s, confirmed=True
        )


def hands_off(overrides: Iterable[Override], scope: Scope) -> Override | None:
    """Return the override that forbids automation to act on *scope*: `allow` and `observe` on it or around it."""
    quiet = (Action.ALLOW, Action.OBSERVE)
    return next((o for o in overrides if o.action in quiet and o.scope.contains(scope)), None)


def document(override: Override, *, durable: bool) -> dict[str, Any]:
    """Return its public shape."""
    return {
        "scope": str(override.scope),
        "action": action_text(override),
        "author": override.author,
        "reason": override.reason,
        "start_time": rfc3339(override.started.unix),
        "end_time": rfc3339(override.end.unix),
        "durable": durable,
    }


def action_text(override: Override) -> str:
    """Return the action as a person types it: `isolate`, `throttle=20/s`, `throttle=10%`, `allow`, `observe`."""
    if override.action is not Action.THROTTLE:
        return override.action.value
    if override.rate_per_s is not None:
        return f"throttle={override.rate_per_s:g}/s"
    return f"throttle={100 * (override.share_ratio or 0.0):g}%"


def to_store(override: Override, boot: str) -> dict[str, Any]:
    """Return the document that the store keeps."""
    kept = {
        "boot": boot,
        "action": override.action.value,
        "rate_per_s": override.rate_per_s,
        "share_ratio": override.share_ratio,
        "started_at": override.started.at,
        "started_unix": override.started.unix,
        "end_at": override.end.at,
        "end_unix": override.end.unix,
    }
    return {**document(override, durable=True), "kept": kept}


def from_store(row: Mapping[str, Any], boot: str, now: Moment) -> Override:
    """Read what `to_store` wrote; moments of another boot are re-made from the wall clock."""
    kept = row["kept"]
    same = bool(boot) and kept["boot"] == boot
    shift = 0.0 if same else (now.at - now.unix) - (kept["end_at"] - kept["end_unix"])
    return Override(
        scope=Scope.parse(row["scope"]),
        action=Action(kept["action"]),
        author=row["author"],
        reason=row["reason"],
        started=Moment(kept["started_at"] + shift, kept["started_unix"]),
        end=Moment(kept["end_at"] + shift, kept["end_unix"]),
        rate_per_s=kept["rate_per_s"],
        share_ratio=kept["share_ratio"],
    )
