"""`train.py --describe`: what the first arm's network takes, without the images. Read by `cloudrun model`."""

from __future__ import annotations

import argparse

import options
import torch
from learn import build
from shared import describe, settings

# Training images, validation images and outputs of the sets by name; a folder of yours is not looked into.
EMOJI, GREY = (2_642, 568, 9), (54_000, 6_000, 10)
KNOWN = {
    "auto": EMOJI, "emoji": EMOJI, "sizes": (3_290, 274, 1), "shapes": (1_262, 275, 6), "mnist": GREY,
    "fashion": GREY,
}  # fmt: skip


def report(args: argparse.Namespace) -> None:
    """Measure the network and 20 of its training steps on random images, and print both. Writes nothing."""
    device = settings.pick_device(args.device)
    settings.fix_randomness(args.seed, args.threads or settings.usable_cpus(), device)
    arm = options.parse_arms(args.arms, args.net, args.side)[0]
    train, val, outputs = KNOWN[args.dataset]
    net, _ = build(options.Arm("scratch", arm.net, arm.side), outputs, None)
    stages = net.stages()
    first = len(stages) - net.new if arm.how in ("frozen", "features") else 0
    for _, stage in stages[:first]:
        stage.requires_grad_(False)
    facts = describe.describe(net, (3, arm.side, arm.side))
    net = net.to(device, memory_format=torch.channels_last).train()
    optimiser = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=1e-3)

    def step(count: int) -> None:
        images = torch.randn(count, 3, arm.side, arm.side, device=device)
        answers = net(images.contiguous(memory_format=torch.channels_last))
        optimiser.zero_grad(set_to_none=True)
        answers.square().mean().backward()
        optimiser.step()

    timing = describe.time_steps(step, batch=args.batch, device=device)
    note = f"the first arm, {arm}" + (", for a folder of the size of the emoji" if args.images else "")
    describe.print_report(
        facts, timing=timing, batch=args.batch, epochs=args.epochs, samples=min(args.limit or train, train),
        evaluated=min(args.limit // 2 or val, val), note=note,
    )  # fmt: skip
