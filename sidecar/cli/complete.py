"""Ids for the shell's completion; silent when no sidecar answers, because a prompt is no place for errors."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from sidecar.cli.client import Client, Failure, find_admin, find_token
from sidecar.facts import Action


def _ask(path: str, name: Callable[[Any], tuple[str, str]], rows: str = "items") -> Iterable[tuple[str, str]]:
    try:
        answer = Client(find_admin(None), find_token(None, os.environ)).get(path)
    except Failure:
        return []
    return [name(item) for item in answer.body.get(rows, [])]


def incidents(incomplete: str) -> Iterable[tuple[str, str]]:
    """Complete an incident's number."""
    rows = _ask("/incidents", lambda item: (str(item["id"]), f"{item['state']}: {item['title']}"))
    return [row for row in rows if row[0].startswith(incomplete)]


def proposals(incomplete: str) -> Iterable[tuple[str, str]]:
    """Complete a proposal's number."""
    rows = _ask("/proposals", lambda item: (str(item["id"]), f"{item['state']}: {item['why']}"))
    return [row for row in rows if row[0].startswith(incomplete)]


def controls(incomplete: str) -> Iterable[tuple[str, str]]:
    """Complete a detector on a route."""
    rows = _ask("/controls", lambda item: (item.get("id") or "", f"{item['state']} {item.get('why') or ''}"))
    return [row for row in rows if row[0] and row[0].startswith(incomplete)]


def scopes(incomplete: str) -> Iterable[tuple[str, str]]:
    """Complete a scope: what is overridden now, the service, and every route."""
    rows = [("service", "the whole API")]
    rows += _ask("/overrides", lambda item: (item["scope"], item["action"]))
    rows += _ask("/routes", lambda item: (f"route:{item['name']}", "route"))
    return [row for row in dict(rows).items() if row[0].startswith(incomplete)]


def versions(incomplete: str) -> Iterable[tuple[str, str]]:
    """Complete a config version's number."""
    rows = _ask("/config/versions", lambda item: (str(item["version"]), f"{item['state']}: {item['reason']}"))
    return [row for row in rows if row[0].startswith(incomplete)]


def actions(incomplete: str) -> Iterable[tuple[str, str]]:
    """Complete an override's action."""
    rows = [
        (Action.ISOLATE.value, "refuse all"),
        ("throttle=10/s", "let a rate or a share pass"),
        (Action.ALLOW.value, "no automatic action and no breaker"),
        (Action.OBSERVE.value, "would-have only"),
    ]
    return [row for row in rows if row[0].startswith(incomplete)]


def routes(incomplete: str) -> Iterable[tuple[str, str]]:
    """Complete a route's name."""
    rows = _ask("/routes", lambda item: (item["name"], f"breaker {item.get('breaker')}"))
    return [row for row in rows if row[0].startswith(incomplete)]


def silences(incomplete: str) -> Iterable[tuple[str, str]]:
    """Complete a silence's number."""
    rows = _ask("/silences", lambda item: (str(item["id"]), f"{item['scope']}: {item['reason']}"))
    return [row for row in rows if row[0].startswith(incomplete)]


def tokens(incomplete: str) -> Iterable[tuple[str, str]]:
    """Complete the name of a token that is good."""
    rows = _ask("/tokens", lambda item: (item["name"], "revoked" if item["revoked_time"] else item["role"]))
    return [row for row in rows if row[0].startswith(incomplete) and row[1] != "revoked"]


def receivers(incomplete: str) -> Iterable[tuple[str, str]]:
    """Complete a receiver's name."""
    rows = _ask("/status", lambda item: (item["name"], item["type"]), "receivers")
    return [row for row in rows if row[0].startswith(incomplete)]
