"""What a network would take on each GPU of the catalogue: largest batch, hours, dollars. All of it estimates.

Time is a roofline: operations at the GPU's peak plus bytes at its bandwidth, times a factor, and never less
than the launching of the kernels. The factor is measured: how much longer than its own roofline the timed
steps took on this computer. That it is the same elsewhere is the assumption; ASSUMPTIONS says so to the user.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from cloudrun import catalog
from cloudrun.catalog.loader import read_csv
from cloudrun.describing import Asked, Description, Network, Timing
from cloudrun.models import GpuNeed, Market, Offer, Stack
from cloudrun.offers import rank

GIB = 2**30
CONTEXT_BYTES = int(
    0.75 * GIB
)  # the CUDA context, cuDNN and cuBLAS of a PyTorch process; 0.5 to 1 GiB by version
USABLE = 0.92  # of the memory: the rest is lost to the allocator's blocks and the driver
LAUNCH_S = 8e-6  # a kernel launched from eager PyTorch: 5 to 10 microseconds
UNMEASURED_FACTOR = 3.0  # without timed steps: what small networks took on two CPUs here

ASSUMPTIONS = (
    "memory: all in float32; {usable:.0%} of the GPU is usable, {context:.2f} GiB of it hold the CUDA "
    "context; data that the job keeps on the GPU comes on top",
    "time: operations at the peak of the data sheet plus bytes at its bandwidth, times {factor:.1f}: so much "
    "longer took {measured}; {launch:.0f} us at least for each of the {kernels} kernels of a step",
    "precision: bfloat16, half the bytes, on GPUs with tensor cores for it; --precision float32 for none",
    "cost: hours times the catalogue's price in the cheapest region, one GPU of the machine used; no disk, "
    "no set-up, no waiting",
)


@dataclass(frozen=True, slots=True)
class Peak:
    """Of one GPU, from gpu_peaks.csv. bf16_flops is None where it has no such tensor cores."""

    fp32_flops: float
    bf16_flops: float | None
    bytes_per_s: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """One GPU model. None is unknown: no peak figures, nothing asked, no price.

    batch: what the hours are for, the job's own or, where that does not fit, the largest that does.
    """

    offer: Offer
    largest_batch: int
    batch: int | None = None
    step_s: float | None = None
    samples_per_s: float | None = None
    hours: float | None = None
    cost_usd: Decimal | None = None
    precision: str = "float32"


def estimate_all(
    described: Description,
    stacks: Sequence[Stack],
    *,
    market: Market = Market.ON_DEMAND,
    gpu: str = "",
    bfloat16: bool = True,
) -> list[Estimate]:
    """An estimate for each GPU model and memory size, at its cheapest offer of the catalogue.

    First what can be rented and fits, cheapest run first; then what is retired; then what cannot be used.
    """
    need = GpuNeed(
        max(1, described.job.gpu.count), described.job.gpu.min_memory_gib, described.job.gpu.min_capability
    )
    offers = [
        offer
        for offer in catalog.load_offers(market=market)
        if _whole(offer) and gpu.lower() in offer.gpu.lower()
    ]
    best: dict[tuple[str, float], Offer] = {}
    for offer in sorted(rank(offers, need, stacks), key=lambda offer: bool(offer.warning)):
        best.setdefault((offer.gpu, offer.gpu_memory_gib), offer)
    found = [_estimate(described, offer, bfloat16=bfloat16) for offer in best.values()]
    return sorted(found, key=_order)


def largest_batch(network: Network, memory_gib: float) -> int:
    """How many samples one training step can hold in the memory of one GPU; 0 for none."""
    free = memory_gib * GIB * USABLE - CONTEXT_BYTES - network.state_bytes - network.saved_bytes_fixed
    return max(0, int(free // max(1, network.saved_bytes + network.peak_bytes)))


def slowness(network: Network, timing: Timing | None) -> float:
    """How much longer the timed steps took than the roofline of the computer that they ran on; 1 at least."""
    if timing is None:
        return UNMEASURED_FACTOR
    bound = _bound_s(network, timing.batch, timing.peak_flops, timing.bytes_per_s)
    return max(1.0, (timing.fastest_s - network.kernels * LAUNCH_S) / bound)


def hours_here(described: Description) -> float | None:
    """On this computer, by the timed steps alone; None where nothing was timed or asked."""
    asked, timing, network = described.asked, described.timing, described.network
    if asked is None or timing is None:
        return None
    per_sample = timing.step_s / timing.batch
    return _hours(asked, network, per_sample * asked.batch, asked.batch)


def load_peaks() -> dict[str, Peak]:
    """By the GPU's name in the catalogue."""
    return {
        row["gpu"]: Peak(
            fp32_flops=float(row["fp32_tflops"]) * 1e12,
            bf16_flops=float(row["bf16_tflops"]) * 1e12 if row["bf16_tflops"] else None,
            bytes_per_s=float(row["memory_gb_s"]) * 1e9,
        )
        for row in read_csv("gpu_peaks.csv")
    }


