"""A machine that stays: what it cost while a run used it is the run's, what is left is nobody's."""

from __future__ import annotations

import random
import sqlite3
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from commandline import Cli
from hypothesis import given
from hypothesis import strategies as st
from money_samples import START, a_charge, a_machine, a_run, an_attempt

from cloudrun import budget
from cloudrun.ledger import billed_seconds_of, cost_usd
from cloudrun.models import Attempt, Charge, Market, Run, RunState
from cloudrun.runcost import cost_so_far_usd
from cloudrun.shares import MICROS, Share, Use, shares_of
from cloudrun.store import Store
from cloudrun.store_rows import insertion, to_row
from cloudrun.store_schema import migrate

HOUR = timedelta(hours=1)
LINE_S, USE_S = st.integers(0, 5 * 10**5), st.integers(7, 3 * 10**5)
USES = st.lists(
    st.builds(
        lambda run, begin, seconds: Use(
            f"r{run}",
            START + timedelta(seconds=begin),
            seconds and START + timedelta(seconds=begin + seconds),
        ),
        st.integers(0, 4), st.integers(-(10**5), 5 * 10**5), st.one_of(st.none(), USE_S),
    ),
    min_size=2, max_size=8,
)  # fmt: skip
RULES = st.sampled_from([("aws", 2016), ("aws", 2026), ("azure", 2016), ("azure", 2026), ("floydhub", 2017)])


@given(RULES, st.sampled_from(["compute", "disk", "address"]), LINE_S, USES)
def test_the_runs_shares_and_nobodys_are_the_whole(
    rule: tuple[str, int], what: str, seconds: int, uses: list[Use]
) -> None:
    """Under every rule, by the hour, with a minimum, and with any number of runs at once."""
    provider, year = rule
    back = START - START.replace(year=year)
    opened_at = START - back
    line = a_charge(provider=provider, what=what, unit="GB-month" if what == "disk" else "hour",
                    unit_price_usd=Decimal("0.0713"), opened_at=opened_at,
                    closed_at=opened_at + timedelta(seconds=seconds))  # fmt: skip
    uses = [Use(use.run, use.began_at - back, use.ended_at and use.ended_at - back) for use in uses]
    parts = shares_of(line, now=START, uses=uses)
    cost = cost_usd(line, now=START)
    assert cost is not None
    assert line.closed_at is not None
    assert sum(part.micros or 0 for part in parts) == cost * MICROS
    assert sum(part.seconds for part in parts) == billed_seconds_of(line, line.closed_at)
    assert all((part.micros or 0) >= 0 and part.seconds >= 0 for part in parts)
    places = [(part.day, part.run) for part in parts]
    assert len(set(places)) == len(places)
    days = shares_of(line, now=START)
    for day in days:
        own = [part for part in parts if part.day == day.day]
        assert sum(part.micros or 0 for part in own) == day.micros
        assert sum(part.seconds for part in own) == day.seconds


def by_run(parts: list[Share]) -> dict[str, int]:
    found: dict[str, int] = {}
    for part in parts:
        found[part.run] = found.get(part.run, 0) + part.seconds
    return found


def test_who_uses_it_pays_for_it_in_equal_parts() -> None:
    line = a_charge(closed_at=START + 20 * HOUR)
    uses = [
        Use("a", START + HOUR, START + 3 * HOUR),
        Use("b", START + 2 * HOUR, START + 13 * HOUR),  # beside a for an hour, and over midnight
        Use("a", START + 14 * HOUR, START + 15 * HOUR),  # its second attempt
        Use("c", START + 19 * HOUR, None),
        Use("before", START - HOUR, START),
        Use("after", START + 20 * HOUR, None),
    ]
    found = by_run(shares_of(line, now=START, uses=uses))
    assert found == {"": 6 * 3600, "a": 2.5 * 3600, "b": 10.5 * 3600, "c": 3600}
    own = by_run(shares_of(a_charge(closed_at=START + 4 * HOUR, run="a"), now=START, uses=uses))
    assert own == {"a": 2.5 * 3600, "b": 1.5 * 3600}  # what nobody else used is the run's it was rented for


