"""
One request as one line of the access log: `json`, for machines, or `common`, the NCSA format that every tool reads.

Lines are ASCII and hold no control character, whatever a client sent, and stay below `MAX_LINE_BYTES`, which a pipe
takes in one piece (POSIX: PIPE_BUF): several workers write to one pipe without tearing each other's lines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from json.encoder import encode_basestring_ascii as _text
from typing import Final

from sidecar.facts import RequestFacts

MAX_LINE_BYTES: Final = 4096
MAX_PATH: Final = 1024  # characters; in JSON one may take two bytes
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MICROS: Final = 6

Form = Callable[[RequestFacts], bytes]


def json_line(facts: RequestFacts) -> bytes:
    """
    Return *facts* as one JSON object, `document` with an `event` that tells it from the other lines of a mixed stream.

    It is written by hand: a flood of refusals is a flood of lines, and the encoder takes three times as long.
    """
    f = facts
    sent = "" if f.upstream_s is None else f',"upstream_s":{f.upstream_s:.6f}'
    why = f',"reason":"{f.reason}","flags":"{f.flag}"' if f.reason else ""
    return (
        f'{{"event":"request","time":"{_rfc3339(f.unix)}","client":{_text(f.client)}'
        f"{_maybe('method', f.method)}{_maybe('path', _bounded(f.path))}{_maybe('path_template', _bounded(f.template))}"
        f',"route":"{f.route}","status":{f.status}{why},"guard_s":{f.guard_s:.6f}{sent}'
        f',"duration_s":{f.total_s:.6f}'
        f',"bytes_in":{f.bytes_in},"bytes_out":{f.bytes_out}{_maybe("decision", f.decision)}{_maybe("trace", f.trace)}'
        f'{_maybe("endpoint", f.endpoint)},"retried":{f.retries}}}\n'
    ).encode("ascii")


def document(facts: RequestFacts) -> dict[str, object]:
    """Return *facts* as the log and the admin API show them: durations are seconds, empty values are left out."""
    row: dict[str, object] = {
        "time": _rfc3339(facts.unix),
        "client": facts.client,
        "method": facts.method,
        "path": _bounded(facts.path),
        "path_template": _bounded(facts.template),
        "route": facts.route,
        "status": facts.status,
        "reason": facts.reason,
        "flags": facts.flag,
        "guard_s": round(facts.guard_s, _MICROS),
        "upstream_s": None if facts.upstream_s is None else round(facts.upstream_s, _MICROS),
        "duration_s": round(facts.total_s, _MICROS),
        "bytes_in": facts.bytes_in,
        "bytes_out": facts.bytes_out,
        "decision": facts.decision,
        "trace": facts.trace,
        "endpoint": facts.endpoint,
        "retried": facts.retries,
    }
    return {name: value for name, value in row.items() if value not in ("", None)}


def common_line(facts: RequestFacts) -> bytes:
    """Return *facts* in the Common Log Format: client, time, request line, status and bytes of the answer's body."""
    request = f"{facts.method} {_quoted(facts.path)} HTTP/1.{facts.minor}" if facts.method else "-"
    return (
        f'{facts.client} - - [{_stamp(int(facts.unix))}] "{request}" {facts.status} {facts.bytes_out or "-"}\n'.encode(
            "ascii"
        )
    )


FORMS: Final[Mapping[str, Form]] = {"json": json_line, "common": common_line}
"""By the words of `access_log.format`; `off` has none."""


def _maybe(name: str, text: str) -> str:
    return f',"{name}":{_text(text)}' if text else ""


def _rfc3339(unix: float) -> str:
    second = int(unix)
    return f"{_second(second)}.{int((unix - second) * 1000):03}Z"


@lru_cache(maxsize=2)
def _second(unix: int) -> str:
    return f"{datetime.fromtimestamp(unix, UTC):%Y-%m-%dT%H:%M:%S}"


@lru_cache(maxsize=2)
def _stamp(unix: int) -> str:
    at = datetime.fromtimestamp(unix, UTC)
    return f"{at.day:02}/{_MONTHS[at.month - 1]}/{at.year}:{at:%H:%M:%S} +0000"


def _bounded(text: str) -> str:
    return text if len(text) <= MAX_PATH else f"{text[:MAX_PATH]}..."


def _quoted(text: str) -> str:
    r"""Escape as Apache does: quotes and backslashes by a backslash, all that is not printable ASCII as `\xhh`."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return _bounded(text)
    safe = [c if " " <= c <= "~" and c not in '"\\' else f"\\{c}" if c in '"\\' else _hex(c) for c in _bounded(text)]
    return "".join(safe)


def _hex(letter: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in letter.encode("utf-8", "replace"))
