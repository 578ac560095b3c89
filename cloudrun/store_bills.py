"""What was imported of providers' bills, in the store."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from decimal import Decimal

from cloudrun.store_file import StoreFile
from cloudrun.store_rows import plain_text


@dataclass(frozen=True, slots=True)
class Billed:
    """One line of a bill that is about a machine of ours. cost: in its own currency, as the bill has it."""

    key: str  # the same for the same line of a later version of the bill
    provider: str
    account: str
    resource: str
    machine: str
    what: str
    usage: str
    day: str  # YYYY-MM-DD in UTC, on which it begins
    quantity: Decimal
    unit: str
    cost: Decimal
    currency: str
    file: str
    imported_at: str


_NAMES = tuple(item.name for item in fields(Billed))
_COLUMNS = ", ".join(_NAMES)
_SAME = ("machine", "what", "quantity", "cost", "currency")  # a line that differs in none of them is no news
_TEXTS = [name for name in _NAMES if name not in ("quantity", "cost")]


class BillStore(StoreFile):
    """The part of the store that keeps bills. Every method is one transaction; see Store."""

    def save_billed(self, rows: Iterable[Billed]) -> tuple[int, int]:
        """Keep them, each in the place of an earlier one with its key; how many are new, and how many
        changed. All or none."""
        marks = ", ".join("?" * len(_NAMES))
        changes = ", ".join(f"{name} = excluded.{name}" for name in _NAMES if name != "key")
        statement = (
            f"INSERT INTO billed ({_COLUMNS}) VALUES ({marks}) ON CONFLICT (key) DO UPDATE SET {changes}"  # noqa: S608  # our own names
        )
        new = changed = 0
        with self._write(durable=True) as db:
            for row in rows:
                values = {name: plain_text(str(getattr(row, name))) for name in _NAMES}
                known = db.execute(
                    f"SELECT {', '.join(_SAME)} FROM billed WHERE key = ?",  # noqa: S608  # our own names
                    [row.key],
                ).fetchone()
                new += known is None
                changed += known is not None and list(known) != [values[name] for name in _SAME]
                db.execute(statement, [*values.values()])
        return new, changed

    def list_billed(self) -> list[Billed]:
        """All that was imported, by day."""
        with self._read() as db, self._sound():
            rows = db.execute(f"SELECT {_COLUMNS} FROM billed ORDER BY day, key")  # noqa: S608  # our own names
            return [_billed(dict(zip(_NAMES, row, strict=True))) for row in rows]


def _billed(row: dict[str, str]) -> Billed:
    texts = {name: row[name] for name in _TEXTS}
    return Billed(**texts, quantity=Decimal(row["quantity"]), cost=Decimal(row["cost"]))
