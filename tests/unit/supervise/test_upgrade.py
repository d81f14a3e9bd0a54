"""The running release's part of an upgrade, with programs in the place of the new release."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sidecar.supervise import handover
from sidecar.supervise.handover import VARIABLE
from sidecar.supervise.upgrade import Upgrade

GOOD = f"""#!/bin/sh
test -n "${VARIABLE}" && echo '{json.dumps({"release": "2.0", "static": {"workers": 3}})}'
"""


@pytest.mark.parametrize(
    ("script", "found"),
    [
        (GOOD, {"release": "2.0", "static": {"workers": 3}}),
        ("#!/bin/sh\nexit 2\n", "the installed release cannot run"),
        ("#!/bin/sh\necho nonsense\n", "the installed release cannot run"),
        ("#!/bin/sh\necho '{}'\n", "the installed release knows no handover: restart for it"),
    ],
)
def test_a_trial_says_what_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, found: Mapping[str, Any] | str
) -> None:
    """
    What the release prints is taken; a wrong exit code, nonsense and an old release are said as what they are.
    """
    program = tmp_path / "sidecar"
    program.write_text(script)
    program.chmod(0o755)
    monkeypatch.setattr(handover, "command", lambda: [str(program)])
    upgrade = Upgrade(tmp_path)
    upgrade.ask("SIGUSR2", 0.0)
    while (answer := upgrade.take(1.0)) is None:
        time.sleep(0.01)
    assert found == answer


def test_a_release_that_says_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    After its time the trial is killed, and so it is when the supervisor leaves.
    """
    monkeypatch.setattr(handover, "command", lambda: ["/bin/sleep", "60"])
    upgrade = Upgrade(tmp_path)
    upgrade.ask("SIGUSR2", 0.0)
    assert upgrade.take(1.0) is None
    assert "did not say within 90 s" in str(upgrade.take(91.0))
    upgrade.ask("SIGUSR2", 100.0)
    upgrade.end()
    assert upgrade.take(101.0) is None
