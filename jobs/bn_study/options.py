"""What train.py can be told, and the named presets of it."""

from __future__ import annotations

import argparse

import grid
from shared import arguments, imagesets

PRESETS: arguments.Presets = {
    # Proves the whole way in seconds: all 14 rows, both schedules, on drawn images.
    "smoke": {"data": "drawn", "limit": 256, "trunk_epochs": 1, "epochs": 1, "schedule": "both"},
    # The MNIST rows under both schedules, with fewer images and epochs. Under ten minutes on two CPU cores.
    "quick": {"cells": ["mnist-*"], "limit": 12_000, "epochs": 3, "schedule": "both"},
    # The published table with the rates that the notebooks name.
    "as_written": {"schedule": "as_written"},
    # The same with the rates that the compiled step very likely used.
    "as_run": {"schedule": "as_run"},
    # Everything, with enough seeds for an interval.
    "paper": {"schedule": "both", "seeds": [0, 1, 2]},
}
SCHEDULES = {
    "both": [grid.AS_WRITTEN, grid.AS_RUN], "as_written": [grid.AS_WRITTEN], "as_run": [grid.AS_RUN]
}  # fmt: skip


def parse(argv: list[str] | None, text: str) -> argparse.Namespace:
    """The settings of a run; argv None: of this program. Ends it with 2 where they make no sense."""
    parser = arguments.begin(text, PRESETS)
    add = parser.add_argument
    add("--cells", nargs="+", default=["*"], metavar="NAME",
        help="rows of the table by name or pattern: mnist-0.01-bn, 'mnist-*', '*-fc-*'")  # fmt: skip
    add("--schedule", choices=sorted(SCHEDULES), default="as_written",
        help="as_written lowers the rate after the first epoch, as_run keeps it (MNIST rows)")  # fmt: skip
    add("--seeds", nargs="+", type=int, default=[0], metavar="N")
    add("--data", choices=imagesets.SOURCES, default="auto",
        help="auto: real, or a stand-in where it cannot be had; drawn: made here")  # fmt: skip
    add("--limit", type=int, default=0, help="training images at most, and test images at most (0: all)")
    add("--trunk-epochs", type=int, default=0, help="before the rate changes (0: 1 on MNIST, 25 on CIFAR-10)")
    add("--epochs", type=int, default=0, help="after that (0: 8 on MNIST, 25 on CIFAR-10)")
    args = arguments.parse(parser, PRESETS, argv, minutes=2.0, what="the first cell's net")
    try:
        grid.choose_rows(args.cells)
    except ValueError as error:
        parser.error(str(error))
    return args
