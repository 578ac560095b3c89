"""A training step with frozen layers: truly frozen, against gradients computed and thrown away, and features
computed once. EfficientNet-Lite0 at 96 pixels, batch 32, head of 9 classes; random weights take as long.

The peer is the way of 2017: a hook that multiplies the gradients of the frozen layers by zero, after a whole
backward pass.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from measure import ROOT, Goal, Report, arguments, in_turn, show, wall

sys.path[:0] = [str(ROOT / "jobs"), str(ROOT / "jobs" / "transfer_learning")]

# ruff: noqa: E402
import numpy as np
import options
import torch
from folder import ImageSet
from learn import Learner
from shared import settings

HOOKED, FROZEN, FEATURES, ALL = (
    "gradients zeroed by a hook",
    "frozen",
    "features computed once",
    "all layers train",
)
SIDE, CLASSES = 96, 9


def main() -> None:
    parser = arguments(__doc__ or "", rounds=5)
    parser.add_argument("--batch", type=int, default=32, help="images a step (32)")
    parser.add_argument("--threads", type=int, default=0, help="0: one a processor")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads or settings.usable_cpus())
    show([measure(asked)], as_json=asked.json)


def measure(asked: argparse.Namespace) -> Report:
    """Seconds of a training step, cases in turn."""
    steps = {
        HOOKED: stepper("frozen", asked.batch, hook=True),
        FROZEN: stepper("frozen", asked.batch),
        FEATURES: stepper("features", asked.batch),
        ALL: stepper("finetune", asked.batch),
    }
    found = in_turn({name: lambda step=step: wall(step) for name, step in steps.items()}, asked.rounds)
    report = Report(f"training step, lite0 at {SIDE} pixels, batch {asked.batch}", "s")
    for name, seconds in found.items():
        report.add(name, seconds)
        report.notes.append(f"{name}: {asked.batch / report.value(name, 'median'):,.0f} images/s")
    report.goals += [Goal(FROZEN, HOOKED, most=0.5), Goal(FEATURES, FROZEN, most=0.1)]
    return report


def stepper(how: str, batch: int, *, hook: bool = False) -> Callable[[], object]:
    """A whole training step, from uint8 images on."""
    torch.manual_seed(0)
    pixels = np.random.default_rng(0).integers(0, 256, (batch, 3, SIDE, SIDE), np.uint8)
    picks, classes = np.arange(batch), tuple(map(str, range(CLASSES)))
    images = ImageSet("noise", classes, picks % CLASSES, dict.fromkeys(("train", "val", "test"), picks),
                      lambda _: pixels)  # fmt: skip
    arm = options.Arm(how, "lite0", SIDE)
    learner = Learner(
        arm, options.BUILDERS["lite0"](CLASSES), images, picks, augment=frozenset({"flips", "contrast"}),
        target_scale=1.0, device=torch.device("cpu"), precision=torch.float32,
    )  # fmt: skip
    optimiser = learner.optimiser(0.01, 2.6)
    if hook:
        learner.freeze(0)
        for _, stage in learner.stages[: learner.head]:
            for weights in stage.parameters():
                weights.register_hook(torch.zeros_like)
    if how == "features":
        learner.compute_features()
    learner.train(True)
    return lambda: learner.step(optimiser, picks, 1e-3)


if __name__ == "__main__":
    main()
