"""The study as a process: its contract with cloudrun, exact resume, subsets that are part of each other."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path

from job_outputs import metric_lines, read_summary, stop_at
from job_paths import JOBS
from warm_job import WarmJob

JOB = JOBS / "sample_size"
TRAIN = JOB / "train.py"
RunJob = Callable[..., tuple[int, str]]
StartJob = Callable[..., WarmJob]


def test_smoke_preset_and_its_resume(start_job: StartJob, run_job: RunJob, tmp_path: Path) -> None:
    """All outputs, and the same lines through an interruption."""
    arguments = ("--preset", "smoke")
    code, said = run_job(*arguments, outputs="whole", train=TRAIN)
    assert code == 0, said
    outputs = tmp_path / "whole"
    assert (outputs / "table.md").read_text() in said
    assert "drawn digits, NOT MNIST (480 training, 480 test images)" in said
    content = (outputs / "curves.png").read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">2I", content[16:24]) > (1000, 400)
    lines = metric_lines(outputs)
    last = {line["images"]: line for line in lines if line["epoch"] == line["epochs"]}
    assert [last[images]["epochs"] for images in (60, 120, 240, 480)] == [4, 2, 2, 2]  # 16 steps at least
    assert last[480]["val_acc"] > 0.8 > last[60]["val_acc"]
    sizes = read_summary(outputs)["curves"][0]["sizes"]
    assert [size["val_acc"] for size in sizes] == [last[n]["val_acc"] for n in (60, 120, 240, 480)]

    said = stop_at("[2/4]", start_job(*arguments, outputs="first", train=TRAIN))
    assert re.search(r"saved in mnist/n240/seed0, epoch 1 after \d+ of 15 batches", said), said
    env = {"CLOUDRUN_RESUME_FROM": str(tmp_path / "first" / "checkpoint")}
    code, said = run_job(*arguments, outputs="second", env=env, train=TRAIN)
    assert code == 0, said
    assert metric_lines(tmp_path / "second") == lines


def test_a_second_set_with_the_same_stand_in_is_left_out(run_job: RunJob, tmp_path: Path) -> None:
    arguments = ("--preset", "smoke", "--sets", "mnist", "fashion", "--sizes", "60")
    code, said = run_job(*arguments, outputs="once", train=TRAIN)
    assert code == 0, said
    assert "fashion: left out, as its stand-in is that of mnist" in said
    assert {line["set"] for line in metric_lines(tmp_path / "once")} == {"mnist"}
    assert len(read_summary(tmp_path / "once")["curves"]) == 1


def test_more_images_than_there_are_is_refused(run_job: RunJob) -> None:
    code, said = run_job("--preset", "smoke", "--sizes", "100", "700", train=TRAIN)
    assert code == 1
    assert "700 images of mnist are wanted, 480 are there" in said
    assert "Traceback" not in said