@pytest.mark.parametrize(
    ("provider", "year", "up_s", "billed_s"),
    [("aws", 2016, 1800, 3600), ("aws", 2026, 30, 60), ("azure", 2026, 30, 300), ("aws", 2026, 1800, 1800)],
)
def test_a_minimum_and_a_whole_hour_are_shared_by_time(
    provider: str, year: int, up_s: int, billed_s: int
) -> None:
    """A third of the time on the machine is a third of what that day is billed, wherever it lies."""
    begin = START.replace(year=year)
    line = a_charge(provider=provider, opened_at=begin, closed_at=begin + timedelta(seconds=up_s))
    for sixth in (0, 3, 4):
        used = [begin + timedelta(seconds=up_s * each / 6) for each in (sixth, sixth + 2)]
        found = by_run(shares_of(line, now=START, uses=[Use("a", used[0], used[1])]))
        assert found["a"] == billed_s / 3
        assert sum(found.values()) == billed_s


def test_what_is_sold_by_the_piece_is_not_split() -> None:
    egress = a_charge(what="egress", unit="GB", run="a", closed_at=START + HOUR)
    (share,) = shares_of(egress, now=START, uses=[Use("b", START, None)])
    assert share.run == "a"


def test_an_unknown_price_is_unknown_to_everyone() -> None:
    line = a_charge(unit_price_usd=None, closed_at=START + 4 * HOUR)
    parts = shares_of(line, now=START, uses=[Use("a", START + HOUR, None)])
    assert [(part.run, part.micros, part.seconds) for part in parts] == [
        ("", None, 3600),
        ("a", None, 3 * 3600),
    ]


# --- in the store ------------------------------------------------------------------------


def ran(store: Store, id: str, begin: float, end: float | None, **fields: object) -> Run:
    """A run on `bench`, which waited half an hour in its queue."""
    ended = None if end is None else START + end * HOUR
    began = START + begin * HOUR
    state = RunState.RUNNING if end is None else RunState.SUCCEEDED
    run = a_run(id, on="bench", started_at=began, ended_at=ended, state=state, **fields)
    attempt = Attempt(**{name: getattr(an_attempt(id), name) for name in ("run", "number", "token", "offer")},
                      machine="bench", started_at=began - HOUR / 2, ended_at=ended)  # fmt: skip
    store.add_run(run, attempt, [])
    return run


def kept(store: Store, **fields: object) -> list[Charge]:
    """A machine of 0.36 USD an hour with an address of 0.005, on since START."""
    store.add_machine(a_machine(**fields))
    address = {"what": "address", "unit_price_usd": Decimal("0.005")}
    return [store.add_charge(a_charge(closed_at=None, **extra)) for extra in ({}, address)]


def test_the_report_and_the_runs_agree_to_the_cent(store: Store, cli: Cli) -> None:
    lines = kept(store)
    runs = [ran(store, "aaaa2222", 1, 3), ran(store, "bbbb3333", 3, 14, project="bn", job="bn_study")]
    now = START + 20 * HOUR
    before = [cost_so_far_usd(store, run, now=now) for run in runs]
    assert before == [Decimal("0.73"), Decimal("4.015")]
    open_rows = {
        each.under["run"]: each for each in store.count_open(store.list_charges(open_only=True), now=now)
    }
    assert set(open_rows) == {"", "aaaa2222", "bbbb3333"}
    for line in lines:
        store.close_charge(line.id or 0, now)
    assert [cost_so_far_usd(store, run, now=now) for run in runs] == before
    for by, keys in {
        "run": ("aaaa2222", "bbbb3333"),
        "job": ("svhn_rcnn", "bn_study"),
        "project": ("svhn", "bn"),
    }.items():
        found = {each.key: each.total for each in store.spent(by)}
        assert found == {keys[0]: 730_000, keys[1]: 4_015_000, "": 7_300_000 - 4_745_000}, by
    assert {each.key: each.total for each in store.spent("run", since=date(2026, 3, 5))} == {
        "bbbb3333": 2 * 365_000, "": 6 * 365_000,
    }  # fmt: skip
    assert store.spent_in_all().total == 7_300_000
    table = cli("cost", "report", "--by", "run").out
    assert "(no run's)" in table
    assert "7.30" in table.splitlines()[-1]


def test_every_run_s_own_cost_is_the_report_s(store: Store) -> None:
    """On a machine that many used for weeks, some at once and some over midnight."""
    lines, chance = kept(store), random.Random(0)
    starts = [round(chance.uniform(0, 500), 3) for _ in range(60)]
    runs = [ran(store, f"r{i:07}", at, at + chance.uniform(0, 20)) for i, at in enumerate(starts)]
    for line in lines:
        store.close_charge(line.id or 0, START + 510 * HOUR)
    found = {each.key: each.total for each in store.spent("run")}
    costs = {run.id: cost_so_far_usd(store, run, now=START + 900 * HOUR) for run in runs}
    shown = {run.id: found[run.id] for run in runs}
    assert {name: (cost or 0) * MICROS for name, cost in costs.items()} == shown
    assert sum(found.values()) == 510 * 365_000


