"""
What differs between two config texts, by what they mean: `1000ms` equals `1s`, and a default equals its own value.

Routes, receivers and tokens are compared by name, so a path reads `routes.checkout.limit.rate` and moving a route
shows as one change of the order. A section that only one side has shows as the keys that are not at their default.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sidecar.config.compile import DEFAULT_ROUTE
from sidecar.config.errors import ConfigErrors
from sidecar.config.fields import MASK
from sidecar.config.load import NOTHING, read
from sidecar.config.mask import HIDDEN_KEY, mask
from sidecar.config.schema import Config
from sidecar.config.tree import parse
from sidecar.facts import Scope

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]

TRAFFIC_KEYS: Final = frozenset({"mode", "trust", "upstream", "downstream", "service", "routes"})
"""The top-level keys that change which requests pass and how; a change of another one touches no scope."""


@dataclass(frozen=True, slots=True)
class Change:
    """One setting with its two values, in their canonical spelling; None where a side has none."""

    path: str
    old: Json
    new: Json


def diff(
    old: str, new: str, *, environ: Mapping[str, str] = NOTHING, flags: Mapping[str, str] = NOTHING
) -> list[Change]:
    """
    Return what differs between two texts, in the order of the keys, hashes hidden.

    Args:
        old, new: YAML; a missing upstream is no error here.
        environ, flags: What lies over both, as `load` takes it; a key that they set never differs.

    A text that is not valid, because it needs another environment or comes from another release, makes both compared
    as they were written.

    Raises:
        ConfigErrors: when one of them is no YAML.
    """
    try:
        before = _Side.of(read(old, name="old", environ=environ, flags=flags))
        after = _Side.of(read(new, name="new", environ=environ, flags=flags))
    except ConfigErrors:
        before, after = _Side.written(old, "old"), _Side.written(new, "new")
    return [*_compare(before, after, ""), *_moved(before.below("routes").keys(), after.below("routes").keys())]


def touches(changes: Iterable[Change]) -> frozenset[Scope]:
    """Return the scopes whose traffic *changes* affect: `route:X` for `routes.X.…`, else the service or none."""
    found = (_touched(change.path.split(".")) for change in changes)
    return frozenset(scope for scope in found if scope is not None)


def _touched(steps: Sequence[str]) -> Scope | None:
    if steps[0] not in TRAFFIC_KEYS:
        return None
    return Scope.route(steps[1]) if steps[0] == "routes" and len(steps) > 1 else Scope.service()


@dataclass(frozen=True, slots=True)
class _Side:
    """One text's values: all of them, and those that are not at their default."""

    full: Json
    short: Json

    @classmethod
    def of(cls, config: Config) -> _Side:
        whole = config if config.routes else config.model_copy(update={"routes": [DEFAULT_ROUTE]})
        return cls(_named(whole.model_dump(mode="json")), _named(whole.model_dump(mode="json", exclude_defaults=True)))

    @classmethod
    def written(cls, text: str, name: str) -> _Side:
        plain = parse(mask(text), name).plain()
        side: Any = _named(plain) if isinstance(plain, dict) else plain
        return cls(side, side)

    def keys(self) -> list[str]:
        return list(self.full) if isinstance(self.full, dict) else []

    def below(self, key: str) -> _Side:
        full = self.full.get(key) if isinstance(self.full, dict) else None
        short = self.short.get(key) if isinstance(self.short, dict) else None
        return _Side(full, short)


def _named(dump: Mapping[str, Any]) -> dict[str, Any]:
    by_name: dict[str, Any] = {key: _by_name(dump[key]) for key in ("routes", "notify") if key in dump}
    admin = dump.get("admin")
    if isinstance(admin, dict) and "tokens" in admin:
        by_name["admin"] = admin | {"tokens": _by_name(admin["tokens"])}
    return {**dump, **by_name}


def _by_name(rows: Any) -> Any:
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and (row.get("name") or row.get("type")) for row in rows
    ):
        return rows
    return {str(row.get("name") or row["type"]): {key: row[key] for key in row if key != "name"} for row in rows}


def _compare(old: _Side, new: _Side, path: str) -> Iterator[Change]:
    if not isinstance(old.full, dict) and not isinstance(new.full, dict):
        if old.full != new.full and not _hidden(path, old.full, new.full):
            yield _change(path, old.full, new.full)
    elif isinstance(old.full, dict) and isinstance(new.full, dict):
        for key in dict.fromkeys([*old.keys(), *new.keys()]):
            yield from _compare(old.below(key), new.below(key), f"{path}.{key}" if path else key)
    else:
        yield from (Change(p, None, v) for p, v in _leaves(new.short, path) if isinstance(new.full, dict))
        yield from (Change(p, v, None) for p, v in _leaves(old.short, path) if isinstance(old.full, dict))


def _leaves(value: Json, path: str) -> Iterator[tuple[str, Json]]:
    if not isinstance(value, dict) or not value:
        yield path, _shown(path, {} if value is None else value)
        return
    for key, below in value.items():
        yield from _leaves(below, f"{path}.{key}")


def _change(path: str, old: Json, new: Json) -> Change:
    return Change(path, _shown(path, old), _shown(path, new))


def _hidden(path: str, old: Json, new: Json) -> bool:
    """Tell whether a hash stands against its own mask, as in a text that was shown, edited and applied again."""
    return path.endswith(f".{HIDDEN_KEY}") and MASK in (old, new)


def _shown(path: str, value: Json) -> Json:
    return MASK if path.endswith(f".{HIDDEN_KEY}") and value is not None else value


def _moved(old: Sequence[str], new: Sequence[str]) -> Iterator[Change]:
    kept = [name for name in old if name in new]
    if kept != [name for name in new if name in old]:
        yield Change("routes", list(old), list(new))
