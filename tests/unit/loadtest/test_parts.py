"""What `python -m loadtest.parts` measures is a real exchange."""

from __future__ import annotations

import socket
from pathlib import Path

from loadtest import parts


async def test_the_exchange_that_is_measured_runs_to_its_end(tmp_path: Path) -> None:
    """
    Each request makes one write to the API and one to the client, whether it is known or new, and leaves nothing in flight.
    """
    one, two = socket.socketpair()
    other = parts.requests_that_differ()
    with one, two:
        stage = parts.Stage(str(tmp_path), (one, two))
        for count in range(1, 11):
            stage.exchange(parts.REQUEST if count % 2 else other())
            assert (stage.client_wire.written, stage.api_wire.written) == (count, count)
        assert stage.plane.in_flight == 0
        stage.plane.close()
