"""
Config versions: which one is true, how a new one becomes active, and how an old one comes back.

Theory
    A version is a text as it was written, with its hash, author, reason and source; the history is append-only.
    Apply = validate → compile → prepare on every worker → store as active → commit on every worker → answer. Until it
    is stored nothing has changed; from then on it is the truth, and a worker that missed it is brought to it.

Tables
    at a start                                        then
    no version came from the file yet                 the file's text is version 1
    the file's hash differs from its last version's   the file's text is a new version
    else                                              the newest active version runs on: a restart never undoes a
                                                      rollback that was made at 3 a.m. (`diverged from file`)

    state        meaning
    active       runs              confirming   runs, and reverts by itself unless confirmed
    superseded   ran               reverted     ran, and was not confirmed         failed   no worker ever ran it

What can go wrong
    The stored text no longer loads (written by another release): the file runs, and the log says so. The store is
    down: nothing is applied (503). The controller dies while a version waits for its confirmation: the deadline is in
    the store, and its successor keeps it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import structlog

from sidecar import clock
from sidecar.config.diff import Change, diff
from sidecar.config.errors import ConfigError, ConfigErrors
from sidecar.config.load import load, static_changes, text_hash
from sidecar.config.policies import AdminPolicy, Compiled, StaticConfig
from sidecar.controller.effects import AppendEvent, PutMark, PutVersion, SetVersionState, Write
from sidecar.controller.journal import Journal
from sidecar.controller.ports import ConfigRefused
from sidecar.controller.rollout import Rollout
from sidecar.incident.words import rfc3339
from sidecar.store.errors import StoreError

CONFIRMING_MARK: Final = "config.confirming"
AUTOMATION: Final = "automation"
KEPT: Final = 1_000  # versions held in memory, the newest; older ones stay in the store


@dataclass(frozen=True, slots=True)
class Active:
    """The version that runs, compiled."""

    row: PutVersion
    compiled: Compiled

    @property
    def version(self) -> int:
        """Return its number."""
        return self.row.version


@dataclass(frozen=True, slots=True)
class Pending:
    """A version that reverts by itself at `by_unix` unless it is confirmed."""

    version: int
    previous: int
    by_unix: float


@dataclass(frozen=True, slots=True)
class Source:
    """Where the text comes from at a start: the file (None when there is none), the environment and the flags."""

    file: Path | None
    environ: Mapping[str, str]
    flags: Mapping[str, str]

    def read(self) -> str:
        """
        Return the file's text; empty without a file.

        Raises:
            OSError, UnicodeDecodeError: when it cannot be read.
        """
        return self.file.read_text(encoding="utf-8") if self.file is not None else ""

    def compile(self, text: str, name: str) -> Compiled:
        """
        Return *text* compiled under this environment and these flags.

        Raises:
            ConfigErrors: with everything that is wrong.
        """
        return load(text, name=name, environ=self.environ, flags=self.flags)


class Configuring:
    """
    The config's history and the one that runs.

    Args:
        source: File, environment, flags.
        journal: Where versions are stored.
        on_active: Told of each version that has become active, with what changed; before the workers commit it.
    """

    def __init__(self, source: Source, journal: Journal, on_active: Callable[[Active, Sequence[Change]], None]) -> None:
        self._source = source
        self._journal = journal
        self._on_active = on_active
        self._rollout: Rollout | None = None
        self._lock = asyncio.Lock()
        self._active: Active | None = None
        self._static = StaticConfig()
        self._admin = AdminPolicy()
        self._file_hash = ""
        self._versions: dict[int, PutVersion] = {}
        self.pending: Pending | None = None
        self.last_apply_ok = True
        self._log = structlog.get_logger("config")

    def __repr__(self) -> str:
        return f"<Configuring v{self._active.version if self._active else 0} of {len(self._versions)}>"

    @property
    def active(self) -> Active:
        """Return what runs; `begin` came before."""
        assert self._active is not None
        return self._active

    @property
    def admin(self) -> AdminPolicy:
        """Return who may do what: from the file alone, whatever version runs."""
        return self._admin

    @property
    def diverged(self) -> bool:
        """Tell whether the file says something else than what runs."""
        return self.active.row.hash != self._file_hash

    def versions(self) -> Sequence[PutVersion]:
        """Return all versions, the newest first."""
        return sorted(self._versions.values(), key=lambda row: -row.version)

    def version(self, number: int) -> PutVersion | None:
        """Return one version."""
        return self._versions.get(number)

    # --- at a start -------------------------------------------------------------------------------------------

    async def begin(self) -> Active:
        """
        Find what is true after a start and return it.

        Raises:
            ConfigErrors, OSError: when neither the file nor any stored version can run.
        """
        try:
            stored = [PutVersion(**row) for row in await self._journal.read(lambda store: store.versions(limit=KEPT))]
            marks = await self._journal.read(lambda store: dict(store.marks()))
        except StoreError:
            stored, marks = [], {}
        self._versions = {row.version: row for row in stored}
        text = self._source.read()
        self._file_hash = text_hash(text)
        from_file = [row for row in self.versions() if row.source == "file"]
        running = next((row for row in self.versions() if row.state in ("active", "confirming")), None)
        if running is not None and from_file and from_file[0].hash == self._file_hash:
            self._active = self._revive(running, text)
            self._restore_pending(marks)
        if self._active is None:
            compiled = self._source.compile(text, self._name)
            self._active = Active(self._row(text, "file", "the file at the start", "file"), compiled)
            self._journal.put([*self._superseding(), self._active.row, _applied(self._active.row)])
        self._versions[self._active.version] = self._active.row
        self._take_file(text, self._active.compiled)
        return self._active

    def serve(self, rollout: Rollout) -> None:
        """Apply to the workers behind *rollout* from now on."""
        self._rollout = rollout

    def _revive(self, row: PutVersion, file_text: str) -> Active | None:
        try:
            return Active(row, self._source.compile(row.text, f"version {row.version}"))
        except ConfigErrors as errors:
            self._log.error(
                "the stored version no longer loads; the file runs", version=row.version, problem=str(errors)
            )
            self._source.compile(file_text, self._name)
            return None

    def _take_file(self, text: str, running: Compiled) -> None:
        try:
            compiled = self._source.compile(text, self._name)
        except ConfigErrors:
            compiled = running
        self._static, self._admin = compiled.static, compiled.admin

    def _restore_pending(self, marks: Mapping[str, str]) -> None:
        try:
            row = json.loads(marks.get(CONFIRMING_MARK) or "null")
            self.pending = Pending(int(row["version"]), int(row["previous"]), float(row["by_unix"])) if row else None
        except (ValueError, KeyError, TypeError):
            self.pending = None
        if self.pending is not None and (self._active is None or self.pending.version != self._active.version):
            self.pending = None

    @property
    def _name(self) -> str:
        return str(self._source.file or "the command line")

    # --- changes ----------------------------------------------------------------------------------------------

    async def apply(
        self, text: str, *, author: str, reason: str, if_match: int, dry_run: bool, confirm_within_s: float | None
    ) -> dict[str, Any]:
        """
        Make *text* the active version.

        Raises:
            ConfigRefused: when it was not made; what ran before runs on.
        """
        async with self._lock:
            self._free_to_change(if_match)
            name = f"version {self._next_number}"
            compiled = self._compiled(text, name)
            changes = diff(self.active.row.text, text)
            if fixed := static_changes(self.active.compiled, compiled, text=text, name=name):
                raise _invalid(fixed)
            if dry_run:
                return self._answer(self._next_number, text, "active", changes, dry_run=True)
            row = self._row(text, author, reason, "api", changes)
            return await self._become(row, compiled, changes, confirm_within_s)

    async def rollback(self, to: int | None, *, author: str, reason: str) -> dict[str, Any]:
        """
        Make the text of version *to* (None: the one before the active) active again, as a new version.

        Raises:
            ConfigRefused: as `apply`; 404 when there is no such version.
        """
        async with self._lock:
            target = self._target(to)
            compiled = self._compiled(target.text, f"version {target.version}")
            changes = diff(self.active.row.text, target.text)
            row = self._row(target.text, author, reason or f"rollback to {target.version}", "rollback", changes)
            return await self._become(row, compiled, changes, None)

    async def confirm(self, author: str) -> dict[str, Any]:
        """
        Keep the version that waits.

        Raises:
            ConfigRefused: 409 when none waits.
        """
        async with self._lock:
            if self.pending is None:
                raise ConfigRefused(409, "no version waits for a confirmation", "`sidecar config history` shows them")
            row = replace(self.active.row, state="active")
            event = AppendEvent("config.confirmed", clock.wall().timestamp(), author, body={"version": row.version})
            await self._store([SetVersionState(row.version, "active"), PutMark(CONFIRMING_MARK, ""), event])
            self.pending = None
            self._active = replace(self.active, row=row)
            self._versions[row.version] = row
            return self._answer(row.version, row.text, "active", [])

    async def reload(self) -> None:
        """Read the file again (SIGHUP): a new text is a new version; the admin section is taken in any case."""
        try:
            text = self._source.read()
            compiled = self._source.compile(text, self._name)
        except (OSError, UnicodeDecodeError, ConfigErrors) as error:
            self.last_apply_ok = False
            self._log.error("the file cannot be applied; the running version stays", problem=str(error))
            return
        async with self._lock:
            self._static, self._admin = compiled.static, compiled.admin
            last = next((row for row in self.versions() if row.source == "file"), None)
            self._file_hash = text_hash(text)
            if last is not None and last.hash == self._file_hash:
                self._log.info("the file has not changed", diverged=self.diverged)
                return
            changes = diff(self.active.row.text, text)
            row = self._row(text, "file", "SIGHUP", "file", changes)
            try:
                await self._become(row, compiled, changes, None)
            except ConfigRefused as refused:
                self._log.error("the file was not applied; the running version stays", problem=refused.problem)

    async def revert(self, why: str) -> None:
        """Bring back what ran before the version that waits for its confirmation."""
        pending = self.pending
        if pending is None:
            return
        try:
            await self.rollback(pending.previous, author=AUTOMATION, reason=why)
        except ConfigRefused as refused:
            self._log.error("an unconfirmed version could not be reverted yet", problem=refused.problem)

    # --- the steps of a change --------------------------------------------------------------------------------

    async def _become(
        self, row: PutVersion, compiled: Compiled, changes: Sequence[Change], confirm_within_s: float | None
    ) -> dict[str, Any]:
        assert self._rollout is not None
        prepared, problem = await self._rollout.prepare(row.version, row.text)
        if problem:
            await self._fail(row, problem)
        confirming = confirm_within_s is not None
        row = replace(row, state="confirming" if confirming else "active")
        pending = Pending(row.version, self.active.version, row.unix + (confirm_within_s or 0)) if confirming else None
        await self._store([*self._superseding(), row, _pending_mark(pending), _applied(row)])
        self._supersede()
        self.pending, self.last_apply_ok = pending, True
        compiled = replace(compiled, static=self._static, admin=self._admin)
        self._active = Active(row, compiled)
        self._versions[row.version] = row
        self._on_active(self._active, changes)
        acknowledged, problem = await self._rollout.commit(row.version, prepared)
        for worker in self._rollout.workers - acknowledged:
            self._rollout.bring(worker, row.version, row.text)
        if problem:
            self._log.warning("a worker is late to run the version", version=row.version, problem=problem)
        total = len(self._rollout.workers)
        return self._answer(row.version, row.text, row.state, changes, workers=(len(acknowledged), total))

    async def _fail(self, row: PutVersion, problem: str) -> None:
        failed = replace(row, state="failed")
        body = {"version": row.version, "problem": problem}
        event = AppendEvent("config.failed", row.unix, row.author, body=body)
        self._versions[row.version] = failed
        self._journal.put([failed, event])
        self.last_apply_ok = False
        raise ConfigRefused(503, f"version {row.version} was not applied: {problem}", "the version before runs on")

    async def _store(self, writes: Sequence[Write]) -> None:
        try:
            await self._journal.put_now(writes)
        except StoreError as error:
            self.last_apply_ok = False
            raise ConfigRefused(503, f"the store does not take it: {error.problem}", error.hint) from error

    def _superseding(self) -> list[Write]:
        return [SetVersionState(row.version, self._end_state(row)) for row in self._running()]

    def _supersede(self) -> None:
        for row in self._running():
            self._versions[row.version] = replace(row, state=self._end_state(row))

    def _running(self) -> list[PutVersion]:
        return [row for row in self._versions.values() if row.state in ("active", "confirming")]

    def _end_state(self, row: PutVersion) -> str:
        return "reverted" if row.state == "confirming" else "superseded"

    def _free_to_change(self, if_match: int) -> None:
        if self.pending is not None:
            raise ConfigRefused(
                409,
                f"version {self.pending.version} waits for its confirmation",
                "type `sidecar config confirm`, or `sidecar config rollback`",
            )
        if if_match != self.active.version:
            raise ConfigRefused(
                412,
                f"version {self.active.version} is active, not {if_match}",
                "read it with `sidecar config show`, and apply your change to it",
            )

    def _compiled(self, text: str, name: str) -> Compiled:
        try:
            return self._source.compile(text, name)
        except ConfigErrors as errors:
            raise _invalid(errors.errors) from errors

    def _target(self, to: int | None) -> PutVersion:
        if to is None:
            before = (row for row in self.versions() if row.version < self.active.version)
            good = (row for row in before if row.state == "superseded" and row.hash != self.active.row.hash)
            target = next(good, None)
            if target is None:
                raise ConfigRefused(
                    409, "there is no earlier version to go back to", "`sidecar config history` lists all"
                )
            return target
        found = self._versions.get(to)
        if found is None:
            raise ConfigRefused(404, f"there is no version {to}", "`sidecar config history` lists all")
        if found.state == "failed":
            raise ConfigRefused(409, f"version {to} failed: no worker ever ran it", "choose one that ran")
        return found

    @property
    def _next_number(self) -> int:
        return max(self._versions, default=0) + 1

    def _row(self, text: str, author: str, reason: str, source: str, changes: Sequence[Change] = ()) -> PutVersion:
        rows = tuple({"path": c.path, "old": c.old, "new": c.new} for c in changes)
        unix = clock.wall().timestamp()
        return PutVersion(self._next_number, text, text_hash(text), author, reason, source, "active", unix, rows)

    def _answer(
        self,
        version: int,
        text: str,
        state: str,
        changes: Sequence[Change],
        *,
        dry_run: bool = False,
        workers: tuple[int, int] | None = None,
    ) -> dict[str, Any]:
        connected = len(self._rollout.workers) if self._rollout else 0
        acknowledged, total = workers or (0 if dry_run else connected, connected)
        by = self.pending.by_unix if self.pending is not None and not dry_run else None
        return {
            "version": version,
            "hash": text_hash(text),
            "state": state,
            "dry_run": dry_run,
            "changes": [{"path": c.path, "old": c.old, "new": c.new} for c in changes],
            "confirm_by_time": rfc3339(by) if by is not None else None,
            "workers": {"acknowledged": acknowledged, "total": total},
        }


def _invalid(errors: Sequence[ConfigError]) -> ConfigRefused:
    rows = [{"path": e.path, "line": e.line, "column": e.column, "problem": e.problem, "hint": e.hint} for e in errors]
    count = f"{len(rows)} error{'s' if len(rows) > 1 else ''}"
    return ConfigRefused(422, f"{count} in the configuration; the active one stays in force", "", rows)


def _applied(row: PutVersion) -> AppendEvent:
    body = {
        "version": row.version, "hash": row.hash, "source": row.source, "reason": row.reason, "state": row.state,
        "changes": [dict(change) for change in row.changes[:50]],
    }  # fmt: skip
    return AppendEvent(
        "config.rolled_back" if row.source == "rollback" else "config.applied", row.unix, row.author, body=body
    )


def _pending_mark(pending: Pending | None) -> PutMark:
    row = {"version": pending.version, "previous": pending.previous, "by_unix": pending.by_unix} if pending else None
    return PutMark(CONFIRMING_MARK, json.dumps(row) if row else "")
