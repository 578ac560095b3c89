"""`cloudrun cost report`: totals of all lines, what still costs, and the files that it writes."""

from __future__ import annotations

import csv
import io
import re
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from commandline import Cli
from money_samples import START, a_charge, a_machine

from cloudrun.cli.cost_charts import HALF_LETTER, NAME, WIDTH, bars, columns
from cloudrun.cli.cost_text import Money
from cloudrun.models import Market
from cloudrun.report import make_report, make_series
from cloudrun.store import Store

HOUR = timedelta(hours=1)


@pytest.fixture
def spent(store: Store) -> Store:
    """Five machines of 0.36 to 1.80 USD, one of them on spot with an estimate, one of unknown price."""
    for i in range(5):
        spot = i == 4
        name = f"m{i}"
        store.add_machine(a_machine(name, market=Market.SPOT if spot else Market.ON_DEMAND))
        store.add_charge(a_charge(machine=name, closed_at=START + (i + 1) * HOUR, estimated=spot,
                                  market=Market.SPOT if spot else Market.ON_DEMAND))  # fmt: skip
    store.add_charge(a_charge(machine="who", unit_price_usd=None))
    return store


def test_the_total_is_that_of_all_lines(cli: Cli, spent: Store) -> None:
    said = cli("cost", "report", "--by", "machine", "-n", "2")
    lines = said.out.splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["m4", "m3", "total"]
    assert "5.40 +?" in lines[3]
    assert "4 more lines in the total; --limit 6" in said.err
    assert "+? marks" in said.err


def test_json_has_every_line_and_null_for_an_unknown_sum(cli: Cli, spent: Store) -> None:
    found = cli("cost", "report", "--by", "machine", "--json").json
    assert len(found["rows"]) == 6
    assert found["total"]["total_usd"] is None
    assert found["total"]["known_usd"] == 5.4
    assert found["rows"][0] == {
        "key": "m4", "hours": 5, "compute_usd": 1.8, "disk_usd": 0, "address_usd": 0, "other_usd": 0,
        "total_usd": 1.8, "known_usd": 1.8, "total": 1.8, "estimated_usd": 1.8, "unknown": False,
        "billed_usd": None,
    }  # fmt: skip


def test_another_currency_and_csv(cli: Cli, spent: Store) -> None:
    said = cli("cost", "report", "--by", "machine", "--csv", "--currency", "JPY", "--rate", "JPY=100")
    rows = list(csv.DictReader(io.StringIO(said.out)))
    assert [(row["machine"], row["total"], row["unknown"]) for row in rows][:2] == [
        ("m4", "180", ""),
        ("m3", "144", ""),
    ]
    assert rows[-1]["unknown"] == "yes"


def test_a_name_that_is_a_formula_is_no_formula_in_csv(cli: Cli, store: Store) -> None:
    store.add_charge(a_charge(machine="=cmd|' /C calc'!A0"))
    assert "'=cmd" in cli("cost", "report", "--by", "machine", "--csv").out


def test_what_runs_shows_its_cost_so_far_and_at_its_deadline(store: Store) -> None:
    now = START + 2 * HOUR
    store.add_machine(a_machine(deadline_at=START + 10 * HOUR))
    store.add_charges([a_charge(closed_at=None), a_charge(machine="own", market=Market.OWN, closed_at=None)])
    found = make_report(store, by="machine", now=now)
    (running,) = found.running
    assert (running.machine, running.on) == ("bench", True)
    assert (running.cost_usd, running.cost_at_deadline_usd) == (Decimal("0.72"), Decimal("3.6"))
    assert found.total.total_usd == Decimal("0.72")
    assert found.rows[0].key == "bench"


