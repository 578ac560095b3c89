"""`cloudrun cost compare` as it is typed: where its hours come from, what it refuses, what it prints."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from commandline import Cli
from money_samples import START, a_machine, a_run, an_attempt

from cloudrun.store import Store

PC = "watts=500,tariff=28JPY,purchase=120000JPY"


def test_the_line_of_the_tutorial(cli: Cli) -> None:
    said = cli("cost", "compare", "--hours", "45", "--gpu", "K80", "--own-pc", PC, "--currency", "JPY")
    assert said.code == 0
    lines = {line.split("  ")[0]: line for line in said.out.splitlines()}
    assert "47.52" in lines["G1 (K80)"]
    assert "3,580 h" in lines["G1 (K80)"]
    assert "14.00" in lines["own PC"]
    assert "1 USD = 110 JPY" in said.err
    assert "same hours assumed on own PC" in said.err


@pytest.mark.parametrize("columns", [80, 120])
def test_it_fits_the_screen(cli: Cli, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    said = cli("cost", "compare", "--hours", "45", "--gpu", "K80", "--own-pc", PC, "--currency", "JPY")
    assert max(map(len, (said.out + said.err).splitlines())) <= columns
    assert "TOTAL JPY" in said.out
    assert "PC PAYS OFF" in said.out
    assert "\N{HORIZONTAL ELLIPSIS}" not in said.out  # nothing is cut
    assert ("1 of 16 K80" in said.out) == ("retired" in said.out) == (columns == 120)
    remarks = " ".join(said.err.split())
    assert "its purchase, 120,000 JPY, is not in its line: PC PAYS OFF says when it is paid" in remarks
    assert "not rented out any more: Standard_NC6, Standard_NC12," in remarks


@pytest.mark.parametrize("columns", [80, 120])
def test_a_long_note_stands_below_the_table(cli: Cli, monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    said = cli("cost", "compare", "--hours", "45", "--region", "us-east-1", "--type", "g4ad.xlarge",
               "--type", "g4dn.xlarge")  # fmt: skip
    assert max(map(len, (said.out + said.err).splitlines())) <= columns
    assert "\N{HORIZONTAL ELLIPSIS}" not in said.out
    notes = {line.split()[0]: line for line in said.out.splitlines()}
    assert notes["g4ad.xlarge"].endswith("same hours, (1)") == (columns == 120)
    assert "(1)" not in notes["g4dn.xlarge"]
    assert " ".join(said.err.split()).startswith("(1) whether g4ad.xlarge is still offered")


def test_notes_say_in_short_how_fast_and_how_old(cli: Cli) -> None:
    said = cli("cost", "compare", "--hours", "45", "--gpu", "K80", "--gpu", "T4", "--gpu", "V100",
               "--speed", "T4=1.8")  # fmt: skip
    notes = {line.split()[0]: line for line in said.out.splitlines()}
    assert notes["g4dn.xlarge"].endswith("x 1.8 stated")
    assert notes["p3.2xlarge"].endswith("retired, same hours")
    assert notes["G1"].endswith("closed")


def test_another_rate_is_another_price(cli: Cli) -> None:
    said = cli("cost", "compare", "--hours", "1", "--gpu", "K80", "--type", "p2.xlarge", "--on-demand",
               "--region", "us-east-1", "--disk", "0", "--currency", "JPY",
               "--rate", "JPY=150", "--json")  # fmt: skip
    found = {each["name"]: each for each in said.json["alternatives"]}
    assert said.json["rate"] == 150
    assert found["p2.xlarge"]["total"] == 136  # (0.90 + 0.005) USD
    assert found["p2.xlarge"]["total_usd"] == 0.905


def test_prices_of_2017(cli: Cli) -> None:
    said = cli("cost", "compare", "--hours", "45", "--gpu", "K80", "--gpu", "K520", "--prices", "2017",
               "--currency", "JPY", "--paid", "7.71")  # fmt: skip
    assert "98.78" in said.out
    assert "110.57" in said.out
    assert "what you paid" in said.out


def test_like_a_run_takes_its_hours_price_and_gpu(cli: Cli, store: Store) -> None:
    store.add_machine(a_machine())
    store.add_run(a_run("aaaa2222", cost_usd=Decimal("7.71"), ended_at=START + timedelta(hours=45)),
                  an_attempt("aaaa2222"), [])  # fmt: skip
    found = cli("cost", "compare", "--like", "aaaa", "--json").json
    assert (found["hours"], found["gpu"], found["hours_from"]) == (45, "K80", "what aaaa2222 took")
    assert {"run aaaa2222"} == {each["name"] for each in found["alternatives"] if each["kind"] == "paid"}


def test_a_measured_ratio_is_used_and_named(cli: Cli, store: Store) -> None:
    for name, gpu, hours, run_id in (("bench", "K80", 4, "aaaa2222"), ("fast", "T4", 2, "bbbb2222")):
        store.add_machine(a_machine(name, gpu=gpu))
        run = a_run(run_id, machine=name, ended_at=START + timedelta(hours=hours))
        store.add_run(run, an_attempt(run_id), [])
    found = cli(
        "cost", "compare", "svhn_rcnn", "--preset", "paper", "--gpu", "K80", "--gpu", "T4", "--json"
    ).json
    assert (found["hours"], found["hours_from"]) == (4, "median of 1 run of ours")
    t4 = next(each for each in found["alternatives"] if each["gpu"] == "T4")
    assert (t4["speed"], t4["hours"]) == (2, 2)
    assert t4["speed_from"].startswith("measured")


def test_a_preset_nobody_ran_gives_its_limit(cli: Cli) -> None:
    found = cli("cost", "compare", "svhn_rcnn", "--preset", "paper", "--json").json
    assert (found["hours"], found["hours_from"]) == (60, "at most, the limit of preset paper")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "how many hours"),
        (("--hours", "x"), "no number of hours"),
        (("--hours", "0"), "no number of hours"),
        (("--hours", "1", "--gpu", "K81"), "no GPU 'K81'"),
        (("--hours", "1", "--type", "p2.xlrge"), "no machine type"),
        (("--hours", "1", "--own-pc", "watts=350"), "needs watts and tariff"),
        (("--hours", "1", "--own-pc", "watts=x,tariff=1"), "no number of watts"),
        (("--hours", "1", "--own-pc", "watts=1,tariff=1,lifetime=0"), "no time"),
        (("--hours", "1", "--own-pc", "watts=1,tariff=28XTS"), "no rate from USD to XTS"),
        (("--hours", "1", "--own-pc", "colour=red"), "does not know"),
        (("--hours", "1", "--rate", "JPY=-3"), "no rate"),
        (("--hours", "1", "--currency", "EUR"), "no rate from USD to EUR"),
        (("--hours", "1", "--speed", "T4=fast"), "no ratio"),
        (("--hours", "1", "--speed", "T4"), "KEY=VALUE"),
        (("--hours", "1", "--paid", "much"), "no amount"),
        (("--hours", "1", "--egress", "-1"), "no number of GB"),
        (("--preset", "paper"), "without a job"),
        (("--like", "last"), "no run is recorded"),
    ],
)
def test_what_cannot_be_meant_is_said_with_a_hint(cli: Cli, words: tuple[str, ...], said: str) -> None:
    answer = cli("cost", "compare", *words)
    assert answer.code == 2
    assert said in answer.err
    assert "hint:" in answer.err


def test_nothing_is_written(cli: Cli, home: Path) -> None:
    cli("cost", "compare", "--hours", "1", "--gpu", "K80")
    assert not home.exists()
