"""Stand-ins that are drawn here: shapes to tell apart, and pictures at a known size as a score to predict.

They take the place of photographs where none can be had, and say so: no figure on them says anything about
photographs. The same call gives the same files.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

VERSION = 1  # of what this file draws: count up when it changes, folders carry it
SHAPES = ("circle", "cross", "ring", "square", "star", "triangle")
SIDE = 64  # pixels of every picture that is drawn
LEAST, MOST = 0.35, 0.95  # share of the side that the picture of score 0.0 and of score 1.0 takes
YEARS, TEST_YEAR, BIG_SHARE = tuple(range(2010, 2018)), 2017, 0.5


def write_shapes(folder: Path, count: int) -> Path:
    """Make a folder of `count` pictures in six classes, unless it is there."""
    target = folder / f"shapes-v{VERSION}-{count}"
    if target.is_dir():
        return target
    random = np.random.default_rng(2017)
    partial = target.with_name(target.name + ".partial")
    for name in SHAPES:
        (partial / name).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        name = SHAPES[number % len(SHAPES)]
        _draw_scene(name, random).save(partial / name / f"{name}{number:05d}.png")
    return partial.replace(target)


def write_sizes(folder: Path, sources: list[tuple[str, Path]], *, name: str) -> Path:
    """Make a folder with labels.csv in which each source (group, file) is drawn at a size of its own.

    Columns: file, target (0.0 small to 1.0 large), group, year (2010 to 2017), big (half of each year's).
    Flips and changes of contrast leave the target true. A group stays within one year.
    """
    target = folder / f"sizes-v{VERSION}-{name}"
    if target.is_dir():
        return target
    random = np.random.default_rng(2017)
    partial = target.with_name(target.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    groups = sorted({group for group, _ in sources})
    facts = {group: (int(random.choice(YEARS)), int(random.random() < BIG_SHARE)) for group in groups}
    with (partial / "labels.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream)
        table.writerow(["file", "target", "group", "year", "big"])
        for number, (group, source) in enumerate(sources):
            score = round(float(random.random()), 4)
            file = f"{number:05d}.png"
            _draw_at_size(source, score, random).save(partial / file)
            table.writerow([file, score, group, *facts[group]])
    return partial.replace(target)


def _draw_scene(name: str, random: np.random.Generator) -> Image.Image:
    """One shape, turned, in any colour, on a ground with lines across."""
    ground = random.integers(0, 256, 3)
    ink = (ground + random.choice([-1, 1], 3) * random.integers(50, 120, 3)) % 256
    picture = Image.new("RGB", (2 * SIDE, 2 * SIDE), tuple(map(int, ground)))
    draw = ImageDraw.Draw(picture)
    for _ in range(4):
        ends = [float(value) for value in random.uniform(0, 2 * SIDE, 4)]
        draw.line(ends, fill=tuple(map(int, random.integers(0, 256, 3))), width=int(random.integers(1, 5)))
    centre, radius = random.uniform(0.4, 0.6, 2) * 2 * SIDE, random.uniform(0.18, 0.34) * 2 * SIDE
    _draw_shape(draw, name, centre, radius, random.uniform(0, math.tau), tuple(map(int, ink)))
    picture = picture.filter(ImageFilter.GaussianBlur(float(random.uniform(0, 2))))
    return _with_noise(picture.resize((SIDE, SIDE), Image.Resampling.BOX), random, 12)


def _draw_shape(
    draw: ImageDraw.ImageDraw,
    name: str,
    centre: np.ndarray,
    radius: float,
    angle: float,
    ink: tuple[int, ...],
) -> None:
    box = [*map(float, centre - radius), *map(float, centre + radius)]
    if name == "circle":
        draw.ellipse(box, fill=ink)
    elif name == "ring":
        draw.ellipse(box, outline=ink, width=int(radius * 0.4))
    elif name == "cross":
        for turn in (0, math.pi / 2):
            arm = np.array([math.cos(angle + turn), math.sin(angle + turn)]) * radius
            draw.line(
                [*map(float, centre - arm), *map(float, centre + arm)], fill=ink, width=int(radius * 0.5)
            )
    else:
        corners = {"square": 4, "triangle": 3, "star": 10}[name]
        points = []
        for number in range(corners):
            reach = radius * (0.42 if name == "star" and number % 2 else 1.0)
            turn = angle + math.tau * number / corners
            points.append(
                (float(centre[0] + reach * math.cos(turn)), float(centre[1] + reach * math.sin(turn)))
            )
        draw.polygon(points, fill=ink)


def _draw_at_size(source: Path, score: float, random: np.random.Generator) -> Image.Image:
    """The picture at its size, anywhere on a pale ground."""
    with Image.open(source) as image:
        picture = image.convert("RGBA")
    side = round(SIDE * (LEAST + (MOST - LEAST) * score))
    picture = picture.resize((side, side), Image.Resampling.LANCZOS)
    ground = Image.new("RGB", (SIDE, SIDE), tuple(int(value) for value in random.integers(150, 256, 3)))
    left, top = (int(value) for value in random.integers(0, SIDE - side + 1, 2))
    ground.paste(picture, (left, top), picture)
    return _with_noise(ground, random, 6)


def _with_noise(picture: Image.Image, random: np.random.Generator, deviation: float) -> Image.Image:
    pixels = np.asarray(picture, np.float32)
    noisy = pixels + random.normal(0, deviation, pixels.shape)
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))
