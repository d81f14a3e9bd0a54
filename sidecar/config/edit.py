"""
Changes one setting in a config text and leaves every other byte as its author wrote it.

A value that stands there is replaced where it stands. One that does not is put in front of its neighbours: in a flow map
behind the `{`, in a block map on a line of its own, with the neighbours' indentation. What is missing above it comes
with it. Routes are named by name: `("routes", "checkout", "limit", "rate")`.

What can go wrong
    An alias: changing what several places share would change them all; that is refused. A text without `routes` means
    one route called `default`: it is written out first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import yaml

Value = str  # as YAML writes it in a flow: `20/s`, `{rate: 20/s, burst: 40}`
DEFAULT_ROUTE: Final = "default"


class EditError(ValueError):
    """This text cannot be changed there; the message says why."""


def put(text: str, path: Sequence[str], value: Value) -> str:
    """
    Return *text* with the setting at *path* set to *value*.

    Raises:
        EditError: when the text has no place for it.
    """
    try:
        events = list(yaml.parse(text, Loader=yaml.SafeLoader))
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise EditError(f"the text is no YAML: {error}") from error
    if any(isinstance(event, yaml.AliasEvent) for event in events):
        raise EditError("the text has aliases: what several places share cannot be changed for one of them")
    if root is None or (isinstance(root, yaml.ScalarNode) and not root.value):
        return f"{text.rstrip()}\n{_nested(path, value)}\n".lstrip()
    return _in_map(text, root, list(path), value)


def _in_map(text: str, node: yaml.Node, path: list[str], value: Value) -> str:
    if not isinstance(node, yaml.MappingNode):
        if isinstance(node, yaml.ScalarNode) and node.value in ("", "~", "null"):
            return _replaced(text, node, f" {{{_nested(path, value)}}}")
        raise EditError(f"a value stands where {path[0]} would have to")
    step, rest = path[0], path[1:]
    for key, below in node.value:
        if key.value != step:
            continue
        if isinstance(below, yaml.SequenceNode):
            return _in_list(text, below, rest, value)
        if not rest:
            return _replaced(text, below, value)
        return _in_map(text, below, rest, value)
    return _inserted(text, node, _nested(path, value))


def _in_list(text: str, node: yaml.SequenceNode, path: list[str], value: Value) -> str:
    if len(path) < 2:
        raise EditError("a list is not replaced as a whole")
    for item in node.value:
        if isinstance(item, yaml.MappingNode) and any(k.value == "name" and v.value == path[0] for k, v in item.value):
            return _in_map(text, item, path[1:], value)
    raise EditError(f"there is no entry named {path[0]}")


def _replaced(text: str, node: yaml.Node, value: Value) -> str:
    start, end = node.start_mark.index, node.end_mark.index
    if isinstance(node, yaml.CollectionNode) and not node.flow_style:
        raise EditError("a block of settings is not replaced as a whole")
    if start == end and not value.startswith(" "):  # `key:` with nothing behind it
        value = f" {value}"
    return f"{text[:start]}{value}{text[end:]}"


def _inserted(text: str, node: yaml.MappingNode, entry: str) -> str:
    start = node.start_mark.index
    if node.flow_style:
        separator = ", " if node.value else ""
        return f"{text[: start + 1]}{entry}{separator}{text[start + 1 :]}"
    first = node.value[0][0].start_mark
    return f"{text[: first.index]}{entry}\n{' ' * first.column}{text[first.index :]}"


def _nested(path: Sequence[str], value: Value) -> str:
    """Return `a: {b: {c: value}}`; a route that is not written out becomes the default one's entry."""
    step, *rest = path
    if step == "routes" and rest:
        name, *below = rest
        if name != DEFAULT_ROUTE:
            raise EditError(f"there is no route named {name}")
        return f'routes: [{{name: {name}, match: {{path: "/**"}}, {_nested(below, value)}}}]'
    return f"{step}: {{{_nested(rest, value)}}}" if rest else f"{step}: {value}"
