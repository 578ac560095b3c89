"""A push that kills itself (SIGKILL) when it stores its Nth object.

`push_killed.py ADDRESS RUN FOLDER HOME N AT`; AT is before or after: whether that object gets there.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
from pathlib import Path

from cloudrun import bucket_outputs
from cloudrun.bucket import open_bucket
from cloudrun.config import Settings

address, run, folder, home, last, at = sys.argv[1:]
bucket = open_bucket(address, Settings(home=Path(home)))
put, count = bucket.put, itertools.count(1)


def deadly(key: str, path: Path, sha256: str) -> None:
    final = next(count) == int(last)
    if not final or at == "after":
        put(key, path, sha256)
    if final:
        os.kill(os.getpid(), signal.SIGKILL)


bucket.put = deadly
bucket_outputs.THREADS = 1
bucket_outputs.push(bucket, run, Path(folder), cache=Path(home) / "hashes", progress=lambda *_: None)
sys.exit("the point was never reached")
