"""The rehearsal's machines and clouds, for images of one's own."""

from __future__ import annotations

import sys
from pathlib import Path

for name in ("sim", "rented"):  # for machines, and for clouds
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / name))
