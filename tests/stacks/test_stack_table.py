"""Every shipped stack beside every type of the catalogue, against rules read from the tables on their own."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudrun import catalog, compat_facts
from cloudrun.compat import check_gpus, check_type, faults, why_not
from cloudrun.jobs import DEFAULT_STACKS, load_job
from cloudrun.models import GpuNeed, Market, Stack
from cloudrun.offers import pick_stack
from cloudrun.stacks import list_stacks, load_stack, stack_hash

TABLES = Path(catalog.__file__).parent
STACKS = {stack.name: stack for stack in list_stacks()}
TYPES = [
    known for known in catalog.list_types() if known.arch == "amd64" and known.gpu_capability is not None
]


def rows(name: str) -> Iterator[dict[str, str]]:
    with (TABLES / f"{name}.csv").open(encoding="utf-8") as file:
        yield from csv.DictReader(line for line in file if not line.startswith("#"))


def numbers(text: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", text)]


def architecture(capability: float) -> dict[str, str]:
    return next(
        row for row in rows("gpu_architectures") if str(capability) in row["compute_capability"].split("/")
    )


def expected(stack: Stack, capability: float) -> bool:
    """The rules by hand: CUDA's range, the driver's branch, the wheel's code, the kernel modules."""
    if not stack.needs_gpu:
        return True
    arch = architecture(capability)
    cuda = numbers(stack.cuda)[:2]
    if arch["cuda_first"] and cuda < numbers(arch["cuda_first"]):
        return False
    last = numbers(arch["cuda_last"].partition(" ")[0])
    if last and cuda[: len(last)] > last:
        return False
    if arch["driver_branch_last"] and numbers(stack.driver)[0] > int(arch["driver_branch_last"]):
        return False
    is_open = any("nvidia-open" in name for name, _ in stack.packages)
    if arch["kernel_modules"] == ("proprietary" if is_open else "open"):
        return False
    if numbers(stack.driver)[0] < 520 and capability >= 8.9:  # 520 came with CUDA 11.8, the first for Hopper
        return False
    release = dict(stack.frameworks).get("torch")
    if release is None:
        return True
    releases = (row for row in rows("frameworks") if (row["framework"], row["version"]) == ("torch", release))
    wheel = next(row for row in releases if numbers(row["cuda"]) == cuda)
    code = [float(each) for each in wheel["sm"].split()]
    return any(int(each) == int(capability) and each <= capability for each in code)


@pytest.mark.parametrize("name", STACKS)
def test_every_type_gets_the_answer_of_the_tables(name: str) -> None:
    wrong = [
        (known.type, known.gpu_capability)
        for known in TYPES
        for verdict in check_type(STACKS[name], known.type)
        if verdict.type == known.type
        and (verdict.fault is None) != expected(STACKS[name], known.gpu_capability or 0)
    ]
    assert not wrong
    assert {known.gpu for known in TYPES} == {each.gpu for each in check_gpus(STACKS[name]) if each.gpu}


@pytest.mark.parametrize("name", STACKS)
def test_a_shipped_stack_goes_together_and_has_its_steps(name: str) -> None:
    assert faults(STACKS[name]) == ()
    assert re.fullmatch(r"[0-9a-f]{64}", stack_hash(STACKS[name]))


@pytest.mark.parametrize(
    ("gpu", "torch"),
    [
        (3.7, "cuda11-torch"),
        (5.2, "cuda11-torch"),
        (7.0, "cuda12-torch"),
        (7.5, "cuda13-torch"),
        (12.0, "cuda13-torch"),
    ],
)
def test_the_newest_stack_that_drives_the_gpu_is_taken(gpu: float, torch: str) -> None:
    known = next(known for known in TYPES if known.gpu_capability == gpu and known.nvidia)
    offer = catalog.make_offer(known, "somewhere", Market.SPOT)
    picked = pick_stack(offer, GpuNeed(1), [load_stack(name) for name in DEFAULT_STACKS])
    assert picked is STACKS[torch]


def test_the_default_stacks_are_the_torch_ones_newest_first() -> None:
    torch = [stack for stack in STACKS.values() if "torch" in dict(stack.frameworks)]
    torch.remove(STACKS["cuda8-torch"])  # of 2018: only where it is asked for
    newest_first = sorted(torch, key=lambda stack: numbers(stack.cuda), reverse=True)
    assert [stack.name for stack in newest_first] == list(DEFAULT_STACKS)


def test_a_list_of_before_still_resolves(tmp_path: Path) -> None:
    listed = 'stack = ["cuda12-torch", "cuda11-torch", "cpu-torch"]\n'
    (tmp_path / "job.toml").write_text(f'name = "old"\ncommand = "true"\n{listed}')
    assert load_job(str(tmp_path)).stacks == ("cuda12-torch", "cuda11-torch", "cpu-torch")


def test_what_changes_a_machine_changes_the_hash_and_words_do_not(tmp_path: Path) -> None:
    text = (
        'description = "d"\nsource = "s"\nsteps = ["14-packages"]\n[packages]\ncuda-8-0 = "8.0.61-1"\n'
        '[theanorc]\n"lib.cnmem" = "0.95"\n'
    )

    def hash_of(name: str, content: str) -> str:
        (tmp_path / name).write_text(content)
        return stack_hash(load_stack(str(tmp_path / name)))

    first = hash_of("a.toml", text)
    assert hash_of("b.toml", text.replace('"d"', '"other words"')) == first
    for old, new in (("8.0.61-1", "8.0.61-2"), ("0.95", "0.9"), ("14-packages", "16-python")):
        assert hash_of(f"{new}.toml", text.replace(old, new)) != first


def test_an_unknown_type_of_gpu_is_let_through() -> None:
    assert why_not(STACKS["cuda13-torch"], None, 1) is None
    assert compat_facts.architecture(99.0) is None
