"""
The tables, as the list of steps that led to them: step *n* brings `user_version` from n to n + 1.

A released step is never changed; a new one is appended. Documents are JSON texts in the shape that the engine writes.
"""

from __future__ import annotations

from typing import Final

MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        # One row a signed place in the chain: `head` and `base`.
        "CREATE TABLE seals (name TEXT PRIMARY KEY, seal TEXT NOT NULL) STRICT",
        """
        CREATE TABLE events (
            sequence INTEGER PRIMARY KEY, unix REAL NOT NULL, kind TEXT NOT NULL, author TEXT NOT NULL,
            incident INTEGER, scope TEXT NOT NULL, body TEXT NOT NULL, hash TEXT NOT NULL
        ) STRICT
        """,
        "CREATE INDEX events_of_incident ON events (incident, sequence) WHERE incident IS NOT NULL",
        """
        CREATE TABLE versions (
            version INTEGER PRIMARY KEY, text TEXT NOT NULL, hash TEXT NOT NULL, author TEXT NOT NULL,
            reason TEXT NOT NULL, source TEXT NOT NULL, state TEXT NOT NULL, unix REAL NOT NULL, changes TEXT NOT NULL
        ) STRICT
        """,
        """
        CREATE TABLE incidents (
            id INTEGER PRIMARY KEY, state TEXT NOT NULL, opened_unix REAL NOT NULL, document TEXT NOT NULL,
            stored_unix REAL NOT NULL
        ) STRICT
        """,
        "CREATE INDEX incidents_by_state ON incidents (state, id)",
        "CREATE TABLE evidence (incident INTEGER PRIMARY KEY, document TEXT NOT NULL) STRICT",
        """
        CREATE TABLE isolations (
            id TEXT PRIMARY KEY, ended INTEGER NOT NULL, document TEXT NOT NULL, stored_unix REAL NOT NULL
        ) STRICT
        """,
        """
        CREATE TABLE overrides (
            id TEXT PRIMARY KEY, ended INTEGER NOT NULL, document TEXT NOT NULL, stored_unix REAL NOT NULL
        ) STRICT
        """,
        "CREATE TABLE baselines (route TEXT PRIMARY KEY, document TEXT NOT NULL) STRICT",
        """
        CREATE TABLE rollups (
            route TEXT NOT NULL, minute_unix INTEGER NOT NULL, document TEXT NOT NULL, PRIMARY KEY (route, minute_unix)
        ) STRICT, WITHOUT ROWID
        """,
        "CREATE TABLE marks (key TEXT PRIMARY KEY, text TEXT NOT NULL) STRICT",
    ),
    ("CREATE TABLE seconds (minute_unix INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT",),
    (
        """
        CREATE TABLE proposals (
            id INTEGER PRIMARY KEY, state TEXT NOT NULL, document TEXT NOT NULL, stored_unix REAL NOT NULL
        ) STRICT
        """,
    ),
    (
        "CREATE TABLE answers (key TEXT PRIMARY KEY, unix REAL NOT NULL, document TEXT NOT NULL) STRICT",
        "CREATE INDEX answers_by_age ON answers (unix)",
    ),
    ("CREATE INDEX rollups_by_age ON rollups (minute_unix)",),
)