def test_a_run_that_waits_or_goes_on(store: Store) -> None:
    kept(store)
    now = START + 5 * HOUR
    going = ran(store, "aaaa2222", 1, None)
    store.add_run(
        a_run("cccc4444", on="bench", started_at=None, ended_at=None, state=RunState.QUEUED),
        Attempt("cccc4444", 1, "t", an_attempt("x").offer, machine="bench", started_at=START + HOUR), [],
    )  # fmt: skip
    waiting = store.find_run("cccc4444")
    assert cost_so_far_usd(store, going, now=now) == Decimal("0.365") * 4
    assert cost_so_far_usd(store, waiting, now=now) == 0


def test_nothing_is_known_of_a_machine_without_lines(store: Store) -> None:
    store.add_machine(a_machine())
    run = ran(store, "aaaa2222", 1, 3)
    assert cost_so_far_usd(store, run, now=START + 9 * HOUR) is None
    store.add_machine(a_machine("own", market=Market.OWN))
    own = a_run("bbbb3333", on="own")
    store.add_run(own, an_attempt("bbbb3333"), [])
    assert cost_so_far_usd(store, own, now=START + 9 * HOUR) == 0


def test_an_end_that_is_known_late_is_shared_anew(store: Store) -> None:
    """The machine went while nobody looked; its guard's word on the run came afterwards."""
    lines = kept(store)
    ran(store, "aaaa2222", 1, None)
    for line in lines:
        store.close_charge(line.id or 0, START + 10 * HOUR)
    assert {each.key: each.total for each in store.spent("run")} == {"aaaa2222": 9 * 365_000, "": 365_000}
    store.update_attempt("aaaa2222", 1, ended_at=START + 3 * HOUR)
    assert {each.key: each.total for each in store.spent("run")} == {"aaaa2222": 2 * 365_000, "": 8 * 365_000}
    assert store.spent_in_all().total == 3_650_000


def test_the_share_of_a_project_counts_for_its_budget(store: Store) -> None:
    lines = kept(store, deadline_at=START + 20 * HOUR)
    ran(store, "aaaa2222", 1, 3)
    now = START + 10 * HOUR
    for _ in range(2):  # while it is open, and when it is closed
        (found,) = budget.list_standings(store, {"svhn": Decimal(50)}, now=now)
        assert (found.spent_usd, found.ahead_usd) == (Decimal("0.73"), 0)
        for line in lines:
            store.close_charge(line.id or 0, now)


def test_the_lines_of_an_older_store_are_shared_anew(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    db = sqlite3.connect(path, isolation_level=None)
    migrate(db, path, to=7)
    run = a_run("aaaa2222", started_at=START, ended_at=START + HOUR)
    attempt = Attempt("aaaa2222", 1, "t", an_attempt("x").offer, "bench", START, START + HOUR)
    for record in (
        run,
        attempt,
        a_charge(closed_at=START + 4 * HOUR),
        a_charge(run="bbbb3333", machine="other"),
    ):
        row = to_row(record)
        db.execute(insertion(type(record), row), [*row.values()])
    db.execute("INSERT INTO kinds VALUES (1, 'aws', 'us-east-1', '', 'on-demand', '', '', '')")
    shares = [(1, "bench", "", 4 * 360_000, 4 * 3600), (2, "other", "bbbb3333", 360_000, 3600)]
    for charge, machine, of, micros, seconds in shares:
        db.execute("INSERT INTO incoming VALUES (?, '2026-03-04', 1, ?, ?, 'compute', 0, ?, ?)",
                   [charge, machine, of, micros, seconds])  # fmt: skip
    db.execute("UPDATE taken SET times = times + 1")
    db.close()
    with Store(path) as store:
        for since in (None, date(2026, 3, 1)):
            found = {each.key: (each.total, each.seconds) for each in store.spent("run", since=since)}
            assert found.pop("bbbb3333") == (360_000, 3600)
            assert found == {"aaaa2222": (360_000, 3600), "": (3 * 360_000, 3 * 3600)}
        assert store.spent_in_all().total == 5 * 360_000
