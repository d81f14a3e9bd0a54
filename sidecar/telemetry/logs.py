"""
Logs: one JSON object a line on stderr, or readable lines on a terminal.

Nothing here is called for a request: what happens to requests is counted (`/metrics`), sampled (`tap`) or explained
(`sidecar explain`). Fields whose name says that they hold a secret are masked, whoever logs them.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import MutableMapping
from typing import Any, Final, TextIO

import structlog

MASK: Final = "***"
_SECRET: Final = re.compile(
    r"secret|token|password|authorization|cookie|api_?key|install_?key|credential", re.IGNORECASE
)
_BLOCKS: Final = ("text", "exception")  # on a terminal each has lines of its own
_IN_TEXT: Final = frozenset({"title", "commands"})  # an alert's text says them already
_NOT_SECRET: Final = frozenset({"token_name", "tokens_total"})


def setup(process: str, *, stream: TextIO | None = None, level: str | None = None) -> None:
    """
    Set logging up for this process; call it once, first of all.

    Args:
        process: `controller`, `worker-0`, …: the field `process` of every line.
        stream: Where to; stderr by default.
        level: The lowest level that is written; `SIDECAR_LOG_LEVEL` or `info` by default.
    """
    out = stream if stream is not None else sys.stderr
    lowest = _level(level or os.environ.get("SIDECAR_LOG_LEVEL", ""))
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        _Stamp(process),
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        mask_secrets,
    ]
    last = _renderers(terminal=out.isatty())
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(lowest),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)  # libraries (aiohttp, asyncio) log through the standard library
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(processors=[_drop_meta, *last], foreign_pre_chain=shared))
    logging.basicConfig(handlers=[handler], level=max(lowest, logging.WARNING), force=True)
    logging.captureWarnings(capture=True)


def mask_secrets(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace the value of each field, at any depth, whose name says that it is a secret."""
    for name in list(event):
        event[name] = _masked(name, event[name])
    return event


def _masked(name: object, value: object) -> object:
    if isinstance(name, str) and name not in _NOT_SECRET and _SECRET.search(name) and value is not None:
        return MASK
    if isinstance(value, dict):
        return {key: _masked(key, inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_masked("", inner) for inner in value]
    return value


class _Stamp:
    """Add the process to every line."""

    def __init__(self, process: str) -> None:
        self._process = process

    def __call__(self, _logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["process"] = self._process
        return event


def _renderers(*, terminal: bool) -> list[structlog.types.Processor]:
    if terminal:
        return [structlog.processors.format_exc_info, _plain]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]


def _plain(_logger: object, _method: str, event: MutableMapping[str, Any]) -> str:
    """Return a line as the supervisor writes it on a terminal; what has lines of its own follows, each one indented."""
    moment, level, process, words = (str(event.pop(name, "")) for name in ("time", "level", "process", "event"))
    blocks = [event.pop(name) for name in _BLOCKS if "\n" in str(event.get(name, ""))]
    shown = {name: value for name, value in event.items() if not (blocks and name in _IN_TEXT)}
    values = "".join(f" {name}={value}" for name, value in shown.items())
    first = f"{moment[11:19]} {level.upper():7} {process}  {words}{' ' + values if values else ''}"
    below = [f"    {line}" for block in blocks for line in str(block).splitlines()]
    return "\n".join(_printable(line) for line in (first, *below))


def _printable(line: str) -> str:
    """Keep what a client chose from moving the terminal's cursor."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line)


def _drop_meta(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    event.pop("_record", None)
    event.pop("_from_structlog", None)
    return event


def _level(name: str) -> int:
    return logging.getLevelNamesMapping().get(name.upper(), logging.INFO)
