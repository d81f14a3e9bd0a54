"""The admin application over the in-memory control, as a client of pytest-aiohttp."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer

from sidecar.admin.app import create_app
from sidecar.admin.stream import Streams
from tests.support.control import SECRETS, MemoryControl


@pytest.fixture
def control() -> MemoryControl:
    return MemoryControl()


@pytest.fixture
def streams() -> Streams:
    return Streams()


@pytest.fixture
async def client(control: MemoryControl, streams: Streams) -> AsyncIterator[TestClient]:
    app = create_app(control, allowed_hosts=["sidecar.internal"], streams=streams)
    async with TestClient(TestServer(app)) as made:
        yield made


Ask = Callable[..., contextlib.AbstractAsyncContextManager[ClientResponse]]


@pytest.fixture
def ask(client: TestClient) -> Ask:
    """Do one call below /api/v1 with the token of a role (None sends none)."""

    @contextlib.asynccontextmanager
    async def do(method: str, path: str, role: str | None = "admin", **given: Any) -> AsyncIterator[ClientResponse]:
        headers = dict(given.pop("headers", {}))
        if role is not None:
            headers["Authorization"] = f"Bearer {SECRETS[role]}"
        async with client.request(method, f"/api/v1{path}", headers=headers, **given) as response:
            yield response

    return do
