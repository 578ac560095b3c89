"""A power law through the errors: error(n) = a (n / 1000)^-b + c, and what it says of the next images.

Fitted with scipy's curve_fit. Its covariance, carried on to first order, is the uncertainty of what is said.
c, the error that no number of images removes, is kept only where it is more than twice its own standard
error; else it is 0 and the law is fitted again with two parameters. It is an extrapolation: it knows nothing
but the points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

UNIT = 1_000  # images: n is counted in these, which keeps a near the error at a thousand
SURE = 1.96  # standard errors on either side of 95 %
MOST_IMAGES = 1e12  # beyond it the law has no answer worth a name


@dataclass(frozen=True)
class Point:
    """The mean error of a number of images over the seeds, and its standard error."""

    images: int
    error: float
    deviation: float


@dataclass(frozen=True)
class PowerLaw:
    """a, b, c and their covariance (3 x 3). `has_floor` says whether c was fitted."""

    values: tuple[float, float, float]
    covariance: np.ndarray
    has_floor: bool

    def error(self, images: Any) -> Any:
        return _law(np.asarray(images, float), *self.values)

    def band(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The 95 % interval of the error at each number of images."""
        a, b, _ = self.values
        m = np.asarray(images, float) / UNIT
        slopes = np.stack([m**-b, -a * m**-b * np.log(m), np.full_like(m, float(self.has_floor))])
        half = SURE * np.sqrt(np.einsum("in,ij,jn->n", slopes, self.covariance, slopes))
        return self.error(images) - half, self.error(images) + half


@dataclass(frozen=True)
class NextPoint:
    """Images in all for `gain` less error than with `images`; 95 % of the law say low to high."""

    images: int
    error: float
    gain: float
    wanted: float  # inf where the floor lies above
    low: float
    high: float

    def __str__(self) -> str:
        step = "one point" if self.gain == 0.01 else f"{100 * self.gain:g} points"
        here = f"With {self.images:,} images the law has an error of {self.error:.2%}; {step} less"
        if not math.isfinite(self.wanted):
            return f"{here} is out of its reach with any number of images."
        low = f"{_rounded(self.low, 3):,}"
        high = f"{_rounded(self.high, 3):,}" if math.isfinite(self.high) else "no bound"
        wanted, more = _rounded(self.wanted), _rounded(self.wanted - self.images)
        return f"{here} takes about {wanted:,}, {more:,} more (95 %: {low} to {high} in all)."


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
    (a, b, _), m = law.values, images / UNIT
    error = float(law.error(images))
    gain = 0.01 if error > 0.02 else 0.001
    left = m**-b - gain / a  # the new m to the power of -b: the floor cancels out
    if left <= 0 or -math.log(left) / b > math.log(MOST_IMAGES / UNIT):
        return NextPoint(images, error, gain, math.inf, math.inf, math.inf)
    log_m = -math.log(left) / b
    slopes = np.array([-gain / (a * a * b * left), (m**-b * math.log(m) / left - log_m) / b, 0.0])
    half = SURE * math.sqrt(float(slopes @ law.covariance @ slopes))
    low, high = max(float(images), _exp(log_m - half)), _exp(log_m + half)
    return NextPoint(images, error, gain, _exp(log_m), low, high)


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


def _exp(log_m: float) -> float:
    """Images. inf beyond what is worth a name."""
    return UNIT * math.exp(log_m) if log_m < math.log(MOST_IMAGES / UNIT) else math.inf


def _rounded(images: float, digits: int = 2) -> int:
    """Two digits: more the law does not know. Bounds have three, or they may look like one."""
    cut = max(0, math.floor(math.log10(max(images, 1))) - digits + 1)
    return round(images / 10**cut) * 10**cut
