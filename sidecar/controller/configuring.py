"""
Config versions: which one is true, how a new one becomes active, and how an old one comes back.

Theory
    A version is a text as it was written, with its hash, author, reason and source; the history is append-only
    (`versions.py`). Apply = validate → compile → prepare on every worker → store as active → commit on every worker →
    answer. Until it is stored nothing has changed; from then on it is the truth, and a worker that missed it is
    brought to it. Only a revert does not wait for the store: it is containment. An applied text that the file has too
    counts as read from there.

What can go wrong
    The store is down: nothing is applied (503). It could not be read at the start (`starting.py`): the history is read
    before the next change. The controller dies while a version waits for its confirmation: the deadline is in the
    store, and its successor keeps it; within one boot the monotonic one counts, whatever the wall clock does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final, NoReturn

import structlog

from sidecar import clock
from sidecar.config.diff import Change, diff
from sidecar.config.errors import ConfigError, ConfigErrors
from sidecar.config.load import static_changes, text_hash
from sidecar.config.policies import AdminPolicy, Compiled, StaticConfig
from sidecar.controller.effects import AppendEvent, PutMark, PutVersion, SetVersionState, Write
from sidecar.controller.journal import Journal
from sidecar.controller.ports import ConfigRefused
from sidecar.controller.rollout import Rollout
from sidecar.controller.starting import Beginning, Source, remember
from sidecar.controller.versions import CONFIRMING_MARK, Active, Pending, Versions, applied, rows_of
from sidecar.incident.words import rfc3339
from sidecar.link.runtime import BootConfig
from sidecar.store.errors import StoreError

AUTOMATION: Final = "automation"


class Configuring:
    """
    The config's history and the one that runs.

    Args:
        source: File, environment, flags.
        journal: Where versions are stored.
        on_active: Told of each version that has become active, with what changed; before the workers commit it.

    Attributes:
        begun_with: What differs between the version that ran before the start and the one that runs since.
        pending: The version that waits for its confirmation.
        judge: Says what is wrong with the changes of an apply: the rules that incidents taught.
        on_changed: Called when another version has become active.
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
        self._versions = Versions()
        self._readable = True
        self.file_hash = ""
        self.begun_with: Sequence[Change] = ()
        self.pending: Pending | None = None
        self.last_apply_ok = True
        self.judge: Callable[[Sequence[Change]], Sequence[ConfigError]] = _no_fault
        self.on_changed: Callable[[], object] = lambda: None
        self._log = structlog.get_logger("config")

    def __repr__(self) -> str:
        return f"<Configuring v{self._active.version if self._active else 0} {self._versions!r}>"

    @property
    def active(self) -> Active:
        """Return the version that runs."""
        assert self._active is not None
        return self._active

    @property
    def source(self) -> Source:
        """Return where the text comes from at a start: the environment and flags lie over every version."""
        return self._source

    @property
    def admin(self) -> AdminPolicy:
        """Return who may do what: from the file alone, whatever version runs."""
        return self._admin

    @property
    def diverged(self) -> bool:
        """Tell whether the file says something else than what runs; it is read again before that is said."""
        return self.active.row.hash != self.file_hash and not self._source.has(self.active.row.hash)

    def versions(self) -> Sequence[PutVersion]:
        """Return all versions, the newest first."""
        return self._versions.newest_first()

    def version(self, number: int) -> PutVersion | None:
        """Return one version."""
        return self._versions.get(number)

    def remembered(self) -> list[Write]:
        """Return everything of it that a new store must hold."""
        return [*reversed(self.versions()), self.pending.mark() if self.pending else PutMark(CONFIRMING_MARK, "")]

    # --- at a start -------------------------------------------------------------------------------------------

    async def begin(self, boot: BootConfig | None = None) -> Active:
        """
        Find what is true after a start and return it.

        Args:
            boot: What the workers boot from; it counts when the store cannot be read.

        Raises:
            ConfigErrors, OSError, UnicodeDecodeError: when neither the file nor any stored version can run.
        """
        memory = await remember(self._journal)
        begun = Beginning(self._source, memory, boot).find()
        self._readable, self._versions, self.pending = memory.readable, begun.versions, begun.pending
        self.file_hash, self.begun_with, self.last_apply_ok = begun.file_hash, begun.changes, begun.file_ok
        self._static, self._admin = begun.file.static, begun.file.admin
        self._active = Active(begun.active.row, replace(begun.active.compiled, static=self._static, admin=self._admin))
        self._journal.put(begun.writes)
        return self._active

    def serve(self, rollout: Rollout) -> None:
        """Apply to the workers behind *rollout* from now on."""
        self._rollout = rollout

    async def _catch_up(self) -> None:
        """
        Read the history that could not be read at the start, and find the place of what runs in it.

        Raises:
            ConfigRefused: 503 when it still cannot be read.
        """
        if self._readable:
            return
        memory = await remember(self._journal)
        if not memory.readable:
            raise ConfigRefused(503, "the store cannot be read: the config's history is not known", "see the log")
        self._readable, self._versions, active = True, memory.versions, self.active
        row = self._versions.get(active.version)
        if row is None or row.hash != active.row.hash:
            row = replace(active.row, version=self._versions.next_number)
            self._journal.put([*self._versions.superseding(), row, applied(row)])
            self._versions.supersede()
            self._versions.put(row)
        self._active = replace(active, row=row)
        self._bring_all()

    # --- changes ----------------------------------------------------------------------------------------------

    async def apply(
        self,
        text: str,
        *,
        author: str,
        reason: str,
        if_match: int,
        dry_run: bool,
        confirm_within_s: float | None,
        source: str = "api",
    ) -> dict[str, Any]:
        """
        Make *text* the active version.

        Raises:
            ConfigRefused: when it was not made; what ran before runs on.
        """
        async with self._lock:
            await self._catch_up()
            self._free_to_change(if_match)
            name = f"version {self._versions.next_number}"
            compiled = self._compiled(text, name)
            changes = diff(self.active.row.text, text)
            if fixed := static_changes(self.active.compiled, compiled, text=text, name=name):
                raise ConfigRefused.invalid(fixed)
            if faults := self.judge(changes):
                raise ConfigRefused.invalid(faults)
            if dry_run:
                return self._answer(self._versions.next_number, text, "active", changes, dry_run=True)
            row = self._row(text, author, reason, source, changes)
            return await self._become(row, compiled, changes, confirm_within_s)

    async def rollback(self, to: int | None, *, author: str, reason: str) -> dict[str, Any]:
        """
        Make the text of version *to* (None: the one before the active) active again, as a new version.

        Raises:
            ConfigRefused: as `apply`; 404 when there is no such version.
        """
        async with self._lock:
            await self._catch_up()
            target = self._versions.target(to, self.active.row)
            return await self._go_back(target, author, reason or f"rollback to {target.version}")

    async def confirm(self, author: str) -> dict[str, Any]:
        """
        Keep the version that waits.

        Raises:
            ConfigRefused: 409 when none waits.
        """
        async with self._lock:
            await self._catch_up()
            if self.pending is None:
                raise ConfigRefused(409, "no version waits for a confirmation", "`sidecar config history` shows them")
            row = replace(self.active.row, state="active")
            event = AppendEvent("config.confirmed", clock.wall().timestamp(), author, body={"version": row.version})
            await self._store([SetVersionState(row.version, "active"), PutMark(CONFIRMING_MARK, ""), event])
            self.pending = None
            self._active = replace(self.active, row=row)
            self._versions.put(row)
            return self._answer(row.version, row.text, "active", [])

    async def reload(self, why: str) -> None:
        """
        Read the file again: a new text is a new version; the admin section is taken in any case.

        Args:
            why: What made us look: SIGHUP, or that the watched file has changed; the version's reason.
        """
        try:
            text = self._source.read()
            compiled = self._source.compile_file(text)
        except (OSError, UnicodeDecodeError, ConfigErrors) as error:
            self.last_apply_ok = False
            self._log.error("the file cannot be applied; the running version stays", problem=str(error))
            return
        async with self._lock:
            self._static, self._admin = compiled.static, compiled.admin
            self.file_hash = text_hash(text)
            try:
                await self._catch_up()
                last = self._versions.last_from_file
                if last is not None and last.hash == self.file_hash:
                    self.last_apply_ok = True
                    self._log.info("the file has not changed", diverged=self.diverged)
                    return
                changes = diff(self.active.row.text, text)
                if faults := self.judge(changes):
                    raise ConfigRefused.invalid(faults)
                await self._become(self._row(text, "file", why, "file", changes), compiled, changes, None)
            except ConfigRefused as refused:
                self.last_apply_ok = False
                self._log.error("the file was not applied; the running version stays", problem=refused.words)

    async def revert(self, why: str) -> None:
        """Bring back what ran before the version that waits for its confirmation; also while the store is down."""
        async with self._lock:
            pending = self.pending
            if pending is None:
                return
            try:
                target = self._versions.target(pending.previous, self.active.row)
                await self._go_back(target, AUTOMATION, why, insist=True)
            except ConfigRefused as refused:
                self._log.error("an unconfirmed version could not be reverted yet", problem=refused.problem)
            else:
                self._log.warning("an unconfirmed version was reverted", version=pending.version, why=why)

    # --- the steps of a change --------------------------------------------------------------------------------

    async def _go_back(self, target: PutVersion, author: str, reason: str, *, insist: bool = False) -> dict[str, Any]:
        compiled = self._compiled(target.text, f"version {target.version}")
        changes = diff(self.active.row.text, target.text)
        row = self._row(target.text, author, reason, "rollback", changes)
        return await self._become(row, compiled, changes, None, insist=insist)

    async def _become(
        self,
        row: PutVersion,
        compiled: Compiled,
        changes: Sequence[Change],
        confirm_within_s: float | None,
        *,
        insist: bool = False,
    ) -> dict[str, Any]:
        """Take all steps; *insist* goes on although the store does not take it."""
        assert self._rollout is not None
        prepared, problem = await self._rollout.prepare(row.version, row.text)
        if problem:
            self._fail(row, problem)
        if row.source == "api" and self._source.has(row.hash):
            row = replace(row, source="file")
        pending = None
        if confirm_within_s is not None:
            row = replace(row, state="confirming")
            by_unix, by_at = row.unix + confirm_within_s, clock.now() + confirm_within_s
            pending = Pending(row.version, self.active.version, by_unix, by_at)
        mark = pending.mark() if pending is not None else PutMark(CONFIRMING_MARK, "")
        await self._store([*self._versions.superseding(), row, mark, applied(row)], insist=insist)
        self._versions.supersede()
        self._versions.put(row)
        self.pending, self.last_apply_ok = pending, True
        if row.source == "file":
            self.file_hash = row.hash
        self._active = Active(row, replace(compiled, static=self._static, admin=self._admin))
        self._on_active(self._active, changes)
        self.on_changed()
        acknowledged, problem = await self._rollout.commit(row.version, prepared)
        self._bring_all(but=acknowledged)
        if problem:
            self._log.warning("a worker is late to run the version", version=row.version, problem=problem)
        workers = len(acknowledged), len(self._rollout.workers)
        return self._answer(row.version, row.text, row.state, changes, workers=workers)

    def _bring_all(self, but: frozenset[int] = frozenset()) -> None:
        row = self.active.row
        if self._rollout is not None:
            for worker in self._rollout.workers - but:
                self._rollout.bring(worker, row.version, row.text)

    def _fail(self, row: PutVersion, problem: str) -> NoReturn:
        failed = replace(row, state="failed")
        body = {"version": row.version, "problem": problem}
        event = AppendEvent("config.failed", row.unix, row.author, body=body)
        self._versions.put(failed)
        self._journal.put([failed, event])
        self.last_apply_ok = False
        raise ConfigRefused(503, f"version {row.version} was not applied: {problem}", "the version before runs on")

    async def _store(self, writes: Sequence[Write], *, insist: bool = False) -> None:
        try:
            await self._journal.put_now(writes)
        except StoreError as error:
            if insist:
                self._journal.put(writes)
                return
            self.last_apply_ok = False
            raise ConfigRefused(503, f"the store does not take it: {error.problem}", error.hint) from error

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

    def compiled(self, row: PutVersion) -> Compiled:
        """
        Return a version as it would run here.

        Raises:
            ConfigRefused: 422 when it no longer loads.
        """
        return self._compiled(row.text, f"version {row.version}")

    def _compiled(self, text: str, name: str) -> Compiled:
        try:
            return self._source.compile(text, name)
        except ConfigErrors as errors:
            raise ConfigRefused.invalid(errors.errors) from errors

    def _row(self, text: str, author: str, reason: str, source: str, changes: Sequence[Change] = ()) -> PutVersion:
        number, unix = self._versions.next_number, clock.wall().timestamp()
        return PutVersion(number, text, text_hash(text), author, reason, source, "active", unix, rows_of(changes))

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
            "version": version, "hash": text_hash(text), "state": state, "dry_run": dry_run,
            "changes": list(rows_of(changes)), "confirm_by_time": rfc3339(by) if by is not None else None,
            "workers": {"acknowledged": acknowledged, "total": total},
        }  # fmt: skip


def _no_fault(changes: Sequence[Change]) -> Sequence[ConfigError]:  # noqa: ARG001  the shape of `Configuring.judge`
    return ()
