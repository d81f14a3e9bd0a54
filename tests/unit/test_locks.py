"""The lock files agree: what is installed into one environment is one version of everything."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OTHERS = ("requirements.lock", "requirements-bench.lock", "requirements-deploy.lock")


def pins(name: str) -> dict[str, str]:
    """Return package → version of a lock file."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9][a-z0-9.-]*)==(\S+)", text, re.MULTILINE))


@pytest.mark.parametrize("name", OTHERS)
def test_one_package_has_one_version(name: str) -> None:
    """
    A package that stands in two lock files has the same version in both: `make` installs them on top of each other.
    """
    known, other = pins("requirements-dev.lock"), pins(name)
    assert {package: other[package] for package in known.keys() & other} == {
        package: known[package] for package in known.keys() & other
    }
    assert len(known.keys() & other) > 10


@pytest.mark.parametrize("name", ["requirements-dev.lock", *OTHERS])
def test_a_lock_names_versions_and_hashes_and_no_host(name: str) -> None:
    """
    Every package is pinned and hashed; where it comes from is the machine's own affair.
    """
    text = (ROOT / name).read_text(encoding="utf-8")
    assert "://" not in text
    blocks = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
    assert blocks
    assert [block.split()[0] for block in blocks if "==" not in block.split()[0] or "--hash=sha256:" not in block] == []
