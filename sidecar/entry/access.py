"""A worker's access log: which requests, in which form, into which sink."""

from __future__ import annotations

from sidecar.config.policies import AccessLogPolicy, LogFormat
from sidecar.facts import RequestFacts
from sidecar.proxy.witness import Witness
from sidecar.supervise.say import say
from sidecar.telemetry.access import FORMS, Form
from sidecar.telemetry.sink import Sink


class AccessLog:
    """
    Writes what the witness tells; without a format there is no sink, and nobody is told.

    Args:
        target: `stdout`, `stderr` or a file's path.
        policy: What the config says.
        witness: Whom to ask for requests.
        process: Who complains when the target cannot be written.
    """

    def __init__(self, target: str, policy: AccessLogPolicy, witness: Witness, process: str) -> None:
        self._target = target
        self._witness = witness
        self._process = process
        self._form: Form | None = None
        self._sink: Sink | None = None
        self.apply(policy)

    def __repr__(self) -> str:
        return f"<AccessLog {self._sink or 'off'}>"

    @property
    def dropped(self) -> int:
        """Count the lines that were not written."""
        return 0 if self._sink is None else self._sink.dropped

    def apply(self, policy: AccessLogPolicy) -> None:
        """Go on as *policy* says."""
        self._form = FORMS.get(policy.format)
        if self._sink is None and policy.format is not LogFormat.OFF:
            self._sink = Sink(self._target, self._complain)
        self._witness.log_to(None if self._form is None else self._write, policy.sample_ratio)

    def reopen(self, target: str) -> None:
        """Open the target anew: after a rotation, or because it is another one."""
        self._target = target
        if self._sink is not None:
            self._sink.reopen(target)

    def turn(self) -> None:
        """Write what has come (a few times a second)."""
        if self._sink is not None:
            self._sink.flush()

    def close(self) -> None:
        """Write what is left, for at most a moment."""
        if self._sink is not None:
            self._sink.close()

    def _write(self, facts: RequestFacts) -> None:
        if self._sink is not None and self._form is not None:
            self._sink.put(self._form(facts))

    def _complain(self, problem: str) -> None:
        say("the access log is incomplete", level="error", process=self._process, problem=problem)
