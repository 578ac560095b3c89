"""The schema of the store, step by step from version 1, the first one.

A change is one more entry of MIGRATIONS, never an edit of an old one. Each runs whole or
not at all, together with the version number that it leads to.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path

from cloudrun.errors import ConfigError

_VERSION_1 = (
    """CREATE TABLE runs (
        seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, job TEXT NOT NULL, project TEXT NOT NULL,
        preset TEXT NOT NULL, args TEXT NOT NULL, command TEXT NOT NULL, stack TEXT NOT NULL,
        bundle TEXT NOT NULL, outputs TEXT NOT NULL, state TEXT NOT NULL, stage TEXT NOT NULL,
        submitted_at TEXT NOT NULL, machine TEXT NOT NULL, "on" TEXT NOT NULL, started_at TEXT,
        ended_at TEXT, exit_code INTEGER, message TEXT NOT NULL, metric_name TEXT NOT NULL,
        metric_direction TEXT NOT NULL, metric_value REAL, outputs_bytes INTEGER NOT NULL, cost_usd TEXT,
        max_hours REAL, budget_usd TEXT, resume INTEGER NOT NULL, resume_of TEXT NOT NULL,
        cancel_requested INTEGER NOT NULL, detached INTEGER NOT NULL, supervisor_pid INTEGER)""",
    "CREATE INDEX runs_by_time ON runs (submitted_at)",
    "CREATE INDEX runs_by_state ON runs (state, submitted_at)",
    "CREATE INDEX runs_by_job ON runs (job, submitted_at)",
    """CREATE TABLE attempts (
        run TEXT NOT NULL REFERENCES runs (id), number INTEGER NOT NULL, token TEXT NOT NULL,
        offer TEXT NOT NULL, machine TEXT NOT NULL, started_at TEXT, ended_at TEXT, outcome TEXT,
        exit_code INTEGER, message TEXT NOT NULL, PRIMARY KEY (run, number))""",
    """CREATE TABLE stages (
        seq INTEGER PRIMARY KEY, run TEXT NOT NULL REFERENCES runs (id), attempt INTEGER NOT NULL,
        stage TEXT NOT NULL, started_at TEXT NOT NULL, seconds REAL NOT NULL)""",
    "CREATE INDEX stages_by_run ON stages (run)",
    """CREATE TABLE machines (
        seq INTEGER PRIMARY KEY, id TEXT NOT NULL, name TEXT NOT NULL, provider TEXT NOT NULL,
        region TEXT NOT NULL, type TEXT NOT NULL, market TEXT NOT NULL, state TEXT NOT NULL,
        token TEXT NOT NULL, zone TEXT NOT NULL, address TEXT, stack TEXT NOT NULL,
        price_per_hour_usd TEXT, launched_at TEXT, ended_at TEXT, deadline_at TEXT,
        run_owned INTEGER NOT NULL, provisioned INTEGER NOT NULL, versions TEXT NOT NULL,
        gpu TEXT NOT NULL, gpu_count INTEGER NOT NULL, gpu_memory_gib REAL NOT NULL,
        gpu_capability REAL, detail TEXT NOT NULL)""",
    "CREATE INDEX machines_by_name ON machines (name)",
    """CREATE UNIQUE INDEX live_machines ON machines (name)
        WHERE state NOT IN ('preempted', 'terminated')""",
    """CREATE TABLE charges (
        id INTEGER PRIMARY KEY AUTOINCREMENT, machine TEXT NOT NULL, run TEXT NOT NULL,
        what TEXT NOT NULL, provider TEXT NOT NULL, region TEXT NOT NULL, market TEXT NOT NULL,
        unit TEXT NOT NULL, unit_price_usd TEXT, price_as_of TEXT, opened_at TEXT NOT NULL,
        closed_at TEXT, quantity TEXT NOT NULL, estimated INTEGER NOT NULL, void INTEGER NOT NULL)""",
    "CREATE INDEX charges_by_run ON charges (run)",
    "CREATE INDEX charges_by_machine ON charges (machine)",
)

_VERSION_2 = (
    "ALTER TABLE runs ADD COLUMN env TEXT NOT NULL DEFAULT '[]'",
    "CREATE INDEX runs_by_project ON runs (project, submitted_at)",
    "CREATE INDEX runs_by_machine ON runs (machine, submitted_at)",
    "CREATE INDEX open_charges ON charges (id) WHERE closed_at IS NULL AND void = 0",
    "CREATE TABLE claims (name TEXT PRIMARY KEY, claimed_at REAL NOT NULL)",
)

_VERSION_3 = ("ALTER TABLE machines ADD COLUMN idle_minutes REAL",)

_VERSION_4 = (
    "ALTER TABLE machines ADD COLUMN disk_gb INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE charges ADD COLUMN follows INTEGER NOT NULL DEFAULT 0",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_VERSION_1, _VERSION_2, _VERSION_3, _VERSION_4)


def migrate(db: sqlite3.Connection, path: Path, *, to: int = len(MIGRATIONS)) -> None:
    """Bring the schema to version `to`. Safe when many processes do it at once: one does the work."""
    if _version(db, path) >= to:
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        for number in range(_version(db, path), to):
            for statement in MIGRATIONS[number]:
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {number + 1}")  # part of the transaction
        db.execute("COMMIT")
    except BaseException:
        roll_back(db)
        raise


def roll_back(db: sqlite3.Connection) -> None:
    """Undo the open transaction, if SQLite has not done so by itself after its error."""
    with suppress(sqlite3.Error):
        if db.in_transaction:
            db.execute("ROLLBACK")


def _version(db: sqlite3.Connection, path: Path) -> int:
    version: int = db.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise ConfigError(
            f"the store {path} has schema {version}, this cloudrun knows up to {len(MIGRATIONS)}",
            hint="a newer cloudrun wrote it: upgrade this one, or set CLOUDRUN_HOME to another folder",
        )
    return version
