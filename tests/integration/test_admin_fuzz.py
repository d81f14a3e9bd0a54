"""Generated requests against the admin application on a real port: what is documented is what happens."""

from __future__ import annotations

import logging

import pytest
from aiohttp.test_utils import TestServer

from sidecar.admin.app import create_app
from tests.support.control import SECRETS, MemoryControl
from tests.support.schemathesis import fuzz


async def test_no_server_error_and_no_schema_violation(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever is sent: no 5xx, no undocumented status, no answer outside its schema, no bad data accepted."""
    caplog.set_level(logging.CRITICAL, "aiohttp.server")  # it logs a stack for each message that is no HTTP
    async with TestServer(create_app(MemoryControl())) as server:
        code, printed = await fuzz(f"http://127.0.0.1:{server.port}", SECRETS["admin"], examples=15)
    assert (code, "Unsupported regex" in printed) == (0, False), printed
