"""
YAML text to a tree that knows where each key and value stands.

Theory
    PyYAML's loaders lose the places and believe YAML 1.1: `on` is a boolean, `10:30` is 630, `010` is 8, `1_000` is a
    number, and of two equal keys the last one wins silently. So only PyYAML's *events* are used, and this file builds
    the tree: iteratively (no input can exhaust the stack), with every node counted.

Tables
    A plain `true` or `false` is a boolean, a plain decimal integer without leading zero is an integer, nothing, `~` or
    `null` is null. Everything else is text, so `on`, `10:30` and `1.10` arrive as they were written, and what they
    should have been is said by the key that wanted something else.

What can go wrong
    Alias bombs: an alias costs as many nodes as it stands for, and a document may have `MAX_NODES`. Deep nesting:
    `MAX_DEPTH`, aliases included. Size: `MAX_BYTES`, before anything is parsed. Duplicate keys, merge keys, tags, a
    second document, keys that are no text: an error each, with its place; the tree goes on, so that all come at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import yaml

from sidecar.config.errors import ConfigError, ConfigErrors
from sidecar.config.units import shown

MAX_BYTES: Final = 1024 * 1024
MAX_NODES: Final = 100_000
MAX_DEPTH: Final = 32

_INTEGER: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,17})", re.ASCII)
_CONSTANTS: Final[dict[str, bool | None]] = {"true": True, "false": False, "": None, "~": None, "null": None}
_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is 10 times faster; a worker compiles live

Plain = None | bool | int | str | list["Plain"] | dict[str, "Plain"]


@dataclass(frozen=True, slots=True)
class Mark:
    """Where something stands: line and column from 1 (0 outside of files), characters `start` to `end`."""

    file: str
    line: int = 0
    column: int = 0
    start: int = 0
    end: int = 0

    def error(self, path: str, problem: str, hint: str) -> ConfigError:
        """Return the error that stands here."""
        return ConfigError(path, self.line, self.column, problem, hint, self.file)


@dataclass(slots=True)
class Node:
    """
    One value: exactly one of `scalar`, `items` and `entries` is meant, as `kind` says.

    Attributes:
        kind: `scalar`, `list` or `map`.
        mark: Where the value stands.
        scalar: Null, boolean, integer or text.
        keys: Where each key of `entries` stands.
        size, height: Nodes below and including this one, aliases expanded; levels below it.
    """

    kind: str
    mark: Mark
    scalar: bool | int | str | None = None
    items: list[Node] = field(default_factory=list)
    entries: dict[str, Node] = field(default_factory=dict)
    keys: dict[str, Mark] = field(default_factory=dict)
    size: int = 1
    height: int = 0

    def plain(self) -> Plain:
        """Return the value without places."""
        if self.kind == "list":
            return [item.plain() for item in self.items]
        if self.kind == "map":
            return {key: value.plain() for key, value in self.entries.items()}
        return self.scalar

    def child(self, step: str | int) -> Node | None:
        """Return the value below this one under a key or an index."""
        if isinstance(step, int):
            return self.items[step] if self.kind == "list" and 0 <= step < len(self.items) else None
        return self.entries.get(step)

    def walk(self) -> Iterator[Node]:
        """Yield this node and all below it."""
        yield self
        for below in (*self.items, *self.entries.values()):
            yield from below.walk()


def scalar_of(text: str, *, plain: bool) -> bool | int | str | None:
    """Return what a scalar means: see the table above; a quoted one is always text."""
    if not plain:
        return text
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    return int(text) if _INTEGER.fullmatch(text) else text


def empty(file: str) -> Node:
    """Return the tree of an empty document."""
    return Node("map", Mark(file))


def parse(text: str, file: str, doubles: list[ConfigError] | None = None) -> Node:
    """
    Return the tree of *text*; an empty document is an empty map.

    Args:
        text: YAML.
        file: What errors call it.
        doubles: Takes the keys that stand twice, so that all other faults can be told beside them; the first one counts.

    Raises:
        ConfigErrors: when it is no YAML, too large, or anything that the head of this file forbids.
    """
    size = len(text.encode(errors="replace"))
    if size > MAX_BYTES:
        _stop(Mark(file), f"{size} bytes are more than the {MAX_BYTES} that a config may have", "split the API")
    builder = _Builder(file)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark or error.context_mark
        mark = _mark(file, at, at) if at else Mark(file, 1, 1)
        what = error.problem or error.context or "not understood"
        builder.errors.append(mark.error("", f"this is no YAML: {_quoted(what)}", _syntax_hint(text, mark)))
    except (yaml.YAMLError, UnicodeError) as error:
        reason = str(error).splitlines()[0]
        builder.errors.append(
            Mark(file, 1, 1).error("", f"this is no YAML: {_quoted(reason)}", "save it as UTF-8 text")
        )
    if builder.errors or (builder.doubles and doubles is None):
        raise ConfigErrors([*builder.errors, *builder.doubles])
    if doubles is not None:
        doubles += builder.doubles
    root = builder.root
    if root is None or (root.kind == "scalar" and root.scalar is None):
        return empty(file)
    return root


def _quoted(reason: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in reason)[:200]


def _syntax_hint(text: str, mark: Mark) -> str:
    lines = text.splitlines()
    line = lines[mark.line - 1] if 0 < mark.line <= len(lines) else ""
    if "\t" in line[: mark.column]:
        return "indent with spaces, not with tabs"
    return "look at this line and the one above: indentation, a missing colon, bracket or quote"


def _stop(mark: Mark, problem: str, hint: str) -> NoReturn:
    raise ConfigErrors([mark.error("", problem, hint)])


def _mark(file: str, start: Any, end: Any) -> Mark:
    return Mark(file, start.line + 1, start.column + 1, start.index, end.index)


@dataclass(slots=True)
class _Open:
    """A list or map whose end has not come yet; `key` is the map's key that waits for its value."""

    node: Node
    path: str
    anchor: str | None
    key: str | None = None
    key_mark: Mark | None = None


