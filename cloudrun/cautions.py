"""What a plan tells beside its figures: doubtful prices, what nothing limits, what does not end by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from cloudrun import catalog
from cloudrun.attempts import disk_gb_of
from cloudrun.billing import egress_usd
from cloudrun.bucket import cloud_of
from cloudrun.config import Settings
from cloudrun.errors import ProviderError
from cloudrun.ledger import BYTES_PER_GB
from cloudrun.models import Bundle, DataInput, Market, Offer
from cloudrun.providers.base import Provider, SelfRelease
from cloudrun.spending import Spending

BIG_BUNDLE_BYTES = 500_000_000  # code is small: past this, data has slipped in
STALE = timedelta(days=30)  # an older price is the catalogue's: who can ask the provider gets today's


def offer_warnings(candidates: Sequence[Offer], spending: Spending) -> tuple[str, ...]:
    """What is to be known of the first candidate's price, and whether anything limits the run."""
    first = candidates[0] if candidates else None
    if first is None or first.market is Market.OWN:
        return ()
    found = [first.warning] if first.warning else []
    if first.price_per_hour_usd is None:
        found.append("the price is unknown; the total cannot be said")
    elif first.price_as_of and datetime.now(UTC).date() - first.price_as_of > STALE:
        found.append(
            f"the price is of {first.price_as_of}, from the catalogue: {first.provider} was not asked"
        )
    remark = catalog.running_cost_per_hour_usd(first.provider, disk_gb_of(first, spending.disk_gb))[1]
    if remark:
        found.append(remark)
    if spending.max_hours is None and spending.budget_usd is None:
        found.append("no limit: only the idle end stops the machine; set --max-hours or --budget")
    return tuple(found)


def limits(candidates: Sequence[Offer], providers: Callable[[str], Provider]) -> tuple[str, ...]:
    """What will not end by itself on the first candidate, as its provider knows it."""
    first = candidates[0] if candidates else None
    if first is None or first.market is Market.OWN:
        return ()
    try:
        provider = providers(first.provider)
    except ProviderError:  # planned from the catalogue alone
        return ()
    said = provider.limits(first) if isinstance(provider, SelfRelease) else ""
    return (said,) if said else ()


def bundle_warnings(bundle: Bundle) -> tuple[str, ...]:
    """That data has slipped in among the code."""
    if bundle.size_bytes <= BIG_BUNDLE_BYTES:
        return ()
    gigabytes = bundle.size_bytes / 1e9
    return (f"{gigabytes:.1f} GB of code: put data elsewhere, or name it in .cloudrunignore",)


def egress_warnings(settings: Settings, cloud: str, data: Sequence[DataInput]) -> Iterator[str]:
    """What a rented machine will fetch from another cloud, and about what that one takes for it."""
    if not data or egress_usd(cloud, Decimal(0)) is None:
        return
    from cloudrun.datasets_remote import places  # what talks to machines with it

    for each in data:
        sender = next(map(cloud_of, places(settings, cloud, each.digest)), cloud)
        usd = egress_usd(sender, Decimal(each.size_bytes) / BYTES_PER_GB)
        if sender != cloud and usd is not None:
            yield (
                f"{each.source} lies at {sender}, which takes about {usd:.2f} USD for sending it to {cloud}, "
                "as far as the machine lacks it; the first 100 GB of a month are free"
            )
