"""What train.py can be told, and the named presets of it."""

from __future__ import annotations

import argparse

import digits
from shared import arguments

PRESETS: arguments.Presets = {
    # Proves the whole way in seconds.
    "smoke": {"dataset": "rendered", "hard": 0.3, "limit": 1500, "channels": 16, "steps": 3, "dropout": 0.0,
              "batch": 20, "epochs": 3, "lr": 3e-3},
    # Two to three minutes on two CPU cores; far above 90 % in typefaces that were never trained on.
    "quick": {"dataset": "rendered", "limit": 18_000, "channels": 32, "batch": 64, "epochs": 5, "lr": 4e-3},
    # The real MNIST through the same network.
    "mnist": {"dataset": "mnist", "channels": 32, "batch": 128, "epochs": 4, "lr": 4e-3},
    # The run of 2017 with its three slips: no dropout, max over the channels, softmax twice.
    "as_run": {"dataset": "svhn", "variant": "as_run", "channels": 128, "batch": 1024, "epochs": 512,
               "schedule": "constant"},
    # The same training without the slips.
    "paper": {"dataset": "svhn", "channels": 128, "dropout": 0.5, "batch": 1024, "epochs": 512,
              "schedule": "constant"},
}  # fmt: skip


def parse(argv: list[str] | None, text: str) -> argparse.Namespace:
    """The settings of a run; argv None: of this program. Ends it with 2 where they make no sense."""
    parser = arguments.begin(text, PRESETS)
    add = parser.add_argument
    add("--dataset", choices=digits.NAMES, default="auto",
        help="auto: SVHN if it can be had, else rendered digits")  # fmt: skip
    add("--limit", type=int, default=0, help="about so many images for training and validation (0: all)")
    add("--hard", type=float, default=1.0, help="how hard rendered digits are to read, 0 to 2")
    add("--variant", choices=["fixed", "as_run"], default="fixed",
        help="as_run: with the three slips of 2017")  # fmt: skip
    add("-K", "--channels", type=int, default=128, help="feature maps of every layer")
    add("-T", "--steps", type=int, default=4, help="iterations of a recurrent layer")
    add("--norm", choices=["batch", "local"], default="batch",
        help="local: response normalisation, as in the paper")  # fmt: skip
    add("--dropout", type=float, default=0.1, help="share of activations dropped after a recurrent layer")
    add("--batch", type=int, default=128, help="images a step")
    add("--epochs", type=int, default=8)
    add("--lr", type=float, default=1e-3, help="Adam's rate, the highest one of the schedule")
    add("--schedule", choices=["cosine", "constant"], default="cosine",
        help="cosine: 5 %% warm-up, then down to 0")  # fmt: skip
    add("--seed", type=int, default=0)
    add("--precision", choices=["auto", "float32", "bfloat16"], default="auto",
        help="auto: bfloat16 if in hardware")  # fmt: skip
    add("--processes", type=int, default=0, help="that share each batch (0: one a GPU, one on a CPU)")
    add("--compile", action="store_true", help="torch.compile: saves time on runs of hours only")
    add("--checkpoint-epochs", type=int, default=1, help="save after so many epochs")
    return arguments.parse(parser, PRESETS, argv, minutes=5.0, what="the network")
