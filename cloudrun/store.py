"""The store: one SQLite file with runs, attempts, stages, machines and charges.

Many processes use it at once and any of them may be killed at any point. Every method is one
transaction: whole or not at all. It blocks while others write (milliseconds). Only this file and its
neighbours (store_file, store_schema, store_rows, store_charges, store_sums, store_bills) know SQL.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from cloudrun.errors import Ambiguous, NotFound, Refused
from cloudrun.models import FINAL_RUN_STATES, Attempt, Charge, Machine, Run, RunState, Stage
from cloudrun.names import numbered, shortened
from cloudrun.store_bills import BillStore
from cloudrun.store_charges import ChargeStore, add_lines, lines_of
from cloudrun.store_file import ADOPT_HINT
from cloudrun.store_rows import (
    Record,
    change,
    insertion,
    plain_text,
    time_text,
    to_columns,
    to_row,
)
from cloudrun.words import nearest

CLAIM_S = 900.0  # a claimed name is free again when no machine took it within a boot's time
HINT_RUNS = 500  # newest runs looked through for a similar id
SHOWN = 5  # names in a hint where none is similar

_LIVE = "state NOT IN ('preempted', 'terminated')"  # as in the index live_machines, word for word
_ACTIVE = ", ".join(f"'{state}'" for state in RunState if state not in FINAL_RUN_STATES)
_NEWEST_FIRST = "ORDER BY submitted_at DESC, seq DESC"


class Store(ChargeStore, BillStore):
    """The records of one home folder. Opened on first use; may be shared by threads.

    All methods raise ConfigError, with the way out as hint, when the file cannot be used.
    """

    # --- runs ----------------------------------------------------------------------------

    def add_run(self, run: Run, attempt: Attempt, charges: Sequence[Charge]) -> None:
        """Stage 5: the run, its first attempt and what will be paid for, all or nothing, on the disk
        when this returns. Raises Refused for an id that is taken."""
        with self._write(durable=True) as db:
            try:
                _insert(db, run)
                _insert(db, attempt)
            except sqlite3.IntegrityError as error:
                raise Refused(f"there is a run {run.id} already", hint="submit it once more") from error
            add_lines(db, lines_of(charges))

    def save_run(self, run: Run) -> None:
        """Write the whole record, new or known. Where several processes may change the run, use
        update_run: it leaves the other fields alone."""
        row = to_row(run)
        changes = ", ".join(f'"{name}" = excluded."{name}"' for name in row)
        with self._write() as db:
            db.execute(f"{insertion(Run, row)} ON CONFLICT (id) DO UPDATE SET {changes}", [*row.values()])

    def update_run(self, id: str, /, **fields: object) -> Run:
        """Set the named fields and return the run as it is then. Atomic. Raises NotFound."""
        with self._write() as db:
            _update(db, Run, fields, "id = ?", [id])
            return self._run(db, "id = ?", [id]) or self._no_run(db, id)

    def find_run(self, name: str) -> Run:
        """By id, unique prefix of an id, or "last" for the newest. Raises NotFound with the nearest
        names, Ambiguous with up to five candidates."""
        with self._read() as db:
            if name == "last":
                return self._run(db, "TRUE", []) or self._no_run(db, name)
            run = self._run(db, "id = ?", [name])
            return run or self._run_by_prefix(db, name.lower())

    def list_runs(
        self,
        *,
        job: str = "",
        project: str = "",
        state: RunState | None = None,
        machine: str = "",
        limit: int | None = None,
        active: bool = False,
    ) -> list[Run]:
        """Newest first. `active` leaves the final ones out. With `limit` the time does not depend on how
        many runs are stored."""
        wanted = {"job": job, "project": project, "state": state, "machine": machine}
        given = {name: str(value) for name, value in wanted.items() if value}
        where, values = _where(given)
        if active:
            where += f" AND state IN ({_ACTIVE})"
        with self._read() as db:
            return self._select(
                db, Run, f"{where} {_NEWEST_FIRST} LIMIT ?", [*values, -1 if limit is None else limit]
            )

    def counts(self) -> dict[RunState, int]:
        """How many runs are in each state; every state is there."""
        with self._read() as db:
            found = dict(db.execute("SELECT state, count(*) FROM runs GROUP BY state").fetchall())
        return {state: found.get(str(state), 0) for state in RunState}

    # --- attempts and stages -------------------------------------------------------------

    def add_attempt(self, attempt: Attempt) -> None:
        """On the disk when this returns, so that its token outlives a power cut. Raises Refused for a
        number that is taken, NotFound without its run."""
        with self._write(durable=True) as db:
            if self._run(db, "id = ?", [attempt.run]) is None:
                self._no_run(db, attempt.run)
            try:
                _insert(db, attempt)
            except sqlite3.IntegrityError as error:
                message = f"run {attempt.run} has an attempt {attempt.number} already"
                raise Refused(message, hint="another process walks this run: `cloudrun status`") from error

    def update_attempt(self, run: str, number: int, /, **fields: object) -> Attempt:
        """Set the named fields and return the attempt as it is then. Atomic. Raises NotFound."""
        where, values = "run = ? AND number = ?", [run, number]
        with self._write() as db:
            _update(db, Attempt, fields, where, values)
            found = self._select(db, Attempt, where, values)
        if not found:
            raise NotFound(f"run {run} has no attempt {number}", hint=ADOPT_HINT)
        return found[0]

    def note_received(self, run: str, number: int, received_bytes: int) -> None:
        """So much more came home from an attempt's machine. Atomic; an unknown attempt is passed over."""
        with self._write() as db:
            db.execute(
                "UPDATE attempts SET received_bytes = received_bytes + ? WHERE run = ? AND number = ?",
                [received_bytes, run, number],
            )

    def list_attempts(self, run: str) -> list[Attempt]:
        """In order; [] for an unknown run."""
        with self._read() as db:
            return self._select(db, Attempt, "run = ? ORDER BY number", [run])

    def add_stage(self, run: str, attempt: int, stage: Stage, started_at: datetime, seconds: float) -> None:
        """One stage walked. A stage walked again, after a kill, stands there again. Raises NotFound."""
        statement = "INSERT INTO stages (run, attempt, stage, started_at, seconds) VALUES (?, ?, ?, ?, ?)"
        with self._write() as db:
            try:
                db.execute(statement, [plain_text(run), attempt, str(stage), time_text(started_at), seconds])
            except sqlite3.IntegrityError:
                self._no_run(db, run)

    def list_stages(self, run: str) -> list[tuple[int, Stage, datetime, float]]:
        """Attempt, stage, start, seconds, in the order in which they were walked."""
        query = "SELECT attempt, stage, started_at, seconds FROM stages WHERE run = ? ORDER BY seq"
        with self._read() as db, self._sound():
            return [
                (attempt, Stage(stage), datetime.fromisoformat(started_at), seconds)
                for attempt, stage, started_at, seconds in db.execute(query, [run])
            ]

    # --- machines ------------------------------------------------------------------------

    def add_machine(self, machine: Machine) -> None:
        """On the disk when this returns. Raises Refused where a live machine has the name."""
        with self._write(durable=True) as db:
            self._add_machine(db, machine)

    def save_machine(self, machine: Machine) -> None:
        """Write the whole record over the row of the same machine (its token, else its provider's id;
        a row that was written before the launch has no id yet), or as a new one. Raises Refused where
        another live machine has the name."""
        with self._write() as db:
            seq = _machine_row(db, machine)
            if seq is None:
                self._add_machine(db, machine)
                return
            row = to_row(machine)
            try:
                db.execute(change(Machine, row, "seq = ?"), [*row.values(), seq])
            except sqlite3.IntegrityError as error:
                raise _name_taken(machine.name) from error

    def update_machine(self, name: str, /, **fields: object) -> Machine:
        """Set the named fields of the live machine of that name, else of the newest that had it, and
        return it as it is then. Atomic. Raises NotFound, or Refused when the change brings an ended
        machine back while another has its name."""
        with self._write() as db:
            seq = _newest_machine(db, name)
            try:
                _update(db, Machine, fields, "seq = ?", [seq])
            except sqlite3.IntegrityError as error:
                raise _name_taken(name) from error
            found = self._select(db, Machine, "seq = ?", [seq])
            return found[0] if found else self._no_machine(db, name)

    def get_machine(self, name: str) -> Machine | None:
        """The live machine of exactly that name, else the newest that had it, else None."""
        with self._read() as db:
            found = self._select(db, Machine, "seq = ?", [_newest_machine(db, name)])
        return found[0] if found else None

    def find_machine(self, name: str) -> Machine:
        """By name, by the provider's id, or by a unique prefix of either; the live ones first, then those
        that are gone. Raises NotFound with the nearest names, Ambiguous with up to five."""
        with self._read() as db:
            exact = self._select(db, Machine, "seq = ?", [_newest_machine(db, name)])
            if exact:
                return exact[0]
            for which in (_LIVE, f"NOT {_LIVE}"):
                found = self._select(db, Machine, f"{which} AND id = ? ORDER BY seq DESC", [name])
                found = found or self._machines_by_prefix(db, name, which)
                if found:
                    return found[0]
            return self._no_machine(db, name)

    def list_machines(self, *, all: bool = False) -> list[Machine]:
        """The live machines, newest first; with `all` also those that are gone."""
        with self._read() as db:
            return self._select(db, Machine, f"{'TRUE' if all else _LIVE} ORDER BY seq DESC", [])

    def claim_name(self, base: str) -> str:
        """A machine name that is free and now yours for 15 minutes: base, base-2, ... Two processes
        never get the same one. The claim ends with add_machine."""
        now = time.time()
        with self._write() as db:
            db.execute("DELETE FROM claims WHERE abs(? - claimed_at) > ?", [now, CLAIM_S])
            claimed = [row[0] for row in db.execute("SELECT name FROM claims")]
            name = numbered(plain_text(base), [*claimed, *_live_names(db)])
            db.execute("INSERT INTO claims (name, claimed_at) VALUES (?, ?)", [name, now])
        return name

    # --- steps of a transaction ----------------------------------------------------------

    def _run(self, db: sqlite3.Connection, where: str, values: Sequence[Any]) -> Run | None:
        found = self._select(db, Run, f"{where} {_NEWEST_FIRST} LIMIT 1", values)
        return found[0] if found else None

    def _run_by_prefix(self, db: sqlite3.Connection, prefix: str) -> Run:
        if not prefix:
            return self._no_run(db, prefix)
        # a range and not LIKE: it uses the index of ids, and % is no wildcard
        found = self._select(db, Run, "id >= ? AND id < ? ORDER BY id", [prefix, prefix + "\U0010ffff"])
        if len(found) > 1:
            candidates = shortened([f"{run.id} ({run.job}, {run.state})" for run in found])
            raise Ambiguous(
                f"{len(found)} runs begin with {prefix}: {candidates}", hint="type more of the id"
            )
        return found[0] if found else self._no_run(db, prefix)

    def _no_run(self, db: sqlite3.Connection, name: str) -> Run:
        newest = [run.id for run in self._select(db, Run, f"TRUE {_NEWEST_FIRST} LIMIT ?", [HINT_RUNS])]
        if not newest:
            raise NotFound("no run is recorded here", hint=f"submit one; if the store was lost, {ADOPT_HINT}")
        of_job = self._run(db, "job = ?", [name])
        if of_job:
            hint = f"{name} is a job; its newest run is {of_job.id}"
        else:
            hint = nearest(name, newest, most=SHOWN)
        raise NotFound(f"no run is called {name!r}", hint=hint)

    def _machines_by_prefix(self, db: sqlite3.Connection, prefix: str, which: str) -> list[Machine]:
        known = self._select(db, Machine, f"{which} ORDER BY seq DESC", []) if prefix else []
        found = {one.name: one for one in reversed(known) if one.name.startswith(prefix)}  # newest of a name
        found = found or {one.name: one for one in reversed(known) if one.id.startswith(prefix)}
        if len(found) > 1:
            message = f"{len(found)} machines begin with {prefix}: {shortened(sorted(found))}"
            raise Ambiguous(message, hint="type more of the name")
        return list(found.values())

    def _no_machine(self, db: sqlite3.Connection, name: str) -> Machine:
        live = _live_names(db)
        if not live:
            raise NotFound(
                f"no machine is called {name!r}; none is live",
                hint=f"cloudrun launch; if the store was lost, {ADOPT_HINT}",
            )
        hint = nearest(name, live, most=SHOWN)
        raise NotFound(f"no machine is called {name!r}", hint=hint)

    def _add_machine(self, db: sqlite3.Connection, machine: Machine) -> None:
        try:
            _insert(db, machine)
        except sqlite3.IntegrityError as error:
            raise _name_taken(machine.name) from error
        db.execute("DELETE FROM claims WHERE name = ?", [plain_text(machine.name)])


