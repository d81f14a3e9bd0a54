"""`docs/guarantees.md` names tests that exist, and at least one for each guarantee."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/guarantees.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (\d+) \|.*$", PAGE, re.MULTILINE)
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)


def test_every_guarantee_has_a_test() -> None:
    """
    The rows are 1 to 19, and each names a test.
    """
    assert [str(number) for number in range(1, 20)] == ROWS
    lines = [line for line in PAGE.splitlines() if re.match(r"\| \d+ \|", line)]
    assert [line for line in lines if "::test_" not in line] == []


def test_every_named_test_exists() -> None:
    """
    A test that is renamed or removed is renamed or removed in the table.
    """
    missing = [f"{path}::{name}" for path, name in NAMED if not re.search(rf"def {name}\(", _text(path))]
    assert missing == []


def _text(path: str) -> str:
    file = ROOT / path
    return file.read_text(encoding="utf-8") if file.exists() else ""
