"""
From what is wrong to where it stands: pydantic's errors and our own faults become `ConfigError`s with a place.

A value's fault stands at the value, an unknown key's at the key, a missing key's at the section that lacks it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pydantic import ValidationError

from sidecar.config.catalogue import find
from sidecar.config.errors import ConfigError
from sidecar.config.kinds import OWN_ERROR, Fault, Step, meant
from sidecar.config.schema import Config
from sidecar.config.tree import Mark, Node
from sidecar.config.units import shown

MOST_ERRORS: Final = 200  # nobody reads more, and each costs a search for the word that was meant

_ELSEWHERE: Final = {
    "limit": "service or a route",
    "concurrency": "service or a route",
    "breaker": "a route",
    "per_client": "limit of a route",
    "rate": "limit",
    "burst": "limit",
    "tokens": "admin",
    "insecure": "admin",
    "endpoints": "upstream",
    "lease": "respond",
}


def located(tree: Node, fault: Fault) -> ConfigError:
    """Return *fault* at the place of its value in *tree*, or of the nearest section that is there."""
    return _mark(tree, fault.at).error(_dotted(fault.at), fault.problem, fault.hint)


def of_validation(tree: Node, invalid: ValidationError) -> Iterator[ConfigError]:
    """Yield what pydantic found, in our words."""
    for error in invalid.errors(include_url=False, include_input=False)[:MOST_ERRORS]:
        at = error["loc"]
        node = _node(tree, at)
        if node is not None and _is_empty(node) and error["type"] != "extra_forbidden":
            yield _without_value(node, at)
        elif error["type"] == OWN_ERROR:
            for fault in error["ctx"]["faults"]:
                yield located(tree, Fault((*at, *fault.at), fault.problem, fault.hint))
        else:
            yield _of_shape(tree, at, error["type"])


def unanswered(tree: Node, at: tuple[Step, ...] = ()) -> Iterator[ConfigError]:
    """Yield an error for each key or entry of *tree* without a value: what it means is anybody's guess."""
    below: list[tuple[Step, Node]] = [*tree.entries.items(), *enumerate(tree.items)]
    for step, node in below:
        if _is_empty(node):
            yield _without_value(node, (*at, step))
        yield from unanswered(node, (*at, step))


def _is_empty(node: Node) -> bool:
    return node.kind == "scalar" and node.scalar is None


def _without_value(node: Node, at: tuple[Step, ...]) -> ConfigError:
    return node.mark.error(_dotted(at), "has no value", "write one, or remove the line to keep the default")


def _of_shape(tree: Node, at: tuple[Step, ...], kind: str) -> ConfigError:
    path, mark = _dotted(at), _mark(tree, at)
    node = _node(tree, at)
    if kind == "extra_forbidden":
        return _key_mark(tree, at).error(path, "is not a key here", _known(at))
    if kind == "missing":
        return mark.error(path, "is missing", f"add `{at[-1]}: {_example(at)}`")
    if kind == "list_type":
        return mark.error(
            path,
            f"{_what(node)} is not a list",
            f"write {at[-1]}: [{_what(node) if node and node.kind == 'scalar' else '...'}]",
        )
    return mark.error(path, f"{_what(node)} is not a section", f"write keys below it: {', '.join(_names(at))}")


def _what(node: Node | None) -> str:
    if node is None or node.kind != "scalar":
        return "a list" if node is not None and node.kind == "list" else "this"
    return shown(node.scalar)


def _dotted(at: tuple[Step, ...]) -> str:
    return ".".join(map(str, at))


def _node(tree: Node, at: tuple[Step, ...]) -> Node | None:
    node: Node | None = tree
    for step in at:
        node = node.child(step) if node is not None else None
    return node


def _mark(tree: Node, at: tuple[Step, ...]) -> Mark:
    node = tree
    for step in at:
        below = node.child(step)
        if below is None:
            break
        node = below
    return node.mark


def _key_mark(tree: Node, at: tuple[Step, ...]) -> Mark:
    above = _node(tree, at[:-1])
    return above.keys.get(str(at[-1]), above.mark) if above is not None else tree.mark


def _known(at: tuple[Step, ...]) -> str:
    word, names = str(at[-1]), _names(at[:-1])
    if word in _ELSEWHERE:
        return f"{word} belongs to {_ELSEWHERE[word]}"
    if near := meant(word.replace("-", "_"), names):
        return f"did you mean {near}?"
    return f"known here: {', '.join(names)}"


def _names(at: tuple[Step, ...]) -> list[str]:
    key = find(at)
    section = key.section if key else Config
    return list(section.model_fields) if section else []


def _example(at: tuple[Step, ...]) -> str:
    key = find(at)
    if key is None or key.kind is None:
        return "…"
    examples = key.kind.schema.get("examples", key.kind.schema.get("enum"))
    return str(examples[0]) if isinstance(examples, list) else "…"
