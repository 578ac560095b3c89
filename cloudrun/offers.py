"""Stage 3, choose: which offers fit a job, cheapest first. Reads nothing but the shipped facts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import date
from decimal import Decimal

from cloudrun import catalog
from cloudrun.compat import why_not as stack_why_not
from cloudrun.models import GpuNeed, Market, Offer, Stack
from cloudrun.stacks import NONE


def rank(offers: Iterable[Offer], job_gpu: GpuNeed, stacks: Sequence[Stack]) -> list[Offer]:
    """The offers with fits, why_not and warning filled: those that fit first, each half cheapest
    first; equal prices by the newest date, then by name; an unknown price last."""
    return sorted((_judge(offer, job_gpu, stacks) for offer in offers), key=_order)


def pick_stack(offer: Offer, job_gpu: GpuNeed, stacks: Sequence[Stack]) -> Stack | None:
    """The first of the stacks that can drive what the offer has, None for none."""
    return next((stack for stack in stacks if not _stack_why_not(offer, job_gpu, stack)), None)


def _judge(offer: Offer, need: GpuNeed, stacks: Sequence[Stack]) -> Offer:
    why_not = offer.why_not or _hardware_why_not(offer, need)
    if not why_not and stacks and pick_stack(offer, need, stacks) is None:
        why_not = _stack_why_not(offer, need, stacks[0])
    known = "" if offer.market is Market.OWN else catalog.type_warning(offer.provider, offer.type)
    warning = offer.warning if known in offer.warning else "; ".join(filter(None, (known, offer.warning)))
    return replace(offer, fits=not why_not, why_not=why_not, warning=warning)


def _hardware_why_not(offer: Offer, need: GpuNeed) -> str:
    known = catalog.find_type(offer.provider, offer.type) if offer.market is not Market.OWN else None
    if known and known.arch != "amd64":
        return f"its processor is {known.arch}; the stacks are for amd64"
    if not need.count:
        return ""
    if offer.gpu_count < need.count:
        return f"it has {_gpus(offer.gpu_count)}, the job needs {_gpus(need.count)}"
    if known and not known.nvidia:
        return f"its {offer.gpu} is not an NVIDIA GPU"
    if offer.gpu_memory_gib < need.min_memory_gib:
        has = f"{offer.gpu_memory_gib:g} GiB" if offer.gpu_memory_gib else "an unknown amount of memory"
        return f"its GPU has {has}, the job needs {need.min_memory_gib:g} GiB"
    if offer.gpu_capability is not None and offer.gpu_capability < need.min_capability:
        return f"its compute capability is {offer.gpu_capability:g}, the job needs {need.min_capability:g}"
    return ""


def _stack_why_not(offer: Offer, need: GpuNeed, stack: Stack) -> str:
    if need.count and not stack.needs_gpu and stack.name != NONE:
        return f"stack {stack.name} leaves the GPU unused, and the job needs one"
    pinned = offer.market is not Market.OWN  # a machine of one's own is taken as it is
    fault = stack_why_not(stack, offer.gpu_capability, offer.gpu_count, pinned=pinned)
    return str(fault) if fault else ""


def _gpus(count: int) -> str:
    return "no GPU" if not count else "1 GPU" if count == 1 else f"{count} GPUs"


def _order(offer: Offer) -> tuple[bool, bool, Decimal, int, str, str, str]:
    price = offer.price_per_hour_usd
    age = -(offer.price_as_of or date.min).toordinal()
    return not offer.fits, price is None, price or Decimal(0), age, offer.provider, offer.region, offer.type
