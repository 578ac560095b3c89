"""model: what a job's network takes, layer by layer, and what it would take on each GPU."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import click

from cloudrun.cli import render
from cloudrun.cli.lazy import JobVerb
from cloudrun.cli.options import json_option, market_option, open_client
from cloudrun.cli.shapes import offer_shape
from cloudrun.cli.table import Column
from cloudrun.cli.text import UNKNOWN, duration, plain_money, short_duration, size, visible
from cloudrun.models import Market

if TYPE_CHECKING:
    from cloudrun.describing import Description, Layer
    from cloudrun.estimate import Estimate

LAYERS = (
    Column("LAYER", 0),
    Column("KIND", 6),
    Column("OUTPUT", 1),
    Column("(W-F+2P)/S+1", 7, optional=True),
    Column("PARAMETERS", 2, right=True),
    Column("ACTIVATION", 3, right=True),
    Column("KEPT", 8, right=True, optional=True),
    Column("FLOP FWD", 4, right=True, optional=True),
    Column("FLOP BWD", 5, right=True, optional=True),
)
GPUS = (
    Column("GPU", 0),
    Column("GIB", 2, right=True),
    Column("MAX BATCH", 1, right=True),
    Column("SAMPLES/S", 6, right=True, optional=True),
    Column("TIME", 2, right=True, optional=True),
    Column("COST USD", 1, right=True, optional=True),
    Column("USD/H", 5, right=True),
    Column("TYPE", 3),
    Column("NOTE", 4, least=11, optional=True),
)


@click.command(
    cls=JobVerb,
    examples=(
        "cloudrun model jobs/svhn_rcnn",
        "cloudrun model svhn_rcnn --preset paper --spot",
        "cloudrun model svhn_rcnn --preset paper --gpu h100 --json -- --channels 64",
    ),
)
@click.argument("job")
@click.option("--preset", default="", help="Arguments from job.toml.")
@click.option("--gpu", default="", help="Only GPUs with this in their name, e.g. a100.")
@market_option
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32"]),
    default="auto",
    show_default=True,
    help="auto: bfloat16 where the GPU has it.",
)
@json_option
@click.pass_context
def model(
    ctx: click.Context, job: str, preset: str, gpu: str, market: Market | None, precision: str, as_json: bool
) -> None:
    """Show what a job's network takes, and what it would cost.

    Layers with sizes, parameters, memory and operations; then for each GPU of the catalogue the largest
    batch, and estimated hours and dollars. The job measures itself and 20 of its training steps, which takes
    about a minute here. Words after `--` go to the job.
    """
    from cloudrun.describing import describe_job
    from cloudrun.estimate import assumptions, estimate_all
    from cloudrun.stacks import load_stack

    _say_if_busy()
    render.transient("measuring the network and 20 steps ...")
    described = describe_job(open_client().settings, job, preset=preset, args=ctx.meta["rest"])
    stacks = [load_stack(name) for name in described.job.stacks]
    estimates = estimate_all(
        described, stacks, market=market or Market.ON_DEMAND, gpu=gpu, bfloat16=precision == "auto"
    )
    if as_json:
        render.as_json(_shape(described, estimates, assumptions(described)))
        return
    _show_network(described)
    _show_gpus(described, estimates, market or Market.ON_DEMAND)
    for line in assumptions(described):
        for part in wrap(
            visible(line), min(render.columns(), 110) - 1, subsequent_indent="  ", break_on_hyphens=False
        ):
            render.say(part)


def _say_if_busy() -> None:
    """Steps that share the processors with others take longer, and so would every estimate."""
    if os.getloadavg()[0] > (os.cpu_count() or 1):
        render.say("this computer is busy: times and costs will come out too high")


def _show_network(described: Description) -> None:
    network = described.network
    render.table(LAYERS, [_layer_row(layer) for layer in network.layers])
    frozen = network.parameters - network.trainable
    render.data()
    facts = [
        ("parameters", f"{network.parameters:,}" + (f", {frozen:,} of them frozen" if frozen else "")),
        (
            "operations",
            f"{_ops(network.forward_flops)}FLOP forward, {_ops(network.backward_flops)}FLOP backward, "
            "a sample",
        ),
        ("activations", f"{size(network.saved_bytes)} kept for the backward pass, a sample"),
        ("state", f"{size(network.state_bytes)}: weights, gradients, the optimiser's values"),
    ]
    for name, text in facts:
        render.data(f"{name:<12} {text}")


def _layer_row(layer: Layer) -> tuple[str, ...]:
    from cloudrun.arithmetic import show_output_side

    formula = show_output_side(layer.input[-1], layer.window) if layer.window and layer.input else ""
    times = f" x{layer.calls}" if layer.calls > 1 else ""
    return (
        layer.name,
        layer.kind + times,
        "x".join(map(str, layer.output)),
        formula,
        f"{layer.parameters:,}" if layer.parameters else "",
        size(layer.output_bytes * layer.calls) if layer.output_bytes else "",
        size(layer.saved_bytes) if layer.saved_bytes else "",
        _ops(layer.forward_flops),
        _ops(layer.backward_flops),
    )


def _show_gpus(described: Description, estimates: Sequence[Estimate], market: Market) -> None:
    from cloudrun.estimate import hours_here

    render.data()
    asked, here = described.asked, hours_here(described)
    if asked:
        what = f"{asked.epochs} epochs of {asked.samples:,} samples in batches of {asked.batch:,}"
        place = f"; on this computer about {duration(here * 3600)}" if here is not None else ""
        preset = f"preset {described.preset}: " if described.preset else ""
        render.data(f"ESTIMATES, {market.value}, for {preset}{what}{place}")
    else:
        render.data("ESTIMATES (the job does not say how much it trains, so there are no hours)")
    if not estimates:
        render.data("no GPU of that name in the catalogue")
        return
    render.table(GPUS, [_gpu_row(found, asked.batch if asked else None) for found in estimates])


def _gpu_row(found: Estimate, asked_batch: int | None) -> tuple[str, ...]:
    offer = found.offer
    price = offer.price_per_hour_usd
    return (
        offer.gpu,
        f"{offer.gpu_memory_gib:.0f}",
        _rounded(found.largest_batch) if found.largest_batch else "none fits",
        _rounded(int(found.samples_per_s)) if found.samples_per_s else "",
        f"~{short_duration(found.hours * 3600)}" if found.hours is not None else "",
        f"~{plain_money(found.cost_usd)}" if found.cost_usd is not None else "",
        UNKNOWN if price is None else plain_money(price),
        offer.type.removeprefix("Standard_"),
        _note(found, asked_batch),
    )


def _note(found: Estimate, asked_batch: int | None) -> str:
    if found.offer.why_not:
        return found.offer.why_not
    notes = [f"1 of {found.offer.gpu_count} GPUs"] if found.offer.gpu_count > 1 else []
    if found.offer.warning:
        notes.append("retired" if "retired" in found.offer.warning else "perhaps no longer offered")
    if found.largest_batch and found.hours is None and asked_batch:
        notes.append("no peak figures")
    if found.batch and asked_batch and found.batch < asked_batch:
        notes.append(f"batch {asked_batch:,} does not fit")
    return ", ".join(notes)


def _rounded(count: int) -> str:
    """Down to two digits: the figure is an estimate."""
    unit = 10 ** max(0, len(str(count)) - 2)
    return f"{count // unit * unit:,}"


def _ops(count: float) -> str:
    """640, 4.9 M, 2.3 G; nothing for none."""
    if not count:
        return ""
    for unit in ("", "k", "M", "G", "T"):
        if count < 999.5 or unit == "T":
            break
        count /= 1000
    return (f"{count:.3g} {unit}" if count < 100 else f"{count:.0f} {unit}").rstrip()


def _shape(described: Description, estimates: Sequence[Estimate], said: Sequence[str]) -> dict[str, Any]:
    network = asdict(described.network)
    return {
        "job": described.job.name,
        "preset": described.preset,
        "layers": network.pop("layers"),
        "network": network,
        "asked": asdict(described.asked) if described.asked else None,
        "timing": asdict(described.timing) if described.timing else None,
        "estimates": [_estimate_shape(found) for found in estimates],
        "assumptions": list(said),
    }


def _estimate_shape(found: Estimate) -> dict[str, Any]:
    return {
        **offer_shape(found.offer),
        "estimated": True,
        "largest_batch": found.largest_batch,
        "batch": found.batch,
        "precision": found.precision,
        "step_s": found.step_s,
        "samples_per_s": found.samples_per_s,
        "hours": found.hours,
        "cost_usd": None if found.cost_usd is None else float(found.cost_usd),
        "warning": found.offer.warning,
    }
