"""The JSON that scripts read: exactly these fields, for ever."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from decimal import Decimal

from cli_samples import a_machine, a_run

from cloudrun.cli.shapes import (
    bake_shape,
    error_shape,
    listed_image_shape,
    machine_shape,
    offer_shape,
    own_image_shape,
    run_shape,
)
from cloudrun.errors import NoCapacity
from cloudrun.images import ImageState, OwnImage
from cloudrun.images_bake import Bake
from cloudrun.images_list import Listed
from cloudrun.models import Market, Offer, RunState
from cloudrun.stacks import load_stack

RUN = [
    "id",
    "job",
    "project",
    "machine",
    "state",
    "stage",
    "exit_code",
    "message",
    "submitted_at",
    "started_at",
    "ended_at",
    "metric",
    "attempts",
    "outputs_bytes",
    "cost_usd",
]
MACHINE = [
    "name",
    "id",
    "provider",
    "region",
    "zone",
    "type",
    "market",
    "state",
    "host",
    "stack",
    "price_per_hour_usd",
    "launched_at",
    "deadline_at",
    "cost_usd",
    "runs",
]
OFFER = [
    "provider",
    "region",
    "zone",
    "type",
    "market",
    "price_per_hour_usd",
    "price_as_of",
    "gpu",
    "gpu_count",
    "gpu_memory_gib",
    "fits",
    "why_not",
    "quoted",
]
IMAGE = [
    *("provider", "region", "id", "name", "state", "stack", "stack_hash"),
    *("created_at", "size_gb", "price_per_month_usd"),
]
BAKE = [
    *("name", "stack", "stack_hash", "provider", "region", "type", "market"),
    *("price_per_hour_usd", "worst_case_usd", "price_per_gb_month_usd"),
]


def test_run() -> None:
    shape = run_shape(a_run(), attempts=2)
    assert list(shape) == RUN
    assert shape["metric"] == {"name": "val_acc", "value": 0.93125, "direction": "max"}
    assert (shape["state"], shape["stage"], shape["attempts"]) == ("succeeded", "release", 2)
    assert (shape["submitted_at"], shape["cost_usd"]) == ("2026-03-04T11:55:00Z", 0.0171)
    json.dumps(shape)


def test_run_that_just_began() -> None:
    shape = run_shape(
        a_run(
            state=RunState.QUEUED,
            ended_at=None,
            metric_name="",
            metric_value=None,
            cost_usd=None,
            exit_code=None,
        ),
        attempts=1,
    )
    assert [shape[name] for name in ("ended_at", "metric", "cost_usd", "exit_code")] == [None] * 4


def test_machine() -> None:
    shape = machine_shape(a_machine(), cost_usd=None, runs=["8f3kq2zx"])
    assert list(shape) == MACHINE
    assert (shape["host"], shape["cost_usd"], shape["price_per_hour_usd"]) == ("", None, 0.27)
    json.dumps(shape)


def test_offer() -> None:
    offer = Offer("aws", "us-east-1", "p2.xlarge", Market.SPOT, Decimal("0.27"), price_as_of=date(2018, 2, 1))
    shape = offer_shape(offer)
    assert list(shape) == OFFER
    assert (shape["price_as_of"], shape["market"]) == ("2018-02-01", "spot")
    assert shape["quoted"] == {}
    assert offer_shape(replace(offer, quoted=(("JPY", Decimal("29.7")),)))["quoted"] == {"JPY": 29.7}


def test_image_of_ones_own() -> None:
    image = OwnImage("aws", "us-east-1", "ami-1", "mine", ImageState.AVAILABLE, size_gb=8)
    shape = own_image_shape(image)
    assert list(shape) == IMAGE
    assert (shape["state"], shape["created_at"], shape["price_per_month_usd"]) == ("available", None, None)
    listed = listed_image_shape(Listed(image, ("k80",), "newer is newer"))
    assert list(listed) == [*IMAGE, "machines", "unused", "why_unused"]
    assert (listed["machines"], listed["unused"], listed["why_unused"]) == (["k80"], False, "newer is newer")
    json.dumps(listed)


def test_bake() -> None:
    offer = Offer("aws", "us-east-1", "p2.xlarge", Market.SPOT, Decimal("0.27"))
    stack = load_stack("cuda8-theano")
    shape = bake_shape(Bake("mine", stack, "ab" * 32, (offer,), price_per_gb_month_usd=Decimal("0.05")))
    assert list(shape) == BAKE
    assert (shape["stack"], shape["market"], shape["price_per_hour_usd"]) == ("cuda8-theano", "spot", 0.27)
    assert (shape["worst_case_usd"], shape["price_per_gb_month_usd"]) == (None, 0.05)
    json.dumps(shape)


def test_error() -> None:
    shape = error_shape(NoCapacity("none free", hint="try another region"))
    assert shape == {
        "error": "NoCapacity",
        "message": "none free",
        "hint": "try another region",
        "exit_code": 3,
    }
