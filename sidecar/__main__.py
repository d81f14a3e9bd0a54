"""
`python -m sidecar`, and the `sidecar` command.

`run` goes straight to the supervisor, which lives for months on the standard library alone: the CLI's libraries never
enter its memory. Every other verb, and `run --help`, is the CLI's.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; never returns."""
    words = sys.argv[1:]
    if words[:1] == ["run"] and not {"-h", "--help"} & set(words):
        from sidecar import supervisor  # noqa: PLC0415  one of the two, never both

        sys.exit(supervisor.main(words[1:]))
    from sidecar.cli import app  # noqa: PLC0415

    app.main(words)


if __name__ == "__main__":
    main()
