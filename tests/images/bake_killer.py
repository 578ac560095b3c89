"""Bakes, and kills itself (SIGKILL) at a point: `bake_killer.py STACK TYPE POINT [HOURS]`.

POINT is what had just been done then: launched, provisioned, cleaned, charged (the ledger has the image's
line), asked (for the image), waiting, made.
HOURS is the limit of the machine that it is made on.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from cloudrun import images_bake, images_charged
from cloudrun.client import Client
from cloudrun.config import load_settings
from cloudrun.models import Market

CALLS = {"launched": "launch", "asked": "create_image", "waiting": "describe_image"}  # of the provider
REGIONS = {"p2.xlarge": ("us-east-1", "us-west-2")}  # where the tests look for what it left
STEPS = {"cleaned": "_clean", "made": "_await"}  # of the bake


def main(stack: str, kind: str, point: str, hours: str = "") -> None:
    if hours:
        images_bake.MAX_HOURS = float(hours)
    client = Client(load_settings())
    plan = client.plan_bake(stack, type=kind, market=Market.SPOT, regions=REGIONS.get(kind, ()))
    provider = client.provider(plan.candidates[0].provider)
    if point in CALLS:
        setattr(provider, CALLS[point], _then_die(getattr(provider, CALLS[point])))
    elif point == "charged":
        images_charged.open_line = _then_die(images_charged.open_line)
    elif point in STEPS:
        setattr(images_bake, STEPS[point], _then_die(getattr(images_bake, STEPS[point])))
    client.bake(plan, on_event=lambda event: _die() if point in str(event) else None)


def _then_die(work: Callable[..., Any]) -> Callable[..., Any]:
    def done(*values: Any, **named: Any) -> None:
        work(*values, **named)
        _die()

    return done


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(*sys.argv[1:])
