"""The demo's advice when its story was not told as expected."""

from __future__ import annotations

from sidecar.demo.story import crowded


def test_a_busy_machine_is_named_and_an_idle_one_is_not_blamed() -> None:
    """More work than cores is said with both figures and what to do; at most a core's worth each says nothing."""
    assert crowded(2.0, 2) == ""
    assert crowded(13.84, 2).startswith("This machine has a load of 13.8 on 2 cores")
    assert crowded(13.84, 2).endswith("Run it again when the machine is idle.")
