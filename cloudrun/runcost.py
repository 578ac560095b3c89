"""What a run cost, by the shares that the ledger's lines have in it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from cloudrun.ledger import SMALLEST_USD
from cloudrun.models import Charge, Market, Run
from cloudrun.shares import Use, shares_of

if TYPE_CHECKING:
    from cloudrun.store import Store


def cost_so_far_usd(store: Store, run: Run, *, now: datetime) -> Decimal | None:
    """The run's shares of all that was rented for it, and of the machines that its attempts used. None while
    a price is unknown, because a part is no total, or where nothing is known of what the machine costs."""
    machines = dict.fromkeys(each.machine for each in store.list_attempts(run.id) if each.machine)
    lines: dict[int | None, Charge] = {line.id: line for line in store.list_charges(run=run.id)}
    uses: dict[str, list[Use]] = {name: store.list_uses(name) for name in machines}
    for name in machines:
        own = [use for use in uses[name] if use.run == run.id]
        lines |= {
            line.id: line
            for line in (store.list_charges(machine=name) if own else ())
            if any(_meets(line, use) for use in own)
        }
    if not lines and run.on and not store.list_charges(machine=run.on):
        machine = store.get_machine(run.on)
        return Decimal(0) if machine is not None and machine.market is Market.OWN else None
    total = 0
    for line in lines.values():
        for share in shares_of(line, now=now, uses=_beside(run, uses.get(line.machine, ()))):
            if share.run != run.id:
                continue
            if share.micros is None:
                return None
            total += share.micros
    return total * SMALLEST_USD


def _beside(run: Run, uses: Sequence[Use]) -> list[Use]:
    """The run's, and those that touch a day of its; a machine may carry thousands of others."""
    own = [use for use in uses if use.run == run.id]
    if not own:
        return list(uses)
    first = datetime.combine(min(use.began_at for use in own).astimezone(UTC).date(), time(), UTC)
    ends = [use.ended_at for use in own]
    last = max((end for end in ends if end is not None), default=first)
    after = None if None in ends else last + timedelta(days=1)  # its last day ends before
    return [use for use in uses if _ends_after(use, first) and (after is None or use.began_at < after)]


def _ends_after(use: Use, moment: datetime) -> bool:
    return use.ended_at is None or use.ended_at > moment


def _meets(line: Charge, use: Use) -> bool:
    begins_in_time = use.ended_at is None or line.opened_at < use.ended_at
    return begins_in_time and (line.closed_at is None or line.closed_at > use.began_at)
