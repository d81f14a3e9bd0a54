"""Releases beside each other, as an installer leaves them: folders with the package, and a link to the current one."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from tests.support.sidecar import ROOT

SCRIPT = f"""#!{sys.executable}
import os, sys
here = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
sys.path.insert(0, here)
os.environ["PYTHONPATH"] = here  # an environment of its own has its own interpreter; this one serves all of them
from sidecar.__main__ import main
main()
"""


class Releases:
    """
    Copies of the package under *folder*, each with a version of its own.

    Attributes:
        current: The link that a sidecar is started through.
        program: How it is started: the current release's script.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.current = folder / "current"
        self.program = [str(self.current / "bin/sidecar")]

    def make(self, version: str, **spoilt: str) -> str:
        """Make a release; *spoilt* is put into modules, `entry_worker` into `sidecar/entry/worker.py`. Return its version."""
        made = self._folder / version
        shutil.copytree(ROOT / "sidecar", made / "sidecar")
        init = made / "sidecar/__init__.py"
        init.write_text(re.sub(r'__version__ = ".*"', f'__version__ = "{version}"', init.read_text()))
        for name, text in spoilt.items():
            file = made / "sidecar" / f"{name.replace('_', '/')}.py"
            first = "from __future__ import annotations\n"
            file.write_text(file.read_text().replace(first, f"{first}{text}\n", 1))
        script = made / "bin/sidecar"
        script.parent.mkdir()
        script.write_text(SCRIPT)
        script.chmod(0o755)
        return version

    def use(self, version: str) -> None:
        """Let the link lead to a release, as one step."""
        fresh = self._folder / "fresh"
        fresh.symlink_to(self._folder / version)
        fresh.replace(self.current)
