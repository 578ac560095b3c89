"""`train.py --describe`: what the first set's net takes, without the images. Read by `cloudrun model`."""

from __future__ import annotations

import argparse

import net
import torch
from shared import describe, settings
from torch.nn import functional as F

IMAGES = {"mnist": 60_000, "fashion": 60_000, "cifar10": 50_000}  # as published: for training


def report(args: argparse.Namespace) -> None:
    """Measure the first set's net and 20 of its steps on random images, and print both. Writes nothing."""
    shape, device = net.SHAPES[args.sets[0]], settings.pick_device(args.device)
    settings.fix_randomness(0, args.threads or settings.usable_cpus(), device)
    model = net.Net(*shape[:2])
    facts = describe.describe(model, shape)
    model = model.to(device, memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(model.parameters(), lr=args.lr, fused=True)
    images = torch.randn(args.batch, *shape, device=device).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(args.batch, device=device) % net.CLASSES

    def step(count: int) -> None:
        optimiser.zero_grad(set_to_none=True)
        F.cross_entropy(model(images[:count]), labels[:count]).backward()
        optimiser.step()

    timing = describe.time_steps(step, batch=args.batch, device=device)
    most = args.limit or IMAGES[args.sets[0]]
    samples = max(size or most for size in args.sizes)
    note = f"one training with the most images of {args.sets[0]}"
    describe.print_report(
        facts, timing=timing, batch=args.batch, epochs=args.epochs, samples=samples, note=note
    )