def test_a_stopped_machine_costs_on_by_its_disk(store: Store) -> None:
    store.add_machine(a_machine())
    disk = {"what": "disk", "unit": "GB-month", "quantity": Decimal(73), "unit_price_usd": Decimal("0.1")}
    store.add_charges([a_charge(), a_charge(closed_at=None, **disk)])
    (running,) = make_report(store, by="month", now=START + 100 * HOUR).running
    assert (running.on, running.cost_usd) == (False, Decimal("1.36"))


@pytest.mark.parametrize(
    "by", ["machine", "run", "type", "provider", "market", "month", "day", "project", "job"]
)
def test_open_and_closed_lines_are_one_sum(store: Store, by: str) -> None:
    store.add_machine(a_machine())
    store.add_charges([a_charge(), a_charge(opened_at=START + HOUR, closed_at=None), a_charge(machine="z")])
    found = make_report(store, by=by, now=START + 3 * HOUR, limit=1)
    assert found.total.total_usd == Decimal("1.44")
    assert found.rows[0].total_usd == (Decimal("1.08") if by in ("machine", "type") else Decimal("1.44"))
    assert found.more == (1 if by in ("machine", "type") else 0)


def test_an_open_line_outside_the_dearest_is_counted_with_its_closed_ones(store: Store) -> None:
    """Only one row is asked for, and the open line lifts its machine over it."""
    store.add_charges([a_charge(machine="a", closed_at=START + 3 * HOUR), a_charge(machine="b"),
                       a_charge(machine="b", opened_at=START + HOUR, closed_at=None)])  # fmt: skip
    found = make_report(store, by="machine", now=START + 6 * HOUR, limit=1)
    assert [(row.key, row.total_usd) for row in found.rows] == [("b", Decimal("2.16"))]


def test_old_prices_are_told(store: Store) -> None:
    store.add_charges([a_charge(price_as_of=date(2024, 2, 21)), a_charge()])
    found = make_report(store, by="month", now=START + HOUR)
    assert (found.oldest_price, found.at_old_prices_usd) == (date(2024, 2, 21), Decimal("0.36"))


def test_spot_is_laid_beside_the_price_on_demand(store: Store) -> None:
    """p2.xlarge in us-east-1: 0.90 USD an hour in the catalogue."""
    store.add_machine(a_machine())
    store.add_charge(
        a_charge(market=Market.SPOT, unit_price_usd=Decimal("0.20"), closed_at=START + 10 * HOUR)
    )
    (saving,) = make_report(store, by="month", now=START + 10 * HOUR).savings
    assert (saving.paid_usd, saving.on_demand_usd, saving.saved_usd) == (Decimal(2), Decimal(9), Decimal(7))


def test_a_series_has_each_day(store: Store) -> None:
    store.add_machine(a_machine())
    store.add_charges([a_charge(closed_at=START + 24 * HOUR), a_charge(closed_at=None)])
    found = make_series(store, by="type", now=START + HOUR)
    assert found == [
        (date(2026, 3, 4), "p2.xlarge", Decimal("4.68")),
        (date(2026, 3, 5), "p2.xlarge", Decimal("4.32")),
    ]


