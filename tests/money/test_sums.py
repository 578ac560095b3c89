"""The sums that the store keeps are those of its lines, whatever happens to them, and in old files too."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from money_samples import START, a_charge, a_machine, a_run, an_attempt

from cloudrun.ledger import at_prices, cost_usd
from cloudrun.models import Charge, Market
from cloudrun.shares import MICROS, shares_of
from cloudrun.store import Store
from cloudrun.store_rows import insertion, to_row
from cloudrun.store_schema import migrate
from cloudrun.store_sums import BY, Spent

LATER = START + timedelta(days=9)


def total(charges: Sequence[Charge]) -> int:
    """Of closed lines with a known price, in millionths."""
    closed = [charge for charge in charges if charge.closed_at]
    return sum(int((cost_usd(charge, now=LATER) or 0) * MICROS) for charge in closed)


def check(store: Store) -> None:
    """Every key of the report adds up to the lines themselves."""
    lines = total(store.list_charges())
    assert store.spent_in_all().total == lines
    for by in BY:
        assert sum(each.total for each in store.spent(by)) == lines, by
        since = sum(each.total for each in store.spent(by, since=date(2000, 1, 1)))
        assert since == lines, by
        assert len(store.spent(by)) == store.spent(by, limit=1).of


def test_lines_that_are_opened_closed_voided_and_settled(store: Store) -> None:
    opened = [store.add_charge(a_charge(closed_at=None, machine=f"m{i}", estimated=i == 2)) for i in range(3)]
    assert store.spent_in_all().total == 0
    store.close_charge(opened[0].id or 0, START + timedelta(hours=2))
    assert store.spent_in_all().total == 720_000
    store.close_charge(opened[0].id or 0, START + timedelta(hours=5))  # the first word stays
    check(store)
    store.void_charge(opened[1].id or 0)
    check(store)
    store.void_charge(opened[0].id or 0)
    assert store.spent_in_all().total == 0
    spot = store.close_charge(opened[2].id or 0, START + timedelta(hours=2))
    assert store.spent_in_all().estimated == 720_000
    prices = [(START, Decimal("0.10")), (START + timedelta(hours=1), Decimal("0.30"))]
    for _ in range(2):
        store.settle_charge(spot.id or 0, at_prices(spot, prices))
    assert (store.spent_in_all().total, store.spent_in_all().estimated) == (400_000, 0)
    check(store)


def expected(charges: Sequence[Charge], by: str, since: date | None) -> dict[str, Spent]:
    """The same from the lines themselves, without the store's sums: one machine and one run a line."""
    found: dict[str, Spent] = {}
    for charge in charges:
        for share in shares_of(charge, now=LATER) if charge.closed_at else []:
            if since is not None and share.day < since:
                continue
            day = share.day.isoformat()
            keys = {"machine": charge.machine, "run": charge.run, "day": day, "month": day[:7]}
            key, amount = keys[by], share.micros or 0
            column = charge.what if charge.what in ("compute", "disk", "address") else "other"
            one = Spent(
                key, total=amount, estimated=amount if charge.estimated else 0, unknown=share.micros is None,
                seconds=share.seconds if charge.what == "compute" else 0, **{column: amount},
            )  # fmt: skip
            found[key] = found[key].plus(one) if key in found else one
    return found


def check_periods(store: Store, since: date) -> None:
    """To the last column, from the middle of a month, its first day, its last, and from ever."""
    lines = store.list_charges()
    for by in ("machine", "run", "month", "day"):
        for day in (None, since, since.replace(day=1), since.replace(day=31), date(2000, 1, 1)):
            found = {each.key: each for each in store.spent(by, since=day)}
            wanted = expected(lines, by, day)
            assert {key: found[key] for key in wanted} == wanted, (by, day)
            nothing = [each for key, each in found.items() if key not in wanted]
            assert all(each == Spent(each.key) for each in nothing)
            if by in ("machine", "run") and day is not None:
                assert nothing == []  # what was voided or taken back is in no report
            some = sorted(found)[:2]
            assert {each.key: each for each in store.spent(by, since=day, keys=some)} == {
                key: found[key] for key in some
            }
            first = store.spent(by, since=day, limit=3)
            assert first.of == len(found)
            dearest = [each.total for each in first]
            if by in ("machine", "run"):
                assert dearest == sorted((each.total for each in found.values()), reverse=True)[:3]


KINDS = st.sampled_from(["open", "add", "many", "close", "void", "settle", "delete", "reprice"])
ACTIONS = st.lists(st.tuples(KINDS, st.integers(0, 9), st.integers(0, 8 * 10**6)), max_size=25)
WHATS = ("compute", "disk", "address", "egress")


@settings(max_examples=25, deadline=None)
@given(ACTIONS, st.sampled_from([date(2026, 3, 4), date(2026, 3, 5), date(2026, 5, 17), date(2026, 7, 31)]))
def test_whatever_happens_the_sums_are_those_of_the_lines(
    tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[str, int, int]], since: date
) -> None:
    path = tmp_path_factory.mktemp("sums") / "s.sqlite"
    with Store(path) as store:
        for action, number, seconds in actions:
            known = store.list_charges()
            line = known[number % len(known)] if known else None
            end = START + timedelta(seconds=seconds)
            fields = {"machine": f"m{number}", "run": f"r{number % 3}", "what": WHATS[number % 4]}
            fields |= {"closed_at": None if action == "open" else end, "estimated": number % 2 == 0}
            if action == "many":
                store.add_charges([a_charge(**fields | {"unit_price_usd": None}), a_charge(**fields)] * 3)
            elif action in ("open", "add") or line is None or line.id is None:
                store.add_charge(a_charge(**fields))
            elif action == "close":
                store.close_charge(line.id, end)
            elif action == "void":
                store.void_charge(line.id)
            elif action == "delete":
                store.settle_charge(line.id, [])
            elif action == "reprice":
                by_hand(path, "UPDATE charges SET unit_price_usd = '0.5' WHERE id = ?", line.id)
            elif line.closed_at:
                store.settle_charge(line.id, at_prices(line, [(START, Decimal(1))]))
        check(store)
        check_periods(store, since)


