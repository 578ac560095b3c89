"""What Azure offers: every region where a size has a price, on demand and spot, at today's prices.

Prices are asked of the Retail Prices API, which needs no account. What the subscription may have and how much
of it is asked only where that matters: in the regions that the user named, else in the cheapest few. Planning
needs neither: a broken line leaves the catalogue, with its date, and only the launch complains of missing
credentials.

A retired size that is asked for by name is planned and priced, with a warning, as long as Azure or the
catalogue has a price for it; where the subscription cannot have it any more, the launch says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from decimal import Decimal

from cloudrun import catalog
from cloudrun.catalog import InstanceType
from cloudrun.catalog.prices import SPECIAL_REGIONS
from cloudrun.config import AZURE_PRICES_URL
from cloudrun.errors import Credentials, NotFound, ProviderError
from cloudrun.models import Market, Offer
from cloudrun.providers.answers import side_by_side
from cloudrun.providers.azure.quotas import Usage, region_usages, too_small
from cloudrun.providers.azure.retail import USD, Key, Prices, retail_prices
from cloudrun.providers.azure.session import Session
from cloudrun.providers.azure.skus import Sku, refusal, region_skus
from cloudrun.providers.base import Need
from cloudrun.words import nearest

PROVIDER = "azure"
REHEARSAL = "rehearsal: the price is simulated"
ROUNDS = (4, 8, 16)  # of regions, the cheapest first, each round asked side by side: two calls a region
ENOUGH = 3  # offers of each market that the subscription can really have end the rounds
NO_PRICE = "no region has a price for it: name one with --region to have it asked"
# Edge zones of phone companies and the like: priced as regions, and none that a subscription has.
EDGES = ("usdod", "att", "sgx")


@dataclass(frozen=True, slots=True)
class Region:
    """What Azure said of one region; None where it could not be asked."""

    name: str
    skus: Mapping[str, Sku] | None = None
    usages: Mapping[str, Usage] = field(default_factory=dict)

    def lacks(self, type: str) -> bool:
        """Whether Azure said that the region does not have the size."""
        return self.skus is not None and type not in self.skus

    def why_not(self, known: InstanceType, market: Market) -> str:
        """Why this subscription cannot have such a machine there, "" where it can or that is not known."""
        sku = self.skus.get(known.type) if self.skus is not None else None
        if self.skus is not None and (said := refusal(sku, known.type, self.name)):
            return said
        if sku and market is Market.SPOT and not sku.spot:
            return f"Azure does not offer {known.type} as spot"
        return too_small(self.usages, self.name, known, market, sku.family if sku else "")


def find_offers(session: Session, need: Need) -> list[Offer]:
    """What can be had first, cheapest first.

    Blocking: a call or two for prices, two calls for each region that is looked at, all side by side, answers
    kept for minutes to a day. Raises NotFound for a region that does not exist.
    """
    types = catalog.wanted_types(PROVIDER, need.type, need.gpu)
    if not types:
        _check_regions(need.regions, ())
        return []
    names = [known.type for known in types]
    prices = _live(session, names, need.regions, USD)
    _check_regions(need.regions, [region for _, region, _ in prices.by_place])
    quoted = Prices()
    if need.currency not in ("", USD):
        quoted = _live(session, names, need.regions, need.currency)
    priced = list(_priced(types, prices, need))
    if need.currency not in ("", USD):
        priced = [_with_quote(offer, quoted, need.currency) for offer in priced]
    offers = _judged(session, types, priced, need)
    if session.simulated:
        offers = [_warned(offer, REHEARSAL) for offer in offers]
    return offers


def _check_regions(regions: Sequence[str], live: Iterable[str]) -> None:
    """Refuse a slip of the pen. A region that the catalogue does not have may be new: then it has prices."""
    known = {offer.region for offer in catalog.load_offers(provider=PROVIDER, regions=regions)} | {*live}
    for name in regions:
        if name not in known:
            every = {offer.region for offer in catalog.load_offers(provider=PROVIDER)}
            raise NotFound(f"Azure has no region {name!r}", hint=nearest(name, sorted(every)))


def _live(session: Session, types: Sequence[str], regions: Sequence[str], currency: str) -> Prices:
    if session.simulated and session.settings.azure_prices_url == AZURE_PRICES_URL:
        return Prices()  # this rehearsal has no Azure
    with suppress(ProviderError):  # nobody to ask
        return retail_prices(session.settings, types, regions, currency=currency)
    return Prices()


# --- prices --------------------------------------------------------------------------------


def _priced(types: Sequence[InstanceType], prices: Prices, need: Need) -> Iterator[Offer]:
    """Every place of every type: at Azure's price of today, else as the catalogue has it."""
    shipped: dict[Key, Offer] = {
        (offer.type, offer.region, offer.market): offer
        for offer in catalog.load_offers(
            provider=PROVIDER, type=need.type, market=need.market, regions=need.regions
        )
    }
    for known in types:
        live = {region for region in prices.regions(known.type) if _wanted(region, need.regions)}
        old = {region for size, region, _ in shipped if size == known.type and region}
        regions = need.regions or sorted(live or old)
        for market in need.markets:
            for region in regions:
                yield _offer(known, region, market, prices, shipped)
            if not regions:
                yield replace(catalog.make_offer(known, "", market), fits=False, why_not=NO_PRICE)


