"""
`python -m sidecar.config.static`: judge the whole config, print its static keys as one line of JSON, or exit with 2.

`sidecar run` calls it in a short child process before it becomes the supervisor, and again on SIGHUP: the supervisor
itself imports nothing but the standard library, and everything that is wrong is said before anything was changed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from sidecar.config.certificates import problems
from sidecar.config.errors import ConfigError, ConfigErrors
from sidecar.config.fields import MASK
from sidecar.config.layers import FLAGS
from sidecar.config.load import load, text_hash
from sidecar.config.policies import Compiled

DEFAULT_FILE: Final = Path("config/sidecar.yaml")
NO_FILE: Final = "(no file)"
INVALID: Final = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Print the static keys and return 0, or print every error to stderr and return 2."""
    given = _parser().parse_args(argv)
    flags = {name: value for name in FLAGS if (value := getattr(given, name.removeprefix("--"))) is not None}
    try:
        print(json.dumps(resolve(given.config, os.environ, flags)))  # noqa: T201 - the answer
    except ConfigErrors as invalid:
        print(invalid, file=sys.stderr)  # noqa: T201 - the other answer
        return INVALID
    return 0


def resolve(file: Path | None, environ: Mapping[str, str], flags: Mapping[str, str]) -> dict[str, object]:
    """
    Return the static keys of *file* under *environ* and *flags*, as `sidecar run` needs them.

    Args:
        file: None takes `config/sidecar.yaml` when it is there, else the defaults.
        environ, flags: As `load` takes them.

    Raises:
        ConfigErrors: with everything that is wrong, a file that cannot be read included.
    """
    if file is None and DEFAULT_FILE.exists():
        file = DEFAULT_FILE
    name = str(file) if file is not None else NO_FILE
    text = _read(file) if file is not None else ""
    compiled = load(text, name=name, environ=environ, flags=flags)
    _refuse_hidden(compiled, name)
    _refuse_files(compiled, name)
    static, drain = compiled.static, compiled.drain
    return {
        "listen": str(static.listen),
        "observe": str(static.observe),
        "admin": str(static.admin),
        "secure": [
            name for name, tls in (("listen", compiled.proxy.tls), ("admin", compiled.admin.tls)) if tls is not None
        ],
        "workers": static.workers,
        "state": static.state,
        "access_log": static.access_log,
        "config_file": str(file) if file is not None else None,
        "file_hash": text_hash(text),
        "drain": {"delay_s": drain.delay_s, "grace_s": drain.grace_s},
    }


def _read(file: Path) -> str:
    try:
        return file.read_bytes().decode()
    except OSError as error:
        problem = f"cannot be read: {error.strerror or error}"
    except UnicodeDecodeError as error:
        problem = f"is not UTF-8 text: byte {error.start} is 0x{error.object[error.start]:02x}"
    hint = f"name a readable YAML file in UTF-8 with -c, or start from {DEFAULT_FILE}"
    raise ConfigErrors([ConfigError("", 0, 0, problem, hint, str(file))])


def _refuse_hidden(compiled: Compiled, name: str) -> None:
    hint = "write the hash itself: what `sidecar config show` prints hides it"
    hidden = [token.name for token in compiled.admin.tokens if token.sha256 == MASK]
    if hidden:
        problem = f"the hash of token {hidden[0]} is {MASK}, so nobody could use it"
        raise ConfigErrors([ConfigError("admin.tokens", 0, 0, problem, hint, name)])


def _refuse_files(compiled: Compiled, name: str) -> None:
    hint = "name files in PEM that this user may read"
    found = [ConfigError(error.at, 0, 0, str(error), hint, name) for error in problems(compiled)]
    if found:
        raise ConfigErrors(found)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sidecar run",
        description="Run the sidecar in front of one HTTP API.",
        epilog="Examples: sidecar run --upstream http://127.0.0.1:3000 · sidecar run -c config/sidecar.yaml",
        allow_abbrev=False,
    )
    parser.add_argument("-c", "--config", type=Path, metavar="FILE", help=f"the config (default: {DEFAULT_FILE})")
    parser.add_argument("--upstream", metavar="URL", help="the API behind, as http://HOST:PORT")
    parser.add_argument("--listen", metavar="ADDR", help="where clients connect, as HOST:PORT")
    parser.add_argument("--workers", metavar="N", help="processes that serve, or auto")
    return parser


if __name__ == "__main__":
    sys.exit(main())
