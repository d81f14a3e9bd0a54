"""
The build: plain Python, or with SIDECAR_COMPILE=1 C extensions of the stages that every request passes.

mypyc makes them from the same files that mypy has checked (docs/adr/0015); it needs mypy, a C compiler and Python's headers.

`sidecar/compiled.py` decides at each start which of the two runs, and says so.
"""

from __future__ import annotations

import os
from pathlib import Path

from setuptools import setup

STAGES = ("guard", "measure", "proxy")
"""What a request passes; the rest of the project sees one tick a second and would gain nothing."""

LEFT = {
    "sidecar/guard/policies.py": "its frozen records are pickled from process to process, and mypyc's cannot be set again",
    "sidecar/proxy/alerts.py": "an exception with attributes of its own: mypyc has no heirs of built-in types",
}


def hot() -> list[str]:
    """The files to compile, relative to this one."""
    files = (path for stage in STAGES for path in Path("sidecar", stage).glob("*.py"))
    return sorted(str(path) for path in files if str(path) not in LEFT and path.name != "__init__.py")


if os.environ.get("SIDECAR_COMPILE"):
    from mypyc.build import mypycify

    # -O1 makes the same microseconds as -O3, in less time.
    setup(ext_modules=mypycify(hot(), group_name="sidecar", opt_level="1", debug_level="0"))
else:
    setup()
