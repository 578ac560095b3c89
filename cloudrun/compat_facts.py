"""What goes with what: CUDA, drivers, cuDNN, framework builds, GPUs and systems, by the shipped tables.

The cells are written for people ("3.8-3.11", "up to 5.1", "11.8/12.1"); this module is where they are read.
What a table does not say is unknown, and answers None or an empty list: unknown never refuses.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from cloudrun.catalog.loader import read_csv

Version = tuple[int, ...]

_NUMBERS = re.compile(r"\d+(?:\.\d+)*")
_SPANS = re.compile(r"(?P<low>\d+(?:\.\d+)*)(?:\s*-\s*(?P<high>\d+(?:\.\d+)*))?")
_BUILD = re.compile(r"\bcu(\d{2,3})\b")
# The python3 of each release of Ubuntu (packages.ubuntu.com): a stack gets no other.
SYSTEM_PYTHONS = {
    "ubuntu-16.04": "3.5",
    "ubuntu-18.04": "3.6",
    "ubuntu-20.04": "3.8",
    "ubuntu-22.04": "3.10",
    "ubuntu-24.04": "3.12",
}


@dataclass(frozen=True, slots=True)
class Architecture:
    """One row of gpu_architectures.csv; None is an end that nobody found."""

    name: str
    capabilities: tuple[float, ...]
    cuda_first: Version | None
    cuda_last: Version | None
    driver_last: int | None  # branch
    modules: str  # proprietary | either | open


@dataclass(frozen=True, slots=True)
class Build:
    """One row of frameworks.csv: what a release of a framework was built for."""

    version: str
    cudas: tuple[str, ...]
    cuda_text: str
    cudnn: str
    python: str
    codes: tuple[float, ...]  # compute capabilities with machine code in it; empty where unknown


def version(text: str) -> Version:
    """The first version in a text, as numbers: "8.0.61-1" is (8, 0, 61). Empty where there is none."""
    found = _NUMBERS.search(text)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def is_older(version_a: Version, version_b: Version) -> bool:
    """Whether a is older than b, as far as both are told: branch 470 is not older than 470.42."""
    length = min(len(version_a), len(version_b))
    return version_a[:length] < version_b[:length]


def within(wanted: Version, text: str) -> bool | None:
    """Whether a cell's versions and ranges hold this one, as far as both are told; None for no cell."""
    if text.startswith("up to "):
        return not is_older(version(text), wanted)
    if text.startswith(">=") and "(" not in text:
        return not is_older(wanted, version(text))
    spans = [
        (version(found["low"]), version(found["high"] or found["low"]))
        for found in _SPANS.finditer(text.partition("(")[2] if text.startswith(">=") else text)
    ]
    if not spans:
        return None
    return any(not is_older(wanted, low) and not is_older(high, wanted) for low, high in spans)


@cache
def architecture(capability: float) -> Architecture | None:
    """The architecture of a compute capability, None where the table has none."""
    return next((each for each in architectures() if capability in each.capabilities), None)


@cache
def architectures() -> tuple[Architecture, ...]:
    """Every architecture of the catalogue, oldest first."""
    return tuple(
        Architecture(
            name=row["architecture"],
            capabilities=tuple(float(each) for each in row["compute_capability"].split("/")),
            cuda_first=version(row["cuda_first"]) or None,
            cuda_last=version(row["cuda_last"]) or None,
            driver_last=int(row["driver_branch_last"]) if row["driver_branch_last"] else None,
            modules=row["kernel_modules"],
        )
        for row in read_csv("gpu_architectures.csv")
    )


@cache
def least_driver(cuda: str) -> str:
    """The oldest driver that runs programs of this CUDA, "" where the table has no such CUDA."""
    wanted = version(cuda)
    rows = [row for row in read_csv("cuda_driver.csv") if version(row["cuda"])[:2] == wanted[:2]]
    exact = [row for row in rows if version(row["cuda"]) == wanted]
    return (exact or rows or [{"driver_min_compat": ""}])[-1]["driver_min_compat"]


def cudnn_goes_with(cudnn: str, cuda: str) -> bool | None:
    """Whether some build is known to use the two together; None where no table names this cuDNN."""
    rows = [cudas for known, cudas in _cudnn_pairs() if within(version(cudnn), known)]
    return any(within(version(cuda), cudas) for cudas in rows) if rows else None


def newest_cudnn(cuda: str) -> str:
    """The newest cuDNN that the tables have for this CUDA, "" for none."""
    fitting = [known for known, cudas in _cudnn_pairs() if within(version(cuda), cudas)]
    each = [number for known in fitting for number in _NUMBERS.findall(known)]
    return max(each, key=version, default="")


@cache
def _cudnn_pairs() -> tuple[tuple[str, str], ...]:
    return tuple((row["cudnn"], row["cuda"]) for row in read_csv("cudnn.csv"))


def builds(framework: str, release: str) -> list[Build]:
    """The rows about a release of a framework, also those that speak of a range of releases."""
    wanted = version(release)
    return [build for build in _builds().get(framework.casefold(), []) if within(wanted, build.version)]


@cache
def _builds() -> dict[str, list[Build]]:
    table: dict[str, list[Build]] = {}
    for row in read_csv("frameworks.csv"):
        cudas = {row["cuda"], *(f"{code[:-1]}.{code[-1]}" for code in _BUILD.findall(row["build"]))}
        build = Build(
            version=row["version"].replace(".x", ""),
            cudas=tuple(each for each in cudas if re.fullmatch(r"\d+\.\d+", each)),
            cuda_text=row["cuda"],
            cudnn=row["cudnn"],
            python=row["python"],
            codes=_codes(row["sm"]),
        )
        table.setdefault(row["framework"].casefold(), []).append(build)
    return table


def _codes(cell: str) -> tuple[float, ...]:
    """The capabilities of a cell that speaks of one build; a cell about several is left unknown."""
    plain = cell.removesuffix("+PTX")
    return tuple(float(each) for each in plain.split()) if re.fullmatch(r"[\d. ]+", plain) else ()


def runs_on(codes: tuple[float, ...], capability: float) -> bool:
    """Whether a GPU runs one of these codes: of its own major version, and not newer than it."""
    return any(int(code) == int(capability) and code <= capability for code in codes)
