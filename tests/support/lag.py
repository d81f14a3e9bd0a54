"""How late an event loop runs: what a busy machine adds to every time that is measured on it."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Final, Self

_STEP_S: Final = 0.005
_USUAL_S: Final = 0.0015  # a timer's own coarseness


class Lag:
    """
    The sum of what the running loop's timers came too late within the block.

    An upper bound of a test's time is `nominal + lag.seconds`: strict on a quiet machine, true on any.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._task.cancel()

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        due_at = loop.time()
        while True:
            await asyncio.sleep(_STEP_S)
            late_s = loop.time() - due_at - _STEP_S
            self.seconds += late_s if late_s > _USUAL_S else 0.0
            due_at = loop.time()
