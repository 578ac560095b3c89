"""The ledger's lines in the store, and the sums that SQLite keeps of them.

A line's cost is laid over its days when it is closed, in the same transaction; triggers add these shares to
the sums. So what is read here are the closed lines; the open ones grow by the minute and are few:
`list_charges(open_only=True)`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from cloudrun.errors import NotFound
from cloudrun.images import SNAPSHOT, charged_as
from cloudrun.models import Charge
from cloudrun.store_file import ADOPT_HINT, StoreFile
from cloudrun.store_rows import Column, R, from_row, insertion, plain_text, selection, time_text, to_row
from cloudrun.store_sums import (
    MEASURES,
    OF_A_KIND,
    Spent,
    SpentList,
    SpentOnType,
    begin,
    period,
    sum_query,
)

if TYPE_CHECKING:
    from cloudrun.shares import Share, Use

OF_IMAGES, IMAGE_TYPE = "(images)", "image"  # project and job, and type, of what is stored for images
BATCH = 5_000  # lines of an older store that are laid over their days in one transaction


@dataclass(frozen=True, slots=True)
class Line:
    """A charge on its way into the store: its columns, and its shares where it is closed."""

    charge: Charge
    row: dict[str, Column]
    shares: Sequence[Share]


def lines_of(charges: Sequence[Charge]) -> list[Line]:
    """Everything about them that can be done before the store is held."""
    if not any(charge.closed_at for charge in charges):
        return [Line(charge, to_row(charge), ()) for charge in charges]
    from cloudrun.shares import shares_of  # the catalogue with it: most commands close nothing

    return [
        Line(charge, to_row(charge), shares_of(charge, now=charge.closed_at) if charge.closed_at else ())
        for charge in charges
    ]


@dataclass(frozen=True, slots=True)
class OpenShare:
    """A part of an open line, and what it is counted under: by each of BY, and the region."""

    charge: Charge
    share: Share
    under: dict[str, str]


class ChargeStore(StoreFile):
    """The part of the store that is about money. Every method is one transaction; see Store."""

    def add_charge(self, charge: Charge) -> Charge:
        """The charge with its id, on the disk when this returns."""
        return replace(charge, id=self.add_charges([charge])[0])

    def add_charges(self, charges: Sequence[Charge]) -> list[int]:
        """All of them or none, on the disk when this returns; their ids."""
        lines = lines_of(charges)
        with self._write(durable=True) as db:
            return add_lines(db, lines)

    def close_charge(self, id: int, closed_at: datetime) -> Charge:
        """Close it at the provider's stop time. Idempotent: the first stop time stays. Raises NotFound."""
        return self._change_charge(
            "UPDATE charges SET closed_at = ? WHERE id = ? AND closed_at IS NULL", [time_text(closed_at)], id
        )

    def void_charge(self, id: int) -> Charge:
        """The thing never came to be: it costs nothing, and the line stays. Idempotent. Raises NotFound."""
        return self._change_charge("UPDATE charges SET void = 1 WHERE id = ?", [], id)

    def settle_charge(self, id: int, lines: Sequence[Charge]) -> None:
        """Put the lines that were really billed in the place of an estimated one, all or nothing.
        Idempotent: a line that is no estimate any more is left alone."""
        with self._write(durable=True) as db:
            db.execute("DELETE FROM charges WHERE id = ? AND estimated = 1", [id])
            if db.execute("SELECT changes()").fetchone()[0]:
                add_lines(db, lines_of(lines))

    def charge_received(self, run: str, number: int, received_bytes: int, lines: Sequence[Charge]) -> None:
        """Put lines in the place of bytes that an attempt has received, all or nothing. Idempotent: bytes
        that another process has charged meanwhile are left alone."""
        made = lines_of(lines)
        with self._write(durable=True) as db:
            db.execute(
                "UPDATE attempts SET received_bytes = received_bytes - ? "
                "WHERE run = ? AND number = ? AND received_bytes >= ?",
                [received_bytes, run, number, received_bytes],
            )
            if db.execute("SELECT changes()").fetchone()[0]:
                add_lines(db, made)

    def sent_gb(self, provider: str, since: datetime) -> Decimal:
        """How much was sent home from that provider's machines since then, as the ledger has it."""
        with self._read() as db:
            rows = db.execute(
                "SELECT quantity FROM charges WHERE what = 'egress' AND provider = ? AND opened_at >= ? "
                "AND void = 0",
                [provider, time_text(since)],
            )
            return sum((Decimal(row[0]) for row in rows), Decimal(0))

    def list_charges(
        self, *, run: str = "", machine: str = "", what: str = "", open_only: bool = False
    ) -> list[Charge]:
        """In the order in which they were opened."""
        asked = {"run": run, "machine": machine, "what": what}
        given = {name: value for name, value in asked.items() if value}
        where = " AND ".join(["TRUE", *(f"{name} = ?" for name in given)])
        if open_only:
            where += " AND closed_at IS NULL AND void = 0"
        with self._read() as db:
            return self._select(db, Charge, f"{where} ORDER BY id", [*given.values()])

    def charged_images(self) -> list[str]:
        """Under what the lines of images stand, each once."""
        with self._read() as db:
            begin, end = charged_as(""), charged_as("\U0010ffff")
            query = "SELECT DISTINCT machine FROM charges WHERE machine BETWEEN ? AND ? AND what = ?"
            return [name for (name,) in db.execute(query, [begin, end, SNAPSHOT])]

    # --- sums ----------------------------------------------------------------------------

    def spent(
        self,
        by: str,
        *,
        since: date | None = None,
        limit: int | None = None,
        keys: Sequence[str] | None = None,
    ) -> SpentList:
        """The closed lines added up by one of BY, the dearest first; months and days newest first. With
        `keys` those alone. The time does not depend on how many lines there are: for machines and runs on
        `limit`, and with `since` on their number, and the lines of that one month."""
        self._share_all()
        query, values = sum_query(by, since, keys)
        with self._read() as db:
            rows = db.execute(query, [*values, -1 if limit is None else limit]).fetchall()
        return SpentList((Spent(*row[:-1]) for row in rows), rows[0][-1] if rows else 0)

    def spent_in_all(self, *, since: date | None = None) -> Spent:
        """The same as one sum, of all lines."""
        self._share_all()
        table, where, values = period(since)
        with self._read() as db:
            row = db.execute(f"SELECT {MEASURES} FROM {table} WHERE {where}", values).fetchone()  # noqa: S608  # our own names
        return Spent("", *(value or 0 for value in row))

    def spent_by_day_and(self, by: str, *, since: date | None = None) -> list[tuple[str, str, int]]:
        """(day, key, millionths of a dollar) by one of a kind's own keys, in order."""
        assert by in OF_A_KIND  # noqa: S101  # our own callers
        self._share_all()
        query = (
            f"SELECT day, {by}, sum(total) FROM spent_by_day JOIN kinds ON kinds.id = kind "  # noqa: S608  # one of BY
            f"WHERE day >= ? GROUP BY day, {by} ORDER BY day, {by}"
        )
        with self._read() as db:
            return [(day, key, total) for day, key, total in db.execute(query, [begin(since)])]

    def spent_on_types(self, *, since: date | None = None) -> list[SpentOnType]:
        """Compute by type, region, market and age of the price."""
        self._share_all()
        table, where, values = period(since)
        keys = "provider, region, type, market, old_price"
        query = (
            f"SELECT {keys}, sum(compute), sum(seconds) FROM {table} JOIN kinds ON kinds.id = kind "  # noqa: S608  # our own names
            f"WHERE {where} GROUP BY {keys}"
        )
        with self._read() as db:
            return [SpentOnType(*row) for row in db.execute(query, values)]

    def spent_by_machine_in(
        self, first: date, last: date, provider: str
    ) -> list[tuple[str, str, int, int, int]]:
        """(machine, what, millionths, seconds, lines of unknown price) of these days, both counted."""
        self._share_all()
        query = (
            "SELECT machine, what, sum(coalesce(micros, 0)), sum(seconds), sum(micros IS NULL) FROM shares "
            "JOIN kinds ON kinds.id = kind WHERE day BETWEEN ? AND ? AND provider = ? GROUP BY machine, what"
        )
        with self._read() as db:
            return [tuple(row) for row in db.execute(query, [first.isoformat(), last.isoformat(), provider])]

    def projects_of(self, charges: Sequence[Charge]) -> list[str]:
        """Of the runs that they were rented for; "" where there is none."""
        with self._read() as db:
            names = _Names(db)
            return [names.all_of(charge, charge.run)["project"] for charge in charges]

    def count_open(self, charges: Sequence[Charge], *, now: datetime) -> list[OpenShare]:
        """The shares of open lines as they stand now, each with all that it is counted under."""
        if not charges:
            return []
        from cloudrun.shares import shares_of  # the catalogue with it: most commands find nothing open

        found = []
        with self._read() as db, self._sound():
            names = _Names(db)
            for charge in charges:
                for share in shares_of(charge, now=now, uses=names.uses(charge)):
                    day = share.day.isoformat()
                    others = {"machine": charge.machine, "run": share.run, "day": day, "month": day[:7]}
                    found.append(OpenShare(charge, share, names.all_of(charge, share.run) | others))
        return found

    def list_uses(self, machine: str) -> list[Use]:
        """When runs' processes were on the machines of that name, in order; who waits there in a queue uses
        nothing."""
        with self._read() as db, self._sound():
            return _Names(db).uses_of(machine)

    # --- steps of a transaction ----------------------------------------------------------

    def _share_all(self) -> None:
        """Lay what an older version closed over its days, batch by batch."""
        while True:
            with self._read() as db:
                if db.execute("SELECT 1 FROM unshared LIMIT 1").fetchone() is None:
                    return
            with self._write() as db:
                waiting = "id IN (SELECT charge FROM unshared LIMIT ?)"
                self._share(db, self._select(db, Charge, waiting, [BATCH]))

    def _change_charge(self, statement: str, values: list[str], id: int) -> Charge:
        with self._write() as db:
            db.execute(statement, [*values, id])
            found = self._select(db, Charge, "id = ?", [id])
            if found and db.execute("SELECT 1 FROM unshared WHERE charge = ?", [id]).fetchone():
                self._share(db, found)
        if not found:
            raise NotFound(f"the ledger has no line {id}", hint=ADOPT_HINT)
        return found[0]

    def _share(self, db: sqlite3.Connection, charges: Sequence[Charge]) -> None:
        _share(db, [(charge.id or 0, line) for charge, line in zip(charges, lines_of(charges), strict=True)])

    def _select(self, db: sqlite3.Connection, record: type[R], rest: str, values: Sequence[Any]) -> list[R]:
        plain = [plain_text(value) if isinstance(value, str) else value for value in values]
        rows = db.execute(selection(record, rest), plain)
        with self._sound():
            return [from_row(record, row) for row in rows]


