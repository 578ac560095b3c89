"""Image sets by name, each with its stand-in where the real files cannot be had.

    mnist      MNIST, else drawn digits
    fashion    Fashion-MNIST, else drawn digits
    cifar10    CIFAR-10, else Fashion-MNIST padded to 32x32x3, else drawn digits in colours

`about` says in words which it is; every table and picture that shows a result repeats it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from shared import cifar, drawn, fetch, mnist, readers

SOURCES = ("auto", "real", "drawn")
DRAWN_SIZES = (12_000, 4_000)  # of training and test
DRAWN_SEEDS = (0, 1_000)
Pair = tuple[np.ndarray, np.ndarray]  # images N x H x W x C uint8, labels N int64


class Sets(NamedTuple):
    """Both parts of a set, and what they are in words."""

    about: str
    train: Pair
    test: Pair


class DataError(Exception):
    """The data that was asked for cannot be had."""


def load(name: str, source: str, data: Path, *, limit: int = 0) -> Sets:
    """The set "mnist", "fashion" or "cifar10". `source`: real, drawn, or auto (real, or its stand-in).

    limit: so many training images at most, and at most as many test images (0: all). Raises DataError.
    """
    try:
        sets = _cifar(source, data, limit) if name == "cifar10" else _grey(name, source, data, limit)
    except (readers.ReaderError, fetch.FetchError) as error:
        raise DataError(str(error)) from error
    parts = (sets.train, sets.test)
    if limit:
        parts = tuple((images[:limit], labels[:limit]) for images, labels in parts)
    (_, train_labels), (_, test_labels) = parts
    about = f"{sets.about} ({len(train_labels):,} training, {len(test_labels):,} test images)"
    return Sets(about, *parts)


def _grey(name: str, source: str, data: Path, limit: int) -> Sets:
    title = mnist.TITLES[name]
    if source != "drawn" and _fetched(lambda: mnist.fetch_set(name, data), title, must=source == "real"):
        return Sets(title, *map(_with_channel, mnist.read_set(name, data)))
    return Sets(f"drawn digits, NOT {title}", *map(_with_channel, _drawn(drawn.draw_grey, limit)))


def _cifar(source: str, data: Path, limit: int) -> Sets:
    if source != "drawn" and _fetched(lambda: cifar.fetch_set(data), "CIFAR-10", must=source == "real"):
        return Sets("CIFAR-10", *map(_channels_last, cifar.read_set(data)))
    if source != "drawn" and _fetched(lambda: mnist.fetch_set("fashion", data), "Fashion-MNIST", must=False):
        padded = map(_padded, mnist.read_set("fashion", data))
        return Sets("Fashion-MNIST padded to 32x32x3, NOT CIFAR-10", *padded)
    in_colours = map(_channels_last, _drawn(drawn.draw_colours, limit))
    return Sets("drawn digits in colours, NOT CIFAR-10", *in_colours)


def _fetched(fetch_set: Callable[[], None], title: str, *, must: bool) -> bool:
    """Whether the set is there now. Where it need not be, a failure is said and taken."""
    try:
        fetch_set()
    except fetch.FetchError as error:
        if must:
            raise
        print(f"{title} cannot be had ({error}); a stand-in takes its place", flush=True)
        return False
    return True


def _drawn(draw: Callable[..., Pair], limit: int) -> list[Pair]:
    sizes = [min(limit or size, size) for size in DRAWN_SIZES]
    return [draw(size, seed=seed) for size, seed in zip(sizes, DRAWN_SEEDS)]  # noqa: B905  Python 3.9


def _with_channel(pair: Pair) -> Pair:
    return pair[0][..., None], pair[1]


def _channels_last(pair: Pair) -> Pair:
    return np.ascontiguousarray(pair[0].transpose(0, 2, 3, 1)), pair[1]


def _padded(pair: Pair) -> Pair:
    return np.repeat(np.pad(pair[0], ((0, 0), (2, 2), (2, 2)))[..., None], 3, axis=3), pair[1]
