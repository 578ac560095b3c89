"""`train.py --describe`: what the first cell's net takes, without the images. Read by `cloudrun model`."""

from __future__ import annotations

import argparse

import grid
import nets
import samples
import torch
from learn import ImageFeed, Learner
from shared import describe, settings

IMAGES = {grid.MNIST: 60_000, grid.CIFAR10: 50_000}  # as published: for training
TESTED = 10_000


def report(args: argparse.Namespace) -> None:
    """Measure the first cell's net and 20 of its steps on random images, and print both. Writes nothing."""
    row = grid.choose_rows(args.cells)[0]
    shape, batch, device = nets.SHAPES[row.data], nets.BATCH[row.data], settings.pick_device(args.device)
    settings.fix_randomness(0, args.threads or settings.usable_cpus(), device)
    net = nets.build(row.data, bn=row.bn, seed=0)
    facts = describe.describe(net, shape, optimizer_slots=2 if row.data == grid.MNIST else 1)
    pixels = torch.randint(0, 256, (batch, *shape[1:], shape[0]), dtype=torch.uint8)
    part = samples.Part(pixels, torch.arange(batch) % 10)
    data = samples.Images("random", part, part, 128.0, 64.0, augmented=row.data != grid.MNIST).to(device)
    learner = Learner(row.data, net.to(device, memory_format=torch.channels_last), ImageFeed(data))

    def step(count: int) -> None:
        learner.train_batch(torch.arange(count, device=device), row.rate)

    timing = describe.time_steps(step, batch=batch, device=device)
    epochs = (args.trunk_epochs or row.trunk_epochs) + (args.epochs or row.epochs)
    images = IMAGES[row.data]
    describe.print_report(
        facts, timing=timing, batch=batch, epochs=epochs, samples=min(args.limit or images, images),
        evaluated=min(args.limit or TESTED, TESTED), note=f"one cell, {row.name}",
    )  # fmt: skip
