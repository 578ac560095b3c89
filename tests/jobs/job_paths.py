"""Where the bundled jobs stand in the checkout."""

from pathlib import Path

JOBS = Path(__file__).resolve().parents[2] / "jobs"
TRAIN = JOBS / "svhn_rcnn" / "train.py"
