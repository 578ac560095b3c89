"""What a job says of its own network: its command is run with --describe, and one line of JSON is read.

Jobs and cloudrun never import each other, so the job measures itself (jobs/shared/describe.py), in a process
and a copy of its folder as on a machine. Only a job that names the shared module "describe" is asked: another
one might ignore the argument and begin to train.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from cloudrun.bundle import scan
from cloudrun.config import Settings
from cloudrun.errors import JobError
from cloudrun.jobs import find_preset, find_shared, load_job
from cloudrun.models import Job

MODULE = "describe"
TIMEOUT_S = 600.0  # its 20 steps take about 20 seconds; loading a framework on a busy disk takes longer
TAIL_LINES = 8


@dataclass(frozen=True, slots=True)
class Layer:
    """One row. Sizes and bytes are one sample's and one call's, FLOPs of all calls; `saved_bytes` is what
    the backward pass keeps of it."""

    name: str
    kind: str
    calls: int
    input: Sequence[int]
    output: Sequence[int]
    window: Mapping[str, Sequence[int]] | None
    parameters: int
    trainable: int
    forward_flops: int
    backward_flops: int
    output_bytes: int
    saved_bytes: int


@dataclass(frozen=True, slots=True)
class Network:
    """All layers, and what one step takes: for each sample, and whatever the batch (`fixed`).

    saved_bytes: kept for the backward pass. peak_bytes: what the largest operation touches at once.
    state_bytes: weights, gradients, the optimiser's values. moved_bytes: read and written.
    """

    input: Sequence[int]
    layers: Sequence[Layer]
    parameters: int
    trainable: int
    forward_flops: int
    backward_flops: int
    saved_bytes: int
    saved_bytes_fixed: int
    peak_bytes: int
    state_bytes: int
    moved_bytes: int
    moved_bytes_fixed: int
    kernels: int


@dataclass(frozen=True, slots=True)
class Asked:
    """What the settings ask for. samples: trained on in an epoch; evaluated: seen without training."""

    batch: int
    epochs: int
    samples: int
    evaluated: int
    note: str


@dataclass(frozen=True, slots=True)
class Timing:
    """Training steps timed here, the median and the fastest, beside the device's own peak and bandwidth."""

    steps: int
    batch: int
    step_s: float
    fastest_s: float
    device: str
    threads: int
    precision: str
    peak_flops: float
    bytes_per_s: float


@dataclass(frozen=True, slots=True)
class Description:
    """A job that only lists its layers has neither of the other two."""

    job: Job
    preset: str
    network: Network
    asked: Asked | None
    timing: Timing | None


def describe_job(
    settings: Settings, job: str, *, preset: str = "", args: Sequence[str] = (), timeout_s: float = TIMEOUT_S
) -> Description:
    """Run the job's command with --describe. Blocks for as long as its measurement takes, about a minute.

    Raises JobError for a job that cannot describe itself, NotFound for one that is not there.
    """
    loaded = load_job(job)
    chosen = find_preset(loaded, preset)
    if MODULE not in loaded.shared:
        raise JobError(
            f"job {loaded.name} cannot describe its network",
            hint='let its train.py take --describe (jobs/README.md) and name "describe" in shared',
        )
    with tempfile.TemporaryDirectory(prefix="cloudrun-describe-") as folder:
        place = _lay_out(loaded, Path(folder))
        words = _run(loaded, [*loaded.command, *chosen.args, *args, "--describe"], place, settings, timeout_s)
    network, asked, timing = _read(loaded, words)
    return Description(loaded, chosen.name, network, asked, timing)


def _lay_out(job: Job, folder: Path) -> Path:
    """The job's tree as a machine would have it, with the shared modules inside."""
    bundle = scan(job.folder, shared=find_shared(job), outputs=job.outputs)
    sources = dict(bundle.sources)
    place = folder / job.name
    for file in bundle.files:
        target = place / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(sources.get(file.path) or job.folder / file.path, target)
    return place


def _run(job: Job, argv: Sequence[str], place: Path, settings: Settings, timeout_s: float) -> str:
    """What it printed. Raises JobError with the last lines where it failed."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "CLOUDRUN_DATA_DIR": str(settings.datasets_dir),
        "CLOUDRUN_OUTPUT_DIR": str(place / job.outputs),
    }
    environment.pop("CLOUDRUN_RESUME_FROM", None)
    with (place.parent / "said").open("w+", encoding="utf-8", errors="replace") as errors:
        try:
            process = subprocess.Popen(
                argv, cwd=place, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=errors, text=True, errors="replace", start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise JobError(f"{argv[0]}: {error.strerror}", hint="is it installed here?") from error
        words = _wait(job, process, timeout_s)
        errors.seek(0)
        tail = "\n".join((words + errors.read()).strip().splitlines()[-TAIL_LINES:])
    if process.returncode:
        raise JobError(
            f"job {job.name} ended with {process.returncode} when asked to describe itself:\n{tail}",
            hint=f"by hand, in its folder: {' '.join(argv)}",
        )
    return words


def _wait(job: Job, process: subprocess.Popen[str], timeout_s: float) -> str:
    """Its output; the whole process group is ended when the time is over, and on Ctrl-C."""
    with process:
        try:
            return process.communicate(timeout=timeout_s)[0]
        except subprocess.TimeoutExpired as error:
            raise JobError(
                f"job {job.name} did not describe itself within {timeout_s:.0f} s",
                hint="choose a smaller preset, or add smaller arguments after --",
            ) from error
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _read(job: Job, words: str) -> tuple[Network, Asked | None, Timing | None]:
    """The last line that is a JSON object: a whole report, or the network alone."""
    lines = [line for line in words.splitlines() if line.startswith("{")]
    try:
        report = json.loads(lines[-1]) if lines else {}
        facts = report.get("model", report)
        layers = [_fill(Layer, layer) for layer in facts["layers"]]
        network = _fill(Network, {**facts, "layers": layers})
        asked = _fill(Asked, report["asked"]) if report.get("asked") else None
        timing = _fill(Timing, report["timing"]) if report.get("timing") else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise JobError(
            f"job {job.name} printed no description that can be read ({type(error).__name__}: {error})",
            hint="its last line has to be what describe.print_report of jobs/shared prints",
        ) from error
    return network, asked, timing


_Record = TypeVar("_Record")


def _fill(kind: type[_Record], data: Mapping[str, Any]) -> _Record:
    """The record from an object that may have more in it. Raises KeyError, TypeError."""
    values = {field.name: data[field.name] for field in fields(kind)}  # type: ignore[arg-type]  # a dataclass
    for name, value in values.items():
        if isinstance(value, float | int) and value < 0:
            raise TypeError(f"{name} is negative")
    return kind(**values)
