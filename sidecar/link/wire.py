"""
How frames are written down: 4 bytes of length (big endian) and a JSON object whose `type` is the class's name.

What can go wrong. A peer of another release: fields and gauges that this one does not know are left out, those that the peer did
not know have their defaults. A peer that sends no frames, or one without end: `FrameError`, and the link is opened anew.
"""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Iterator, Mapping
from typing import Any, Final

from sidecar.facts import Action, Directive, RequestFacts, Scope
from sidecar.link.frames import (
    Ack,
    BreakerOpen,
    BreakerReset,
    Commit,
    Decided,
    Demand,
    Directives,
    Drain,
    Faults,
    Frame,
    Hello,
    Prepare,
    RouteTick,
    Sample,
    Shares,
    Tap,
    Tapped,
    Tick,
    Trip,
    Unhealthy,
)

MAX_FRAME_BYTES: Final = 16 * 1024 * 1024
_LENGTH: Final = struct.Struct("!I")


class FrameError(ValueError):
    """The peer sent what is no frame: the link is closed and opened anew."""


_TYPES: Final[dict[str, type]] = {
    kind.__name__: kind
    for kind in (
        Hello, Tick, Trip, Demand, Sample, Decided, Tapped, Ack, Prepare, Commit, Directives, Shares, Unhealthy, Tap,
        Faults, BreakerOpen, BreakerReset, Drain,
    )
}  # fmt: skip
_FIELDS: Final = {name: frozenset(f.name for f in dataclasses.fields(kind)) for name, kind in _TYPES.items()}


def directive_to_json(directive: Directive) -> dict[str, Any]:
    """Return *directive* as a JSON object; its scope as text."""
    return {**_shallow(directive), "scope": str(directive.scope)}


def directive_from_json(row: Mapping[str, Any]) -> Directive:
    """Read what `directive_to_json` wrote."""
    return Directive(**{**row, "scope": Scope.parse(row["scope"]), "action": Action(row["action"])})


def encode(frame: Frame) -> bytes:
    """
    Return *frame* as it goes on the wire.

    Raises:
        FrameError: when it is larger than `MAX_FRAME_BYTES`.
    """
    body = _shallow(frame)
    body["type"] = type(frame).__name__
    if isinstance(frame, Tick):
        body["routes"] = {name: _without_defaults(tick) for name, tick in frame.routes.items()}
    elif isinstance(frame, Directives):
        body["items"] = [directive_to_json(item) for item in frame.items]
    elif isinstance(frame, Tapped):
        body["request"] = _shallow(frame.request)
    data = json.dumps(body, separators=(",", ":")).encode()
    if len(data) > MAX_FRAME_BYTES:
        raise FrameError(f"{body['type']} of {len(data)} bytes is over the {MAX_FRAME_BYTES} that a frame may have")
    return _LENGTH.pack(len(data)) + data


class Decoder:
    """Cut a byte stream into frames, whatever the pieces it arrives in."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def __repr__(self) -> str:
        return f"<Decoder {len(self._buffer)} bytes waiting>"

    def feed(self, data: bytes) -> Iterator[Frame]:
        """
        Yield each frame that *data* completes.

        Raises:
            FrameError: when the bytes are no frames; the link cannot go on.
        """
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(self._buffer)
            if size > MAX_FRAME_BYTES:
                raise FrameError(f"a frame announces {size} bytes, over {MAX_FRAME_BYTES}")
            end = _LENGTH.size + size
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            yield _decode(body)


def _decode(body: bytes) -> Frame:
    try:
        row = json.loads(body)
        name = row.pop("type")
        if name == "Tick":
            row["routes"] = {route: _route_tick(tick) for route, tick in row["routes"].items()}
        elif name == "Directives":
            row["items"] = tuple(directive_from_json(item) for item in row["items"])
        elif name == "Tapped":
            row["request"] = RequestFacts(**row["request"])
        # A newer peer may send fields that this release does not know; they are left out.
        known = {key: value for key, value in row.items() if key in _FIELDS[name]}
        frame: Frame = _TYPES[name](**known)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FrameError(f"no frame: {error}") from error
    return frame


def _route_tick(row: Mapping[str, Any]) -> RouteTick:
    return RouteTick(**{name: value for name, value in row.items() if name in _TICK_DEFAULTS})


def _shallow(row: Any) -> dict[str, Any]:
    return {f.name: getattr(row, f.name) for f in dataclasses.fields(row)}


_TICK_DEFAULTS: Final = _shallow(RouteTick())


def _without_defaults(tick: RouteTick) -> dict[str, Any]:
    return {name: value for name, value in _shallow(tick).items() if value != _TICK_DEFAULTS[name]}
