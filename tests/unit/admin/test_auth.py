"""Roles by name, and the bounds of what the gate remembers."""

from __future__ import annotations

import pytest

from sidecar.admin.auth import MAX_JUDGED, MAX_PEERS, Gate, Role, require
from sidecar.admin.errors import Problem
from tests.support.control import SECRETS, token


def gate() -> Gate:
    return Gate(lambda: [token(role) for role in SECRETS])


@pytest.mark.parametrize(
    ("name", "role"),
    [("viewer", Role.VIEWER), ("operator", Role.OPERATOR), ("admin", Role.ADMIN), ("root", Role.VIEWER)],
)
def test_role_of_a_name(name: str, role: Role) -> None:
    """An unknown role may only read."""
    assert Role.named(name) is role


def test_higher_roles_may_do_what_lower_ones_may() -> None:
    """Only a token below the needed role is refused."""
    require(token("admin"), Role.OPERATOR)
    require(token("operator"), Role.OPERATOR)
    with pytest.raises(Problem, match="needs the role operator; token 'a-viewer' is viewer") as refused:
        require(token("viewer"), Role.OPERATOR)
    assert refused.value.status == 403


@pytest.mark.parametrize("header", ["Bearer admin-secret", "bearer admin-secret", "Bearer  admin-secret "])
async def test_right_token(header: str) -> None:
    """A right token is let in, however its scheme is written."""
    assert await gate().judge(header, "127.0.0.1") == token("admin")


WRONG = [None, "", "Bearer", "Bearer ", "Basic admin-secret", "admin-secret", "Bearer admin-secret2", "Bearer \udcff"]


@pytest.mark.parametrize("header", WRONG)
async def test_wrong_token(header: str | None) -> None:
    """Anything else is 401, and says how to do it."""
    with pytest.raises(Problem) as refused:
        await gate().judge(header, "127.0.0.1")
    assert (refused.value.status, refused.value.headers["WWW-Authenticate"]) == (401, 'Bearer realm="sidecar"')


async def test_digests_in_upper_case_are_fine() -> None:
    """Hex digits are compared without regard to case."""
    shouting = token("admin").__class__("a", "admin", token("admin").sha256.upper())
    assert await Gate(lambda: [shouting]).judge("Bearer admin-secret", "p") == shouting


async def test_memory_is_bounded() -> None:
    """Any number of peers and tokens leaves both tables bounded, and a good token good."""
    made = gate()
    for number in range(max(MAX_JUDGED, MAX_PEERS) + 50):
        with pytest.raises(Problem):
            await made.judge(f"Bearer wrong-{number}", f"10.0.{number // 250}.{number % 250}")
    assert repr(made) == f"<Gate {MAX_JUDGED} tokens judged, {MAX_PEERS} peers braked>"
    assert await made.judge("Bearer admin-secret", "10.9.9.9") == token("admin")
