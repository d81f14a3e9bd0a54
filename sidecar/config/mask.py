"""The text of a config as people may see it: token hashes hidden, everything else byte for byte."""

from __future__ import annotations

import re
from typing import Final

from sidecar.config.errors import ConfigErrors
from sidecar.config.fields import MASK
from sidecar.config.tree import Mark, Node, parse

HIDDEN_KEY: Final = "sha256"

_HASH: Final = re.compile(r"(?<![0-9A-Fa-f])[0-9A-Fa-f]{64}(?![0-9A-Fa-f])")
_PARTS: Final = re.compile(r"((?:[&!]\S*\s+)*)(.*?)(\s*)", re.DOTALL)  # anchor or tag, value, what follows a block


def mask(text: str) -> str:
    """
    Return *text* with every value of a `sha256` key, and whatever else looks like a SHA-256, as `(hidden)`.

    Works on any text: what is no YAML is searched for hashes alone. The result parses to the same config but for the
    hashes, so it can be edited and applied again: applied versions never touch the tokens.
    """
    try:
        places = sorted({mark.start: mark for mark in _hashes(parse(text, ""))}.values(), key=lambda mark: -mark.start)
    except ConfigErrors:
        places = []
    offset = 1 if text.startswith("\ufeff") else 0  # libyaml does not count a byte order mark
    for mark in places:
        start, end = mark.start + offset, mark.end + offset
        text = text[:start] + _hidden(text[start:end]) + text[end:]
    return _HASH.sub(MASK, text)


def _hidden(scalar: str) -> str:
    found = _PARTS.fullmatch(scalar)
    before, value, after = found.groups() if found else ("", scalar, "")
    quote = value[:1] if value[:1] in ("'", '"') else ""
    return f"{before}{quote}{MASK}{quote}{after}"


def _hashes(node: Node) -> list[Mark]:
    marks = [below.mark for key, below in node.entries.items() if key == HIDDEN_KEY and below.kind == "scalar"]
    for below in (*node.items, *node.entries.values()):
        marks += _hashes(below)
    return marks
