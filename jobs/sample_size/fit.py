"""A power law through the errors: error(n) = a (n / 1000)^-b + c, and what it says of the next images.

Fitted with scipy's curve_fit, whose covariance becomes the uncertainty of every statement. c, the error that
no number of images removes, is kept only where it is more than twice its own standard error; else it is 0 and
the law is fitted again with two parameters. It is an extrapolation: it knows nothing but the points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

DRAWS = 4_000  # of the parameters, from their covariance, for the intervals
UNIT = 1_000  # images: n is counted in these, which keeps a near the error at a thousand
MOST_IMAGES = 1e12  # beyond it the law has no answer worth a name


@dataclass(frozen=True)
class Point:
    """The mean error of a number of images over the seeds, and its standard error."""

    images: int
    error: float
    deviation: float


@dataclass(frozen=True)
class PowerLaw:
    """a, b, c and their covariance. `has_floor` says whether c was fitted."""

    values: tuple[float, float, float]
    covariance: np.ndarray
    has_floor: bool

    def error(self, images: Any) -> Any:
        return _law(np.asarray(images, float), *self.values)

    def draws(self) -> np.ndarray:
        """Parameters as the covariance scatters them: N x 3, those outside of the law's range left out."""
        random = np.random.default_rng(0)
        found = random.multivariate_normal(self.values, self.covariance, DRAWS, method="eigh")
        return found[(found[:, 0] > 0) & (found[:, 1] > 0) & (found[:, 2] >= 0)]

    def band(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The 95 % interval of the error at each number of images."""
        errors = np.array([_law(np.asarray(images, float), *draw) for draw in self.draws()])
        low, high = np.percentile(errors, [2.5, 97.5], axis=0)
        return low, high

    def images_for(self, error: float) -> float:
        """How many images the law wants for that error. inf where its floor lies above."""
        return _images_for(error, *self.values)


@dataclass(frozen=True)
class NextPoint:
    """Images in all for `gain` less error than with `images`; 95 % of the law say low to high."""

    images: int
    error: float
    gain: float
    wanted: float
    low: float
    high: float

    def __str__(self) -> str:
        step = "one point" if self.gain == 0.01 else f"{100 * self.gain:g} points"
        here = f"With {self.images:,} images the law has an error of {self.error:.2%}; {step} less"
        if not math.isfinite(self.wanted):
            return f"{here} is out of its reach with any number of images."
        high = f"{_rounded(self.high):,}" if math.isfinite(self.high) else "no bound"
        wanted, more = _rounded(self.wanted), _rounded(self.wanted - self.images)
        return (
            f"{here} takes about {wanted:,}, {more:,} more (95 %: {_rounded(self.low):,} to {high} in all)."
        )


def fit(points: list[Point]) -> PowerLaw:
    """The law through at least four points: three would fix it and leave none to doubt it.

    Raises ValueError with fewer, or where no law fits.
    """
    if len(points) < 4:
        raise ValueError(f"{len(points)} numbers of images are too few for a power law, it takes four")
    three = _fit(points, floor=True)
    if three.has_floor and three.values[2] > 2 * math.sqrt(three.covariance[2, 2]):
        return three
    return _fit(points, floor=False)


def next_point(law: PowerLaw, images: int) -> NextPoint:
    """One point of accuracy more than with `images`; a tenth of one where the whole error is below two."""
    error = float(law.error(images))
    gain = 0.01 if error > 0.02 else 0.001
    wanted = [_images_for(float(_law(np.float64(images), *draw)) - gain, *draw) for draw in law.draws()]
    low, high = np.percentile(np.minimum(wanted, MOST_IMAGES), [2.5, 97.5])
    return NextPoint(images, error, gain, *map(_bounded, (law.images_for(error - gain), low, high)))


def _fit(points: list[Point], *, floor: bool) -> PowerLaw:
    from scipy.optimize import curve_fit  # on use: it takes half a second to import

    images, errors, deviations = (
        np.array([getattr(point, name) for point in points], float)
        for name in ("images", "error", "deviation")
    )
    slope, level = np.polyfit(np.log(images / UNIT), np.log(errors), 1)
    start = [math.exp(level), min(max(-slope, 0.05), 2.0)]
    bounds = ([0.0, 0.0], [np.inf, 5.0])
    if floor:
        start.append(0.1 * errors.min())
        bounds = ([0.0, 0.0, 0.0], [np.inf, 5.0, float(errors.min())])
    try:
        values, covariance = curve_fit(_law, images, errors, start, deviations, absolute_sigma=True,
                                       bounds=bounds, x_scale=np.maximum(start, 1e-4))  # fmt: skip
    except RuntimeError as error:
        raise ValueError(f"no power law fits the points: {error}") from error
    if not np.isfinite(covariance).all():
        raise ValueError("the points do not say how sure the law is")
    whole = np.zeros((3, 3))
    whole[: len(values), : len(values)] = covariance
    a, b, *c = map(float, values)
    return PowerLaw((a, b, c[0] if c else 0.0), whole, floor)


def _law(images: Any, a: float, b: float, c: float = 0.0) -> Any:
    return a * (images / UNIT) ** -b + c


def _images_for(error: float, a: float, b: float, c: float) -> float:
    if error <= c:
        return math.inf
    exponent = math.log(a / (error - c)) / b
    return UNIT * math.exp(exponent) if exponent < math.log(MOST_IMAGES) else math.inf


def _bounded(images: float) -> float:
    return float(images) if images < MOST_IMAGES else math.inf


def _rounded(images: float) -> int:
    """Two digits: more the law does not know."""
    digits = max(0, math.floor(math.log10(max(images, 1))) - 1)
    return round(images / 10**digits) * 10**digits
