"""The job as a process: its contract with cloudrun, exact resume, and that it learns only what is there."""

from __future__ import annotations

import hashlib
import re
import shutil
import signal
import struct
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import render
import scipy.io
import torch
from job_outputs import metric_lines, read_summary, stop_at
from job_paths import JOBS, TRAIN
from waiting import until
from warm_job import WarmJob

RunJob = Callable[..., tuple[int, str]]
StartJob = Callable[..., WarmJob]
SMALL = ("--preset", "smoke", "--channels", "8", "--steps", "2")


def test_smoke_preset_leaves_all_outputs_and_names_its_data(run_job: RunJob, tmp_path: Path) -> None:
    code, said = run_job("--preset", "smoke")
    assert code == 0, said
    outputs = tmp_path / "outputs"
    summary = read_summary(outputs)
    lines = metric_lines(outputs)
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert summary["metrics"]["val_acc"] == lines[-1]["val_acc"] > 0.3
    assert summary["metrics"]["test_acc"] > 0.3
    assert summary["source_sha256"]["train.py"] == hashlib.sha256(TRAIN.read_bytes()).hexdigest()
    assert summary["machine"]["torch"] == torch.__version__
    assert "NOT SVHN" in summary["data"]
    assert "NOT SVHN" in said
    for picture in ("curves.png", "predictions.png"):
        content = (outputs / picture).read_bytes()
        assert content[:8] == b"\x89PNG\r\n\x1a\n"
        assert struct.unpack(">2I", content[16:24]) > (1000, 400)
    assert any(file.name.startswith("events.") for file in (outputs / "tensorboard").iterdir())
    assert not list(outputs.rglob("*.partial"))


def test_stopped_in_an_epoch_and_resumed_equals_uninterrupted(
    start_job: StartJob, run_job: RunJob, tmp_path: Path
) -> None:
    """Bit for bit: metrics of each epoch, the test set's, and every weight; with dropout on."""
    arguments = (*SMALL, "--dropout", "0.2")
    code, said = run_job(*arguments, outputs="whole")
    assert code == 0, said

    first = stop_at("epoch 1/3", start_job(*arguments, outputs="first"))
    assert re.search(r"saved in epoch 2 after [1-9]\d* of 67 batches", first)
    assert len(metric_lines(tmp_path / "first")) == 1
    from_first = {"CLOUDRUN_RESUME_FROM": str(tmp_path / "first" / "checkpoint")}
    stop_at("resumed  in epoch 2", start_job(*arguments, outputs="second", env=from_first))  # preempted again

    from_second = {"CLOUDRUN_RESUME_FROM": str(tmp_path / "second" / "checkpoint")}
    code, said = run_job(*arguments, outputs="third", env=from_second)
    assert code == 0, said
    assert "resumed  in epoch 2" in said
    assert metric_lines(tmp_path / "third") == metric_lines(tmp_path / "whole")
    assert read_summary(tmp_path / "third")["metrics"] == read_summary(tmp_path / "whole")["metrics"]
    third, whole = (
        torch.load(tmp_path / name / "checkpoint" / "checkpoint.pt") for name in ("third", "whole")
    )
    for name, tensor in third["model"].items():
        assert torch.equal(tensor, whole["model"][name]), name


def test_stopped_before_the_first_step_exits_75(start_job: StartJob, tmp_path: Path) -> None:
    """While it makes the data, which can take longer than the grace period."""
    env = {"CLOUDRUN_DATA_DIR": str(tmp_path / "new")}
    process = start_job("--dataset", "rendered", env=env)
    outputs = tmp_path / "outputs"  # made before the data
    until(lambda: outputs.exists() or process.poll() is not None, bool)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=100)
    assert process.returncode == 75, said
    assert "nothing was trained yet" in said


def test_a_checkpoint_of_other_settings_or_a_broken_one_is_refused(run_job: RunJob, tmp_path: Path) -> None:
    code, said = run_job(*SMALL, "--epochs", "1")
    assert code == 0, said
    folder = tmp_path / "outputs" / "checkpoint"
    resume = {"CLOUDRUN_RESUME_FROM": str(folder)}
    code, said = run_job(*SMALL, "--epochs", "1", "--lr", "0.5", outputs="other", env=resume)
    assert (code, "lr was 0.003, now 0.5" in said) == (1, True), said
    file = folder / "checkpoint.pt"
    file.write_bytes(file.read_bytes()[:-500])
    code, said = run_job(*SMALL, "--epochs", "1", outputs="other", env=resume)
    assert (code, "is broken" in said, "Traceback" in said) == (1, True, False), said


def test_shuffled_labels_stay_at_chance(run_job: RunJob, tmp_path: Path) -> None:
    """No way leads from an image's label to its answer but the image; through files laid out as SVHN's."""
    folder = tmp_path / "data" / "svhn"
    for seed, (name, count) in enumerate((("train", 1200), ("extra", 600), ("test", 500))):
        render.write_set(folder, name, count, hard=0.3)
        content = scipy.io.loadmat(folder / f"{name}_32x32.mat")
        np.random.default_rng(seed).shuffle(content["y"])
        scipy.io.savemat(folder / f"{name}_32x32.mat", {"X": content["X"], "y": content["y"]})
    env = {"CLOUDRUN_DATA_DIR": str(tmp_path / "data")}
    code, said = run_job(*SMALL, "--dataset", "svhn", "--limit", "0", env=env)
    assert code == 0, said
    summary = read_summary(tmp_path / "outputs")
    assert summary["data"].startswith("SVHN (1,620 train, 180 validation, 500 test)")
    assert summary["metrics"]["val_acc"] < 0.2  # ten equal classes
    assert summary["metrics"]["test_acc"] < 0.3  # "always 1" is right in 0.19


def test_the_bundle_layout_runs(run_job: RunJob, tmp_path: Path) -> None:
    """On one machine: shared/ inside the job's folder, nothing of ours beside it. With the slips of 2017."""
    job = tmp_path / "code"
    shutil.copytree(JOBS / "svhn_rcnn", job)
    (job / "shared").mkdir()
    for module in tomllib.loads((job / "job.toml").read_text())["shared"]:
        shutil.copy(JOBS / "shared" / f"{module}.py", job / "shared")
    code, said = run_job(*SMALL, "--epochs", "1", "--variant", "as_run", train=job / "train.py")
    assert code == 0, said
    assert read_summary(tmp_path / "outputs")["metrics"]["loss"] > 1.46


def test_a_slice_of_the_real_mnist_is_learned(run_job: RunJob, tmp_path: Path) -> None:
    script = Path(__file__).with_name("fetch_mnist.sh")
    fetched = subprocess.run([script], capture_output=True, text=True, timeout=120)
    if fetched.returncode == 3:
        pytest.skip(f"the real MNIST is missing: {fetched.stderr.strip()}")
    assert fetched.returncode == 0, fetched.stderr
    arguments = ("--preset", "mnist", "--limit", "2000", "--channels", "16", "--batch", "20", "--epochs", "3")
    code, said = run_job(*arguments, env={"CLOUDRUN_DATA_DIR": fetched.stdout.strip()})
    assert code == 0, said
    summary = read_summary(tmp_path / "outputs")
    assert "MNIST, padded to 32x32, three equal channels (1,800 train, 200 validation, 500 test)" in said
    assert summary["metrics"]["test_acc"] > 0.8
