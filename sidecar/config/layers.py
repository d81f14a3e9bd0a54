"""
The layers above the file: environment variables and flags, each laid over the file's tree with its own name as place.

`SIDECAR__UPSTREAM__CONNECT_TIMEOUT=2s` sets `upstream.connect_timeout`; a number is an index of a list
(`SIDECAR__UPSTREAM__ENDPOINTS__0`), the next free one appends, and a whole list or section is YAML in flow style
(`SIDECAR__UPSTREAM__ENDPOINTS='[http://127.0.0.1:9000]'`). Trees are never changed: aliases make them share nodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from sidecar.config.errors import ConfigError, ConfigErrors
from sidecar.config.kinds import Step
from sidecar.config.tree import MAX_DEPTH, Mark, Node, parse, scalar_of

PREFIX: Final = "SIDECAR__"

FLAGS: Final[Mapping[str, tuple[Step, ...]]] = {
    "--upstream": ("upstream", "endpoints"),
    "--listen": ("listen",),
    "--workers": ("workers",),
}


@dataclass(frozen=True, slots=True)
class Setting:
    """One value from outside the file: where it goes, and the variable or flag that it came from."""

    source: str
    steps: tuple[Step, ...]
    text: str
    listed: bool = False


def from_environment(environ: Mapping[str, str]) -> Iterator[Setting]:
    """Yield the settings among *environ*, wider ones first, so that a narrower one wins over its own section."""
    for name in sorted(environ):
        if name.startswith(PREFIX):
            steps = [step.lower() for step in name.removeprefix(PREFIX).split("__")]
            yield Setting(name, tuple(int(step) if _is_index(step) else step for step in steps), environ[name])


def _is_index(step: str) -> bool:
    return step.isascii() and step.isdigit() and len(step) < 6


def from_flags(flags: Mapping[str, str]) -> Iterator[Setting]:
    """Yield the settings that *flags* make, keyed by the flag's name; `--upstream` replaces the whole list."""
    for name, text in flags.items():
        yield Setting(name, FLAGS.get(name, (name,)), text, listed=name == "--upstream")


def lay(root: Node, settings: Iterator[Setting], errors: list[ConfigError]) -> Node:
    """Return *root* with each of *settings* over it; what cannot be placed is added to *errors*."""
    for setting in settings:
        try:
            if len(setting.steps) > MAX_DEPTH:
                raise _misplaced(setting, 0, f"more than {MAX_DEPTH} levels deep")
            root = _placed(root, 0, _value(setting), setting)
        except ConfigErrors as found:
            errors.extend(found.errors)
    return root


def _value(setting: Setting) -> Node:
    mark = Mark(setting.source)
    text = setting.text.strip()
    if setting.source.startswith(PREFIX) and text[:1] + text[-1:] in ("[]", "{}"):  # [::1]:8080 is no list
        try:
            return _moved(parse(setting.text, setting.source), mark)
        except ConfigErrors as found:
            path = ".".join(map(str, setting.steps))
            raise ConfigErrors([mark.error(path, error.problem, error.hint) for error in found.errors]) from None
    scalar = Node("scalar", mark, scalar_of(setting.text, plain=True))
    return Node("list", mark, items=[scalar]) if setting.listed else scalar


def _moved(node: Node, mark: Mark) -> Node:
    items = [_moved(item, mark) for item in node.items]
    entries = {key: _moved(value, mark) for key, value in node.entries.items()}
    return replace(node, mark=mark, items=items, entries=entries, keys=dict.fromkeys(node.keys, mark))


def _placed(node: Node, depth: int, value: Node, setting: Setting) -> Node:
    """Return *node*, which stands *depth* steps down the way, with *value* at the way's end."""
    if depth == len(setting.steps):
        return value
    step = setting.steps[depth]
    if node.kind == "scalar" and node.scalar is None:
        node = Node("list" if isinstance(step, int) else "map", node.mark)
    if isinstance(step, int):
        return _placed_item(node, step, depth, value, setting)
    if node.kind != "map" or not step:
        raise _misplaced(
            setting, depth, "a list: a number must follow" if node.kind == "list" else "not followed by a key"
        )
    below = _placed(node.entries.get(step, _nothing(setting)), depth + 1, value, setting)
    return replace(node, entries=node.entries | {step: below}, keys={step: value.mark} | node.keys)


def _placed_item(node: Node, index: int, depth: int, value: Node, setting: Setting) -> Node:
    if node.kind != "list":
        raise _misplaced(setting, depth, "no list, so no number can follow")
    if index > len(node.items):
        raise _misplaced(setting, depth, f"without entry {index}: the next free number is {len(node.items)}")
    items = [*node.items, _nothing(setting)] if index == len(node.items) else list(node.items)
    items[index] = _placed(items[index], depth + 1, value, setting)
    return replace(node, items=items)


def _nothing(setting: Setting) -> Node:
    return Node("scalar", Mark(setting.source))


def _misplaced(setting: Setting, depth: int, what: str) -> ConfigErrors:
    where = ".".join(map(str, setting.steps[:depth]))
    example = f"{PREFIX}UPSTREAM__CONNECT_TIMEOUT=2s or {PREFIX}UPSTREAM__ENDPOINTS__0=http://127.0.0.1:9000"
    return ConfigErrors([Mark(setting.source).error(where, f"this is {what}", f"name it like {example}")])