class _Builder:
    """Events in, tree out; `errors` holds what a parser would let pass and we do not."""

    def __init__(self, file: str) -> None:
        self.root: Node | None = None
        self.errors: list[ConfigError] = []
        self.doubles: list[ConfigError] = []
        self._file = file
        self._stack: list[_Open] = []
        self._anchors: dict[str, Node | None] = {}  # None while its value is still open
        self._nodes = 0
        self._documents = 0

    def take(self, event: Any) -> None:
        """Take the parser's next event."""
        mark = _mark(self._file, event.start_mark, event.end_mark)
        match event:
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    _stop(mark, "a second document begins here", "remove the `---` and what follows")
            case yaml.AliasEvent():
                self._alias(str(event.anchor), mark)
            case yaml.ScalarEvent():
                plain = event.style in (None, "") and event.implicit[0]
                self._tagged(event, mark)
                self._begin(Node("scalar", mark, scalar_of(event.value, plain=plain)), event.anchor)
            case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                self._tagged(event, mark)
                self._begin(Node("list" if isinstance(event, yaml.SequenceStartEvent) else "map", mark), event.anchor)
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                self._end()

    def _tagged(self, event: Any, mark: Mark) -> None:
        if event.tag not in (None, "!"):
            self._refuse(mark, f"the tag {shown(event.tag)} means nothing here", "remove it")

    def _refuse(self, mark: Mark, problem: str, hint: str) -> None:
        self.errors.append(mark.error(self._path(), problem, hint))

    def _path(self) -> str:
        if not self._stack:
            return ""
        top = self._stack[-1]
        step = top.key if top.node.kind == "map" else str(len(top.node.items))
        return ".".join(part for part in (top.path, step) if part)

    def _begin(self, node: Node, anchor: str | None) -> None:
        self._count(node)
        if self._is_key():
            self._take_key(node)
            return
        if node.kind == "scalar":
            if anchor:
                self._anchors[anchor] = node
            self._place(node)
            return
        if anchor:
            self._anchors[anchor] = None
        self._stack.append(_Open(node, self._path(), anchor))

    def _count(self, node: Node) -> None:
        self._nodes += node.size
        if self._nodes > MAX_NODES:
            _stop(node.mark, f"more than {MAX_NODES} values, aliases expanded", "write fewer aliases of aliases")
        if len(self._stack) + node.height >= MAX_DEPTH:
            _stop(node.mark, f"nested more than {MAX_DEPTH} levels deep", "no key of a config lies that deep")

    def _is_key(self) -> bool:
        return bool(self._stack) and self._stack[-1].node.kind == "map" and self._stack[-1].key is None

    def _take_key(self, node: Node) -> None:
        if node.kind != "scalar":
            _stop(node.mark, "a key must be a word", "write `key: value`")
        top = self._stack[-1]
        key = self._key_text(node)
        top.key, top.key_mark = key, node.mark
        if key == "<<":
            self._refuse(node.mark, "merge keys are not part of YAML 1.2", "alias a whole value (`breaker: *usual`)")

    def _key_text(self, node: Node) -> str:
        match node.scalar:
            case str():
                return node.scalar
            case None:
                return "null"
            case bool():
                return "true" if node.scalar else "false"
            case _:
                return str(node.scalar)

    def _place(self, node: Node) -> None:
        if not self._stack:
            self.root = node
            return
        top = self._stack[-1]
        if top.node.kind == "list":
            top.node.items.append(node)
        elif top.key is not None and top.key_mark is not None:
            self._place_entry(top, top.key, top.key_mark, node)
        top.node.size += node.size
        top.node.height = max(top.node.height, node.height + 1)

    def _place_entry(self, top: _Open, key: str, mark: Mark, node: Node) -> None:
        if key in top.node.entries:
            first = top.node.keys[key].line
            hint = f"remove it, or the one on line {first}"
            self.doubles.append(mark.error(self._path(), f"{shown(key)} stands here a second time", hint))
        else:
            top.node.entries[key] = node
            top.node.keys[key] = mark
        top.key = top.key_mark = None

    def _end(self) -> None:
        done = self._stack.pop()
        if done.anchor:
            self._anchors[done.anchor] = done.node
        self._place(done.node)

    def _alias(self, anchor: str, mark: Mark) -> None:
        node = self._anchors.get(anchor)
        if node is None:
            inside = anchor in self._anchors
            problem = "refers to a value that contains it" if inside else "refers to an anchor that is not there"
            _stop(mark, f"*{anchor} {problem}", f"define it above, as `&{anchor}`")
        if self._is_key():
            _stop(mark, "an alias cannot be a key", "write the key out")
        self._count(node)
        self._place(node)
