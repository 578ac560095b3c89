"""Stacks: what each can drive, and that its facts agree with the shipped tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudrun.catalog.loader import read_csv
from cloudrun.compat import why_not
from cloudrun.errors import JobError, NotFound
from cloudrun.stacks import list_stacks, load_stack


@pytest.mark.parametrize(
    ("stack", "capability", "count", "why"),
    [
        ("cuda12-torch", 3.7, 1, "use cuda11-torch"),
        ("cuda12-torch", 5.2, 1, "use cuda11-torch"),
        ("cuda11-torch", 3.7, 1, ""),
        ("cuda11-torch", 3.0, 1, "only from 3.7"),
        ("cuda11-torch", 8.9, 1, "use cuda13-torch"),
        ("cuda12-torch", 7.5, 4, ""),
        ("cuda12-torch", 12.0, 1, "use cuda13-torch"),
        ("cuda13-torch", 12.0, 1, ""),
        ("cuda13-torch", 7.0, 1, "use cuda12-torch"),
        ("cuda8-theano", 3.7, 1, ""),
        ("cuda8-theano", 7.0, 1, "only up to 6.1"),
        ("cuda12-torch", None, 0, "needs a GPU"),
        ("cuda12-torch", None, 1, ""),
        ("cpu-torch", 3.0, 1, ""),
        ("cpu-torch", None, 0, ""),
        ("none", None, 0, ""),
    ],
)
def test_which_machine_a_stack_drives(stack: str, capability: float | None, count: int, why: str) -> None:
    answer = why_not(load_stack(stack), capability, count)
    assert why in str(answer or "")
    assert bool(answer) == bool(why)


def test_no_stack_is_advised_for_a_gpu_that_none_drives() -> None:
    answer = why_not(load_stack("cuda11-torch"), 3.0, 1)
    assert answer is not None
    assert not answer.fix


def test_the_pins_stand_in_the_shipped_tables() -> None:
    """The torch version, its CUDA and its least and most code are one row of frameworks.csv."""
    torch = {
        (row["version"], row["cuda"]): row
        for row in read_csv("frameworks.csv")
        if row["framework"] == "torch"
    }
    images = {(row["provider"], row["key"]) for row in read_csv("images.csv")}
    for stack in list_stacks():
        assert set(stack.images) <= images, stack.name
        if not stack.needs_gpu or "torch" not in dict(stack.frameworks):
            continue
        row = torch[dict(stack.frameworks)["torch"], stack.cuda]
        code = [float(each) for each in row["sm"].split()]
        sure = "likely" if stack.name == "cuda8-torch" else "verified"  # its wheel was not opened
        assert (row["confidence"], row["cudnn"]) == (sure, stack.cudnn)
        assert stack.min_capability in code
        assert stack.max_capability in code


def test_the_driver_of_a_stack_runs_its_cuda_and_its_oldest_gpu() -> None:
    least = {row["cuda"]: int(row["driver_min_compat"].split(".")[0]) for row in read_csv("cuda_driver.csv")}
    last = {
        capability: int(row["driver_branch_last"])
        for row in read_csv("gpu_architectures.csv")
        if row["driver_branch_last"]
        for capability in row["compute_capability"].split("/")
    }
    for stack in list_stacks():
        if stack.needs_gpu:
            branch = int(stack.driver.split(".")[0])
            assert branch >= max(number for cuda, number in least.items() if cuda.startswith(stack.cuda))
            assert branch <= last.get(f"{stack.min_capability}", 10_000)


def test_an_unknown_stack_names_the_nearest() -> None:
    with pytest.raises(NotFound) as caught:
        load_stack("cuda12-troch")
    assert "cuda12-torch" in caught.value.hint


def test_a_stack_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('description = "d"\nsource = "s"\npython = "3.12"\n[frameworks]\njax = "0.4"\n')
    stack = load_stack(str(file))
    assert (stack.name, stack.python, stack.frameworks) == ("mine", "3.12", (("jax", "0.4"),))
    bad = tmp_path / "bad.toml"
    bad.write_text('description = "d"\nsource = "s"\npyhton = "3.12"\n')
    with pytest.raises(JobError, match="line 3: pyhton") as caught:
        load_stack(str(bad))
    assert "python" in caught.value.hint
