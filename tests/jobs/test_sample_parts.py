"""The power law against known laws, the table against numbers done by hand, the net against its count."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from job_modules import modules_of

study = modules_of("sample_size", "fit", "net", "results", "table")
SIZES = (1_000, 3_000, 5_000, 10_000, 60_000)


def points_of(
    a: float, b: float, c: float, *, relative: float = 0.01, seed: int | None = None
) -> list[object]:
    """Errors of a law, each with a deviation of so much of it; scattered by that where there is a seed."""
    random = np.random.default_rng(seed)
    found = []
    for images in SIZES:
        error = a * (images / 1000) ** -b + c
        scatter = random.normal(0, relative * error) if seed is not None else 0.0
        found.append(study.fit.Point(images, error + scatter, relative * error))
    return found


@pytest.mark.parametrize(("a", "b", "c"), [(0.05, 0.5, 0.0), (0.2, 0.3, 0.0), (0.15, 0.8, 0.05)])
def test_a_known_law_is_found(a: float, b: float, c: float) -> None:
    law = study.fit.fit(points_of(a, b, c))
    assert law.has_floor == (c > 0)
    assert law.values == pytest.approx((a, b, c), rel=1e-3, abs=1e-6)
    assert law.error(SIZES[-1]) == pytest.approx(points_of(a, b, c)[-1].error, rel=1e-4)


def test_the_covariance_says_how_far_off_it_is() -> None:
    """Of 200 scattered curves the true parameters lie within two standard errors in about 95 of 100."""
    within = 0
    for seed in range(200):
        law = study.fit.fit(points_of(0.05, 0.5, 0.0, relative=0.03, seed=seed))
        if law.has_floor:
            continue  # a floor that is not there, found in one of twenty
        within += abs(law.values[1] - 0.5) < 2 * math.sqrt(law.covariance[1, 1])
    assert 0.82 * 200 < within <= 200


@pytest.mark.parametrize("c", [0.0, 0.05])
def test_what_the_next_point_costs(c: float) -> None:
    """In closed form: the new n is where the law has one point less than with the most images."""
    law = study.fit.fit(points_of(0.2, 0.5, c, relative=0.002))
    following = study.fit.next_point(law, 60_000)
    assert following.gain == 0.01
    wanted = 1000 * ((60**-0.5) - 0.01 / 0.2) ** (-1 / 0.5)
    assert following.wanted == pytest.approx(wanted, rel=0.02)
    assert law.error(following.wanted) == pytest.approx(following.error - 0.01, rel=1e-6)
    assert 60_000 <= following.low < following.wanted < following.high
    assert "takes about 160,000, 100,000 more (95 %: " in str(following)


def test_the_interval_is_that_of_laws_from_scattered_points() -> None:
    """Its width against the spread over 200 curves that differ by chance alone."""
    wanted = []
    for seed in range(200):
        law = study.fit._fit(points_of(0.2, 0.5, 0.0, relative=0.02, seed=seed), floor=False)
        wanted.append(math.log(study.fit.next_point(law, 60_000).wanted))
    one = study.fit.next_point(study.fit._fit(points_of(0.2, 0.5, 0.0, relative=0.02), floor=False), 60_000)
    half = math.log(one.high / one.low) / 2
    assert half == pytest.approx(1.96 * float(np.std(wanted)), rel=0.25)


def test_a_small_error_asks_for_a_tenth_and_a_floor_for_nothing() -> None:
    following = study.fit.next_point(study.fit.fit(points_of(0.05, 0.5, 0.0)), 60_000)
    assert following.gain == 0.001
    assert "0.1 points less takes about" in str(following)
    near = study.fit.next_point(study.fit.fit(points_of(0.05, 1.5, 0.1, relative=0.001)), 60_000)
    assert not math.isfinite(near.wanted)
    assert str(near).endswith("is out of its reach with any number of images.")


def test_too_few_points_are_no_law() -> None:
    with pytest.raises(ValueError, match="3 numbers of images are too few"):
        study.fit.fit(points_of(0.05, 0.5, 0.0)[:3])


def write_run(folder: Path, seeds: dict[int, dict[int, float]], data: str = "MNIST (60,000)") -> Path:
    """A metrics.jsonl with two reports a training, the last one with these accuracies."""
    folder.mkdir(parents=True, exist_ok=True)
    lines: list[object] = [{"about": {"data": {"mnist": data}, "test_images": {"mnist": 10_000}}}]
    for seed, accuracies in seeds.items():
        for images, accuracy in accuracies.items():
            shared = {"set": "mnist", "images": images, "seed": seed, "epochs": 2, "loss": 0.5, "acc": 0.9}
            lines.append({**shared, "epoch": 1, "val_loss": 0.7, "val_acc": 0.1})
            lines.append({**shared, "epoch": 2, "val_loss": 0.25, "val_acc": accuracy})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_table_averages_seeds_of_all_runs(tmp_path: Path) -> None:
    accuracies = {images: 1 - 0.05 * (images / 1000) ** -0.5 for images in SIZES}
    first = write_run(tmp_path / "a", {0: accuracies})
    second = write_run(tmp_path / "b", {1: {images: value + 0.002 for images, value in accuracies.items()}})
    curves = study.results.read([first, second, second])
    assert [len(size.cells) for size in curves[0].sizes] == [2] * 5
    half = 12.7062047 * 0.002 / math.sqrt(2) / math.sqrt(2)
    assert curves[0].sizes[0].half_width == pytest.approx(half)
    text = study.table.markdown(curves)
    assert f"| 1,000 | 95.10% ± {half:.2%} | 2 |" in text
    assert "- (1) MNIST (60,000). error = 0.04" in text
    assert len(study.table.as_csv(curves).splitlines()) == 1 + 10
    deviation = max(0.002 / math.sqrt(2), math.sqrt(0.049 * 0.951 / 10_000)) / math.sqrt(2)
    assert curves[0].points()[0].deviation == pytest.approx(deviation)


def test_stand_in_and_real_set_are_two_curves(tmp_path: Path) -> None:
    real = write_run(tmp_path / "a", {0: dict.fromkeys(SIZES, 0.9)})
    drawn = write_run(tmp_path / "b", {0: {1_000: 0.8}}, data="drawn digits, NOT MNIST")
    text = study.table.markdown(study.results.read([real, drawn]))
    assert "| 1,000 | 90.00% | 80.00% | 1 |" in text
    assert "(2) drawn digits, NOT MNIST. No law: 1 numbers of images are too few" in text


def test_net_has_the_size_of_its_closed_form() -> None:
    for channels, side in ((1, 28), (3, 32)):
        net = study.net.Net(channels, side)
        count = study.net.count_parameters(channels, side)
        assert sum(weight.numel() for weight in net.parameters()) == count
        assert net(torch.zeros(2, channels, side, side)).shape == (2, 10)
