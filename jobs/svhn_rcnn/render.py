"""Street-number-like digits, drawn here and written as .mat files in the true layout of SVHN.

They stand in for SVHN where its files cannot be had. They are NOT SVHN: no accuracy on them says anything
about the published one. What they share with it: 32x32 RGB crops of one digit with parts of its neighbours,
many typefaces, slant, both polarities, weak contrast, blur, shadows, noise, and SVHN's uneven classes.

Every fourth typeface is held out for the test set, so that test accuracy means digits in unseen typefaces.
The same seed gives the same files.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

Uniform = Callable[..., torch.Tensor]  # (low, high, *shape): one draw for each image
VERSION = 1  # of the pictures that this file draws: count up when they change, cached files carry it
SEED = 2017
# Images per digit 0..9 in SVHN's train_32x32.mat; they sum to 73,257.
CLASS_COUNTS = (4948, 13861, 10585, 8497, 7458, 6882, 5727, 5595, 5045, 4659)
# All typefaces with upright digits that matplotlib ships, by name: a fixed list keeps the sets the same.
FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-BoldOblique", "DejaVuSans-Oblique", "DejaVuSansMono",
    "DejaVuSansMono-Bold", "DejaVuSansMono-BoldOblique", "DejaVuSansMono-Oblique", "DejaVuSerif",
    "DejaVuSerif-Bold", "DejaVuSerif-BoldItalic", "DejaVuSerif-Italic", "STIXGeneral", "STIXGeneralBol",
    "STIXGeneralBolIta", "STIXGeneralItalic", "cmb10", "cmr10", "cmss10", "cmti10", "cmtt10",
)  # fmt: skip
TEST_FONTS = tuple(range(3, len(FONTS), 4))
TRAIN_FONTS = tuple(font for font in range(len(FONTS)) if font not in TEST_FONTS)
CELL_HEIGHT, CELL_WIDTH, GLYPH_HEIGHT = 56, 44, 40  # pixels of the glyph atlas
SIDE = 32  # of an image
CHUNK = 1000  # images drawn at once


def write_set(folder: Path, name: str, count: int, *, hard: float = 1.0) -> Path:
    """Make folder/NAME_32x32.mat ("train", "extra" or "test") unless it is there."""
    import scipy.io

    file = folder / f"{name}_32x32.mat"
    if file.is_file():
        return file
    seed = SEED + ("train", "extra", "test").index(name)
    images, digits = draw(count, TEST_FONTS if name == "test" else TRAIN_FONTS, seed=seed, hard=hard)
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{name}.partial"
    labels = np.where(digits == 0, 10, digits).astype(np.uint8)[:, None]  # SVHN writes 10 for the digit 0
    with partial.open("wb") as stream:
        scipy.io.savemat(stream, {"X": images.transpose(2, 3, 1, 0), "y": labels})
    return partial.replace(file)


def draw(
    count: int, fonts: tuple[int, ...], *, seed: int, hard: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """`count` images (N x 3 x 32 x 32 uint8) and their digits. `hard`: 0 clean, 1 uneven walls, 2 cruel."""
    random = torch.Generator().manual_seed(seed)
    atlas = draw_atlas()[torch.tensor(fonts)]
    weights = torch.tensor(CLASS_COUNTS, dtype=torch.float64)
    digits = torch.multinomial(weights, count, replacement=True, generator=random)
    images = [_draw_chunk(atlas, part, hard, random) for part in digits.split(CHUNK)]
    return torch.cat(images).numpy(), digits.numpy()


def draw_atlas() -> torch.Tensor:
    """Each digit of each typeface, fonts x 10 x cell, 0 = paper and 1 = ink, all of one height."""
    import matplotlib as mpl
    from PIL import Image, ImageDraw, ImageFont

    folder = Path(mpl.get_data_path()) / "fonts" / "ttf"
    cells = np.zeros((len(FONTS), 10, CELL_HEIGHT, CELL_WIDTH), np.float32)
    for number, name in enumerate(FONTS):
        font = ImageFont.truetype(str(folder / f"{name}.ttf"), 96)
        for digit in range(10):
            canvas = Image.new("L", (160, 160))
            ImageDraw.Draw(canvas).text((30, 20), str(digit), fill=255, font=font)
            glyph = canvas.crop(canvas.getbbox())
            width = min(round(glyph.width * GLYPH_HEIGHT / glyph.height), CELL_WIDTH - 4)
            glyph = glyph.resize((width, GLYPH_HEIGHT), Image.Resampling.LANCZOS)
            top, left = (CELL_HEIGHT - GLYPH_HEIGHT) // 2, (CELL_WIDTH - width) // 2
            cells[number, digit, top : top + GLYPH_HEIGHT, left : left + width] = np.asarray(glyph) / 255
    return torch.from_numpy(cells)


def _draw_chunk(
    atlas: torch.Tensor, digits: torch.Tensor, hard: float, random: torch.Generator
) -> torch.Tensor:
    n = len(digits)

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return torch.rand(n, *(shape or (1, 1, 1)), generator=random) * (high - low) + low

    ink = _place(_strip(atlas, digits, random), uniform, hard)
    ink = ink * (1 - _occlusion(uniform, hard))
    paper, colour = _colours(uniform, hard)
    paper = paper + _texture(uniform, hard)
    image = paper + (colour - paper) * ink
    image = image * (1 + 0.3 * hard * _ramp(uniform))
    image = _blur(image, uniform(0.15, 0.15 + 1.5 * hard, 1))
    image = image + torch.randn(image.shape, generator=random) * uniform(0.0, 0.06 * hard)
    return (image.clamp(0, 1) * 255).round().to(torch.uint8)


def _strip(atlas: torch.Tensor, digits: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """The digit with its neighbours in the same typeface: n x 1 x cell height x 3 cell widths."""
    n = len(digits)
    fonts = torch.randint(len(atlas), (n,), generator=random)
    cells = [atlas[fonts, digits]]
    for side in (0, 1):
        neighbour = atlas[fonts, torch.randint(10, (n,), generator=random)]
        there = (torch.rand(n, generator=random) < 0.65).float()[:, None, None]
        cells.insert(2 * side, neighbour * there)
    return torch.cat(cells, dim=2)[:, None]


def _place(strip: torch.Tensor, uniform: Uniform, hard: float) -> torch.Tensor:
    """Scale, turn, slant and shift, drawn at twice the size and averaged down against jagged edges."""
    n = len(strip)
    height = uniform(15, 29, 1)[:, 0]  # of the digit, in pixels of the image
    angle, slant = uniform(-0.25 * hard, 0.25 * hard, 1)[:, 0], uniform(-0.3, 0.3, 1)[:, 0]
    narrow = uniform(0.75, 1.1, 1)[:, 0]
    shift = uniform(-2.0, 2.0, 2) / SIDE * 2
    scale = GLYPH_HEIGHT / height * SIDE  # pixels of the strip per half image, times two
    cos, sin = torch.cos(angle), torch.sin(angle)
    theta = torch.zeros(n, 2, 3)
    to_x, to_y = scale / strip.shape[3] / narrow, scale / strip.shape[2]
    theta[:, 0, 0], theta[:, 0, 1] = to_x * (cos + slant * sin), to_x * (slant * cos - sin)
    theta[:, 1, 0], theta[:, 1, 1] = to_y * sin, to_y * cos
    theta[:, :, 2] = shift * torch.stack([to_x, to_y], 1)
    grid = F.affine_grid(theta, [n, 1, 2 * SIDE, 2 * SIDE], align_corners=False)
    return F.avg_pool2d(F.grid_sample(strip, grid, align_corners=False), 2).clamp(0, 1)


def _colours(uniform: Uniform, hard: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Weakly saturated paper and ink, n x 3 x 1 x 1; their contrast is log-uniform and of either sign."""
    contrast = torch.exp(uniform(math.log(0.2 / max(hard, 0.3)), math.log(0.75)))
    sign = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    middle = 0.5 * contrast + uniform(0.05, 0.95) * (1 - contrast)
    paper = middle - sign * contrast / 2 + uniform(-0.08, 0.08, 3, 1, 1)
    colour = middle + sign * contrast / 2 + uniform(-0.08, 0.08, 3, 1, 1)
    return paper, colour


