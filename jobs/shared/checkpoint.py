"""One checkpoint file, replaced as a whole: whoever copies it at any moment gets the old one or the new one.

It holds plain tensors, numbers and text only, so that reading one made elsewhere runs no code
(torch.load with weights_only).
"""

from __future__ import annotations

import os
import pickle
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

FILE_NAME = "checkpoint.pt"
FORMAT = 1


class CheckpointError(Exception):
    """The checkpoint is not there, is broken, or belongs to other settings."""


def save(folder: Path, state: dict[str, Any]) -> Path:
    """Write `state` and the random generators' states. Durable when it returns."""
    folder.mkdir(parents=True, exist_ok=True)
    final, partial = folder / FILE_NAME, folder / (FILE_NAME + ".partial")
    with partial.open("wb") as file:
        torch.save({"format": FORMAT, **state, "random": _random_states()}, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(final)
    return final


def load(folder: Path) -> dict[str, Any]:
    """Read the state. The random generators stay as they are until `restore_random`."""
    file = folder / FILE_NAME
    if not file.is_file():
        raise CheckpointError(f"no {FILE_NAME} in {folder}: the folder to resume from holds that file itself")
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{file} is broken, or no checkpoint of ours: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{file} is not a checkpoint of format {FORMAT}")
    return content


def restore_random(saved: dict[str, Any]) -> None:
    """Put the random generators where they were: the last thing to do before the first step."""
    states = saved["random"]
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(states["torch"])
    if len(states["cuda"]) == torch.cuda.device_count():  # on other hardware there is no stream to continue
        torch.cuda.set_rng_state_all(states["cuda"])


def refuse_other_settings(saved: dict[str, Any], wanted: dict[str, Any], *, free: frozenset[str]) -> None:
    """Resumed must equal uninterrupted: every setting but the `free` ones has to be the saved one."""
    names = sorted((saved.keys() | wanted.keys()) - free)
    changed = [name for name in names if saved.get(name) != wanted.get(name)]
    if changed:
        what = "; ".join(f"{name} was {saved.get(name)!r}, now {wanted.get(name)!r}" for name in changed)
        raise CheckpointError(f"the checkpoint was made with other settings: {what}")


def _random_states() -> dict[str, Any]:
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": (version, internal, gauss),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
