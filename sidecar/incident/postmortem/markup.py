"""How free text and facts are set in Markdown: on one line, and nothing in them is markup."""

from __future__ import annotations

from typing import Any, Final

from sidecar.incident.words import percent

_ESCAPED: Final = "\\`*_{}[]<>|#"


def text(value: Any) -> str:
    """Return free text on one line, with Markdown's own characters escaped."""
    flat = " ".join(str(value).split())
    return "".join(f"\\{char}" if char in _ESCAPED else char for char in flat)


def code(value: Any) -> str:
    """Return *value* as code, whatever it holds; also within a table, where a bar would end the cell."""
    return verbatim(value).replace("|", "\\|")


def verbatim(value: Any) -> str:
    """Return *value* as code, outside of tables."""
    flat = " ".join(str(value).split()).replace("`", "'")
    return f"`{flat}`"


def setting(value: Any) -> str:
    """Return a setting's value; None is one that is not set."""
    return "not set" if value is None else code(value)


def collateral(ratio: float | None) -> str:
    """Return what part of the refused would have succeeded."""
    return "unknown (no trial traffic)" if ratio is None else f"{percent(ratio)} by the trial traffic"
