"""The study as a process: its contract with cloudrun, exact resume anywhere in the grid, shared work."""

from __future__ import annotations

import json
import re
import shutil
import struct
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from job_outputs import metric_lines, read_summary, stop_at
from job_paths import JOBS
from shared import drawn
from warm_job import WarmJob

JOB = JOBS / "bn_study"
TRAIN = JOB / "train.py"
RunJob = Callable[..., tuple[int, str]]
StartJob = Callable[..., WarmJob]
SMALL = ("--preset", "smoke", "--limit", "128")


@pytest.fixture(scope="module")
def whole_grid(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The outputs of one run of everything, and what it said."""
    outputs = tmp_path_factory.mktemp("grid") / "outputs"
    env = {"PATH": "", "CLOUDRUN_OUTPUT_DIR": str(outputs), "OMP_NUM_THREADS": "1"}
    process = WarmJob(TRAIN, (*SMALL, "--threads", "1"), env)
    said, _ = process.communicate(timeout=150)
    assert process.returncode == 0, said
    return outputs, said


def by_cell(outputs: Path) -> dict[str, list[dict[str, object]]]:
    found: dict[str, list[dict[str, object]]] = {}
    for line in metric_lines(outputs):
        found.setdefault(line["cell"].removesuffix("/seed0"), []).append(line)
    return found


def test_one_command_runs_the_grid(whole_grid: tuple[Path, str]) -> None:
    outputs, said = whole_grid
    summary = read_summary(outputs)
    assert len(summary["cells"]) == 14 + 8  # the MNIST rows under both schedules
    assert summary["parameters_bn"] == {"cifar10": 1_670_282, "mnist": 1_632_522}
    table = (outputs / "table.md").read_text()
    assert table in said
    assert "(1) drawn digits, NOT MNIST (128 training, 128 test images)" in table
    assert "(2) drawn digits in colours, NOT CIFAR-10 (128 training, 128 test images)" in table
    assert len((outputs / "table.csv").read_text().splitlines()) == 1 + 22
    content = (outputs / "curves.png").read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">2I", content[16:24]) > (1000, 1000)
    boards = sum(file.stat().st_size for file in (outputs / "tensorboard").iterdir())
    assert boards > 10_000
    assert not list(outputs.rglob("*.partial"))


def test_every_cell_has_its_whole_curve(whole_grid: tuple[Path, str]) -> None:
    curves = by_cell(whole_grid[0])
    assert len(curves) == 22
    for cell, lines in curves.items():
        epochs = 1 if "-fc-" in cell else 2
        assert [line["epoch"] for line in lines] == list(range(1, epochs + 1)), cell
        assert {line["epochs"] for line in lines} == {epochs}
    written, run = curves["mnist-0.001/as_written"], curves["mnist-0.001/as_run"]
    assert [line["lr"] for line in written] == [0.001, 0.0001]
    assert [line["lr"] for line in run] == [0.001, 0.001]
    assert written[0]["val_loss"] == run[0]["val_loss"]  # the trunk was trained once
    assert written[1]["val_loss"] != run[1]["val_loss"]
    assert curves["mnist-0.01/as_run"][1]["step"] == 2 * 2
    assert curves["cifar10-fc-0.0001-bn/constant"][0]["step"] == 4  # a new optimiser
    assert curves["mnist-0.001/as_run"][1]["val_acc"] > 0.3


def test_cells_alone_and_interrupted_give_what_they_give_in_the_grid(
    whole_grid: tuple[Path, str], start_job: StartJob, run_job: RunJob, tmp_path: Path
) -> None:
    """Bit for bit, through two interruptions: at a branch, and while features are computed or trained on."""
    few = (*SMALL, "--cells", "cifar10-0.001", "mnist-fc-0.01-bn")
    said = stop_at("[1/5]", start_job(*few, outputs="first", train=TRAIN))
    assert re.search(r"saved in stretch 2 of 5, epoch 1, after [0-4] batches", said), said
    resume = {"CLOUDRUN_RESUME_FROM": str(tmp_path / "first" / "checkpoint")}
    stop_at("  computing the features", start_job(*few, outputs="second", env=resume, train=TRAIN))
    resume = {"CLOUDRUN_RESUME_FROM": str(tmp_path / "second" / "checkpoint")}
    code, said = run_job(*few, outputs="third", env=resume, train=TRAIN)
    assert code == 0, said
    assert "resumed  in stretch" in said
    curves, grid = by_cell(tmp_path / "third"), by_cell(whole_grid[0])
    cells = ["cifar10-0.001/constant", "mnist-fc-0.01-bn/as_written", "mnist-fc-0.01-bn/as_run"]
    assert curves.keys() == {*cells, "mnist-fc-0.01-bn/trunk"}  # no whole net is there to show the trunk
    assert [curves[cell] for cell in cells] == [grid[cell] for cell in cells]


def test_shuffled_labels_stay_at_chance(run_job: RunJob, tmp_path: Path) -> None:
    """No way leads from an image's label to its answer but the image. In the layout of a bundle."""
    job = tmp_path / "code"
    shutil.copytree(JOB, job, ignore=shutil.ignore_patterns("__pycache__", "outputs"))
    (job / "shared").mkdir()
    for module in tomllib.loads((job / "job.toml").read_text())["shared"]:
        shutil.copy(JOBS / "shared" / f"{module}.py", job / "shared")
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    for seed, (name, count) in enumerate((("train", 600), ("t10k", 600))):
        images, labels = drawn.draw_grey(count, seed=seed)
        np.random.default_rng(seed).shuffle(labels)
        head = bytes([0, 0, 8, 3]) + struct.pack(">3I", *images.shape)
        (folder / f"{name}-images-idx3-ubyte").write_bytes(head + images.tobytes())
        head = bytes([0, 0, 8, 1]) + struct.pack(">I", len(labels))
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(head + labels.astype(np.uint8).tobytes())
    arguments = ("--cells", "mnist-*0.001", "--schedule", "as_run", "--data", "real", "--epochs", "2")
    env = {"CLOUDRUN_DATA_DIR": str(tmp_path / "data")}
    code, said = run_job(*arguments, env=env, train=job / "train.py")
    assert code == 0, said
    assert [cell["data"] for cell in read_summary(tmp_path / "outputs")["cells"]] == [
        "MNIST (600 training, 600 test images)"
    ] * 2
    for cell in read_summary(tmp_path / "outputs")["cells"]:
        assert cell["val_acc"] < 0.16  # 0.1, and five standard errors of 600 images


def test_the_table_command_reads_finished_and_unfinished_runs(
    whole_grid: tuple[Path, str], tmp_path: Path
) -> None:
    (tmp_path / "part").mkdir()
    lines = (whole_grid[0] / "metrics.jsonl").read_text().splitlines()[:4]
    (tmp_path / "part" / "metrics.jsonl").write_text("\n".join(lines) + "\n")

    def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, JOB / "table.py", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    both = call(whole_grid[0], tmp_path / "part", "--figure", tmp_path / "again.png")
    assert both.stdout == (whole_grid[0] / "table.md").read_text(), both.stderr
    assert (tmp_path / "again.png").stat().st_size > 10_000
    assert call(tmp_path / "part", "--csv").stdout.count("mnist,whole,0,0.001,0.0001,as_written,0,2,") == 1
    refused = call(tmp_path)
    assert (refused.returncode, "Traceback" in refused.stderr) == (1, False)


def test_describe_prints_one_line_of_json(run_job: RunJob) -> None:
    code, said = run_job("--describe", "--cells", "mnist-0.001-bn", train=TRAIN)
    assert code == 0, said
    told = json.loads(said.splitlines()[-1])
    assert told["model"]["parameters"] == 1_631_306
    assert told["asked"] == {
        "batch": 64, "epochs": 9, "samples": 60_000, "evaluated": 10_000, "note": "one cell, mnist-0.001-bn"
    }  # fmt: skip


def test_a_slice_of_the_real_mnist_is_learned(run_job: RunJob, tmp_path: Path) -> None:
    script = Path(__file__).with_name("fetch_mnist.sh")
    fetched = subprocess.run([script], capture_output=True, text=True, timeout=120)
    if fetched.returncode == 3:
        pytest.skip(f"the real MNIST is missing: {fetched.stderr.strip()}")
    assert fetched.returncode == 0, fetched.stderr
    env = {"CLOUDRUN_DATA_DIR": fetched.stdout.strip()}
    small = ("--cells", "mnist-0.001", "mnist-fc-0.001", "--limit", "1000", "--epochs", "1")
    code, said = run_job(*small, "--data", "real", env=env, train=TRAIN)
    assert code == 0, said
    whole, fc = read_summary(tmp_path / "outputs")["cells"]
    assert whole["data"] == fc["data"] == "MNIST (1,000 training, 1,000 test images)"
    assert whole["val_acc"] > 0.6
    assert fc["val_acc"] > 0.6
    saved = torch.load(tmp_path / "outputs" / "checkpoint" / "checkpoint.pt")
    assert saved["place"] == 3
