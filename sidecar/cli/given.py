"""What a person gave as an option, checked here, so that the message names the option and not the API's parameter."""

from __future__ import annotations

from sidecar.cli.client import Exit, Failure
from sidecar.config.units import UnitError, parse_duration


def seconds(option: str, text: str) -> float:
    """
    Return the duration that was given to *option*.

    Raises:
        Failure: when it is none.
    """
    try:
        found = parse_duration(text)
    except UnitError as error:
        raise Failure(Exit.USAGE, f"{option}: {error.problem}", error.hint) from error
    if found <= 0:
        raise Failure(Exit.USAGE, f"{option}: '{text}' is no time", "write 250ms, 10s, 5m, 2h or 1d")
    return found
