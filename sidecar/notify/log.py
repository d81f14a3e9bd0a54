"""The receiver `log`: one structured line, for whoever ships logs to people already."""

from __future__ import annotations

import structlog

from sidecar.notify.message import Failed, Message, Sent

_log = structlog.get_logger("alert")


class LogReceiver:
    """Writes each message to the log; urgent ones as errors."""

    def __repr__(self) -> str:
        return "<LogReceiver>"

    async def send(self, message: Message) -> Sent | Failed:
        """Write one line."""
        incident = message.incident
        write = _log.error if message.urgent else _log.warning
        write(
            "alert",
            kind=message.kind,
            id=message.id,
            urgent=message.urgent,
            incident=incident.get("id"),
            title=incident.get("title"),
            scope=incident.get("scope"),
            severity=incident.get("severity"),
            text=message.text,
            commands=list(incident.get("commands", ())),
        )
        return Sent()
