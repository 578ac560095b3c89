"""The arithmetic of a month's budget, and what the commands make of it."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from money_samples import a_charge, a_machine

from cloudrun import budget, charging
from cloudrun.cli import run
from cloudrun.client import Client
from cloudrun.config import load_settings
from cloudrun.config_file import write_budgets
from cloudrun.errors import ConfigError, Refused
from cloudrun.events import Event
from cloudrun.models import Machine, MachineState, Market, Offer
from cloudrun.spending import Spending

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
ZONES = st.integers(-14, 14).map(lambda hours: timezone(timedelta(hours=hours)))


def rent(
    client: Client,
    name: str,
    *,
    at: datetime,
    usd: str | None = "1",
    closed_at: datetime | None = None,
    deadline_at: datetime | None = None,
    idle_minutes: float | None = 30.0,
) -> Machine:
    """A machine at AWS for so much an hour, with its line in the ledger."""
    price = None if usd is None else Decimal(usd)
    machine = a_machine(name, price_per_hour_usd=price, launched_at=at, deadline_at=deadline_at,
                        idle_minutes=idle_minutes)  # fmt: skip
    client.store.add_machine(machine)
    line = a_charge(machine=name, unit_price_usd=price, price_as_of=None, opened_at=at, closed_at=closed_at)
    client.store.add_charge(line)
    return machine


@given(st.datetimes(datetime(2000, 1, 1), datetime(2100, 12, 30)), ZONES)  # noqa: DTZ001  # the zone is the next
def test_a_month_is_utc_s_and_holds_the_moment(moment: datetime, zone: timezone) -> None:
    at = moment.replace(tzinfo=zone)
    begin, end = budget.month_begin(at), budget.month_end(at)
    assert begin <= at < end
    assert (begin.day, end.day, begin.tzinfo, end.hour) == (1, 1, UTC, 0)
    assert budget.month_begin(end - timedelta(microseconds=1)) == begin
    assert budget.month_begin(end) == end


def test_what_runs_counts_to_its_deadline_or_to_the_end_of_the_month(client: Client) -> None:
    rent(client, "old", at=NOW - 5 * HOUR, closed_at=NOW - 3 * HOUR)
    rent(client, "limited", at=NOW - 2 * HOUR, deadline_at=NOW + 10 * HOUR)
    rent(client, "idle", at=NOW - HOUR)
    (found,) = budget.list_standings(client.store, {"": Decimal(1000)}, now=NOW)
    rest_of_month = 9 * 24 + 12
    assert (found.month, found.spent_usd, found.ahead_usd) == ("2026-11", 5, 10 + rest_of_month)
    assert found.left_usd == 1000 - 5 - 10 - rest_of_month
    (late,) = budget.list_standings(
        client.store, {"": Decimal(1000)}, now=datetime(2026, 12, 1, 1, tzinfo=UTC)
    )
    assert late.spent_usd == 2  # "limited" is over its deadline and still billed, as "idle" is
    assert late.ahead_usd == 31 * 24 - 1


def test_what_comes_after_the_month_is_not_counted_in_it(client: Client) -> None:
    end = budget.month_end(NOW)
    rent(client, "long", at=end - 3 * HOUR, deadline_at=end + 20 * HOUR)
    (found,) = budget.list_standings(client.store, {"": Decimal(50)}, now=end - HOUR)
    assert (found.spent_usd, found.ahead_usd) == (2, 1)
    (found,) = budget.list_standings(client.store, {"": Decimal(50)}, now=end + HOUR)
    assert (found.month, found.spent_usd, found.ahead_usd) == ("2026-12", 1, 19)


def test_today_and_this_month(client: Client) -> None:
    rent(client, "before", at=NOW - 48 * HOUR, closed_at=NOW - 46 * HOUR)
    rent(client, "on", at=NOW - 15 * HOUR)
    day = NOW.replace(hour=0)
    assert budget.spent_usd(client.store, since=day, now=NOW) == 12
    assert budget.spent_usd(client.store, since=budget.month_begin(NOW), now=NOW) == 17


def test_a_plan_past_what_is_left_is_refused_with_the_figures(client: Client) -> None:
    rent(client, "on", at=NOW - 5 * HOUR, deadline_at=NOW + 5 * HOUR)
    limits = {"": Decimal(50)}

    def ask(worst: str | None) -> tuple[str, ...]:
        return budget.check(client.store, limits, None if worst is None else Decimal(worst), now=NOW)

    assert ask("29.99") == ()
    assert "80% of the month's budget of 50.00 USD" in ask("30")[0]
    assert "100%" in ask("40")[0]
    with pytest.raises(Refused, match=r"40\.01 USD, and 40\.00 USD are left .* 5\.00 USD spent") as refusal:
        ask("40.01")
    assert refusal.value.exit_code == 2
    assert "cloudrun config budget --month" in refusal.value.hint
    with pytest.raises(Refused, match="unknown") as unknown:
        ask(None)
    assert "--max-hours or --budget" in unknown.value.hint
    assert budget.check(client.store, limits, Decimal(45), now=NOW, without="on") != ()
    assert budget.check(client.store, {"svhn": Decimal(1)}, Decimal(45), now=NOW, project="other") == ()
    with pytest.raises(Refused, match="of project svhn"):
        budget.check(client.store, {"svhn": Decimal(1)}, Decimal(45), now=NOW, project="svhn")


def test_an_unknown_price_is_said(client: Client) -> None:
    rent(client, "odd", at=NOW - HOUR, usd=None)
    (said,) = budget.check(client.store, {"": Decimal(50)}, Decimal(1), now=NOW)
    assert "price of odd is unknown" in said


def test_a_launch_asks_the_budget_and_ones_own_computer_is_free(client: Client) -> None:
    offer = Offer("aws", "us-east-1", "p2.xlarge", Market.ON_DEMAND, Decimal("0.90"))
    client.set_budget(Decimal(10))
    assert client.check_launch([offer], max_hours=1.0) == ()
    with pytest.raises(Refused, match="the month's budget"):
        client.check_launch([offer], max_hours=4.0, count=3)
    with pytest.raises(Refused, match="unknown"):
        client.check_launch([offer], max_hours=1.0, keep=True)
    with pytest.raises(Refused, match=r"this may cost 12\.00 USD"):
        client.check_launch([offer], budget_usd=Decimal(6), keep=True, count=2)
    assert client.check_launch([offer], budget_usd=Decimal(6), keep=True) == ()
    assert client.check_launch([Offer("local", "here", "local", Market.OWN, None)]) == ()
    least = Spending(1e-9, None, 0).worst_case_usd([offer])
    assert least == Decimal("0.0153")  # AWS bills a minute at least: 0.915 USD an hour with disk and address


def test_an_extension_asks_the_budget_before_the_machine(client: Client) -> None:
    now = datetime.now(UTC)
    rent(client, "on", at=now - HOUR, deadline_at=now + HOUR)
    client.set_budget(Decimal(20))
    with pytest.raises(Refused, match=r"this may cost 21\.00 USD"):
        client.extend("on", hours=20)
    assert client.machine("on").deadline_at == now + HOUR
    assert round(client.cost_until_deadline_usd(client.machine("on")) or 0, 2) == 1


def test_a_start_asks_the_budget_and_a_comeback_only_warns(client: Client) -> None:
    now = datetime.now(UTC)
    off = rent(client, "off", at=now - 9 * HOUR, closed_at=now - 8 * HOUR, deadline_at=now + 10 * HOUR)
    told: list[Event] = []
    ctx = client.context(on_event=told.append)
    charging.check_start(ctx, off)  # no budget, no question
    client.set_budget(Decimal("9.5"))
    ctx = client.context(on_event=told.append)
    with pytest.raises(Refused, match=r"this may cost 9\.0\d USD"):  # 0.90 an hour and the address
        charging.check_start(ctx, replace(off, price_per_hour_usd=Decimal("0.90")))
    assert client.store.list_charges(open_only=True) == []
    client.set_budget(Decimal("11"))
    ctx = client.context(on_event=told.append)
    charging.check_start(ctx, replace(off, price_per_hour_usd=Decimal("0.90")))
    assert "of the month's budget of 11.00 USD" in str(told.pop())
    charging.note_comeback(ctx, replace(off, price_per_hour_usd=Decimal("3")), now)
    assert "off came back, and this may cost 30." in str(told.pop())
    assert {line.what for line in client.store.list_charges(open_only=True)} == {"compute", "address"}
    charging.note_comeback(ctx, off, now + HOUR)
    assert len(client.store.list_charges(open_only=True)) == 2
    assert told == []


def test_what_is_started_without_a_deadline_counts_to_the_end_of_the_month() -> None:
    line = a_charge(unit_price_usd=Decimal(1), opened_at=NOW, closed_at=None)
    assert budget.cost_this_month([line], NOW + 2 * HOUR, now=NOW) == 2
    for deadline in (None, NOW - HOUR, NOW + 500 * HOUR):
        assert budget.cost_this_month([line], deadline, now=NOW) == 9 * 24 + 12
    assert budget.cost_this_month([replace(line, unit_price_usd=None)], None, now=NOW) is None


def test_status_ends_with_what_was_spent(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status"]) == 0
    assert "spent" not in capsys.readouterr().err
    now = datetime.now(UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    name = rent(client, "old", at=midnight, closed_at=midnight + 2 * HOUR).name
    client.store.update_machine(name, state=MachineState.TERMINATED)
    assert run(["status"]) == 0
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == "no machine is up; spent 2.00 USD today, 2.00 USD this month"


def test_every_command_warns_of_a_machine_that_nobody_ends(
    client: Client, capsys: pytest.CaptureFixture[str]
) -> None:
    rent(client, "guarded", at=NOW)
    assert run(["config", "budget"]) == 0
    assert "nothing but you ends" not in capsys.readouterr().err
    rent(client, "kept", at=NOW, idle_minutes=None)
    assert run(["config", "budget"]) == 0
    assert run(["logs", "nothing"]) == 2  # an error is the end of a command too
    said = capsys.readouterr().err
    assert said.count("warning: nothing but you ends kept: cloudrun terminate kept") == 2


def test_the_file_keeps_everything_else(client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    file = client.settings.home / "config.toml"
    file.parent.mkdir(parents=True, exist_ok=True)
    mine = "# mine\npoll_s = 3\n\n[rates] # of today\nJPY = 150\n"
    file.write_text(mine, encoding="utf-8")
    assert run(["config", "budget", "--month", "50"]) == 0
    assert run(["config", "budget", "--month", "7.5", "--project", 'odd "name"\\']) == 0
    assert file.read_text(encoding="utf-8").startswith(mine)
    assert load_settings().budgets == {"": Decimal(50), 'odd "name"\\': Decimal("7.5")}
    capsys.readouterr()
    assert run(["config", "show", "--json"]) == 0
    shown = {each["name"]: each for each in json.loads(capsys.readouterr().out)}
    assert (shown["budget.month"]["value"], shown["poll_s"]["source"]) == ("50", "file")
    assert (shown["rates.JPY"]["source"], shown["ssh_port"]["source"]) == ("file", "default")
    assert shown["home"]["place"] == "CLOUDRUN_HOME"
    assert run(["config", "budget", "--off", "--project", 'odd "name"\\']) == 0
    assert run(["config", "budget", "--off"]) == 0
    assert file.read_text(encoding="utf-8") == mine
    assert run(["config", "budget", "--off", "--month", "3"]) == 2


NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
AMOUNTS = st.decimals(Decimal("0.01"), Decimal(10_000), places=2)


@given(st.dictionaries(NAMES, AMOUNTS, max_size=4))
def test_whatever_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, projects: dict[str, Decimal]
) -> None:
    home = tmp_path_factory.mktemp("home")
    write_budgets(home, projects)
    assert load_settings({"CLOUDRUN_HOME": str(home)}).budgets == projects


def test_a_form_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("budget = { month = 5 }\n", encoding="utf-8")
    assert load_settings({"CLOUDRUN_HOME": str(tmp_path)}).budgets == {"": 5}
    with pytest.raises(ConfigError):
        write_budgets(tmp_path, {"": Decimal(6)})
    assert tomllib.loads(file.read_text(encoding="utf-8")) == {"budget": {"month": 5}}
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []
    file.write_text('[budget]\nmonth = "-1"\n', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"budget\.month"):
        load_settings({"CLOUDRUN_HOME": str(tmp_path)})