def add_lines(db: sqlite3.Connection, lines: Sequence[Line]) -> list[int]:
    """Within a transaction: the ids of the charges, which stand there now; the closed ones are added up."""
    if not lines:
        return []
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'charges'").fetchone()
    first = (row[0] if row else 0) + 1
    ids = range(first, first + len(lines))
    statement = insertion(Charge, lines[0].row)  # every row has all columns
    rows = ([*(line.row | {"id": number}).values()] for number, line in zip(ids, lines, strict=True))
    db.executemany(statement, rows)
    _share(db, zip(ids, lines, strict=True))
    return list(ids)


def _share(db: sqlite3.Connection, lines: Iterable[tuple[int, Line]]) -> None:
    """Lay the shares of these charges into the sums; they are unshared no more."""
    names = _Names(db)
    rows = [
        (number, share.day.isoformat(), *names.of(line.charge, share.run), share.micros, share.seconds)
        for number, line in lines
        for share in names.shares(line)
    ]
    if rows:
        db.executemany("INSERT INTO incoming VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        db.execute("UPDATE taken SET times = times + 1")


class _Names:
    """What a charge is counted under, looked up once in a transaction."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._runs: dict[str, tuple[str, str]] = {}
        self._types: dict[tuple[str, str], str] = {}
        self._kinds: dict[tuple[str, ...], int] = {}
        self._uses: dict[str, list[Use]] = {}

    def of(self, charge: Charge, run: str) -> tuple[int, str, str, str, bool]:
        """Kind, machine, run, what, estimated, of the run's share."""
        kind, machine = self._kind_of(charge, run), plain_text(charge.machine)
        return kind, machine, plain_text(run), charge.what, charge.estimated

    def shares(self, line: Line) -> Sequence[Share]:
        """Those of the runs that used its machine, where any did but the one that it was rented for."""
        uses = self.uses(line.charge) if line.shares else ()
        if not uses:
            return line.shares
        from cloudrun.shares import shares_of

        return shares_of(line.charge, now=line.charge.closed_at or line.charge.opened_at, uses=uses)

    def uses(self, charge: Charge) -> Sequence[Use]:
        """By which the charge is split: () where they are all the run's whose line it is."""
        found = self.uses_of(charge.machine)
        return found if any(use.run != charge.run for use in found) else ()

    def uses_of(self, machine: str) -> list[Use]:
        if machine not in self._uses:
            self._uses[machine] = list(_read_uses(self._db, machine))
        return self._uses[machine]

    def all_of(self, charge: Charge, run: str) -> dict[str, str]:
        """The first columns of the kind of the run's share, in their order."""
        project, job = (OF_IMAGES, OF_IMAGES) if charge.what == SNAPSHOT else self._run(run)
        return {
            "provider": charge.provider,
            "region": charge.region,
            "type": self._type(charge),
            "market": charge.market.value,
            "project": project,
            "job": job,
        }

    def _kind_of(self, charge: Charge, run: str) -> int:
        """The id of the kind, made where it is new."""
        from cloudrun.shares import old_price  # the catalogue with it: most commands close nothing

        aged = old_price(charge)
        key = (*self.all_of(charge, run).values(), aged.isoformat() if aged else "")
        if key not in self._kinds:
            self._kinds[key] = self._kind(key)
        return self._kinds[key]

    def _kind(self, key: tuple[str, ...]) -> int:
        self._db.execute(
            "INSERT OR IGNORE INTO kinds (provider, region, type, market, project, job, old_price) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            key,
        )
        found = self._db.execute(
            "SELECT id FROM kinds WHERE (provider, region, type, market, project, job, old_price) "
            "= (?, ?, ?, ?, ?, ?, ?)",
            key,
        )
        return int(found.fetchone()[0])

    def _run(self, run: str) -> tuple[str, str]:
        """Project and job; ("", "") for the lines of a machine that stays, which carries many runs."""
        if run and run not in self._runs:
            row = self._db.execute("SELECT project, job FROM runs WHERE id = ?", [plain_text(run)]).fetchone()
            self._runs[run] = (row[0], row[1]) if row else ("", "")
        return self._runs.get(run, ("", ""))

    def _type(self, charge: Charge) -> str:
        """Of the machine that had the name then: the newest that was launched before the line ended."""
        if charge.what == SNAPSHOT:
            return IMAGE_TYPE
        opened_at = time_text(charge.opened_at)
        key = (charge.machine, opened_at[:10])
        if key not in self._types:
            row = self._db.execute(
                "SELECT type FROM machines WHERE name = ? "
                "ORDER BY coalesce(launched_at <= ?, 1) DESC, launched_at DESC, seq DESC LIMIT 1",
                [plain_text(charge.machine), time_text(charge.closed_at or charge.opened_at)],
            ).fetchone()
            self._types[key] = row[0] if row else ""
        return self._types[key]


def _read_uses(db: sqlite3.Connection, machine: str) -> Iterator[Use]:
    """An attempt uses its machine from when its process starts there: the run knows the first such moment."""
    from cloudrun.shares import Use

    rows = db.execute(
        "SELECT run, iif(runs.started_at BETWEEN attempts.started_at AND "
        "coalesce(attempts.ended_at, runs.started_at), runs.started_at, attempts.started_at) AS began_at, "
        "attempts.ended_at FROM attempts JOIN runs ON runs.id = run "
        "WHERE attempts.machine = ? AND attempts.started_at IS NOT NULL AND runs.started_at IS NOT NULL "
        "ORDER BY began_at, run",
        [plain_text(machine)],
    )
    for run, began, ended in rows:
        yield Use(run, datetime.fromisoformat(began), datetime.fromisoformat(ended) if ended else None)
