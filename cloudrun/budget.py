"""Monthly budgets: what a month has cost so far, what may still come, and whether something new fits in.

A month begins and ends at midnight UTC, as the ledger counts. What runs is taken at its worst: to its
deadline, or to the end of the month where it has none or its deadline lies past it. Something new counts
whole for the month in which it begins. Money is Decimal US dollars. Nothing here writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from cloudrun.errors import Refused
from cloudrun.models import Charge, Machine, MachineState, Market, Plan

if TYPE_CHECKING:
    from cloudrun.store import Store

WARN_AT = Decimal("0.8")  # of the budget
SMALLEST_USD = Decimal("0.000001")  # the store adds up in these


@dataclass(frozen=True, slots=True)
class Standing:
    """One budget as it stands. project: "" for everything. ahead_usd: what that which runs may still cost in
    this month. unpriced: machines whose price is unknown; they are in no sum."""

    project: str
    month: str  # 2026-11
    budget_usd: Decimal
    spent_usd: Decimal
    ahead_usd: Decimal
    unpriced: tuple[str, ...] = ()

    @property
    def left_usd(self) -> Decimal:
        """Below 0 when it is passed already."""
        return self.budget_usd - self.spent_usd - self.ahead_usd

    def share_with(self, more_usd: Decimal) -> Decimal:
        """The part of the budget that may be gone by the end of the month, 1 = all of it."""
        return (self.spent_usd + self.ahead_usd + more_usd) / self.budget_usd


def month_begin(now: datetime) -> datetime:
    """The first moment of the month, in UTC."""
    return now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def month_end(now: datetime) -> datetime:
    """The first moment of the next month, in UTC."""
    begin = month_begin(now)
    return begin.replace(year=begin.year + begin.month // 12, month=begin.month % 12 + 1)


def spent_usd(store: Store, *, since: datetime, now: datetime) -> Decimal:
    """What is known to have been spent from the beginning of a day (UTC) until now: the closed lines by the
    store's sums, whatever their number, and the open ones as they stand."""
    micros = store.spent_in_all(since=since.date()).total
    return micros * SMALLEST_USD + _between(store.list_charges(open_only=True), since, now)


def list_standings(store: Store, budgets: Mapping[str, Decimal], *, now: datetime) -> list[Standing]:
    """Every budget, the one for everything first."""
    return [_standing(store, project, budgets[project], now) for project in sorted(budgets)]


def check(
    store: Store,
    budgets: Mapping[str, Decimal],
    worst_usd: Decimal | None,
    *,
    now: datetime,
    project: str = "",
    without: str = "",
) -> tuple[str, ...]:
    """Whether something that costs at most so much, None = nobody knows, fits into the budgets of everything
    and of its project; the warnings. `without`: a machine that is not counted, as it is the one in question.

    Raises Refused with the figures and the way out.
    """
    found: list[str] = []
    for name in sorted({"", project} & set(budgets)):
        standing = _standing(store, name, budgets[name], now, without)
        if worst_usd is None:
            raise Refused(
                f"what this costs at most is unknown, and {_called(standing)} is {_usd(standing.budget_usd)}",
                hint="give it a limit: --max-hours or --budget (and no --keep)",
            )
        if worst_usd > standing.left_usd:
            raise Refused(_beyond(standing, worst_usd), hint=_way_out(standing))
        found += _warnings(standing, worst_usd)
    return tuple(found)


def check_plan(store: Store, budgets: Mapping[str, Decimal], plan: Plan, *, now: datetime) -> tuple[str, ...]:
    """As check, for a plan. One for a machine that is up already rents nothing: that machine is counted."""
    if plan.machine or all(offer.market is Market.OWN for offer in plan.candidates):
        return ()
    return check(store, budgets, plan.worst_case_usd, now=now, project=plan.job.project)


def cost_until(store: Store, machine: Machine, until: datetime | None, *, now: datetime) -> Decimal | None:
    """What the machine costs from now until then at the prices of now; None where one is unknown, or `until`
    is."""
    if machine.market is Market.OWN:
        return Decimal(0)
    if until is None:
        return None
    lines = store.list_charges(machine=machine.name, open_only=True)
    if any(line.unit_price_usd is None for line in lines):
        return None
    return _ahead(lines, now, until)


def cost_this_month(
    lines: Sequence[Charge], deadline_at: datetime | None, *, now: datetime
) -> Decimal | None:
    """What lines that begin now cost in this month at most: to the deadline where one is still to come, else
    to the month's end. None where a price is unknown."""
    from cloudrun.ledger import run_cost_usd

    end = month_end(now)
    until = min(end, deadline_at) if deadline_at is not None and deadline_at > now else end
    return run_cost_usd(lines, now=until)


