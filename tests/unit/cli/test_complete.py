"""Verbs and ids complete in the shell, and a sidecar that does not answer disturbs no prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import pytest

from sidecar.cli import complete
from tests.support.admin import admin_server
from tests.support.control import SECRETS

CASES = [
    (complete.incidents, "1", ["12"]),
    (complete.incidents, "9", []),
    (complete.scopes, "", ["service", "client:search:203.0.113.7", "route:checkout", "route:default"]),
    (complete.scopes, "route:c", ["route:checkout"]),
    (complete.versions, "", ["7", "6"]),
    (complete.routes, "d", ["default"]),
    (complete.receivers, "", ["pager"]),
    (complete.actions, "th", ["throttle=10/s"]),
]


@pytest.fixture(scope="module")
def admin() -> Iterator[str]:
    with admin_server() as url:
        yield url


@pytest.mark.parametrize(("ask", "typed", "expected"), CASES)
def test_completes(
    admin: str,
    monkeypatch: pytest.MonkeyPatch,
    ask: Callable[[str], Iterable[tuple[str, str]]],
    typed: str,
    expected: list[str],
) -> None:
    """Each kind of id completes from what the sidecar has now."""
    monkeypatch.setenv("SIDECAR_ADMIN", admin)
    monkeypatch.setenv("SIDECAR_TOKEN", SECRETS["viewer"])
    assert [word for word, _ in ask(typed)] == expected


def test_silent_without_a_sidecar(monkeypatch: pytest.MonkeyPatch, closed_port: int) -> None:
    """With nobody at the address there is nothing to complete, and no error."""
    monkeypatch.setenv("SIDECAR_ADMIN", f"http://127.0.0.1:{closed_port}")
    assert list(complete.incidents("")) == []
