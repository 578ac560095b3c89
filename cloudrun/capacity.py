"""What both ways of getting a machine (launch, and stage 6 of a run) do when a provider refuses."""

from __future__ import annotations

import time
from collections.abc import Callable

from cloudrun.context import Context
from cloudrun.errors import ImageNotFound, NoCapacity, NotOffered, Quota
from cloudrun.events import Note
from cloudrun.models import Offer

# The provider refused this candidate; another may do.
REFUSALS = (NoCapacity, Quota, NotOffered, ImageNotFound)

# Between two rounds over all candidates. Capacity comes back in minutes, and asking more often than
# every few minutes only meets the rate limit (catalog/errors.csv: "wait a few minutes").
FIRST_RETRY_POLLS, MOST_RETRY_POLLS = 2, 20  # in units of poll_s: 30 s and 5 min by default
TURN_S = 0.5  # a run that is cancelled meanwhile ends so soon


def wait_for_capacity(ctx: Context, rounds: int, *, each_turn: Callable[[], None] = lambda: None) -> None:
    """Sleep before the next round, the longer the more have failed; `each_turn` may raise to end it."""
    polls = min(FIRST_RETRY_POLLS * 1.5**rounds, MOST_RETRY_POLLS)
    seconds = polls * ctx.settings.poll_s
    ctx.on_event(Note(f"nobody has one now; asking all again in {seconds:.0f} s"))
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        each_turn()
        time.sleep(min(TURN_S, seconds))


def where(offer: Offer) -> str:
    """Place and type in a few words, for notes."""
    return " ".join(part for part in (offer.provider, offer.zone or offer.region, offer.type) if part)
