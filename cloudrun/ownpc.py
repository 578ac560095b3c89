"""A computer of one's own as a way to do the same work: what its hours cost, and when it has paid off.

Pure arithmetic in US dollars. Electricity is what an hour costs; the purchase is a sum of its own, spread
over hours only where a lifetime is stated.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

ONE = Decimal(1)
HOURS_PER_YEAR = 8760  # 365 * 24


@dataclass(frozen=True, slots=True)
class OwnPc:
    """watts: of the whole system under load, at the socket. lifetime_hours: hours of use over which the
    purchase is spread; None leaves it out of the hours."""

    watts: Decimal
    tariff_usd_per_kwh: Decimal
    purchase_usd: Decimal | None = None
    lifetime_hours: Decimal | None = None
    gpu: str = ""

    @property
    def electricity_per_hour_usd(self) -> Decimal:
        return self.watts / 1000 * self.tariff_usd_per_kwh

    @property
    def purchase_per_hour_usd(self) -> Decimal:
        """The share of the purchase in an hour of use; 0 without a lifetime."""
        if self.purchase_usd is None or not self.lifetime_hours:
            return Decimal(0)
        return self.purchase_usd / self.lifetime_hours

    def break_even_hours(
        self, elsewhere_per_hour_usd: Decimal, speed: Decimal = Decimal(1)
    ) -> Decimal | None:
        """Hours that this computer must run until its purchase is paid by what renting would have cost.

        elsewhere_per_hour_usd: all that an hour there costs; speed: how much faster this computer is than
        that. None without a purchase, and where an hour here costs as much as the same work there: never.
        """
        if self.purchase_usd is None:
            return None
        saved = elsewhere_per_hour_usd * speed - self.electricity_per_hour_usd
        return self.purchase_usd / saved if saved > 0 else None
