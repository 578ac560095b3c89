"""The schema of the store, step by step from version 1, the first one.

A change is one more entry of MIGRATIONS, never an edit of an old one. Each runs whole or
not at all, together with the version number that it leads to.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
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

# What was spent, added up as it comes in. A share is one day's part of a charge, in millionths of a US
# dollar (NULL: unknown). New shares are laid into `incoming`; the trigger on `taken` then moves them to
# `shares` and adds them to all sums, many at once, in the same transaction. A share that goes is taken off by
# a trigger too. The sums are never written otherwise, so they cannot disagree with the shares. `unshared`
# names the closed charges that have no share yet. `parts` counts the shares of a sum: with none left there is
# nothing to report under that key.
_SHARE = "charge, day, kind, machine, run, what, estimated, micros, seconds"
_MEASURES = ("total", "compute", "disk", "address", "other", "estimated", "seconds", "unknown")
_OF_SHARES = (  # the same of some shares
    "sum(coalesce(micros, 0)), sum(iif(what = 'compute', coalesce(micros, 0), 0)), "
    "sum(iif(what = 'disk', coalesce(micros, 0), 0)), sum(iif(what = 'address', coalesce(micros, 0), 0)), "
    "sum(iif(what IN ('compute', 'disk', 'address'), 0, coalesce(micros, 0))), "
    "sum(iif(estimated, coalesce(micros, 0), 0)), sum(iif(what = 'compute', seconds, 0)), sum(micros IS NULL)"
)


@dataclass(frozen=True, slots=True)
class _Sum:
    """A table of sums. keys: its own; of_share: the same of a share."""

    table: str
    keys: str
    of_share: str
    counted: bool = False  # it has `parts`

    @property
    def measures(self) -> tuple[str, ...]:
        return (*_MEASURES, "parts") if self.counted else _MEASURES

    def creation(self) -> str:
        measures = ", ".join(f"{name} INTEGER NOT NULL" for name in self.measures)
        return f"CREATE TABLE {self.table} ({self.keys}, {measures}, PRIMARY KEY ({self.keys})) WITHOUT ROWID"

    def addition(self, source: str, sign: str = "+") -> str:
        """The statement that adds the shares of a source, or takes them off."""
        changes = ", ".join(f"{name} = {name} {sign} excluded.{name}" for name in self.measures)
        values = f"{_OF_SHARES}, count(*)" if self.counted else _OF_SHARES
        return (
            f"INSERT INTO {self.table} ({self.keys}, {', '.join(self.measures)}) "  # noqa: S608  # our own names
            f"SELECT {self.of_share}, {values} FROM {source} GROUP BY {self.of_share} "
            f"ON CONFLICT ({self.keys}) DO UPDATE SET {changes};"
        )


_FIRST_SUMS = (
    _Sum("spent_by_day", "day, kind", "day, kind"),
    _Sum("spent_by_month", "month, kind", "substr(day, 1, 7), kind"),
    _Sum("spent_by_machine", "machine", "machine"),
    _Sum("spent_by_run", "run", "run"),
)
_MONTHLY_SUMS = (
    _Sum("spent_by_machine_month", "machine, month", "machine, substr(day, 1, 7)", counted=True),
    _Sum("spent_by_run_month", "run, month", "run, substr(day, 1, 7)", counted=True),
)


def _shares_come(sums: Sequence[_Sum]) -> str:
    """The trigger that moves what is incoming to the shares and adds it to these sums."""
    additions = " ".join(each.addition("incoming") for each in sums)
    return f"""CREATE TRIGGER shares_come AFTER UPDATE ON taken BEGIN
        INSERT INTO shares ({_SHARE}) SELECT {_SHARE} FROM incoming;
        {additions}
        DELETE FROM unshared WHERE charge IN (SELECT charge FROM incoming);
        DELETE FROM incoming; END"""  # noqa: S608  # our own names


def _shares_go(sums: Sequence[_Sum], gone: str = "charge = OLD.charge AND day = OLD.day") -> str:
    """The trigger that takes a share off these sums before it goes."""
    gone = f"shares WHERE {gone}"
    return f"""CREATE TRIGGER shares_go BEFORE DELETE ON shares BEGIN
        {" ".join(each.addition(gone, "-") for each in sums)} END"""


_CHARGE_TRIGGERS = (
    """CREATE TRIGGER charge_changed AFTER UPDATE ON charges BEGIN
        DELETE FROM shares WHERE charge = OLD.id;
        DELETE FROM unshared WHERE charge = OLD.id;
        INSERT INTO unshared SELECT NEW.id WHERE NEW.closed_at IS NOT NULL AND NEW.void = 0; END""",
    """CREATE TRIGGER charge_gone AFTER DELETE ON charges BEGIN
        DELETE FROM shares WHERE charge = OLD.id; DELETE FROM unshared WHERE charge = OLD.id; END""",
)

_VERSION_5 = (
    """CREATE TABLE kinds (
        id INTEGER PRIMARY KEY, provider TEXT NOT NULL, region TEXT NOT NULL, type TEXT NOT NULL,
        market TEXT NOT NULL, project TEXT NOT NULL, job TEXT NOT NULL, old_price TEXT NOT NULL,
        UNIQUE (provider, region, type, market, project, job, old_price))""",
    """CREATE TABLE shares (
        charge INTEGER NOT NULL, day TEXT NOT NULL, kind INTEGER NOT NULL REFERENCES kinds (id),
        machine TEXT NOT NULL, run TEXT NOT NULL, what TEXT NOT NULL, estimated INTEGER NOT NULL,
        micros INTEGER, seconds INTEGER NOT NULL, PRIMARY KEY (charge, day)) WITHOUT ROWID""",
    "CREATE INDEX shares_by_day ON shares (day)",
    f"CREATE TABLE incoming ({_SHARE})",
    "CREATE TABLE taken (times INTEGER NOT NULL)",
    "INSERT INTO taken VALUES (0)",
    "CREATE TABLE unshared (charge INTEGER PRIMARY KEY)",
    "INSERT INTO unshared SELECT id FROM charges WHERE closed_at IS NOT NULL AND void = 0",
    *(each.creation() for each in _FIRST_SUMS),
    "CREATE INDEX spent_most_by_machine ON spent_by_machine (total)",
    "CREATE INDEX spent_most_by_run ON spent_by_run (total)",
    _shares_come(_FIRST_SUMS),
    _shares_go(_FIRST_SUMS),
    *_CHARGE_TRIGGERS,
    """CREATE TABLE billed (
        key TEXT PRIMARY KEY, provider TEXT NOT NULL, account TEXT NOT NULL, resource TEXT NOT NULL,
        machine TEXT NOT NULL, what TEXT NOT NULL, usage TEXT NOT NULL, day TEXT NOT NULL,
        quantity TEXT NOT NULL, unit TEXT NOT NULL, cost TEXT NOT NULL, currency TEXT NOT NULL,
        file TEXT NOT NULL, imported_at TEXT NOT NULL) WITHOUT ROWID""",
    "CREATE INDEX billed_by_day ON billed (provider, day)",
)

# Machines and runs by month too, so that a report since a day adds up months, and days of one month alone.
_VERSION_6 = (
    *(each.creation() for each in _MONTHLY_SUMS),
    *(each.addition("shares WHERE TRUE") for each in _MONTHLY_SUMS),
    "DROP TRIGGER shares_come",
    "DROP TRIGGER shares_go",
    _shares_come((*_FIRST_SUMS, *_MONTHLY_SUMS)),
    _shares_go((*_FIRST_SUMS, *_MONTHLY_SUMS)),
)

# What was sent home, until it is a line of the ledger; and those lines of a month, whatever else there is.
_VERSION_7 = (
    "ALTER TABLE attempts ADD COLUMN received_bytes INTEGER NOT NULL DEFAULT 0",
    "CREATE INDEX egress_charges ON charges (provider, opened_at) WHERE what = 'egress'",
)

# A share is one run's too, where runs used a machine that stays: what older versions gave to nobody is shared
# anew, as is a charge that was closed while an attempt seemed to go on that had ended before.
_VERSION_8 = (
    *(f"DROP TRIGGER {name}" for name in ("shares_come", "shares_go", "charge_changed", "charge_gone")),
    """CREATE TABLE shares_of_runs (
        charge INTEGER NOT NULL, day TEXT NOT NULL, kind INTEGER NOT NULL REFERENCES kinds (id),
        machine TEXT NOT NULL, run TEXT NOT NULL, what TEXT NOT NULL, estimated INTEGER NOT NULL,
        micros INTEGER, seconds INTEGER NOT NULL, PRIMARY KEY (charge, day, run)) WITHOUT ROWID""",
    f"INSERT INTO shares_of_runs ({_SHARE}) SELECT {_SHARE} FROM shares",  # noqa: S608  # our own names
    "DROP TABLE shares",
    "ALTER TABLE shares_of_runs RENAME TO shares",
    "CREATE INDEX shares_by_day ON shares (day)",
    _shares_come((*_FIRST_SUMS, *_MONTHLY_SUMS)),
    _shares_go((*_FIRST_SUMS, *_MONTHLY_SUMS), "charge = OLD.charge AND day = OLD.day AND run = OLD.run"),
    *_CHARGE_TRIGGERS,
    "CREATE INDEX attempts_by_machine ON attempts (machine)",
    """INSERT OR IGNORE INTO unshared SELECT id FROM charges WHERE run = '' AND closed_at IS NOT NULL
        AND void = 0 AND machine IN (SELECT machine FROM attempts)""",
    "DELETE FROM shares WHERE charge IN (SELECT charge FROM unshared)",
    """CREATE TRIGGER attempt_ended AFTER UPDATE OF ended_at ON attempts BEGIN
        INSERT OR IGNORE INTO unshared SELECT id FROM charges
        WHERE machine = NEW.machine AND run <> NEW.run AND void = 0
        AND opened_at < NEW.ended_at AND closed_at > NEW.ended_at;
        DELETE FROM shares WHERE charge IN (SELECT charge FROM unshared); END""",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    _VERSION_1,
    _VERSION_2,
    _VERSION_3,
    _VERSION_4,
    _VERSION_5,
    _VERSION_6,
    _VERSION_7,
    _VERSION_8,
)


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
