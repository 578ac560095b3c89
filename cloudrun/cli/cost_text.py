"""Money of other currencies on the command line: what the options mean, and how amounts read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from textwrap import wrap
from typing import Any, TypeVar

import click

from cloudrun.billing import in_currency
from cloudrun.cli import render
from cloudrun.cli.text import UNKNOWN, plain_money
from cloudrun.comparing import number
from cloudrun.config import DEFAULT_RATES, LEAST_RATE, MOST_RATE, Settings
from cloudrun.errors import UsageError
from cloudrun.ownpc import HOURS_PER_YEAR, OwnPc

# What lines of a report without a key are called.
NONE = {"project": "(no run's)", "job": "(no run's)", "run": "(no run's)", "type": "(unknown)"}

Command = TypeVar("Command", bound=Callable[..., Any])

_AMOUNT = re.compile(r"([0-9][0-9_.]*)\s*([A-Za-z]{3})?(?:/kWh)?")
_LIFETIME = re.compile(r"([0-9][0-9.]*)\s*(h|d|m|y)?")
_LIFETIME_HOURS = {"h": 1, "d": 24, "m": HOURS_PER_YEAR // 12, "y": HOURS_PER_YEAR}
_PC_HINT = "e.g. --own-pc watts=350,tariff=28JPY,purchase=120000JPY,lifetime=3y"


@dataclass(frozen=True, slots=True)
class Money:
    """How amounts of US dollars are shown: in which currency, at which rates (units for one dollar)."""

    currency: str
    rates: Mapping[str, Decimal]
    stated: bool  # the rate was given, here or in the settings

    def total(self, amount_usd: Decimal | None) -> str:
        """Rounded to the smallest coin; what is less than one is not shown as nothing."""
        if amount_usd is None:
            return UNKNOWN
        rounded = in_currency(amount_usd, self.currency, self.rates)
        less = not rounded and amount_usd
        return plain_money(amount_usd * self.rates[self.currency]) if less else f"{rounded:,}"

    def per_hour(self, amount_usd: Decimal | None) -> str:
        """Prices need more digits than coins have."""
        return UNKNOWN if amount_usd is None else plain_money(amount_usd * self.rates[self.currency])

    def axis(self, amount_usd: Decimal) -> str:
        """As short as it can be, no empty cents; parts of a cent where a whole scale is cents."""
        amount = amount_usd * self.rates[self.currency]
        return plain_money(amount) if amount < 1 else self.total(amount_usd).removesuffix(".00")

    def exact(self, amount_usd: Decimal | None) -> str | None:
        """For files and JSON: a plain number, rounded to a coin only where it is not USD."""
        if amount_usd is None:
            return None
        return str(
            amount_usd if self.currency == "USD" else in_currency(amount_usd, self.currency, self.rates)
        )

    def remark(self) -> str:
        """The rate, in words; "" for US dollars."""
        if self.currency == "USD":
            return ""
        source = "" if self.stated else f" (the rate of 2017; --rate {self.currency}=... takes another)"
        return f"1 USD = {self.rates[self.currency]:f} {self.currency}{source}"


def say_wrapped(lines: Iterable[str]) -> None:
    """Remarks as wide as the screen, what does not fit below its beginning."""
    for line in lines:
        for part in wrap(
            line, render.columns(), subsequent_indent="  ", break_on_hyphens=False, break_long_words=False
        ):
            render.say(part)


def currency_options(command: Command) -> Command:
    """--currency and --rate."""
    currency = click.option("--currency", default="", help="Show amounts in this currency, e.g. JPY.")
    rate = click.option(
        "--rate",
        "rate_pairs",
        multiple=True,
        metavar="CODE=UNITS",
        help="Units for one US dollar, e.g. JPY=110.",
    )
    return currency(rate(command))


def read_money(settings: Settings, currency: str, pairs: Sequence[str]) -> Money:
    """The currency and its rates, from the options and else from the settings. Raises UsageError."""
    given = dict(_rate(pair) for pair in pairs)
    code = (currency or settings.currency).upper()
    rates = {**settings.rates, **given}
    in_currency(Decimal(0), code, rates)  # says what is missing
    known = DEFAULT_RATES.get(code)
    return Money(code, rates, stated=code in given or rates[code] != known)


def read_amount(text: str, rates: Mapping[str, Decimal], what: str) -> Decimal:
    """ "28JPY", "0.25 EUR" or "0.25", as US dollars. Raises UsageError."""
    found = _AMOUNT.fullmatch(text.strip())
    value = number(found[1]) if found else None
    if found is None or value is None:
        raise UsageError(f"{what} is {text!r}: no amount", hint="a number and a currency, e.g. 28JPY or 0.25")
    code = (found[2] or "USD").upper()
    if code not in rates:
        raise UsageError(f"{what}: no rate from USD to {code}", hint=f"add --rate {code}=UNITS")
    return value / rates[code]


def read_own_pc(text: str, rates: Mapping[str, Decimal]) -> OwnPc | None:
    """watts=350,tariff=28JPY,purchase=120000JPY,lifetime=3y,gpu=GTX1080. Raises UsageError."""
    if not text:
        return None
    facts = {}
    for part in text.split(","):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or name not in ("watts", "tariff", "purchase", "lifetime", "gpu"):
            raise UsageError(f"--own-pc does not know {part.strip()!r}", hint=_PC_HINT)
        facts[name] = value
    if not {"watts", "tariff"} <= facts.keys():
        raise UsageError("--own-pc needs watts and tariff", hint=_PC_HINT)
    watts = number(facts["watts"].removesuffix("W"))
    if watts is None or watts < 0:
        raise UsageError(f"--own-pc watts={facts['watts']}: no number of watts", hint=_PC_HINT)
    purchase = facts.get("purchase")
    return OwnPc(
        watts=watts,
        tariff_usd_per_kwh=read_amount(facts["tariff"], rates, "--own-pc tariff"),
        purchase_usd=None if purchase is None else read_amount(purchase, rates, "--own-pc purchase"),
        lifetime_hours=_lifetime_hours(facts["lifetime"]) if "lifetime" in facts else None,
        gpu=facts.get("gpu", ""),
    )


def _lifetime_hours(text: str) -> Decimal:
    """Hours of use; a bare number counts years, and years count day and night."""
    found = _LIFETIME.fullmatch(text)
    value = number(found[1]) if found else None
    if found is None or not value:
        raise UsageError(
            f"--own-pc lifetime={text}: no time", hint="e.g. lifetime=3y, or lifetime=10000h of use"
        )
    return value * _LIFETIME_HOURS[found[2] or "y"]


def _rate(pair: str) -> tuple[str, Decimal]:
    code, _, text = pair.partition("=")
    rate = number(text)
    if not re.fullmatch(r"[A-Za-z]{3}", code) or rate is None or not LEAST_RATE <= rate <= MOST_RATE:
        raise UsageError(f"--rate {pair}: no rate", hint="e.g. --rate JPY=110: so many for one US dollar")
    return code.upper(), rate
