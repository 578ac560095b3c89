"""Small folders of images, and the modules of the job."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from job_modules import modules_of
from job_paths import JOBS
from PIL import Image

TRAIN_TRANSFER = JOBS / "transfer_learning" / "train.py"
NAMES = ("nets", "lite0", "weights", "folder", "sets", "drawn", "options", "learn", "finder", "outcome")
job = modules_of("transfer_learning", *NAMES)


def write_image(file: Path, colour: tuple[int, ...], side: int = 24, *, noise: int = 0) -> Path:
    """A plain image in one colour, RGB or RGBA, with noise that the file's name decides."""
    file.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(list(file.stem.encode()))
    pixels = np.array(colour) + random.integers(-noise, noise + 1, (side, side, len(colour)))
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(file)
    return file


def write_classes(folder: Path, count: int) -> Path:
    """Red and blue images in two class folders."""
    for number in range(count):
        write_image(folder / "red" / f"r{number:03d}.png", (200, 40, 40), noise=60)
        write_image(folder / "blue" / f"b{number:03d}.png", (40, 40, 200), noise=60)
    return folder


def write_table(folder: Path, lines: list[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
