"""Fetch the real data: `python download.py svhn` (1.5 GB) or `python download.py mnist` (12 MB).

Files go to CLOUDRUN_DATA_DIR/svhn and /mnist (by hand: ~/.cloudrun/data). A cut transfer is continued, and a
file counts only with its published checksum. SVHN_URL and MNIST_URL name other sources.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

if not (
    Path(__file__).parent / "shared"
).is_dir():  # by hand, not in a bundle: the modules are in jobs/shared
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from shared import fetch

SVHN_URLS = ["http://ufldl.stanford.edu/housenumbers"]
SVHN_MD5 = {  # as published with torchvision's SVHN
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
    "extra_32x32.mat": "a93ce644f1a588dc4d68dda5feec44a7",
}
MNIST_URLS = ["https://ossci-datasets.s3.amazonaws.com/mnist", "http://yann.lecun.com/exdb/mnist"]
MNIST_MD5 = {  # as published with torchvision's MNIST
    "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
}


def fetch_svhn(data: Path) -> None:
    """Make data/svhn hold the three .mat files. A file that is there is taken as it is."""
    _fetch_missing(data / "svhn", SVHN_MD5, os.environ.get("SVHN_URL"), SVHN_URLS)


def fetch_mnist(data: Path) -> None:
    """Make data/mnist hold the four idx files, gzipped or not. A file that is there is taken as it is."""
    _fetch_missing(data / "mnist", MNIST_MD5, os.environ.get("MNIST_URL"), MNIST_URLS)


def _fetch_missing(folder: Path, checksums: dict[str, str], source: str | None, urls: list[str]) -> None:
    for name, md5 in checksums.items():
        there = folder / name
        if there.is_file() or there.with_name(name.removesuffix(".gz")).is_file():
            continue
        print(f"fetching {name}", flush=True)
        fetch.fetch([f"{base.rstrip('/')}/{name}" for base in ([source] if source else urls)], there, md5)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", choices=["svhn", "mnist"])
    parser.add_argument("--to", type=Path, default=os.environ.get("CLOUDRUN_DATA_DIR") or "~/.cloudrun/data")
    args = parser.parse_args()
    try:
        {"svhn": fetch_svhn, "mnist": fetch_mnist}[args.dataset](Path(args.to).expanduser())
    except fetch.FetchError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
