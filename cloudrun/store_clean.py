"""What a clean-up asks of the store: every run in one query, as the few columns that a choice needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from cloudrun.models import FINAL_RUN_STATES
from cloudrun.store_file import StoreFile


class RunRow(NamedTuple):
    """A run as it stands in the store: plain values, since a hundred thousand are read at once.

    Times are ISO 8601 in UTC with microseconds: their order as text is their order in time.
    """

    id: str
    job: str
    project: str
    state: str
    bundle: str  # digest
    resume: int
    submitted_at: str
    ended_at: str | None
    metric_name: str
    metric_direction: str
    metric_value: float | None

    @property
    def final(self) -> bool:
        return self.state in FINAL_RUN_STATES

    @property
    def since(self) -> str:
        """When it ended; a run without an end counts from its submission."""
        return self.ended_at or self.submitted_at


_QUERY = f"SELECT {', '.join(RunRow._fields)} FROM runs"  # noqa: S608  # our own names


class RunIndex(StoreFile):
    """The runs of the store, read only. Every method is one transaction; see Store."""

    def rows(self) -> list[RunRow]:
        """All runs, newest first."""
        with self._read() as db:
            return [*map(RunRow._make, db.execute(f"{_QUERY} ORDER BY submitted_at DESC, seq DESC"))]

    def unchanged(self, rows: Sequence[RunRow]) -> set[str]:
        """The ids of those that still stand there as given; at most a few hundred at once."""
        marks = ", ".join("?" * len(rows))
        with self._read() as db:
            found = db.execute(f"{_QUERY} WHERE id IN ({marks})", [row.id for row in rows])
            return {row.id for row in {*rows} & {*map(RunRow._make, found)}}

    def attempts_on(self, machine: str) -> dict[str, list[int]]:
        """The numbers of the attempts that ran on a machine of that name, by run."""
        found: dict[str, list[int]] = {}
        with self._read() as db:
            for run, number in db.execute("SELECT run, number FROM attempts WHERE machine = ?", (machine,)):
                found.setdefault(run, []).append(number)
        return found
