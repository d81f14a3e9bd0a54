"""
Compile a config in a short child process and take back the result.

The loader needs YAML and pydantic: 25 MB of memory and 20 ms without a turn of the event loop for each text. A worker
that proxies can afford neither, and needs the result only: frozen policies without a line of either.

    stdin   {"text", "name", "flags"}          the environment is inherited
    stdout  the pickled `Compiled`, exit 0     or every error on stderr, exit 2; also of files that it names for TLS

The pickle comes from our own child over our own pipe; nobody else can write it.
"""

from __future__ import annotations

import asyncio
import json
import pickle
import subprocess
import sys
from collections.abc import Mapping
from typing import Final

from sidecar.config.policies import Compiled

INVALID: Final = 2
_COMMAND: Final = (sys.executable, "-m", "sidecar.entry.compiling")


class CompileError(Exception):
    """The text is no config; the message holds every error."""


def compile_now(text: str, *, name: str, flags: Mapping[str, str]) -> Compiled:
    """
    Return the config that *text*, the environment and *flags* make.

    Raises:
        CompileError: with everything that is wrong.
    """
    done = subprocess.run(_COMMAND, input=_question(text, name, flags), capture_output=True, check=False)
    return _answer(done.returncode, done.stdout, done.stderr)


async def compile_beside(text: str, *, name: str, flags: Mapping[str, str]) -> Compiled:
    """Do the same without holding the event loop."""
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(*_COMMAND, stdin=pipe, stdout=pipe, stderr=pipe)
    try:
        out, errors = await child.communicate(_question(text, name, flags))
    except asyncio.CancelledError:
        child.kill()
        await child.wait()
        raise
    return _answer(child.returncode or 0, out, errors)


def _question(text: str, name: str, flags: Mapping[str, str]) -> bytes:
    return json.dumps({"text": text, "name": name, "flags": dict(flags)}).encode()


def _answer(code: int, out: bytes, errors: bytes) -> Compiled:
    if code:
        problem = errors.decode("utf-8", "replace").strip()
        raise CompileError(problem or f"the compiler ended with status {code}")
    made = pickle.loads(out)  # noqa: S301  our own child's
    assert isinstance(made, Compiled)
    return made


def main() -> int:
    """Answer one question on stdin."""
    import os  # noqa: PLC0415  only the child needs these

    from sidecar.config.certificates import problems  # noqa: PLC0415
    from sidecar.config.errors import ConfigErrors  # noqa: PLC0415
    from sidecar.config.load import load  # noqa: PLC0415

    asked = json.load(sys.stdin)
    try:
        made = load(asked["text"], name=asked["name"], environ=os.environ, flags=asked["flags"])
    except ConfigErrors as invalid:
        sys.stderr.write(f"{invalid}\n")
        return INVALID
    if unusable := [f"{each.at}: {each}" for each in problems(made)]:
        sys.stderr.write("\n".join(unusable) + "\n")
        return INVALID
    pickle.dump(made, sys.stdout.buffer)
    return 0


if __name__ == "__main__":
    sys.exit(main())