def _texture(uniform: Uniform, hard: float) -> torch.Tensor:
    """A wall: low-frequency unevenness and one soft edge."""
    uneven = F.interpolate(uniform(-1, 1, 3, 5, 5), size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    edge = torch.sigmoid(6 * (_ramp(uniform) - uniform(-1, 1)))
    return hard * (uniform(0, 0.12) * uneven + uniform(-0.12, 0.12) * edge)


def _occlusion(uniform: Uniform, hard: float) -> torch.Tensor:
    """For one image in eight a soft bar that hides a part of the digit."""
    there = (uniform(0, 1) < 0.125 * hard).float()
    return there * torch.exp(-(((_ramp(uniform) - uniform(-0.5, 0.5)) / 0.1) ** 2))


def _ramp(uniform: Uniform) -> torch.Tensor:
    """A slope from about -1 to 1 over the image in a direction of its own, n x 1 x 32 x 32."""
    direction = uniform(0, 2 * math.pi)
    line = torch.linspace(-1, 1, SIDE)
    return torch.cos(direction) * line[None, None, None, :] + torch.sin(direction) * line[None, None, :, None]


def _blur(images: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """A Gaussian blur with a width of its own for each image, as two one-dimensional passes."""
    offsets = torch.arange(-3, 4, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offsets[None] / sigma) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(images.shape[1], dim=0)
    flat = F.pad(images.reshape(1, -1, SIDE, SIDE), (3, 3, 3, 3), mode="replicate")
    flat = F.conv2d(flat, kernel[:, None, None, :], groups=len(kernel))
    flat = F.conv2d(flat, kernel[:, None, :, None], groups=len(kernel))
    return flat.reshape(images.shape)