class Page(HTMLParser):
    """Checks that every element is closed, and collects what the page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_needs_no_other_file(cli: Cli, spent: Store, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    spent.add_machine(a_machine("<script>x", launched_at=now - HOUR, deadline_at=now + HOUR))
    spent.add_charge(a_charge(machine="<script>x", opened_at=now - HOUR, closed_at=None))
    path = tmp_path / "report.html"
    assert cli("cost", "report", "--by", "type", "--html", str(path)).code == 0
    text = path.read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert page.open == []
    assert page.links == []
    assert "script" not in page.tags
    assert page.tags.count("svg") == 3
    assert not re.search(r"url\(|@import|https?:", text)
    for words in ("prefers-color-scheme: dark", "@media print", "Cost by month", "Spot against on demand"):
        assert words in text


def test_the_page_calls_things_as_the_table_does(cli: Cli, spent: Store, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    assert cli("cost", "report", "--by", "project", "--html", str(path)).code == 0
    text = path.read_text(encoding="utf-8")
    assert "<td>(no run&#x27;s)</td>" in text
    assert "<td>5.40<sup>&nbsp;+?</sup></td>" in text
    assert cli("cost", "report", "--by", "machine", "--html", str(path)).code == 0
    text = path.read_text(encoding="utf-8")
    assert text.count("<sup>") == 4  # `who`, the total, and their month


@pytest.mark.parametrize("count", [1, 7, 12, 62])
def test_names_below_the_columns_stay_within_the_picture(count: int) -> None:
    names = [f"Nov {number:02}" for number in range(count)]
    picture = columns(names, {"x": [Decimal(1)] * count}, str)
    places = [(float(x), name) for x, name in re.findall(r'x="([\d.]+)" y="250.0"[^>]*>(Nov \d\d)<', picture)]
    assert places[-1][1] == names[-1]
    assert places[-1][0] + HALF_LETTER * len(names[-1]) <= WIDTH
    assert all(one < other - 2 * HALF_LETTER * 6 for (one, _), (other, _) in pairwise(places))


@pytest.mark.parametrize("spent_usd", ["0.003", "0.0278", "0.11", "1", "28.04", "1234"])
def test_a_scale_says_no_amount_twice(spent_usd: str) -> None:
    picture = columns(
        ["Nov 1"], {"x": [Decimal(spent_usd)]}, Money("USD", {"USD": Decimal(1)}, stated=False).axis
    )
    scale = re.findall(r'text-anchor="end">([^<]*)<', picture)
    assert len(scale) == len(set(scale)) == 5


def test_bars_tell_names_apart_that_end_in_a_time() -> None:
    names = [f"bake-cuda8-theano-20261121-2115{number}" for number in (16, 59)]
    picture = bars([(name, Decimal(1)) for name in names], str)
    shown = re.findall(r'text-anchor="end">([^<]*)<', picture)
    assert len(set(shown)) == 2
    assert max(map(len, shown)) * 2 * HALF_LETTER < NAME - 10


def test_what_is_left_out_counts_open_lines_too(store: Store) -> None:
    """Their machines are shown with their cost so far, or are among those that are not shown."""
    store.add_charges([a_charge(machine=f"m{i}", closed_at=START + (i + 1) * HOUR) for i in range(4)])
    store.add_charges([a_charge(machine=name, closed_at=None) for name in ("m0", "open")])
    for since in (None, date(2026, 3, 4)):
        found = make_report(store, by="machine", now=START + 9 * HOUR, limit=2, since=since)
        assert [(row.key, row.total_usd) for row in found.rows] == [
            ("m0", Decimal("3.60")),
            ("open", Decimal("3.24")),
        ]
        assert found.more == 3


def test_an_empty_page_and_an_empty_table(cli: Cli, tmp_path: Path) -> None:
    assert "nothing was spent yet" in cli("cost", "report").err
    assert cli("cost", "report", "--html", str(tmp_path / "r.html")).code == 0
    assert cli("cost", "report", "--json").json["rows"] == []


@pytest.mark.parametrize("wide", [80, 120])
def test_it_fits_the_screen(cli: Cli, spent: Store, monkeypatch: pytest.MonkeyPatch, wide: int) -> None:
    monkeypatch.setenv("COLUMNS", str(wide))
    assert max(map(len, cli("cost", "report", "--by", "machine").out.splitlines())) <= wide


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--since", "yesterday"), "no day"),
        (("--by", "colour"), "colour"),
        (("--json", "--csv"), "both"),
        (("--html", "/nowhere/at/all.html"), "No such file"),
        (("--currency", "XTS"), "no rate"),
    ],
)
def test_what_cannot_be_done_is_said(cli: Cli, words: tuple[str, ...], said: str) -> None:
    answer = cli("cost", "report", *words)
    assert answer.code == 2
    assert said in answer.err
    assert "hint" in answer.err
