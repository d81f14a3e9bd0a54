"""The controller as its API sees it: implements `controller/ports.py` over the engine, the journal and the config's history."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

from sidecar import __version__, clock
from sidecar.config.mask import mask
from sidecar.config.policies import Token
from sidecar.controller.answers import Answers
from sidecar.controller.commands import Asking, Done, Rejected
from sidecar.controller.comparing import Comparing
from sidecar.controller.configuring import Configuring
from sidecar.controller.drafting import Drafter
from sidecar.controller.effects import AppendEvent, PutVersion
from sidecar.controller.journal import Journal
from sidecar.controller.learning import MAX_KEPT, Learning
from sidecar.controller.loop import Loop, moment
from sidecar.controller.ports import Document, Page, Unavailable
from sidecar.controller.replaying import Replays
from sidecar.controller.taping import Tapes
from sidecar.controller.tapping import Taps
from sidecar.controller.tokens import Keyring
from sidecar.incident.documents import without_kept
from sidecar.incident.words import rfc3339
from sidecar.notify.dispatch import Dispatcher
from sidecar.replay.learned import Learned
from sidecar.store.errors import StoreError
from sidecar.store.key import client_key
from sidecar.store.store import Store

MAX_BEHIND: Final = 1_000  # events that one reader of the stream may lag behind
REPLAYED: Final = 500  # events that are read from the store at once for a reader who comes back
STORED_S: Final = 1.0


class Events:
    """The live stream: every reader has a bounded queue of its own."""

    def __init__(self) -> None:
        self._readers: set[asyncio.Queue[Document | None]] = set()

    def __repr__(self) -> str:
        return f"<Events {len(self._readers)} readers>"

    def publish(self, sequence: int, event: AppendEvent) -> None:
        """Give *event* to every reader; one that is too far behind is ended, and comes back with its last id."""
        row = event_document(
            {
                "sequence": sequence, "unix": event.unix, "kind": event.kind, "author": event.author,
                "incident": event.incident, "scope": event.scope, "body": event.body,
            }
        )  # fmt: skip
        for queue in list(self._readers):
            if queue.qsize() >= MAX_BEHIND:
                self._readers.discard(queue)
                queue.put_nowait(None)
            else:
                queue.put_nowait(row)

    @contextlib.contextmanager
    def reading(self) -> Iterator[asyncio.Queue[Document | None]]:
        """Give one reader its queue."""
        queue: asyncio.Queue[Document | None] = asyncio.Queue()
        self._readers.add(queue)
        try:
            yield queue
        finally:
            self._readers.discard(queue)


class Desk:
    """
    Answers for the whole controller.

    Args:
        facts: What the supervisor says of the workers; updated in place.
        install_key: Makes client keys of header values.
        keyring: The tokens.
        answers: What calls with an Idempotency-Key were answered.
    """

    def __init__(
        self,
        loop: Loop,
        journal: Journal,
        configuring: Configuring,
        dispatcher: Dispatcher,
        events: Events,
        facts: Mapping[str, Any],
        install_key: bytes,
        keyring: Keyring,
        answers: Answers,
    ) -> None:
        self._install_key = install_key
        self.keyring = keyring
        self.answers = answers
        self._loop = loop
        self._engine = loop.engine
        self._journal = journal
        self._configuring = configuring
        self._dispatcher = dispatcher
        self._events = events
        self._facts = facts
        self._started_at = clock.now()
        replays = Replays(journal, loop.tapes.reel, lambda: moment().unix)
        self._comparing = Comparing(configuring, replays, self._learned)
        self.learning = Learning(configuring, replays, journal.put, self._all_incidents, self._learned, loop.command)
        loop.listeners.append(self.learning.heard)
        self._drafter = Drafter(self, self._engine, self._read, self.learning)

    def __repr__(self) -> str:
        return f"<Desk {self._loop}>"

    @property
    def tapes(self) -> Tapes:
        """Return the recorder."""
        return self._loop.tapes

    @property
    def taps(self) -> Taps:
        """Return those who look on."""
        return self._loop.taps

    # --- state ------------------------------------------------------------------------------------------------

    def status(self) -> Document:
        """Return what is going on now, the most important first."""
        now = moment()
        live = self._engine.incidents(None, now)
        return {
            **self._engine.status(now),
            "version": __version__,
            "mode": self._configuring.active.compiled.mode.value,
            "time": rfc3339(now.unix),
            "uptime_s": round(now.at - self._started_at, 3),
            "config": self._config(),
            "workers": self._workers(),
            "store": {"ok": self._journal.durable, "problem": self._journal.problem, "waiting": self._journal.waiting,
                      "set_aside": self._journal.set_aside},
            "incidents": [row for row in live if row["state"] not in ("resolved", "closed") and not row["observed"]],
            "isolations": self._engine.isolations(now),
            "overrides": self._engine.overrides(now),
            "silences": self._engine.silences(),
            "drill": self._engine.drilling.current(),
            "receivers": self._dispatcher.views(),
            "would_have": sum(row["observed"] and row["state"] not in ("resolved", "closed") for row in live),
            "demoted": self._engine.tutor.demotions(),
            "proposals_open": len(self.learning.proposals("open")),
        }  # fmt: skip

    def _workers(self) -> list[Document]:
        up = self._loop.workers
        told = self._facts.get("workers") or [{"index": index} for index in sorted(up)]
        return [
            {"worker": row["index"], "up": row["index"] in up, **{k: row[k] for k in ("pid", "draining") if k in row}}
            for row in told
        ]

    def controls(self) -> Sequence[Document]:
        """Return the inventory of every control."""
        return self._engine.controls(moment())

    def routes(self) -> Sequence[Document]:
        """Return the routes with their traffic now."""
        return self._engine.routes(moment())

    def series(self, route: str, window_s: float, step_s: float) -> Document | None:
        """Return a route's recent seconds; None for an unknown route."""
        return self._engine.series(route, window_s, step_s, moment())

    def silences(self) -> Sequence[Document]:
        """Return the silences in force."""
        return self._engine.silences()

    def drills(self) -> Sequence[Document]:
        """Return the drills, the newest first."""
        return self._engine.drilling.documents()

    def isolations(self) -> Sequence[Document]:
        """Return the isolations in force."""
        return self._engine.isolations(moment())

    def decision(self, decision_id: str) -> Document | None:
        """Return why a request was refused."""
        return self._engine.decision(decision_id)

    # --- incidents --------------------------------------------------------------------------------------------

    async def incidents(self, state: str | None, limit: int, cursor: str | None) -> Page:
        """Return incidents, the newest first: those in memory as they are now, older ones from the store."""
        before = int(cursor) if cursor else None
        states = (state,) if state else ()
        live = {row["id"]: row for row in self._engine.incidents(None, moment())}
        stored = await self._read(
            lambda store: store.incidents(states=states, limit=limit + 1, before=before), default=[]
        )
        rows = {row["id"]: without_kept(row) for row in stored} | live
        wanted = [
            row
            for number, row in sorted(rows.items(), reverse=True)
            if (state is None or row["state"] == state) and (before is None or number < before)
        ]
        return _page(wanted, limit, "id")

    def _learned(self) -> Learned:
        tutor = self._engine.tutor
        return Learned(tutor.tuning, tutor.demoted, tutor.sizes)

    async def _all_incidents(self) -> Sequence[Document]:
        return (await self.incidents(None, MAX_KEPT, None)).items

    async def incident(self, incident_id: int) -> Document | None:
        """Return one incident."""
        live = self._engine.incident(incident_id, moment())
        if live is not None:
            return live
        stored = await self._read(lambda store: store.incident(incident_id), default=None)
        return without_kept(stored) if stored is not None else None

    async def evidence(self, incident_id: int) -> Document | None:
        """Return what was frozen at its detection."""
        live = self._engine.evidence(incident_id)
        return live if live is not None else await self._read(lambda store: store.evidence(incident_id))

    async def postmortem(self, incident_id: int) -> str | None:
        """Return its post-mortem draft, from its own record alone."""
        return await self._drafter.markdown(incident_id)

    async def report(self, incident_id: int) -> str | None:
        """Return the same as one HTML page with plots."""
        return await self._drafter.html(incident_id)

    def overrides(self) -> Sequence[Document]:
        """Return the overrides in force."""
        return self._engine.overrides(moment())

    async def command(self, command: Asking) -> Done | Rejected:
        """
        Do what a person asks, at once.

        Only the answer waits, at most `STORED_S`: what it calls durable outlives a `kill -9` in the next moment.
        """
        answer = self._loop.command(command)
        if isinstance(answer, Rejected):
            return answer
        return Done(_as_stored(answer.document, stored=await self.stored()))

    async def stored(self) -> bool:
        """Wait at most `STORED_S` until the store has everything, and tell whether it has."""
        return await self._journal.stored(STORED_S)

    def client_key(self, header_value: str) -> str:
        """Return the key that a header's value has here."""
        return client_key(self._install_key, header_value)

    # --- config -----------------------------------------------------------------------------------------------

    def _config(self) -> dict[str, Any]:
        row, pending = self._configuring.active.row, self._configuring.pending
        return {
            "version": row.version,
            "hash": row.hash,
            "state": row.state,
            "diverged_from_file": self._configuring.diverged,
            "confirm_by_time": rfc3339(pending.by_unix) if pending else None,
        }

    def config(self) -> Document:
        """Return the active version with its text, hashes hidden."""
        return self._config() | {"text": mask(self._configuring.active.row.text)}

    async def apply(
        self, text: str, *, author: str, reason: str, if_match: int, dry_run: bool, confirm_within_s: float | None
    ) -> Document:
        """Apply a config on every worker."""
        return await self._configuring.apply(
            text, author=author, reason=reason, if_match=if_match, dry_run=dry_run, confirm_within_s=confirm_within_s
        )

    async def confirm(self, author: str) -> Document:
        """Keep the version that waits for its confirmation."""
        await self._configuring.confirm(author)
        return self._version(self._configuring.active.row)

    async def rollback(self, to: int | None, *, author: str, reason: str) -> Document:
        """Run an older text again."""
        return await self._configuring.rollback(to, author=author, reason=reason)

    async def versions(self, limit: int, cursor: str | None) -> Page:
        """Return the versions, the newest first, without their texts."""
        before = int(cursor) if cursor else None
        rows = [row for row in self._configuring.versions() if before is None or row.version < before]
        documents = [{k: v for k, v in self._version(row).items() if k != "text"} for row in rows[: limit + 1]]
        return _page(documents, limit, "version")

    async def version(self, number: int) -> Document | None:
        """Return one version."""
        row = self._configuring.version(number)
        return self._version(row) if row is not None else None

    def _version(self, row: PutVersion) -> dict[str, Any]:
        return {
            "version": row.version, "hash": row.hash, "author": row.author, "reason": row.reason, "source": row.source,
            "time": rfc3339(row.unix), "state": row.state, "text": mask(row.text), "changes": list(row.changes),
        }  # fmt: skip

    async def diff(self, older: int | None, newer: int | None, replay_s: float | None) -> Document:
        """Return what differs between two versions, and what that would have done on the history of *replay_s*."""
        return await self._comparing.diff(older, newer, replay_s)

    # --- audit and events -------------------------------------------------------------------------------------

    async def audit(self, limit: int, cursor: str | None) -> Page:
        """Return the events, the newest first."""
        before = int(cursor) if cursor else None
        rows = await self._read(lambda store: store.events(limit=limit + 1, before=before, newest_first=True))
        return _page([event_document(row) for row in rows], limit, "sequence")

    async def verify(self) -> Document:
        """Walk the hash chain."""
        found: Document = await self._read(lambda store: store.verify())
        return found

    async def events(self, last_id: int | None) -> AsyncIterator[Document]:
        """Yield every event from now on, or after *last_id*."""
        with self._events.reading() as queue:
            seen = last_id or 0
            while last_id is not None:
                missed = await self._read(partial(_events_after, sequence=seen), default=[])
                for row in missed:
                    seen = row["sequence"]
                    yield event_document(row)
                if len(missed) < REPLAYED:
                    break
            while (event := await queue.get()) is not None:
                if event["sequence"] > seen:
                    yield event

    async def notify_test(self, name: str) -> Document | None:
        """Send a test message to one receiver."""
        return await self._dispatcher.test(name)

    def tokens(self) -> Sequence[Token]:
        """Return the tokens that are valid at this moment."""
        return self.keyring.valid()

    async def _read(self, ask: Any, default: Any = Unavailable) -> Any:
        try:
            return await self._journal.read(ask)
        except StoreError as error:
            if default is Unavailable:
                raise Unavailable(f"the store cannot be read: {error.problem}", error.hint) from error
            return default


def _events_after(store: Store, *, sequence: int) -> list[dict[str, Any]]:
    return store.events(after=sequence, limit=REPLAYED)


def _as_stored(document: Document, *, stored: bool) -> Document:
    """Return *document*, and the isolations in it, with what is known now of the store."""
    shown = dict(document)
    if "durable" in shown:
        shown["durable"] = stored
    if "isolations" in shown:
        shown["isolations"] = [_as_stored(row, stored=stored) for row in shown["isolations"]]
    return shown


def event_document(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stored event in its public shape."""
    shown = {key: value for key, value in row.items() if key != "unix"}
    return {**shown, "scope": row["scope"] or None, "time": rfc3339(row["unix"])}


def _page(rows: Sequence[Document], limit: int, key: str) -> Page:
    shown = rows[:limit]
    return Page(shown, str(shown[-1][key]) if len(rows) > limit else None)
