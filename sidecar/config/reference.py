"""
`python -m sidecar.config.reference`: write the generated pages of `docs/reference/`.

The pages are made from the schema and from the table of reasons. Tests fail while a committed page differs from what
this file makes, so a new key or reason is documented by running it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sidecar.config.catalogue import Key, keys
from sidecar.config.schema import STATIC_KEYS, Config
from sidecar.config.sections import Section
from sidecar.reasons import TABLE, RetryAfter

SETTINGS_PAGE: Final = Path("docs/reference/settings.md")
REASONS_PAGE: Final = Path("docs/reference/reasons.md")
NEVER_SENT: Final = 499


@dataclass(frozen=True, slots=True)
class Setting:
    """
    One row of the settings page.

    Attributes:
        path: The dotted key; `[]` stands for each entry of a list.
        kind, unit: What may be written; `section` and `list of sections` have keys of their own below.
        default: As it would be written; `required`, or `none` where absence means something.
        static: It holds from start or SIGHUP on.
        meaning: One sentence.
    """

    path: str
    kind: str
    unit: str
    default: str
    static: bool
    meaning: str


def settings(section: type[Section] = Config, above: str = "") -> Iterator[Setting]:
    """Yield every key below *section*, depth first, in the order of the schema."""
    for key in keys(section):
        path = f"{above}{key.name}"
        static = path in STATIC_KEYS or path.startswith("admin")
        if key.kind is not None:
            kind = f"list of {key.kind.name}s" if key.listed else key.kind.name
            yield Setting(path, kind, key.kind.unit, _default(key), static, key.meaning)
        if key.section is not None:
            yield Setting(path, "list of sections" if key.listed else "section", "", _default(key), static, key.meaning)
            yield from settings(key.section, f"{path}{'[]' if key.listed else ''}.")


def _default(key: Key) -> str:
    if key.required:
        return "required"
    if key.default is None:
        return "none"
    if key.section is not None and not key.listed:
        return ""
    return key.default if isinstance(key.default, str) else json.dumps(key.default).replace('"', "")


def settings_page() -> str:
    """Return the page of all settings."""
    rows = "\n".join(
        f"| `{each.path}` | {_cell(each.kind)}{f': {_cell(each.unit)}' if each.unit else ''} "
        f"| {f'`{each.default}`' if each.default else ''} | {'static' if each.static else 'live'} | {_cell(each.meaning)} |"
        for each in settings()
    )
    return f"{_SETTINGS_HEAD}\n| key | value | default | applies | meaning |\n|---|---|---|---|---|\n{rows}\n"


def reasons_page() -> str:
    """Return the page of all reasons."""
    rows = "\n".join(
        f"| `{reason.value}` | {row.status if row.status != NEVER_SENT else '(499 in logs)'}{', close' if row.close else ''} "
        f"| {row.flag} | {row.proxy_status} | {row.problem if row.status != NEVER_SENT else ''} "
        f"| {_RETRY[row.retry_after]} | {row.title}. {row.advice} |"
        for reason, row in TABLE.items()
    )
    head = "| reason | status | flag | Proxy-Status error | problem type | Retry-After | what a client should do |"
    return f"{_REASONS_HEAD}\n{head}\n|---|---|---|---|---|---|---|\n{rows}\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> None:
    """Write the pages below the current folder."""
    SETTINGS_PAGE.parent.mkdir(parents=True, exist_ok=True)
    SETTINGS_PAGE.write_text(settings_page(), encoding="utf-8")
    REASONS_PAGE.write_text(reasons_page(), encoding="utf-8")


_RETRY: Final = {
    RetryAfter.NONE: "no",
    RetryAfter.EXACT: "exact, rounded up",
    RetryAfter.JITTERED: "jittered",
    RetryAfter.ONE: "1",
}

_SETTINGS_HEAD: Final = """\
# Settings

Made by `python -m sidecar.config.reference`; do not edit. The annotated file is `config/sidecar.yaml`.

The file is YAML and read strictly: an unknown key, a duplicate key, a key without value or a wrong unit is an error
with its line, its column and what to write instead. `sidecar config validate FILE` prints them all at once;
`sidecar config schema` prints the JSON Schema for editors.

**Precedence**: default < file < environment < flag < override. Any key can be set by an environment variable: the
prefix `SIDECAR__`, then its steps in capitals, joined by two underscores: `SIDECAR__UPSTREAM__CONNECT_TIMEOUT=2s`,
`SIDECAR__ROUTES__0__LIMIT__RATE=50/s` (a number is an index, the next free one appends), and a whole list or section
in flow style: `SIDECAR__UPSTREAM__ENDPOINTS='[http://127.0.0.1:9000]'`. The flags are `--upstream URL`
(`upstream.endpoints`), `--listen ADDR` and `--workers N`.

**Static** keys hold from start or `SIGHUP` on; the API answers 422 to a change of one. Everything below `admin` comes
from the file only: an applied or rolled-back version leaves it alone. All other keys apply **live**, without dropping a
request.

**Names and paths.** Route names match `[a-z0-9_-]+`. Routes are tried in the order of the file and the first match
wins; a route that no request can reach is an error, and so are more than 500 routes. Without `routes` one route
`default` takes everything.

**Modes.** `mode: observe` at the top lowers every control to `observe`, whatever its own mode says: what would be
refused is counted and nothing is refused.

**Secrets** never stand in the file: `secret_file` names a file that holds the key, tokens are known by their SHA-256.
No answer, diff or evidence shows a hash.

**Several workers** share one limit: each has a part of the rate by demand, and 2 % of a rate is spared for their bursts,
so that no minute passes more than its burst and a minute of its rate. A limit of fewer requests a minute than there are
workers passes one for each of them.

**`slo`** gives a route an error budget. What spends it too fast raises and never isolates: see
[the runbook of burn](../runbooks/burn.md).
"""

_REASONS_HEAD: Final = """\
# Reasons

Made by `python -m sidecar.config.reference` from `sidecar/reasons.py`; do not edit.

One row for each way in which a request can end other than with the upstream's own answer. The reason stands in the
problem document that the client gets, in the label `reason` of `sidecar_refused_total` and in the access log.
429 means the client's fault, 503 means ours.
"""


if __name__ == "__main__":
    main()
