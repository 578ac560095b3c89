"""The verbs about monthly budgets, of the Python API. `Client` has them all; see there."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, time
from decimal import Decimal
from typing import TYPE_CHECKING

from cloudrun.config import MOST_BUDGET_USD, Settings
from cloudrun.errors import UsageError
from cloudrun.models import Machine, Run
from cloudrun.store import Store

if TYPE_CHECKING:
    from cloudrun.budget import Standing
    from cloudrun.context import Context


class BudgetVerbs:
    """Set and show budgets, and what the day and the month have cost."""

    settings: Settings
    store: Store

    def budgets(self) -> list[Standing]:
        """Each budget with what is gone of it and what may still go, the one for everything first."""
        from cloudrun.budget import list_standings

        return list_standings(self.store, self.settings.budgets, now=datetime.now(UTC))

    def set_budget(self, month_usd: Decimal | None, *, project: str = "") -> None:
        """At most so much a month (UTC), of one project or in all; None removes it. Kept in config.toml."""
        from cloudrun.config_file import write_budgets

        if month_usd is not None and not 0 < month_usd <= MOST_BUDGET_USD:
            raise UsageError(f"a budget of {month_usd} USD", hint="use a positive amount, e.g. 50")
        budgets = {name: amount for name, amount in self.settings.budgets.items() if name != project}
        if month_usd is not None:
            budgets[project] = month_usd
        write_budgets(self.settings.home, budgets)
        self.settings = replace(self.settings, budgets=budgets)

    def check_restart(self, ctx: Context, run: Run) -> None:
        """Tell the warnings of the month's budget. Raises Refused where another machine for the run does not
        fit in; one that is up already is counted."""
        if not self.settings.budgets:
            return
        from cloudrun import spending
        from cloudrun.runrecord import load_order

        order = load_order(ctx, run)
        spending.check_month(ctx, run, order, order.candidates, order.budget_usd)

    def spent_usd(self) -> tuple[Decimal, Decimal]:
        """Today, and this month (both UTC's), as far as prices are known; what runs counts up to now."""
        from cloudrun import budget

        now = datetime.now(UTC)
        today = datetime.combine(now.date(), time(), UTC)
        since = (today, budget.month_begin(now))
        return budget.spent_usd(self.store, since=since[0], now=now), budget.spent_usd(
            self.store, since=since[1], now=now
        )

    def cost_until_deadline_usd(self, machine: Machine) -> Decimal | None:
        """What it may still cost, from now to its deadline; None where there is none, or no price."""
        from cloudrun.budget import cost_until

        return cost_until(self.store, machine, machine.deadline_at, now=datetime.now(UTC))

    def unguarded(self) -> list[Machine]:
        """Rented machines that run and that nothing but their owner ends, as the store has them."""
        from cloudrun.budget import unguarded

        if not self.settings.store_path.exists():  # to look must not make one
            return []
        return unguarded(self.store.list_machines())