def unguarded(machines: Iterable[Machine]) -> list[Machine]:
    """Rented machines that nothing but their owner ends."""
    return [
        machine
        for machine in machines
        if machine.market is not Market.OWN
        and not (machine.state.gone or machine.state is MachineState.STOPPED)
        and machine.deadline_at is None
        and machine.idle_minutes is None
    ]


def _standing(store: Store, project: str, budget_usd: Decimal, now: datetime, without: str = "") -> Standing:
    begin, end = month_begin(now), month_end(now)
    lines = store.list_charges(open_only=True)
    counted = store.count_open(lines, now=now)
    if project:
        counted = [each for each in counted if each.under["project"] == project]
        lines = [line for line, own in zip(lines, store.projects_of(lines), strict=True) if own == project]
        closed = sum(each.total for each in store.spent("project", since=begin.date(), keys=[project]))
    else:
        closed = store.spent_in_all(since=begin.date()).total
    opened = sum(each.share.micros or 0 for each in counted if each.share.day >= begin.date())
    ahead = sum(
        (
            _ahead(own, now, _last_moment(store, name, own, now, end))
            for name, own in _by_machine(lines)
            if name != without
        ),
        Decimal(0),
    )
    unpriced = dict.fromkeys(line.machine for line in lines if line.unit_price_usd is None)
    return Standing(
        project=project,
        month=f"{begin:%Y-%m}",
        budget_usd=budget_usd,
        spent_usd=(closed + opened) * SMALLEST_USD,
        ahead_usd=ahead,
        unpriced=tuple(unpriced),
    )


def _by_machine(lines: Sequence[Charge]) -> Iterator[tuple[str, list[Charge]]]:
    for name in dict.fromkeys(line.machine for line in lines):
        yield name, [line for line in lines if line.machine == name]


def _last_moment(store: Store, name: str, lines: Sequence[Charge], now: datetime, end: datetime) -> datetime:
    """Until when they cost in this month at most. A disk outlives the deadline of a machine that is off."""
    machine = store.get_machine(name)
    on = any(line.what == "compute" for line in lines)
    deadline = machine.deadline_at if machine and on else None
    return end if deadline is None else min(end, max(now, deadline))


def _ahead(lines: Sequence[Charge], now: datetime, until: datetime) -> Decimal:
    """What open lines of known price will cost from now until then; a minimum that is not yet used up counts
    as spent already."""
    from cloudrun.ledger import cost_usd

    total = Decimal(0)
    for line in lines:
        total += (cost_usd(line, now=max(now, until)) or Decimal(0)) - (cost_usd(line, now=now) or Decimal(0))
    return total


def _between(lines: Sequence[Charge], since: datetime, now: datetime) -> Decimal:
    """What open lines have cost from the beginning of a day (UTC) until now."""
    if not lines:
        return Decimal(0)
    from cloudrun.shares import shares_of  # the catalogue with it: most commands find nothing open

    day = since.date()
    shares = (share for line in lines for share in shares_of(line, now=now))
    return sum(share.micros or 0 for share in shares if share.day >= day) * SMALLEST_USD


def _warnings(standing: Standing, more_usd: Decimal) -> Iterator[str]:
    share = standing.share_with(more_usd)
    if share >= WARN_AT:
        total = standing.spent_usd + standing.ahead_usd + more_usd
        yield (
            f"{standing.month} may come to {_usd(total)} with this, {share:.0%} of "
            f"{_called(standing)} of {_usd(standing.budget_usd)}"
        )
    if standing.unpriced:
        names = ", ".join(standing.unpriced)
        yield f"the price of {names} is unknown, so {_called(standing)} does not count it"


def _beyond(standing: Standing, more_usd: Decimal) -> str:
    left = max(Decimal(0), standing.left_usd)
    return (
        f"this may cost {_usd(more_usd)}, and {_usd(left)} are left of {_called(standing)}: "
        f"{_usd(standing.budget_usd)}, less {_usd(standing.spent_usd)} spent in {standing.month} and "
        f"{_usd(standing.ahead_usd)} that what runs may still cost"
    )


def _way_out(standing: Standing) -> str:
    project = f" --project {standing.project}" if standing.project else ""
    cheaper = "lower --max-hours or --budget, " if standing.left_usd > 0 else ""
    return f"{cheaper}end what runs, or raise it: cloudrun config budget --month USD{project}"


def _called(standing: Standing) -> str:
    return f"the month's budget of project {standing.project}" if standing.project else "the month's budget"


def _usd(amount: Decimal) -> str:
    """To the cent, below a dollar to four digits."""
    digits = Decimal("0.01") if amount == 0 or abs(amount) >= 1 else Decimal("0.0001")
    return f"{amount.quantize(digits):f} USD"
