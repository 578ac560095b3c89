"""Fetch the real data: `python download.py svhn` (1.5 GB) or `python download.py mnist` (12 MB).

Files go to CLOUDRUN_DATA_DIR/svhn and /mnist (by hand: ~/.cloudrun/data). A cut transfer is continued, and a
file counts only with its published checksum. SVHN_URL and MNIST_URL name other sources.
"""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from pathlib import Path

if not (Path(__file__).parent / "shared").is_dir():  # not in a bundle: the modules are in jobs/shared
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from shared import fetch, mnist

SVHN_URLS = ("http://ufldl.stanford.edu/housenumbers",)
SVHN_MD5 = {  # as published with torchvision's SVHN
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
    "extra_32x32.mat": "a93ce644f1a588dc4d68dda5feec44a7",
}


def fetch_svhn(data: Path) -> None:
    """Make data/svhn hold the three .mat files. A file that is there is taken as it is.

    Raises fetch.FetchError where a missing one cannot be had.
    """
    fetch.fetch_missing(data / "svhn", SVHN_MD5, fetch.sources("SVHN_URL", SVHN_URLS), title="SVHN")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", choices=["svhn", "mnist"])
    parser.add_argument("--to", type=Path, default=os.environ.get("CLOUDRUN_DATA_DIR") or "~/.cloudrun/data")
    args = parser.parse_args()
    try:
        fetch_set = fetch_svhn if args.dataset == "svhn" else partial(mnist.fetch_set, "mnist")
        fetch_set(Path(args.to).expanduser())
    except fetch.FetchError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
