"""The job as a process: outputs, exact resume in a row of cells, shuffled labels, refusals; and its table."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
import struct
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from job_outputs import metric_lines, read_summary, stop_at
from job_paths import JOBS
from scipy import stats
from transfer_help import TRAIN_TRANSFER, job, write_classes, write_image, write_table
from warm_job import WarmJob

RunJob = Callable[..., tuple[int, str]]
StartJob = Callable[..., WarmJob]
SHORT = ("--batch", "16", "--lr", "0.003")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_classes(tmp_path / "photos", 60)


@pytest.fixture
def weights_file(tmp_path: Path) -> Path:
    """Of the small network, with a head for other classes: so nothing is fetched."""
    torch.manual_seed(0)
    torch.save(job.options.BUILDERS["small"](5).state_dict(), tmp_path / "pretrained.pt")
    return tmp_path / "pretrained.pt"


def test_smoke_preset_leaves_all_outputs_and_names_its_data(run_job: RunJob, tmp_path: Path) -> None:
    code, said = run_job("--preset", "smoke", train=TRAIN_TRANSFER)
    assert code == 0, said
    outputs = tmp_path / "outputs"
    summary, lines = read_summary(outputs), metric_lines(outputs)
    assert [line["epoch"] for line in lines] == [1, 2]
    assert "NOT photographs" in summary["data"]
    assert "NOT photographs" in (outputs / "results.md").read_text()
    (result,) = summary["results"]
    assert result["arm"] == "scratch:small@32"
    assert summary["metrics"]["test_score"] == result["test_score"]
    for picture in ("curves.png", "answers-scratch-small-32.png", "confusion-scratch-small-32.png"):
        content = (outputs / picture).read_bytes()
        assert content[:8] == b"\x89PNG\r\n\x1a\n"
        assert min(struct.unpack(">2I", content[16:24])) > 400
    assert not list(outputs.rglob("*.partial"))


def test_a_folder_given_as_data_is_used_whatever_the_preset_says(run_job: RunJob, tmp_path: Path) -> None:
    given = tmp_path / "given"
    write_classes(given / "horses", 40)
    env = {"CLOUDRUN_DATA_DIR": str(given), "CLOUDRUN_DATA_NAMES": "mnist:horses"}
    code, said = run_job("--preset", "smoke", train=TRAIN_TRANSFER, env=env)
    assert code == 0, said
    assert "horses" in read_summary(tmp_path / "outputs")["data"]
    several = {**env, "CLOUDRUN_DATA_NAMES": "horses:ponies"}
    code, said = run_job("--preset", "smoke", train=TRAIN_TRANSFER, env=several)
    assert code == 1
    assert "--images NAME" in said


def test_stopped_and_resumed_equals_uninterrupted_over_cells(
    start_job: StartJob, run_job: RunJob, tmp_path: Path, photos: Path,
    weights_file: Path,
) -> None:  # fmt: skip
    """Bit for bit, with dropout and flips on: rates found, every epoch of every cell, every result."""
    arguments = (
        *("--images", str(photos), "--weights", str(weights_file), "--batch", "16", "--unfreeze-every", "2"),
        *("--arms", "features:small@32,scratch:small@32,finetune:small@32", "--epochs", "3"),
    )
    code, said = run_job(*arguments, outputs="whole", train=TRAIN_TRANSFER)
    assert code == 0, said
    assert "warning  features are computed once" in said
    assert "not copied  fc.weight: part of the new head" in said

    first = stop_at("finder   scratch", start_job(*arguments, outputs="first", train=TRAIN_TRANSFER))
    assert re.search(r"saved in cell [23] of 3, in epoch", first), first
    resume = {"CLOUDRUN_RESUME_FROM": str(tmp_path / "first" / "checkpoint")}
    code, said = run_job(*arguments, outputs="second", env=resume, train=TRAIN_TRANSFER)
    assert code == 0, said
    assert re.search(r"resumed  [12] of 3 cells are done", said)
    assert metric_lines(tmp_path / "second") == metric_lines(tmp_path / "whole")
    second, whole = (read_summary(tmp_path / name) for name in ("second", "whole"))
    assert second["rates"] == whole["rates"]
    assert [{**result, "timing": 0} for result in second["results"]] == [
        {**result, "timing": 0} for result in whole["results"]
    ]


def test_shuffled_labels_stay_at_chance(run_job: RunJob, tmp_path: Path) -> None:
    """Red and blue images in folders that have nothing to do with their colour."""
    for number in range(160):
        colour = (200, 40, 40) if number % 2 else (40, 40, 200)
        write_image(tmp_path / "mixed" / f"class{number // 2 % 2}" / f"{number:03d}.png", colour, noise=60)
    code, said = run_job(
        "--images", str(tmp_path / "mixed"), "--arms", "scratch:small@32", "--epochs", "4", *SHORT,
        train=TRAIN_TRANSFER,
    )  # fmt: skip
    assert code == 0, said
    assert 0.2 < read_summary(tmp_path / "outputs")["metrics"]["test_score"] < 0.8


def test_a_score_from_a_table_is_learned_and_drawn(run_job: RunJob, tmp_path: Path) -> None:
    """How bright an image is, split by year; in the layout of a bundle, as on a machine."""
    lines = ["file,target,year,big"]
    for number in range(160):
        value = (number * 37) % 160
        write_image(tmp_path / "grey" / f"{number}.png", (40 + value,) * 3, noise=10)
        lines.append(f"{number}.png,{value / 159:.3f},{2010 + number % 5},{number % 2}")
    bundle = tmp_path / "code"
    shutil.copytree(JOBS / "transfer_learning", bundle)
    (bundle / "shared").mkdir()
    for module in tomllib.loads((bundle / "job.toml").read_text())["shared"]:
        shutil.copy(JOBS / "shared" / f"{module}.py", bundle / "shared")
    folder = str(write_table(tmp_path / "grey", lines))
    by_year = ("--split-column", "year", "--split-value", "2014", "--test-column", "big")
    code, said = run_job(
        "--images", folder, *by_year, "--arms", "scratch:small@32", "--augment", "flips", "--epochs", "10",
        *SHORT, train=bundle / "train.py",
    )  # fmt: skip
    assert code == 0, said
    assert "a score (128 train, 16 validation, 16 test)" in said
    assert read_summary(tmp_path / "outputs")["metrics"]["test_score"] > 0.8
    assert (tmp_path / "outputs" / "scores-scratch-small-32.png").stat().st_size > 10_000
    with (tmp_path / "outputs" / "results.csv").open() as stream:
        assert float(next(csv.DictReader(stream))["test_error"]) < 0.15


def test_a_pretrained_arm_without_weights_is_refused_without_a_traceback(
    run_job: RunJob, photos: Path
) -> None:
    code, said = run_job("--images", str(photos), "--arms", "frozen:alexnet@128", train=TRAIN_TRANSFER)
    assert (code, "give --weights FILE" in said, "Traceback" in said) == (1, True, False), said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--arms", "melted"), "is not HOW:NET@SIDE"),
        (("--arms", "scratch:small@5000"), "expected 16 to 1024"),
        (("--arms", "scratch,scratch:lite0@96"), "names an arm twice"),
        (("--sizes", "-3"), "below 0"),
        (("--lr", "0"), "not between 0 and 100"),
        (("--augment", "flips,dreams"), "dreams is not one of"),
        (("--split-column", "year"), "belong together"),
    ],
)
def test_arguments_that_say_nothing_sensible_end_with_2(
    arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        job.options.parse(list(arguments), "text")
    assert words in capsys.readouterr().err


def test_describe_prints_what_the_first_arm_takes(run_job: RunJob) -> None:
    code, said = run_job("--preset", "smoke", "--describe", train=TRAIN_TRANSFER)
    assert code == 0, said
    described = json.loads(said.splitlines()[-1])
    assert described["model"]["parameters"] == sum(
        p.numel() for p in job.options.BUILDERS["small"](6).parameters()
    )
    assert (described["asked"]["samples"], described["asked"]["evaluated"]) == (300, 150)  # as --limit says


def result(arm: str, images: int, seed: int, score: float) -> dict[str, object]:
    return {"arm": arm, "images": images, "seed": seed, "test_score": score}


def test_intervals_are_students_and_a_difference_is_taken_seed_by_seed() -> None:
    mean, half = job.outcome.interval([0.5, 0.6, 0.7])
    assert (mean, half) == pytest.approx((0.6, stats.t.ppf(0.975, 2) * 0.1 / math.sqrt(3)))
    assert math.isnan(job.outcome.interval([0.5, 0.5])[1])
    images = job.folder.ImageSet("x", ("a", "b"), np.zeros(1), {}, lambda side: None)
    results = [result("frozen:a@1", 50, seed, 0.5 + seed / 10) for seed in range(3)]
    results += [result("scratch:b@2", 50, seed, 0.4 + seed / 10 + seed / 1000) for seed in range(3)]
    results += [
        result(arm, 900, seed, 0.6 + seed / 10) for arm in ("frozen:a@1", "scratch:b@2") for seed in range(3)
    ]
    table = job.outcome.table(images, results)
    assert "**frozen**" in table.splitlines()[-2]  # seeds differ by 0.1, the arms by 0.1 at every seed
    assert "not decided" in table.splitlines()[-1]
