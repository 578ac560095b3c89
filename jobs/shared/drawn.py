"""Digits drawn with a shaky pen: a stand-in of any size, made in a second from numbers alone.

They have the shape of MNIST (28x28, grey) or of CIFAR-10 (32x32, in colours on a coloured ground), and they
are neither: whoever shows a result on them has to say so. The same seed gives the same images.
"""

from __future__ import annotations

import numpy as np

Pair = tuple[np.ndarray, np.ndarray]
CHUNK = 500  # images drawn at once
# Each digit is one line through points (x, y) of a square, y downward.
STROKES = {
    0: [(.5, .1), (.75, .25), (.75, .75), (.5, .9), (.25, .75), (.25, .25), (.5, .1)],
    1: [(.35, .25), (.55, .1), (.55, .9)],
    2: [(.25, .28), (.45, .1), (.72, .22), (.66, .5), (.25, .88), (.78, .88)],
    3: [(.28, .15), (.7, .15), (.48, .45), (.74, .66), (.55, .9), (.26, .82)],
    4: [(.62, .9), (.62, .1), (.22, .62), (.8, .62)],
    5: [(.72, .12), (.32, .12), (.3, .45), (.66, .5), (.68, .8), (.28, .88)],
    6: [(.66, .1), (.34, .45), (.28, .74), (.5, .9), (.72, .74), (.56, .54), (.3, .66)],
    7: [(.22, .14), (.78, .14), (.42, .9)],
    8: [(.5, .48), (.28, .28), (.5, .1), (.72, .28), (.5, .48), (.26, .72), (.5, .9), (.74, .72), (.5, .48)],
    9: [(.7, .36), (.48, .48), (.3, .3), (.5, .1), (.7, .2), (.66, .9)],
}  # fmt: skip


def draw_grey(count: int, *, seed: int) -> Pair:
    """`count` images N x 28 x 28 uint8, light on black, and their digits as int64."""
    random = np.random.default_rng(seed)
    digits = random.integers(0, 10, count)
    ink = _draw(digits, 28, random)
    noise = random.normal(0, 12, ink.shape)
    return np.clip(ink * 255 + noise * (ink > 0.02), 0, 255).astype(np.uint8), digits


def draw_colours(count: int, *, seed: int) -> Pair:
    """`count` images N x 3 x 32 x 32 uint8, one colour on another, and their digits as int64."""
    random = np.random.default_rng(seed)
    digits = random.integers(0, 10, count)
    ink = _draw(digits, 32, random)[:, None]
    ground = random.uniform(0, 255, (count, 3, 1, 1))
    pen = (
        ground + random.choice([-1, 1], (count, 3, 1, 1)) * random.uniform(60, 128, (count, 3, 1, 1))
    ) % 256
    slope = random.normal(0, 40, (count, 3, 1, 1)) * np.linspace(-1, 1, 32)
    picture = ground * (1 - ink) + pen * ink + slope + random.normal(0, 14, (count, 3, 32, 32))
    return np.clip(picture, 0, 255).astype(np.uint8), digits


def _draw(digits: np.ndarray, side: int, random: np.random.Generator) -> np.ndarray:
    """How much ink each pixel has, 0 to 1."""
    longest = max(map(len, STROKES.values()))
    lines = np.array([STROKES[n] + [STROKES[n][-1]] * (longest - len(STROKES[n])) for n in range(10)])
    points = lines[digits] + random.normal(0, 0.035, (len(digits), longest, 2))
    turned = np.einsum("npi,nij->npj", points - 0.5, _turns(len(digits), random))
    turned += 0.5 + random.uniform(-0.06, 0.06, (len(digits), 1, 2))
    width = random.uniform(0.035, 0.075, (len(digits), 1, 1))
    chunks = range(0, len(digits), CHUNK)
    return np.concatenate([_ink(turned[at : at + CHUNK], width[at : at + CHUNK], side) for at in chunks])


def _turns(count: int, random: np.random.Generator) -> np.ndarray:
    """A matrix for each image: size, slant and a turn."""
    angle, slant = random.normal(0, 0.18, count), random.normal(0, 0.2, count)
    wide, high = random.uniform(0.7, 1.0, count), random.uniform(0.8, 1.0, count)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]).transpose(2, 0, 1)
    shape = np.array([[wide, np.zeros(count)], [slant * high, high]]).transpose(2, 0, 1)
    return shape @ turn


def _ink(points: np.ndarray, width: np.ndarray, side: int) -> np.ndarray:
    """Pixels near to a line through the points are dark, with a soft edge of about a pixel."""
    places = (np.arange(side) + 0.5) / side
    pixels = np.stack(np.meshgrid(places, places), -1)[None]  # 1 x side x side x (x, y)
    nearest = np.full((len(points), side, side), np.inf)
    for start, end in zip(points[:, :-1].swapaxes(0, 1), points[:, 1:].swapaxes(0, 1)):  # noqa: B905  Python 3.9
        start, along = start[:, None, None], (end - start)[:, None, None]
        share = ((pixels - start) * along).sum(-1) / np.maximum((along**2).sum(-1), 1e-9)
        away = pixels - start - np.clip(share, 0, 1)[..., None] * along
        nearest = np.minimum(nearest, np.hypot(away[..., 0], away[..., 1]))
    return np.clip((width - nearest) * side * 0.7 + 0.5, 0, 1)
