"""Content that comes from a bucket: whole, right, or not there."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from cloudrun.errors import TransferFailed


def receive(chunks: Iterable[bytes], to: Path, sha256: str, *, name: str) -> str:
    """Write the chunks to a file beside `to`, check them, and put it in place; returns the sha256.

    sha256: what they have to be, hex; "" where nothing is known of them. Raises TransferFailed.
    """
    to.parent.mkdir(parents=True, exist_ok=True)
    partial = to.with_name(f".{to.name}.{os.getpid()}.part")
    hasher = hashlib.sha256()
    try:
        with partial.open("wb") as file:
            for chunk in chunks:
                hasher.update(chunk)
                file.write(chunk)
        found = hasher.hexdigest()
        if sha256 and found != sha256:
            raise TransferFailed(
                f"{name} is not what was stored there: its sha256 is {found}, not {sha256}",
                hint="it was damaged or changed in the bucket; push the outputs again if they are at home",
            )
        partial.replace(to)
    finally:
        partial.unlink(missing_ok=True)
    return found
