"""A sidecar from its source beside one from the extensions: the same answers, and each says what it is."""

from __future__ import annotations

import pytest

from sidecar.compiled import WHY
from tests.support.client import Client
from tests.support.sidecar import Sidecar, settings
from tests.support.upstream import Upstream


@pytest.mark.parametrize("interpreted", ["", "1"])
def test_the_log_says_which_code_runs(interpreted: str) -> None:
    """
    `sidecar starts` carries it, so that a bill for CPU can be explained afterwards.
    """
    with (
        Upstream() as upstream,
        Sidecar(settings(upstream.url), environ={"SIDECAR_INTERPRETED": interpreted}) as running,
    ):
        with Client(running.address()) as client:
            assert client.ask().status == 200
        start = running.until_said("sidecar starts")
        assert start["code"] == ("SIDECAR_INTERPRETED is set" if interpreted and not WHY else WHY or "compiled")