def by_hand(path: Path, statement: str, id: int) -> None:
    """As somebody does who mends a price in the file."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute(statement, [id])


def test_keys_are_those_of_the_run_and_the_machine(store: Store) -> None:
    store.add_machine(a_machine("bench", type="p2.xlarge"))
    store.add_run(a_run("aaaa2222"), an_attempt("aaaa2222"), [a_charge(run="aaaa2222")])
    store.add_charge(
        a_charge(machine="nobody", provider="azure", market=Market.SPOT, what="egress", unit="GB")
    )
    keys = {by: {each.key for each in store.spent(by)} for by in BY}
    assert keys == {
        "provider": {"aws", "azure"},
        "type": {"p2.xlarge", ""},
        "market": {"on-demand", "spot"},
        "project": {"svhn", ""},
        "job": {"svhn_rcnn", ""},
        "month": {"2026-03"},
        "day": {"2026-03-04"},
        "machine": {"bench", "nobody"},
        "run": {"aaaa2222", ""},
    }
    (egress,) = [each for each in store.spent("provider") if each.key == "azure"]
    assert (egress.other, egress.seconds) == (360_000, 0)


def test_a_name_used_again_keeps_the_types_apart(store: Store) -> None:
    from cloudrun.models import MachineState

    store.add_machine(a_machine("bench", type="old", state=MachineState.TERMINATED, token="1", id="i-1"))
    later = START + timedelta(days=3)
    store.add_machine(a_machine("bench", type="new", launched_at=later, token="2", id="i-2"))
    store.add_charges([a_charge(), a_charge(opened_at=later, closed_at=later + timedelta(hours=2))])
    assert {each.key: each.total for each in store.spent("type")} == {"old": 360_000, "new": 720_000}


def test_since_counts_the_days_from_then_on(store: Store) -> None:
    store.add_charge(a_charge(closed_at=START + timedelta(days=2)))  # noon to noon
    for by in BY:
        (found,) = store.spent(by, since=date(2026, 3, 6))[:1]
        assert found.total == 12 * 360_000, by
    assert [each.key for each in store.spent("day")] == ["2026-03-06", "2026-03-05", "2026-03-04"]


def test_an_unknown_price_is_counted_beside_the_sum(store: Store) -> None:
    store.add_charges([a_charge(unit_price_usd=None), a_charge()])
    found = store.spent_in_all()
    assert (found.total, found.unknown) == (360_000, 1)


def test_all_or_none_are_added(store: Store) -> None:
    with pytest.raises(ValueError, match="time zone"):
        store.add_charges([a_charge(), a_charge(opened_at=START.replace(tzinfo=None))])
    assert store.list_charges() == []
    ids = store.add_charges([a_charge(), a_charge(machine="other")])
    assert [(charge.id, charge.machine) for charge in store.list_charges()] == list(
        zip(ids, ["bench", "other"], strict=True)
    )


def test_the_lines_of_an_older_store_are_added_up_once(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    lines = [a_charge(machine=f"m{i}", opened_at=START - timedelta(days=i)) for i in range(30)]
    lines += [a_charge(closed_at=None), a_charge(void=True), a_charge(unit_price_usd=None)]
    db = sqlite3.connect(path, isolation_level=None)
    migrate(db, path, to=4)
    for line in lines:
        row = to_row(line)
        db.execute(insertion(Charge, row), [*row.values()])
    db.close()
    with Store(path) as store:
        check(store)
        check(store)
        check_periods(store, date(2026, 3, 1))
        (waiting,) = store.list_charges(open_only=True)
        store.close_charge(waiting.id or 0, datetime(2026, 3, 5, tzinfo=UTC))
        check(store)


def test_the_months_of_a_store_from_before_them_are_filled_from_its_shares(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    db = sqlite3.connect(path, isolation_level=None)
    migrate(db, path, to=5)
    kind = "INSERT INTO kinds VALUES (1, 'aws', 'us-east-1', 'p2.xlarge', 'spot', '', '', '')"
    db.execute(kind)
    shares = [
        (number, f"2026-0{month}-17", 1, f"m{number}", "", "compute", 0, 1000 * month, 60)
        for number in (1, 2)
        for month in (3, 4, 5)
    ]
    db.executemany("INSERT INTO incoming VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", shares)
    db.execute("UPDATE taken SET times = times + 1")
    db.close()
    with Store(path) as store:
        found = store.spent("machine", since=date(2026, 4, 17))
        assert [(each.key, each.total, each.seconds) for each in found] == [
            ("m1", 9000, 120),
            ("m2", 9000, 120),
        ]
        store.add_charges([a_charge(opened_at=START, closed_at=START, what="egress", unit="GB")])
        assert len(store.spent("machine", since=date(2026, 1, 1))) == 3
