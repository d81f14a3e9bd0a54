"""
What is true after a start: the file, or the version that ran before.

Tables
    at a start                                        then
    no version came from the file yet                 the file's text is version 1
    the file's hash differs from its last version's   the file's text is a new version
    the file cannot be read or is not valid           the newest active version runs on
    else                                              the newest active version runs on: a restart never undoes a
                                                      rollback that was made at 3 a.m. (`diverged from file`)

What can go wrong
    The stored text no longer loads (written by another release): the file runs, and the log says so. The store cannot
    be read: what the workers boot from runs on, else the file. The file is gone and nothing is stored: no start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from sidecar import clock
from sidecar.config.diff import Change, diff
from sidecar.config.errors import ConfigError, ConfigErrors
from sidecar.config.fields import MASK
from sidecar.config.load import load, text_hash
from sidecar.config.policies import Compiled
from sidecar.controller.effects import PutMark, PutVersion, Write
from sidecar.controller.journal import Journal
from sidecar.controller.versions import CONFIRMING_MARK, KEPT, Active, Pending, Versions, applied, rows_of
from sidecar.link.runtime import BootConfig
from sidecar.store.errors import StoreError


@dataclass(frozen=True, slots=True)
class Source:
    """Where the text comes from at a start: the file (None when there is none), the environment and the flags."""

    file: Path | None
    environ: Mapping[str, str]
    flags: Mapping[str, str]

    def __str__(self) -> str:
        return str(self.file or "the command line")

    def read(self) -> str:
        """
        Return the file's text, byte for byte; empty without a file.

        Raises:
            OSError, UnicodeDecodeError: when it cannot be read.
        """
        return self.file.read_bytes().decode() if self.file is not None else ""

    def has(self, hash_: str) -> bool:
        """Tell whether the file has the text of this hash now."""
        try:
            return text_hash(self.read()) == hash_
        except (OSError, UnicodeDecodeError):
            return False

    def compile(self, text: str, name: str) -> Compiled:
        """
        Return *text* compiled under this environment and these flags.

        Raises:
            ConfigErrors: with everything that is wrong.
        """
        return load(text, name=name, environ=self.environ, flags=self.flags)

    def compile_file(self, text: str) -> Compiled:
        """
        Return the file's *text* compiled; a token in it needs its hash, which no shown text has.

        Raises:
            ConfigErrors: with everything that is wrong.
        """
        compiled, name = self.compile(text, str(self)), str(self)
        hidden = [token.name for token in compiled.admin.tokens if token.sha256 == MASK]
        if hidden:
            hint = (
                "a text that was shown has no hashes: copy them from the file before, or: printf %s TOKEN | sha256sum"
            )
            problem = "is hidden, so nobody could use this token"
            errors = [ConfigError(f"admin.tokens.{token}.sha256", 0, 0, problem, hint, name) for token in hidden]
            raise ConfigErrors(errors)
        return compiled


@dataclass(frozen=True, slots=True)
class Memory:
    """
    What the store remembers of the config.

    Attributes:
        readable: It could be read; else the rest is empty.
    """

    versions: Versions
    marks: Mapping[str, str]
    readable: bool


async def remember(journal: Journal) -> Memory:
    """Read the history, if the store lets us."""
    try:
        rows = await journal.read(lambda store: store.versions(limit=KEPT))
        marks = await journal.read(lambda store: store.marks())
    except StoreError as error:
        structlog.get_logger("config").error("the config's history cannot be read", problem=str(error))
        return Memory(Versions(), {}, readable=False)
    return Memory(Versions(PutVersion(**row) for row in rows), marks, readable=True)


@dataclass(frozen=True, slots=True)
class Begun:
    """
    What runs after a start.

    Attributes:
        versions: The history, with what runs in it.
        active: The version that runs.
        file: The file's text compiled, or of the last text that the file had; the static keys and `admin` come from it.
        file_hash: Of the file as it is; empty when it cannot be read.
        file_ok: The file can run.
        changes: What differs between the version that ran before and the one that runs now.
        pending: Waits for its confirmation.
        writes: What is to be stored of it.
    """

    versions: Versions
    active: Active
    file: Compiled
    file_hash: str
    file_ok: bool
    changes: Sequence[Change] = ()
    pending: Pending | None = None
    writes: Sequence[Write] = ()


class Beginning:
    """
    Finds what runs after a start.

    Args:
        source: The file, the environment, the flags.
        memory: What the store remembers.
        boot: What the workers boot from.
    """

    def __init__(self, source: Source, memory: Memory, boot: BootConfig | None) -> None:
        self._source = source
        self._memory = memory
        self._boot = boot if not memory.readable else None
        self._log = structlog.get_logger("config")
        self._file_hash = ""

    def __repr__(self) -> str:
        return f"<Beginning {self._source}, {self._memory.versions!r}>"

    def find(self) -> Begun:
        """
        Return what runs.

        Raises:
            ConfigErrors, OSError, UnicodeDecodeError: when neither the file nor any stored version can run.
        """
        try:
            file = self._read_file()
        except (OSError, UnicodeDecodeError, ConfigErrors) as error:
            self._log.error("the file cannot run; a version that ran is looked for", problem=str(error))
            going_on = self._go_on()
            if going_on is None:
                raise
            return going_on
        if self._same_file() and (going_on := self._go_on(file.compiled)) is not None:
            return going_on
        return self._begin_with(file)

    def _read_file(self) -> Active:
        text = self._source.read()
        self._file_hash = text_hash(text)
        compiled = self._source.compile_file(text)
        number = self._memory.versions.next_number if self._boot is None else self._boot.version + 1
        unix, why = clock.wall().timestamp(), "the file at the start"
        return Active(PutVersion(number, text, self._file_hash, "file", why, "file", "active", unix), compiled)

    def _same_file(self) -> bool:
        if self._boot is not None:
            return self._boot.file_hash == self._file_hash
        last = self._memory.versions.last_from_file
        return last is not None and last.hash == self._file_hash

    def _running(self) -> PutVersion | None:
        if self._boot is None:
            return next(iter(self._memory.versions.running()), None)
        boot, unix = self._boot, clock.wall().timestamp()
        return PutVersion(boot.version, boot.text, boot.hash, "file", "what the workers run", "file", "active", unix)

    def _go_on(self, file: Compiled | None = None) -> Begun | None:
        """Go on with the version that ran; None when there is none that loads."""
        versions, running = self._memory.versions, self._running()
        active = self._revived(running)
        if active is None:
            return None
        if file is None and (last := self._revived(versions.last_from_file)) is not None:
            last_file = last.compiled
        else:
            last_file = file or active.compiled
        pending = Pending.of(self._memory.marks.get(CONFIRMING_MARK, ""))
        if pending is not None and (pending.version != active.version or active.row.state != "confirming"):
            pending = None
        versions.put(active.row)
        return Begun(versions, active, last_file, self._file_hash, file_ok=file is not None, pending=pending)

    def _begin_with(self, file: Active) -> Begun:
        """Make the file's text a new version."""
        versions, running = self._memory.versions, self._running()
        changes = diff(running.text, file.row.text) if running is not None else ()
        row = replace(file.row, changes=rows_of(changes))
        writes: list[Write] = []
        if self._memory.readable:
            writes = [*versions.superseding(), row, PutMark(CONFIRMING_MARK, ""), applied(row)]
        versions.supersede()
        versions.put(row)
        active = Active(row, file.compiled)
        return Begun(versions, active, file.compiled, self._file_hash, file_ok=True, changes=changes, writes=writes)

    def _revived(self, row: PutVersion | None) -> Active | None:
        if row is None:
            return None
        try:
            return Active(row, self._source.compile(row.text, f"version {row.version}"))
        except ConfigErrors as errors:
            self._log.error("a stored version no longer loads", version=row.version, problem=str(errors))
            return None
