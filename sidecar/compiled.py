"""
Which code runs: the C extensions that mypyc made of the hot stages, or their source.

    no extensions here                                         →  source
    SIDECAR_INTERPRETED is set                                 →  source, for a profiler, a debugger or a fuzzer
    a tree of sources with a file newer than the extensions    →  source, and `WHY` says what to type
    else                                                       →  compiled

All or nothing: a compiled module knows the layout of its neighbours' objects, so one of them from its source beside the
others would not fit. Installed from a wheel, source and extensions are of one build and nothing is compared.
"""

from __future__ import annotations

import os
import sys
from importlib import machinery
from pathlib import Path
from typing import Final

SUFFIX: Final = machinery.EXTENSION_SUFFIXES[0]
LIBRARY: Final = "sidecar__mypyc"
"""mypyc puts all code into this module beside the package; the modules' own extensions only point into it."""


def choose(package: Path, interpreted: str | None) -> str:
    """Say why the source of *package* runs, or "" when its extensions do; *interpreted* is SIDECAR_INTERPRETED."""
    library = package.parent / (LIBRARY + SUFFIX)
    if not library.exists():
        return "not compiled: `make compiled` makes a request cheaper by a quarter"
    if interpreted:
        return "SIDECAR_INTERPRETED is set"
    if (package.parent / "setup.py").exists():
        made = library.stat().st_mtime_ns
        sources = (each.with_name(each.name.removesuffix(SUFFIX) + ".py") for each in package.glob("*/*" + SUFFIX))
        newer = sorted(str(each.relative_to(package.parent)) for each in sources if each.stat().st_mtime_ns > made)
        if newer:
            return f"{newer[0]} is newer than what was compiled: `make compiled`"
    return ""


def _source_only(package: Path) -> None:
    """See to it that the package's modules are found by their .py, whatever lies beside."""

    def finder(path: str) -> machinery.FileFinder:
        if not Path(path).is_relative_to(package):
            raise ImportError(path)
        return machinery.FileFinder(path, (machinery.SourceFileLoader, machinery.SOURCE_SUFFIXES))

    sys.path_hooks.insert(0, finder)
    for path in [each for each in sys.path_importer_cache if Path(each).is_relative_to(package)]:
        del sys.path_importer_cache[path]


class _Beside:
    """Finds the library where it lies: an editable install knows the package, not what is beside it."""

    def __init__(self, library: Path) -> None:
        self._library = str(library)

    def find_spec(self, fullname: str, *_: object) -> machinery.ModuleSpec | None:
        """Return the library's spec; it is loaded with the first hot module, which the supervisor never imports."""
        if fullname != LIBRARY:
            return None
        return machinery.ModuleSpec(
            LIBRARY, machinery.ExtensionFileLoader(LIBRARY, self._library), origin=self._library
        )


def _prepare() -> str:
    package = Path(__file__).parent
    why = choose(package, os.environ.get("SIDECAR_INTERPRETED"))
    if why:
        _source_only(package)
    else:
        sys.meta_path.append(_Beside(package.parent / (LIBRARY + SUFFIX)))
    return why


WHY: Final = _prepare()
"""Why the source runs; "" when the extensions do."""