def _insert(db: sqlite3.Connection, record: Record) -> int:
    row = to_row(record)
    return int(db.execute(insertion(type(record), row), [*row.values()]).lastrowid or 0)


def _update(
    db: sqlite3.Connection,
    record: type[Record],
    fields: Mapping[str, object],
    where: str,
    values: Sequence[Any],
) -> None:
    row = to_columns(record, fields)
    if row:
        db.execute(change(record, row, where), [*row.values(), *_plain(values)])


def _machine_row(db: sqlite3.Connection, machine: Machine) -> int | None:
    """The row that is this very machine: same name and token, else same name and id, else the live
    row of its name that still waits for its id."""
    query = f"SELECT seq, token, provider, id, {_LIVE} FROM machines WHERE name = ? ORDER BY seq DESC"  # noqa: S608  # constant
    rows = db.execute(query, [plain_text(machine.name)]).fetchall()
    for seq, token, *_ in rows:
        if token and token == machine.token:
            return int(seq)
    for seq, _, provider, known_id, _ in rows:
        if known_id and (provider, known_id) == (machine.provider, machine.id):
            return int(seq)
    waiting = [seq for seq, _, _, known_id, live in rows if live and not known_id]
    return int(waiting[0]) if waiting else None


def _newest_machine(db: sqlite3.Connection, name: str) -> int | None:
    """The row of the live machine of that name, else of the last one that had it."""
    query = f"SELECT seq FROM machines WHERE name = ? ORDER BY {_LIVE} DESC, seq DESC LIMIT 1"  # noqa: S608  # constant
    row = db.execute(query, [plain_text(name)]).fetchone()
    return int(row[0]) if row else None


def _live_names(db: sqlite3.Connection) -> list[str]:
    query = f"SELECT name FROM machines WHERE {_LIVE} ORDER BY seq DESC"  # noqa: S608  # constant
    return [row[0] for row in db.execute(query)]


def _name_taken(name: str) -> Refused:
    return Refused(
        f"a live machine is called {name} already", hint=f"take another --name, or: cloudrun terminate {name}"
    )


def _where(given: Mapping[str, str]) -> tuple[str, list[str]]:
    return " AND ".join(["TRUE", *(f"{name} = ?" for name in given)]), [*given.values()]


def _plain(values: Sequence[Any]) -> list[Any]:
    return [plain_text(value) if isinstance(value, str) else value for value in values]
