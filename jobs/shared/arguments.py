"""The arguments that every job takes, and presets: named sets of values for the others."""

from __future__ import annotations

import argparse
from typing import Any

Presets = dict[str, dict[str, Any]]


def begin(text: str, presets: Presets) -> argparse.ArgumentParser:
    """A parser that knows --preset and shows defaults. `text`: one line on what the program does."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    words = "a named set of the arguments below; those given beside it win"
    parser.add_argument("--preset", choices=sorted(presets), help=words)
    return parser


def parse(
    parser: argparse.ArgumentParser, presets: Presets, argv: list[str] | None, *, minutes: float, what: str
) -> argparse.Namespace:
    """Add what every job takes, and parse. argv None: those of this program.

    minutes: of --checkpoint-minutes if it is not given. what: --describe tells about it.
    """
    add = parser.add_argument
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    words = "on the CPU (0: all, or as in the checkpoint); a part of the result"
    add("--threads", type=int, default=0, help=words)
    words = "save within an epoch after so many minutes"
    add("--checkpoint-minutes", type=float, default=minutes, help=words)
    add("--describe", action="store_true", help=f"train nothing: print what {what} takes, as JSON")
    preset = parser.parse_known_args(argv)[0].preset
    parser.set_defaults(**presets.get(preset, {}))
    return parser.parse_args(argv)