def assumptions(described: Description) -> list[str]:
    """What the figures rest on, in sentences."""
    timing = described.timing
    measured = "small networks on a CPU" if timing is None else (
        f"{timing.steps} steps of {timing.batch} samples on this computer ({timing.device}, "
        f"{timing.threads} threads, {timing.fastest_s:.3g} s the fastest)"
    )  # fmt: skip
    facts = {
        "usable": USABLE, "context": CONTEXT_BYTES / GIB, "factor": slowness(described.network, timing),
        "measured": measured, "launch": LAUNCH_S * 1e6, "kernels": described.network.kernels,
    }  # fmt: skip
    note = [f"job: {described.asked.note}"] if described.asked and described.asked.note else []
    return [line.format(**facts) for line in ASSUMPTIONS] + note


def _estimate(described: Description, offer: Offer, *, bfloat16: bool) -> Estimate:
    network, asked = described.network, described.asked
    most = largest_batch(network, offer.gpu_memory_gib)
    peak = load_peaks().get(offer.gpu)
    if asked is None or peak is None or not most:
        return Estimate(offer, most)
    batch = min(asked.batch, most)
    reduced = bfloat16 and peak.bf16_flops is not None
    flops = peak.bf16_flops if reduced and peak.bf16_flops else peak.fp32_flops
    bandwidth = peak.bytes_per_s * (2 if reduced else 1)
    bound = slowness(network, described.timing) * _bound_s(network, batch, flops, bandwidth)
    step = max(network.kernels * LAUNCH_S, bound)
    hours = _hours(asked, network, step, batch)
    price = offer.price_per_hour_usd
    return Estimate(
        offer=offer,
        largest_batch=most,
        batch=batch,
        step_s=step,
        samples_per_s=batch / step,
        hours=hours,
        cost_usd=None if price is None else (price * Decimal(str(hours))).quantize(Decimal("0.0001")),
        precision="bfloat16" if reduced else "float32",
    )


def _bound_s(network: Network, batch: int, flops_per_s: float, bytes_per_s: float) -> float:
    """The roofline of one training step."""
    flops = batch * (network.forward_flops + network.backward_flops)
    moved = batch * network.moved_bytes + network.moved_bytes_fixed
    return flops / flops_per_s + moved / bytes_per_s


def _hours(asked: Asked, network: Network, step_s: float, batch: int) -> float:
    """All epochs; evaluating a sample takes the forward share of a training step."""
    forward = network.forward_flops / max(1, network.forward_flops + network.backward_flops)
    steps = math.ceil(asked.samples / batch)
    evaluating = asked.evaluated / batch * step_s * forward
    return asked.epochs * (steps * step_s + evaluating) / 3600


def _whole(offer: Offer) -> bool:
    known = catalog.find_type(offer.provider, offer.type)
    return bool(offer.gpu_memory_gib) and known is not None and known.nvidia and known.whole_gpus


def _order(found: Estimate) -> tuple[bool, bool, bool, Decimal, str]:
    usable = found.offer.fits and found.largest_batch > 0
    return (
        not usable,
        bool(found.offer.warning),
        found.cost_usd is None,
        found.cost_usd or Decimal(0),
        found.offer.gpu,
    )
