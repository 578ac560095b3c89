"""MNIST and Fashion-MNIST: two sets in one layout, four idx files each, fetched where they are missing.

    data/mnist/train-images-idx3-ubyte[.gz] ...        data/fashion/train-images-idx3-ubyte[.gz] ...

60,000 training and 10,000 test images of 28x28 grey values, of ten kinds. MNIST_URL and FASHION_URL name
other sources for the download.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from shared import fetch, readers

Pair = tuple[np.ndarray, np.ndarray]  # images N x 28 x 28 uint8, labels N int64
TITLES = {"mnist": "MNIST", "fashion": "Fashion-MNIST"}
URLS = {
    "mnist": ("https://ossci-datasets.s3.amazonaws.com/mnist", "http://yann.lecun.com/exdb/mnist"),
    "fashion": ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",),
}
MD5 = {  # of the gzipped files, as published with torchvision's MNIST and FashionMNIST
    "mnist": {
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    },
    "fashion": {
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    },
}


def fetch_set(name: str, data: Path) -> None:
    """Make data/NAME hold the four files of "mnist" or "fashion". A file that is there is taken as it is.

    Raises fetch.FetchError where a missing one cannot be had.
    """
    sources = fetch.sources(f"{name.upper()}_URL", URLS[name])
    fetch.fetch_missing(data / name, MD5[name], sources, title=TITLES[name])


def read_set(name: str, data: Path) -> tuple[Pair, Pair]:
    """The training and the test images of "mnist" or "fashion". Raises readers.ReaderError."""
    return _read_part(data / name, "train"), _read_part(data / name, "t10k")


def _read_part(folder: Path, part: str) -> Pair:
    images = readers.read_idx(folder / f"{part}-images-idx3-ubyte", 3)
    labels = readers.read_idx(folder / f"{part}-labels-idx1-ubyte", 1)
    if images.shape[1:] != (28, 28) or len(images) != len(labels) or not len(labels) or labels.max() > 9:
        raise readers.ReaderError(f"{folder}: {part} is not 28x28 images of ten kinds with their labels")
    return images, labels.astype(np.int64)
