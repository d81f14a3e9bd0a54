"""What every verb shares: how a thing that was done is said."""

from __future__ import annotations

import pytest

from sidecar.cli.client import Answer
from sidecar.cli.session import Session


@pytest.mark.parametrize(
    ("durable", "said"),
    [
        (True, "✓ It is isolated.\n"),
        (False, "✓ It is isolated. Not stored yet: `sidecar status` says why.\n"),
    ],
)
def test_what_is_in_force_but_not_stored_says_so(durable: bool, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With a full disk a decision acts, and its one line tells the person that a restart would forget it."""
    Session(no_color=True).done(Answer.local({"durable": durable}), "It is isolated.")
    assert capsys.readouterr().out == said
