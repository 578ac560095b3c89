"""What this computer has: processors, memory, and the GPU that nvidia-smi shows."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache

QUERY = "name,memory.total,compute_cap"  # nvidia-smi --help-query-gpu; MiB and "8.6"
QUERY_TIMEOUT_S = 10.0  # a driver that is busy or broken must not hold a plan up
GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Gpu:
    """The GPUs of this computer; count 0 is none. Memory is that of the smallest one."""

    name: str = ""
    count: int = 0
    memory_gib: float = 0.0
    capability: float | None = None


@cache
def gpu() -> Gpu:
    """Asked once per process: it takes up to a second."""
    program = shutil.which("nvidia-smi")
    if not program:
        return Gpu()
    try:
        answer = subprocess.run(
            [program, f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=QUERY_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return Gpu()
    return parse_gpus(answer.stdout) if answer.returncode == 0 else Gpu()


def parse_gpus(table: str) -> Gpu:
    """Read nvidia-smi's CSV. A line that is not a GPU (a driver's complaint) counts as none."""
    rows = [[cell.strip() for cell in line.rsplit(",", 2)] for line in table.splitlines() if line.strip()]
    try:
        memories = [float(memory) / 1024 for _, memory, _ in rows]
        capabilities = [float(capability) for _, _, capability in rows]
    except ValueError:
        return Gpu()
    if not rows:
        return Gpu()
    return Gpu(rows[0][0], len(rows), round(min(memories), 1), min(capabilities))


def cpu_count() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_gib() -> float:
    """Installed memory."""
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB, 1)
