"""What train.py can be told, and the named presets of it."""

from __future__ import annotations

import argparse

import net
from shared import arguments, imagesets

PRESETS: arguments.Presets = {
    # Proves the whole way in seconds.
    "smoke": {"sets": ["mnist"], "data": "drawn", "sizes": [60, 120, 240, 480], "epochs": 2, "min_steps": 16,
              "batch": 16, "limit": 480},
    # Both real sets up to 10,000 images, two seeds. Under ten minutes on two CPU cores.
    "quick": {"sizes": [1_000, 3_000, 5_000, 10_000], "seeds": [0, 1], "epochs": 8, "min_steps": 600},
    # The whole curve with error bars. About an hour on two quiet CPU cores.
    "full": {"seeds": [0, 1, 2]},
    # The field report's: CIFAR-10, 100 epochs whatever the number of images. Wants a GPU.
    "paper": {"sets": ["cifar10"], "epochs": 100, "min_steps": 0},
}  # fmt: skip


def parse(argv: list[str] | None, text: str) -> argparse.Namespace:
    """The settings of a run; argv None: of this program. Ends it with 2 where they make no sense."""
    parser = arguments.begin(text, PRESETS)
    add = parser.add_argument
    add("--sets", nargs="+", choices=sorted(net.SHAPES), default=["mnist", "fashion"])
    add("--sizes", nargs="+", type=int, default=[1_000, 3_000, 5_000, 10_000, 0], metavar="N",
        help="numbers of training images (0: all)")  # fmt: skip
    add("--seeds", nargs="+", type=int, default=[0], metavar="N", help="of weights, order and chosen images")
    add("--data", choices=imagesets.SOURCES, default="auto",
        help="auto: real, or a stand-in where it cannot be had; drawn: made here")  # fmt: skip
    add("--limit", type=int, default=0, help="read so many images at most (0: all)")
    add("--epochs", type=int, default=12)
    add("--min-steps", type=int, default=2_000, help="few images are repeated until so many steps are done")
    add("--batch", type=int, default=64, help="images a step")
    add("--lr", type=float, default=2e-3, help="Adam's highest rate: up over 5 %% of the steps, then to 0")
    args = arguments.parse(parser, PRESETS, argv, minutes=2.0, what="the first set's net")
    if min(args.sizes) < 0 or min(args.epochs, args.batch) < 1:
        parser.error("sizes, epochs and batch count images and steps: no negative ones, and at least one")
    return args
