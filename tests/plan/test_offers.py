"""What fits a job, in which order, and why the rest does not."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from itertools import permutations

import pytest

from cloudrun import catalog
from cloudrun.models import GpuNeed, Market, Offer
from cloudrun.offers import pick_stack, rank
from cloudrun.stacks import load_stack

LADDER = [load_stack(name) for name in ("cuda12-torch", "cuda11-torch", "cpu-torch")]


def offer(region: str, price: str | None, as_of: date | None = None, **facts: object) -> Offer:
    money = None if price is None else Decimal(price)
    return Offer("aws", region, "g4dn.xlarge", Market.SPOT, money, as_of, **facts)  # type: ignore[arg-type]


def of_type(name: str) -> Offer:
    return catalog.load_offers(type=name, market=Market.ON_DEMAND)[0]


def test_cheapest_first_unknown_price_last_newest_date_breaks_a_tie() -> None:
    want = [
        offer("b", "0.1"),
        offer("d", "0.5", date(2026, 1, 1)),
        offer("a", "0.5", date(2024, 1, 1)),
        offer("c", "0.5", date(2024, 1, 1)),
        offer("e", None),
    ]
    for order in permutations(want):
        assert [each.region for each in rank(order, GpuNeed(), [])] == list("bdace")


def test_an_unknown_price_that_fits_comes_before_a_known_one_that_does_not() -> None:
    need = GpuNeed(1)
    ranked = rank([offer("a", "0.1", gpu_count=0), offer("b", None, gpu_count=1)], need, [])
    assert [(each.region, each.fits) for each in ranked] == [("b", True), ("a", False)]


@pytest.mark.parametrize(
    ("name", "need", "why"),
    [
        ("t3.large", GpuNeed(1), "no GPU, the job needs 1 GPU"),
        ("p2.xlarge", GpuNeed(2), "1 GPU, the job needs 2 GPUs"),
        ("p2.xlarge", GpuNeed(1, min_memory_gib=16), "12 GiB, the job needs 16 GiB"),
        ("g6f.large", GpuNeed(1, min_memory_gib=16), "3 GiB, the job needs 16 GiB"),
        ("Standard_ND40s_v3", GpuNeed(1, min_memory_gib=16), "unknown amount of memory"),
        ("p2.xlarge", GpuNeed(1, min_capability=7.0), "3.7, the job needs 7"),
        ("g4ad.xlarge", GpuNeed(1), "not an NVIDIA GPU"),
        ("g5g.xlarge", GpuNeed(), "arm64"),
        ("t3.large", GpuNeed(0, 16, 7.0), ""),
        ("g4dn.xlarge", GpuNeed(1, 16, 7.5), ""),
    ],
)
def test_why_an_offer_does_not_fit(name: str, need: GpuNeed, why: str) -> None:
    (judged,) = rank([of_type(name)], need, LADDER)
    assert why in judged.why_not
    assert judged.fits == (not why)


@pytest.mark.parametrize(
    ("name", "need", "stack"),
    [
        ("p2.xlarge", GpuNeed(), "cuda11-torch"),
        ("g4dn.xlarge", GpuNeed(), "cuda12-torch"),
        ("t3.large", GpuNeed(), "cpu-torch"),
        ("g2.2xlarge", GpuNeed(), "cpu-torch"),
        ("g2.2xlarge", GpuNeed(1), None),
    ],
)
def test_the_first_stack_that_drives_is_taken(name: str, need: GpuNeed, stack: str | None) -> None:
    picked = pick_stack(of_type(name), need, LADDER)
    assert (picked.name if picked else None) == stack


def test_a_job_that_needs_a_gpu_refuses_a_stack_that_leaves_it_unused() -> None:
    (judged,) = rank([of_type("g4dn.xlarge")], GpuNeed(1), [load_stack("cpu-torch")])
    assert "leaves the GPU unused" in judged.why_not
    assert rank([of_type("g4dn.xlarge")], GpuNeed(1), [load_stack("none")])[0].fits


def test_a_retired_type_warns_and_ones_own_machine_never_does() -> None:
    assert "g4dn.xlarge" in rank([of_type("p2.xlarge")], GpuNeed(), LADDER)[0].warning
    own = Offer("attached", "", "p2.xlarge", Market.OWN, Decimal(0))
    assert rank([own], GpuNeed(), LADDER)[0].warning == ""
