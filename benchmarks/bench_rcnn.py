"""Training steps of the recurrent convolutional network: ours against the way of 2017, and against its parts.

K=128, T=4, batch 128, as in the published runs. The peer is the network of 2017 line by line: ff(x) anew in
each iteration, default memory layout, float32, plain Adam. Beside it: ours in float32, and ours as
`train.py` runs it here (bfloat16 where the processor has it).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from measure import ROOT, Goal, Report, arguments, in_turn, show, wall

sys.path[:0] = [str(ROOT / "jobs"), str(ROOT / "jobs" / "svhn_rcnn")]

# ruff: noqa: E402
import digits
import rcnn
import torch
from shared import settings
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  as all of torch calls it

CPU = torch.device("cpu")
PEER, FLOAT32, AS_RUN_HERE = "2017, line by line", "ours, float32", "ours, as train.py runs it"


def main() -> None:
    parser = arguments(__doc__ or "", rounds=5)
    parser.add_argument("--channels", type=int, default=128, help="K (128)")
    parser.add_argument("--steps", type=int, default=4, help="T (4)")
    parser.add_argument("--batch", type=int, default=128, help="images a step (128)")
    parser.add_argument("--threads", type=int, default=0, help="0: one a processor")
    options = parser.parse_args()
    torch.set_num_threads(options.threads or settings.usable_cpus())
    show([measure(options)], as_json=options.json)


def measure(options: argparse.Namespace) -> Report:
    """Seconds of a training step, cases in turn. The same weights and images in each."""
    precision = settings.pick_precision("auto", CPU)
    steps = {
        PEER: stepper(As2017(options.channels, options.steps), options, torch.float32, channels_last=False),
        FLOAT32: stepper(ours(options), options, torch.float32, channels_last=True),
        AS_RUN_HERE: stepper(ours(options), options, precision, channels_last=True),
    }
    found = in_turn({name: lambda step=step: wall(step) for name, step in steps.items()}, options.rounds)
    report = Report(f"training step, K={options.channels}, T={options.steps}, batch {options.batch}", "s")
    for name, seconds in found.items():
        report.add(name, seconds)
        report.notes.append(f"{name}: {options.batch / report.value(name, 'median'):.1f} images/s")
    report.goals.append(Goal(AS_RUN_HERE, PEER, most=0.5))
    naive, hoisted = (
        rcnn.count_flops(options.channels, options.steps, hoisted=hoisted) for hoisted in (False, True)
    )
    report.notes.append(
        f"{torch.get_num_threads()} threads; train.py picks {str(precision).removeprefix('torch.')}; forward "
        f"{naive / 1e6:.0f} MFLOP an image as in 2017, {hoisted / 1e6:.0f} with ff(x) once"
    )
    return report


def ours(options: argparse.Namespace) -> nn.Module:
    return rcnn.RCNN(options.channels, options.steps, dropout=0.0)


def stepper(
    model: nn.Module, options: argparse.Namespace, precision: torch.dtype, *, channels_last: bool
) -> Callable[[], object]:
    """A whole training step, from uint8 images on."""
    torch.manual_seed(0)
    for weights in model.parameters():
        nn.init.normal_(weights, std=0.02)
    model.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    images = torch.randint(0, 256, (options.batch, 3, 32, 32), dtype=torch.uint8)
    labels = torch.randint(0, rcnn.CLASSES, (options.batch,))
    mean = torch.full((3, 32, 32), 128.0)

    def step() -> None:
        pixels = digits.normalise(images, mean)
        pixels = pixels if channels_last else pixels.contiguous()
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            logits = model(pixels).float()
        loss = rcnn.loss(logits, labels)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()

    return step


class As2017(nn.Module):
    """The network of 2017, with its forward pass as it was written: every iteration convolves x again."""

    def __init__(self, channels: int, steps: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 5, padding=2)
        self.norm = nn.BatchNorm2d(channels)
        self.layers = nn.ModuleList(rcnn.RCL(channels, steps) for _ in range(4))
        self.linear = nn.Linear(channels, rcnn.CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.norm(F.relu(self.conv(x))), 3, stride=2, padding=1)
        for number, layer in enumerate(self.layers):
            r = layer.ff(x)
            for norm in layer.norms:
                r = norm(F.relu(layer.rec(r) + layer.ff(x)))
            x = F.max_pool2d(r, 3, stride=2, padding=1) if number == 1 else r
        return self.linear(x.amax((2, 3)))


if __name__ == "__main__":
    main()
