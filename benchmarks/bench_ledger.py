"""Whether a report stays fast over a million charges, and whether four writers at once lose none.

Beside each report stands the same sum by plain SQL over the charges, as there would be without the sums that
SQLite keeps: floats, no billing rule, no split over days, which favours it.
"""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path

from measure import ROOT, Goal, Report, arguments, in_turn, show, wall
from stored import finished_run

from cloudrun.models import Charge, Market, Offer
from cloudrun.store import Store

CHARGES, BATCH = 1_000_000, 1_000
WRITERS, WRITTEN = 4, 40_000  # charges by each writer
LINES_A_RUN = 20  # compute by spot price segments, its disk, its address
FIRST = datetime(2024, 1, 1, tzinfo=UTC)
SINCE = (date(2026, 1, 1), date(2026, 1, 16), date(2026, 1, 31))  # a third of all charges
TYPES = (("aws", "p2.xlarge"), ("aws", "g4dn.xlarge"), ("azure", "Standard_NC4as_T4_v3"))
OWN_OFFER = Offer("local", "local", "local", Market.OWN, Decimal(0))

_COST = (
    "sum(CAST(unit_price_usd AS REAL) * CAST(quantity AS REAL) "
    "* (julianday(closed_at) - julianday(opened_at)) * iif(unit = 'hour', 24, 24 / 730.0))"
)
PLAIN = {
    "month": f"SELECT substr(opened_at, 1, 7), {_COST} FROM charges WHERE void = 0 GROUP BY 1",
    "provider": f"SELECT provider, {_COST} FROM charges WHERE void = 0 GROUP BY 1",
    "job": f"SELECT runs.job, {_COST} FROM charges JOIN runs ON runs.id = run WHERE void = 0 GROUP BY 1",
    "machine": f"SELECT machine, {_COST} FROM charges WHERE void = 0 GROUP BY 1 ORDER BY 2 DESC LIMIT 30",
    "day": f"SELECT substr(opened_at, 1, 10), {_COST} FROM charges WHERE void = 0 GROUP BY 1",
}


def main() -> None:
    parser = arguments(__doc__ or "", rounds=5)
    parser.add_argument("--charges", type=int, default=CHARGES, help=f"lines of the ledger ({CHARGES:,})")
    parser.add_argument("--write", metavar="STORE", help="be one of the writers")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.write:
        write(Path(options.write), options.seed)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "cloudrun.sqlite")
        reports = [
            report_times(path, options.charges, options.rounds),
            writer_times(Path(folder, "w.sqlite")),
        ]
    show(reports, as_json=options.json)


def report_times(path: Path, count: int, rounds: int) -> Report:
    fill(path, count)
    report = Report(f"sums over {count:,} charges", "s")
    with Store(path) as store, sqlite3.connect(path) as plain:
        cases = {}
        for by, query in PLAIN.items():
            cases[f"by {by}"] = partial(wall, partial(store.spent, by, limit=30))
            cases[f"by {by}, plain SQL"] = partial(wall, partial(fetch, plain, query))
            report.goals += [
                Goal(f"by {by}", f"by {by}, plain SQL", 1 / 20),
                Goal(f"by {by}", "", 0.05),
            ]
        cases["in all"] = partial(wall, store.spent_in_all)
        for by in ("machine", "run"):
            for day in SINCE:
                case = f"by {by} since {day}"
                cases[case] = partial(wall, partial(store.spent, by, since=day, limit=30))
                report.goals.append(Goal(case, "", 0.05))
        for case, values in in_turn(cases, rounds).items():
            report.add(case, values)
    return report


def fetch(db: sqlite3.Connection, query: str) -> list[object]:
    return db.execute(query).fetchall()


def writer_times(path: Path) -> Report:
    """Four processes at once, each with charges of its own; their charges a second, all together."""
    Store(path).counts()
    program = [sys.executable, str(Path(__file__)), "--write", str(path), "--seed"]
    seconds = run_all([[*program, str(seed)] for seed in range(WRITERS)])
    report = Report(
        f"{WRITERS} writers at once, {WRITTEN:,} charges each, in batches of {BATCH:,}", "charges/s"
    )
    report.add("written", [WRITERS * WRITTEN / seconds])
    with sqlite3.connect(path) as db:
        (stored,) = db.execute("SELECT count(*) FROM charges").fetchone()
        (summed,) = db.execute("SELECT sum(total) FROM spent_by_month").fetchone()
        (shared,) = db.execute("SELECT sum(micros) FROM shares").fetchone()
    lost = WRITERS * WRITTEN - stored
    report.notes.append(f"lost: {lost}; the sums are those of the lines: {summed == shared}")
    return report


def run_all(programs: Sequence[Sequence[str]]) -> float:
    """Let them begin together once all are ready; the seconds until the last one ended."""
    pipe = subprocess.PIPE
    running = [subprocess.Popen(program, cwd=ROOT, stdin=pipe, stdout=pipe) for program in programs]
    for process in running:
        process.stdout.readline()
    started = time.perf_counter()
    for process in running:
        process.stdin.close()
    if any(process.wait() for process in running):
        raise RuntimeError("a writer failed")
    return time.perf_counter() - started


def write(path: Path, seed: int) -> None:
    made = list(charges(f"w{seed}", WRITTEN, random.Random(seed)))
    with Store(path) as store:
        store.counts()
        print("ready", flush=True)
        sys.stdin.read()
        for begin in range(0, WRITTEN, BATCH):
            store.add_charges(made[begin : begin + BATCH])


def fill(path: Path, count: int) -> None:
    """That many charges of runs on machines of their own, over about three years."""
    chance = random.Random(0)
    with Store(path) as store:
        for number in range(count // LINES_A_RUN):
            run, attempt = finished_run(f"r{number}", number, chance, OWN_OFFER)
            store.add_run(run, attempt, [])
        made = charges("r", count, chance)
        for _ in range(0, count, BATCH):
            store.add_charges([charge for charge, _ in zip(made, range(BATCH), strict=False)])


def charges(name: str, count: int, chance: random.Random):  # type: ignore[no-untyped-def]
    """Lines of runs, each on a machine of its own, spread over a thousand days."""
    for number in range(count):
        run = number // LINES_A_RUN
        provider, _ = TYPES[run % len(TYPES)]
        opened_at = FIRST + timedelta(minutes=28.8 * run + 20 * (number % LINES_A_RUN))
        closed_at = opened_at + timedelta(seconds=chance.randrange(60, 7200))
        what = ("disk", "address")[number % LINES_A_RUN] if number % LINES_A_RUN < 2 else "compute"
        yield Charge(
            id=None,
            machine=f"{name}-m{run}",
            run=f"r{run}" if name == "r" else "",
            what=what,
            provider=provider,
            region="us-east-1",
            market=(Market.SPOT, Market.ON_DEMAND)[run % 2],
            unit="GB-month" if what == "disk" else "hour",
            unit_price_usd=Decimal(chance.randrange(1000, 9000)) / 10_000,
            price_as_of=opened_at.date(),
            opened_at=opened_at,
            closed_at=closed_at,
            quantity=Decimal(100) if what == "disk" else Decimal(1),
        )


if __name__ == "__main__":
    main()
