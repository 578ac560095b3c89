"""`train.py --describe`: what the network and its preset take, without the data. Read by `cloudrun model`."""

from __future__ import annotations

import argparse
from collections.abc import Callable

import digits
import rcnn
import torch
from shared import describe, settings

IMAGE = (3, 32, 32)
SVHN_SIZES = {"train": 73_257, "extra": 531_131}  # as published
MNIST_SIZES = {"train": 60_000}


def report(args: argparse.Namespace, model: torch.nn.Module) -> None:
    """Measure the model and 20 of its training steps on random images, and print both. Writes nothing."""
    device = settings.pick_device(args.device)
    precision = settings.pick_precision(args.precision, device)
    settings.fix_randomness(args.seed, args.threads or settings.usable_cpus(), device)
    facts = describe.describe(model, IMAGE)
    timing = describe.time_steps(
        _stepper(args, model, device, precision), batch=args.batch, device=device, precision=precision
    )
    samples, evaluated = count_images(args.dataset, args.limit)
    note = "the size of SVHN is taken; where it cannot be had, rendered digits are fewer"
    describe.print_report(
        facts, timing=timing, batch=args.batch, epochs=args.epochs, samples=samples, evaluated=evaluated,
        note=note if args.dataset == "auto" else "",
    )  # fmt: skip


def count_images(dataset: str, limit: int) -> tuple[int, int]:
    """Images of an epoch's training and of its validation, by the rules of digits.load."""
    known = {"mnist": MNIST_SIZES, "rendered": digits.RENDERED_SIZES}.get(dataset, SVHN_SIZES)
    sizes = [known["train"], known.get("extra", 0)]
    if limit:
        of_train = limit * 2 // 3 if sizes[1] else limit
        sizes = [min(sizes[0], of_train), min(sizes[1], limit - of_train)]
    most = (digits.VAL_PER_CLASS, digits.VAL_EXTRA_PER_CLASS)
    evaluated = sum(10 * min(most_of, size // 100) for most_of, size in zip(most, sizes))  # noqa: B905  3.9
    return sum(sizes) - evaluated, evaluated


def _stepper(
    args: argparse.Namespace, model: torch.nn.Module, device: torch.device, precision: torch.dtype
) -> Callable[[int], None]:
    """Training.train_batch on images that were made up."""
    model = model.to(device, memory_format=torch.channels_last).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=args.lr)
    mean = torch.zeros(IMAGE, device=device)

    def step(count: int) -> None:
        images = torch.randint(0, 256, (count, *IMAGE), dtype=torch.uint8, device=device)
        labels = torch.randint(0, rcnn.CLASSES, (count,), device=device)
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            logits = model(digits.normalise(images, mean)).float()
        optimiser.zero_grad(set_to_none=True)
        rcnn.loss(logits, labels, as_run=args.variant == "as_run").backward()
        optimiser.step()

    return step