def _offer(
    known: InstanceType, region: str, market: Market, prices: Prices, shipped: Mapping[Key, Offer]
) -> Offer:
    key = (known.type, region, market)
    blank = catalog.make_offer(known, region, market)
    if key in prices.by_place:
        return replace(blank, price_per_hour_usd=prices.by_place[key], price_as_of=prices.as_of)
    if key in shipped:
        old = shipped[key]
        return replace(blank, price_per_hour_usd=old.price_per_hour_usd, price_as_of=old.price_as_of)
    return blank


def _wanted(region: str, regions: Sequence[str]) -> bool:
    return region in regions if regions else not region.startswith((*SPECIAL_REGIONS, *EDGES))


def _with_quote(offer: Offer, quoted: Prices, currency: str) -> Offer:
    price = quoted.by_place.get((offer.type, offer.region, offer.market))
    return replace(offer, quoted=((currency, price),)) if price is not None else offer


# --- what the subscription may have ----------------------------------------------------------


def _judged(session: Session, types: Sequence[InstanceType], offers: list[Offer], need: Need) -> list[Offer]:
    """The offers, those refused that the subscription cannot have. A retired type that none of the regions
    looked at has is told once, not for each region."""
    by_type = {known.type: known for known in types}
    seen = _look_around(session, by_type, offers, need)
    judged = sorted((_judge(offer, by_type[offer.type], seen, need) for offer in offers), key=_order)
    gone = {name for name in by_type if not need.regions and _is_gone(name, seen)}
    told = {(offer.type, offer.market): offer for offer in reversed(judged) if offer.region in seen}
    return [each for each in judged if each.type not in gone or told.get((each.type, each.market)) is each]


def _judge(offer: Offer, known: InstanceType, seen: Mapping[str, Region], need: Need) -> Offer:
    region = seen.get(offer.region)
    why_not = region.why_not(known, offer.market) if region else ""
    if region is None or not why_not:
        return offer
    warning = catalog.type_warning(PROVIDER, known.type)
    if need.type and known.status == "retired" and region.lacks(known.type):
        return _warned(offer, f"Azure does not offer it to this subscription: {warning}")
    return replace(offer, fits=False, why_not=f"{why_not}: {warning}" if warning else why_not)


def _is_gone(type: str, seen: Mapping[str, Region]) -> bool:
    """Whether the type is retired and no region that was looked at has it."""
    known = catalog.find_type(PROVIDER, type)
    retired = known is not None and known.status == "retired"
    return retired and bool(seen) and all(region.lacks(type) for region in seen.values())


def _look_around(
    session: Session, types: Mapping[str, InstanceType], offers: Sequence[Offer], need: Need
) -> dict[str, Region]:
    """The regions asked for, else the cheapest, a few at a time until enough of what they have can be had.
    Nothing where the account cannot be asked."""
    here: dict[str, dict[str, InstanceType]] = {}
    for offer in sorted((offer for offer in offers if offer.fits), key=_order):
        here.setdefault(offer.region, {})[offer.type] = types[offer.type]

    def look(name: str) -> Region:
        return _look(session, name, list(here[name].values()), need.markets)

    seen: dict[str, Region] = {}
    for size in (len(here),) if need.regions else ROUNDS:
        batch = [name for name in here if name not in seen][:size]
        try:
            seen |= {region.name: region for region in side_by_side(look, batch)}
        except Credentials:
            return {}
        if _enough(types, offers, seen, need):
            break
    return seen


def _enough(
    types: Mapping[str, InstanceType], offers: Sequence[Offer], seen: Mapping[str, Region], need: Need
) -> bool:
    """Whether enough offers of each market were seen that can be had, or nothing is left to be seen. A region
    that did not answer counts as one that can: others would answer no sooner."""
    if all(_is_gone(name, seen) for name in types):
        return True
    counts = dict.fromkeys(need.markets, 0)
    for offer in offers:
        region = seen.get(offer.region)
        if region and not region.why_not(types[offer.type], offer.market):
            counts[offer.market] += 1
    return all(count >= ENOUGH for count in counts.values())


def _look(session: Session, name: str, types: Sequence[InstanceType], markets: Sequence[Market]) -> Region:
    """Raises Credentials where the account may not ask for sizes; another trouble leaves the region unknown.
    The long list of sizes is not asked for where the quota refuses all of today's."""
    region = Region(name)
    try:
        region = replace(region, usages=region_usages(session, name, types, markets))
    except Credentials:
        pass  # this one question is not allowed; another may be
    except ProviderError:
        return region  # no line, or throttled: the next question would only wait as well
    asked = [known for known in types if known.status == "retired" or _fits_quota(region, known, markets)]
    if not asked:
        return region
    try:
        return replace(region, skus=region_skus(session, name, [known.type for known in asked]))
    except Credentials:
        raise
    except ProviderError:
        return region


def _fits_quota(region: Region, known: InstanceType, markets: Sequence[Market]) -> bool:
    return any(not region.why_not(known, market) for market in markets)


# --- offers --------------------------------------------------------------------------------


def _warned(offer: Offer, warning: str) -> Offer:
    return replace(offer, warning="; ".join(filter(None, (offer.warning, warning))))


def _order(offer: Offer) -> tuple[bool, bool, Decimal, str, str, str]:
    price = offer.price_per_hour_usd
    return not offer.fits, price is None, price or Decimal(0), offer.region, offer.type, offer.market
