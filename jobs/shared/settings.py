"""Where a job reads and writes, what it runs on, and how its randomness is fixed.

The three folders come from the environment that cloudrun sets; each has a local default, so that
`python train.py` works by hand.
"""

from __future__ import annotations

import hashlib
import os
import platform
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch


@dataclass(frozen=True)
class Folders:
    """data: inputs, kept between runs. outputs: what the run leaves. resume_from: a checkpoint, or None."""

    data: Path
    outputs: Path
    resume_from: Path | None

    @property
    def checkpoint(self) -> Path:
        return self.outputs / "checkpoint"


def read_folders(job: Path) -> Folders:
    """The folders of this run; makes `outputs`. By hand: ~/.cloudrun/data and JOB/outputs, starting anew."""
    data = os.environ.get("CLOUDRUN_DATA_DIR") or Path.home() / ".cloudrun" / "data"
    outputs = Path(os.environ.get("CLOUDRUN_OUTPUT_DIR") or job / "outputs").resolve()
    resume = os.environ.get("CLOUDRUN_RESUME_FROM")
    outputs.mkdir(parents=True, exist_ok=True)
    return Folders(Path(data).expanduser().resolve(), outputs, Path(resume) if resume else None)


def pick_device(name: str = "auto") -> torch.device:
    """The device by name; "auto" is the first GPU if torch can use one, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """float32, or bfloat16 where "auto" finds it in hardware: elsewhere it is emulated and slower.

    On GPUs that is NVIDIA's compute capability 8.0 and later, on CPUs avx512_bf16 or amx_bf16 (on the
    RCNN 1.9x of float32 was measured with avx512_bf16, 0.76x without).
    """
    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]
    if device.type == "cuda":
        in_hardware = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        in_hardware = not _cpu_flags().isdisjoint({"avx512_bf16", "amx_bf16"})
    return torch.bfloat16 if in_hardware else torch.float32


def name_of(precision: torch.dtype) -> str:
    """ "float32" or "bfloat16": what pick_precision takes."""
    return str(precision).removeprefix("torch.")


def usable_cpus() -> int:
    """CPUs that this process may run on, which in a container can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fix_randomness(seed: int, threads: int, device: torch.device) -> None:
    """Seed everything. On a CPU the result is then the same bit for bit, given the same number of threads.

    The thread count belongs to the result because sums are split over the threads. On a GPU the fastest
    kernels are allowed instead: their sums have no fixed order.

    Numbers too small for float32's normal form count as 0 from here on, in this thread and those that it
    starts: a CPU takes many times as long for them, and a net that has learnt its images makes millions.
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.set_flush_denormal(True)  # before the first use of the other threads: they inherit it
    torch.set_num_threads(threads)
    if device.type == "cpu":
        torch.use_deterministic_algorithms(True)
        # It would fill all new memory with NaN as a help in debugging, which takes a sixth of a step.
        torch.utils.deterministic.fill_uninitialized_memory = False
    else:
        torch.backends.cudnn.benchmark = True


def describe_machine(device: torch.device) -> dict[str, str]:
    """What a result table has to name: versions and hardware."""
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()
    return {
        "device": device.type,
        "hardware": hardware,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "threads": str(torch.get_num_threads()),
    }


def in_words(machine: dict[str, str]) -> str:
    """What describe_machine found, on one line."""
    return ", ".join(f"{name} {value}" for name, value in machine.items())


def source_sha256(folder: Path) -> dict[str, str]:
    """Content hashes of the job's own Python files: which code made this result."""
    files = sorted(folder.glob("*.py"))
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _cpu_name() -> str:
    names = _cpu_facts("model name")
    return f"{len(names)} x {names[0]}" if names else platform.processor() or platform.machine()


def _cpu_flags() -> set[str]:
    """What the processor can do, in Linux's words; empty on other systems."""
    return {flag for flags in _cpu_facts("flags")[:1] for flag in flags.split()}


def _cpu_facts(name: str) -> list[str]:
    """That line of /proc/cpuinfo for each processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name]
