"""Logs: one JSON object a line, secrets masked."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from sidecar.telemetry import logs


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def written(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_lines_are_json_with_process_level_and_time() -> None:
    """Each line is one object that says when, where and how bad."""
    out = io.StringIO()
    logs.setup("worker-0", stream=out)

    structlog.get_logger("link").info("link is up", worker=0)

    [line] = written(out)
    assert line.pop("time").endswith("Z")
    assert line == {"event": "link is up", "worker": 0, "level": "info", "process": "worker-0"}


def test_library_logs_and_tracebacks_are_lines_too() -> None:
    """What aiohttp and asyncio log has the same shape, exceptions are in their line; libraries' chatter is not written."""
    out = io.StringIO()
    logs.setup("controller", stream=out)

    try:
        int("boom")
    except ValueError:
        logging.getLogger("aiohttp.server").exception("failed %s", "here")
        structlog.get_logger().exception("failed too")
    logging.getLogger("aiohttp.access").info("GET / 200")

    first, second = written(out)
    assert (first["event"], first["level"], first["process"]) == ("failed here", "error", "controller")
    assert "ValueError: invalid literal" in first["exception"]
    assert "ValueError: invalid literal" in second["exception"]


def test_secrets_are_masked_at_any_depth() -> None:
    """A field whose name says that it is a secret never shows its value."""
    out = io.StringIO()
    logs.setup("controller", stream=out)

    structlog.get_logger().info(
        "x", token="t1", headers={"Authorization": "a1", "accept": "json"}, receivers=[{"secret": "s1"}], name="ops"
    )

    text = out.getvalue()
    assert not any(secret in text for secret in ("t1", "a1", "s1"))
    [line] = written(out)
    assert line["headers"] == {"Authorization": logs.MASK, "accept": "json"}
    assert line["name"] == "ops"


def test_terminal_gets_readable_lines() -> None:
    """On a terminal lines look as the supervisor's; an alert's text stands below its line, and nothing moves the cursor."""
    out = Terminal()
    logs.setup("controller", stream=out)

    structlog.get_logger().warning("disk is full", path="/x\x1b[2J")
    structlog.get_logger().error(
        "alert", incident=1, title="checkout", commands=["a"], text="[severe] checkout\ntype a"
    )
    try:
        int("boom")
    except ValueError:
        structlog.get_logger().exception("failed")

    full, alert, severe, typed, failed, *trace = out.getvalue().splitlines()
    assert full[9:] == "WARNING controller  disk is full  path=/x\N{REPLACEMENT CHARACTER}[2J"
    assert (alert[9:], severe, typed) == (
        "ERROR   controller  alert  incident=1", "    [severe] checkout", "    type a",
    )  # fmt: skip
    assert failed[9:] == "ERROR   controller  failed"
    assert any("ValueError: invalid literal" in line for line in trace)


@pytest.mark.parametrize(("level", "events"), [("error", []), ("debug", ["a", "b"]), ("nonsense", ["b"])])
def test_level_comes_from_the_environment(level: str, events: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """SIDECAR_LOG_LEVEL sets the lowest level; an unknown one is info."""
    monkeypatch.setenv("SIDECAR_LOG_LEVEL", level)
    out = io.StringIO()
    logs.setup("controller", stream=out)

    structlog.get_logger().debug("a")
    structlog.get_logger().info("b")

    assert [line["event"] for line in written(out)] == events


def test_what_is_no_json_is_written_as_text() -> None:
    """A path or an exception as a value does not fail the line."""
    out = io.StringIO()
    logs.setup("controller", stream=out)

    structlog.get_logger().info("x", problem=ValueError("bad"), odd={1})

    assert written(out)[0]["problem"] == "bad"
