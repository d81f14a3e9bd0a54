"""Frames on the wire."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.facts import Action, Directive, Scope
from sidecar.link.frames import (
    Ack,
    BreakerOpen,
    BreakerReset,
    Commit,
    Decided,
    Demand,
    Directives,
    Drain,
    Frame,
    Hello,
    Prepare,
    RouteTick,
    Sample,
    Shares,
    Tick,
    Trip,
)
from sidecar.link.wire import MAX_FRAME_BYTES, Decoder, FrameError, encode

ONE_OF_EACH: list[Frame] = [
    Hello(0, "e1", 12, 3, 5.5),
    Tick(
        0,
        "e1",
        1,
        2.0,
        {
            "checkout": RouteTick(
                arrivals=3, outcomes={"success": 3}, clients=[["k", 1, 3, 0, 0]], latency=[0.5, [[60, 3]]]
            )
        },
        [0.1, []],
    ),
    Trip(0, "checkout", 1.0, 2, "consecutive", "7 failures", 5.0),
    Demand(1, "e1", 7, 0.25, {"service": 1.5, "client:checkout:a:b": 0.25}, leaving=True),
    Sample("checkout", 1.0, "::1", "GET", "/x/{id}", 503, "isolated", 0.1, ["accept"], "t"),
    Decided("d1", "checkout", 1.0, "k", "GET", "/x", "isolated", "isolation-1", "10 %", 3),
    Ack(1, "prepare", 4, "no"),
    Prepare(4, "listen: x\n"),
    Commit(4),
    Directives((Directive("isolation-1", Scope.client("checkout", "a:b"), Action.THROTTLE, 9.0, share_ratio=0.1),)),
    Shares(8, 0.5, {"route:checkout": 0.75}),
    BreakerOpen("checkout", 7.0),
    BreakerReset("checkout"),
    Drain(0.0, 30.0),
]


def frame_of(body: bytes) -> bytes:
    return struct.pack("!I", len(body)) + body


@pytest.mark.parametrize("frame", ONE_OF_EACH, ids=lambda frame: type(frame).__name__)
def test_each_frame_survives_the_wire(frame: Frame) -> None:
    """Every kind of frame is read as it was sent."""
    assert [frame] == list(Decoder().feed(encode(frame)))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 400), max_size=60))
def test_pieces_do_not_matter(cuts: list[int]) -> None:
    """A byte stream gives the same frames however it is cut."""
    stream = b"".join(map(encode, ONE_OF_EACH))
    decoder, found, at = Decoder(), [], 0
    for cut in [*cuts, len(stream)]:
        found += list(decoder.feed(stream[at : at + cut]))
        at += cut

    assert found == ONE_OF_EACH


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_frames_or_a_frame_error(data: bytes) -> None:
    """Whatever comes in, nothing but FrameError comes out."""
    try:
        list(Decoder().feed(frame_of(data)))
    except FrameError:
        pass


@pytest.mark.parametrize(
    "body", [b"", b"1", b"null", b"[]", b"{}", b'{"type": "Nope"}', b'{"type": "Commit"}', b'{"type": []}', b"\xff"]
)
def test_malformed_body_is_a_frame_error(body: bytes) -> None:
    """JSON that is no frame is refused."""
    with pytest.raises(FrameError):
        list(Decoder().feed(frame_of(body)))


def test_announced_size_is_bounded() -> None:
    """A length over 16 MiB is refused before anything is buffered for it."""
    with pytest.raises(FrameError, match="over 16777216"):
        list(Decoder().feed(struct.pack("!I", MAX_FRAME_BYTES + 1)))


def test_too_large_frame_is_not_sent() -> None:
    """A frame over 16 MiB is refused where it is made."""
    with pytest.raises(FrameError, match="Prepare of"):
        encode(Prepare(1, "x" * MAX_FRAME_BYTES))


def test_fields_of_a_newer_peer_are_left_out() -> None:
    """During a rolling replacement a newer peer may say more: what is unknown is skipped, in frames and in route rows."""
    commit = json.dumps({"type": "Commit", "version": 3, "later": 1}).encode()
    tick = json.dumps(
        {
            "type": "Tick",
            "worker": 0,
            "epoch": "e",
            "sequence": 1,
            "at": 1.0,
            "routes": {"r": {"arrivals": 2, "later": 1}},
        }
    ).encode()

    assert [Commit(3), Tick(0, "e", 1, 1.0, {"r": RouteTick(arrivals=2)})] == list(
        Decoder().feed(frame_of(commit) + frame_of(tick))
    )
