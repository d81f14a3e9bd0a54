"""Recordings in tests: without them a test is skipped with a message, except on CI, where they are always there."""

import os
from collections.abc import Callable
from typing import TypeVar

import pytest

from loadtest.detection.recordings import RecordingsMissingError

T = TypeVar("T")


def recorded(read: Callable[[], T]) -> T:
    """Return what *read* reads, or skip the test; on CI a missing recording is an error."""
    try:
        return read()
    except RecordingsMissingError as missing:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(missing))
