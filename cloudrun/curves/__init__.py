"""Training curves: logs of many kinds become Fits (`logs`), and Fits become pictures."""

from cloudrun.curves.fit import Fit, Point, join_fits
from cloudrun.curves.logs import FORMATS, read_fits

__all__ = ["FORMATS", "Fit", "Point", "join_fits", "read_fits"]
