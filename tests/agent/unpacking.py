"""A boot payload, unpacked as cloud-init does, in a folder of its own."""

from __future__ import annotations

import gzip
import subprocess
import time
from pathlib import Path
from typing import Any

import yaml

from cloudrun import payload
from cloudrun.keys import make_keys


def unpack(root: Path, *, companion: str = "", **policy: object) -> Path:
    """Its files below root; returns the boot script."""
    keys = make_keys(root / "keys", comment="box")
    told: dict[str, object] = {"issued_at": time.time(), "deadline_at": None, "idle_s": 3600.0}
    packed = payload.user_data(
        keys,
        user="nobody-of-that-name",
        policy=told | policy,
        companion=companion,
        most_bytes=payload.MAX_AZURE_BYTES,
    )
    config: dict[str, Any] = yaml.safe_load(gzip.decompress(packed))
    paths = [root / file["path"].lstrip("/") for file in config["write_files"]]
    for file, path in zip(config["write_files"], paths, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file["content"])
        path.chmod(int(file["permissions"], 8))
    return paths[-1]


def run_script(script: Path, env: dict[str, str]) -> None:
    done = subprocess.run([script], env=env, capture_output=True, text=True, timeout=60)
    log = (script.parents[3] / "cloudrun" / "boot.log").read_text()
    assert (done.returncode, done.stdout, done.stderr, log) == (0, "", "", "")
