"""A log as lines: colours gone, and every state that a progress bar overwrote on a line of its own."""

from __future__ import annotations

import re

# Control sequences (ECMA-48): CSI ... letter, OSC ... BEL or ESC \, and the two-character ones.
_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_BREAKS = re.compile(r"[\r\n\x08\x0b\x0c]+")  # backspaces come in runs: a bar wipes itself before the next
# A number as it is printed: not a part of a word, of a time (1:23) or of an address (10.0.0.1).
NUMBER = r"[-+]?(?:nan|inf(?:inity)?|(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)(?![\w:]|\.\d)"


def lines_of(text: str) -> list[str]:
    """Every line that was ever shown, in order, without the empty ones."""
    return [line for line in _BREAKS.split(_ESCAPES.sub("", text)) if line.strip()]
