"""The study's parts against closed forms: sizes, starting weights, both optimisers, shifts, plan, table."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from job_modules import modules_of
from shared import tables
from torch.nn.functional import cross_entropy

bn = modules_of("bn_study", "grid", "nets", "samples", "results", "table")


@pytest.mark.parametrize(
    ("data", "norm", "total", "running"),
    [
        ("mnist", False, 1_630_090, 0),
        ("mnist", True, 1_632_522, 1_216),
        ("cifar10", False, 1_667_594, 0),
        ("cifar10", True, 1_670_282, 1_344),
    ],
)
def test_parameter_counts_are_the_published_ones(data: str, norm: bool, total: int, running: int) -> None:
    """In closed form too: (F*F*in + 1) * out for a convolution, and four numbers a channel for BN."""
    widths = [1, 32, 64] if data == "mnist" else [3, 32, 64, 64]
    convolutions = sum((9 * w + 1) * after for w, after in itertools.pairwise(widths))
    dense = (7 * 7 * 64 + 1) * 512 + (512 + 1) * 10
    assert convolutions + dense + 4 * norm * (sum(widths[1:]) + 512) == total
    net = bn.nets.build(data, bn=norm, seed=0)
    assert sum(bn.nets.count_parameters(net)) == total
    assert bn.nets.count_parameters(net)[1] == running
    assert net(torch.zeros(2, *bn.nets.SHAPES[data])).shape == (2, 10)


def test_the_table_has_the_fourteen_published_rows() -> None:
    rows = bn.grid.ROWS
    assert len({row.name for row in rows}) == len(rows) == 14
    assert [row.name for row in bn.grid.choose_rows(["mnist-0.01*"])] == ["mnist-0.01", "mnist-0.01-bn"]
    published = {row.name: row.published for row in rows}
    assert published["mnist-0.01"] == (0.2219, 0.9352, 0.1436, 0.9582)
    assert published["cifar10-fc-0.0001-bn"] == (0.4751, 0.8418, 0.7227, 0.7636)
    with pytest.raises(ValueError, match=r"no cell is named mnist-1; there are mnist-0\.001, "):
        bn.grid.choose_rows(["mnist-1"])


def test_nets_of_a_pair_begin_with_the_same_glorot_weights() -> None:
    plain, normed = (bn.nets.build("cifar10", bn=norm, seed=3) for norm in (False, True))
    weights = [w for w in plain.parameters() if w.ndim > 1]
    for mine, other in zip(weights, (w for w in normed.parameters() if w.ndim > 1), strict=True):
        assert torch.equal(mine, other)
    for weight in weights:
        field = weight[0, 0].numel() if weight.ndim == 4 else 1
        limit = math.sqrt(6 / (field * (weight.shape[0] + weight.shape[1])))
        assert 0.95 * limit < float(weight.detach().abs().max()) <= limit
    assert all(not bias.detach().any() for name, bias in plain.named_parameters() if name.endswith("bias"))
    norms = [module for module in normed.modules() if "BatchNorm" in type(module).__name__]
    assert [(norm.num_features, norm.eps, norm.momentum) for norm in norms] == [
        (width, 1e-3, 0.01) for width in (32, 64, 64, 512)
    ]
    layers = [type(layer).__name__ for layer in normed.conv]
    assert all(layers[n - 1] == "ReLU" for n, name in enumerate(layers) if name == "BatchNorm2d")


@pytest.mark.parametrize("data", ["mnist", "cifar10"])
def test_optimisers_follow_the_formulas_of_keras(data: str) -> None:
    """Three steps of Keras 1.2.2's Adam and RMSprop, written out in double precision."""
    layer = torch.nn.Linear(3, 2)
    optimiser = bn.nets.make_optimiser(data, layer)
    weight = layer.weight.detach().double().numpy()
    first, second = np.zeros_like(weight), np.zeros_like(weight)
    for step in range(3):
        inputs = torch.tensor([[1e-7, 2.0 - step, -3.0]])
        bn.nets.set_rate(optimiser, 0.01, step)
        optimiser.zero_grad()
        layer(inputs).square().sum().backward()
        gradient = layer.weight.grad.double().numpy()
        optimiser.step()
        if data == "mnist":
            first = 0.9 * first + 0.1 * gradient
            second = 0.999 * second + 0.001 * gradient**2
            rate = 0.01 * math.sqrt(1 - 0.999 ** (step + 1)) / (1 - 0.9 ** (step + 1))
            weight = weight - rate * first / (np.sqrt(second) + 1e-8)
        else:
            second = 0.9 * second + 0.1 * gradient**2
            weight = weight - 0.01 / (1 + 1e-6 * step) * gradient / (np.sqrt(second) + 1e-8)
        assert layer.weight.detach().numpy() == pytest.approx(weight, rel=2e-5)
    bn.nets.set_rate(optimiser, 0.001, 78_150)
    expected = 0.001 if data == "mnist" else 0.001 / 1.07815
    assert optimiser.param_groups[0]["lr"] == pytest.approx(expected)


def test_images_move_by_a_tenth_at_most_and_repeat_their_edge() -> None:
    torch.manual_seed(0)
    places = torch.arange(32 * 32, dtype=torch.float32).reshape(1, 32, 32, 1)  # each pixel says where it was
    moved = bn.samples.shift_and_mirror(places, torch.zeros(400, dtype=torch.long))[..., 0]
    rows, columns = moved[:, :, 0] // 32, moved[:, 0] % 32
    down, seen = (rows[:, 16] - 16).long(), set()
    for image in range(400):
        line = columns[image].flip(0) if columns[image][31] < columns[image][0] else columns[image]
        right = int(line[16] - 16)
        assert torch.equal(line, (torch.arange(32) + right).clamp(0, 31))
        assert torch.equal(rows[image], (torch.arange(32) + down[image]).clamp(0, 31))
        seen.add((int(down[image]), right, bool(columns[image][31] < columns[image][0])))
    assert {move for move, _, _ in seen} == {move for _, move, _ in seen} == set(range(-3, 4))
    mirrored = sum(bool(columns[image][31] < columns[image][0]) for image in range(400))
    assert 150 < mirrored < 250


def test_a_batch_is_standardised_by_one_mean_and_deviation(tmp_path: Path) -> None:
    images = bn.samples.load("mnist", "drawn", tmp_path, limit=300)
    batch = images.batch(images.train, slice(None))
    assert batch.shape == (300, 1, 28, 28)
    assert float(batch.mean()) == pytest.approx(0, abs=1e-4)
    assert float(batch.std()) == pytest.approx(1, abs=1e-4)
    colours = bn.samples.load("cifar10", "drawn", tmp_path, limit=20)
    batch = colours.batch(colours.test, slice(0, 5))
    assert batch.shape == (5, 3, 32, 32)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    assert 0 <= float(batch.min()) < float(batch.max()) <= 1
    assert torch.equal(batch[3, 2], colours.test.images[3, :, :, 2] / 255)


def test_cells_share_their_trunk_and_features_come_last() -> None:
    grid = bn.grid
    both = [grid.AS_WRITTEN, grid.AS_RUN]
    stretches = grid.plan_stretches(grid.choose_rows(["mnist-*0.01-bn", "cifar10-*0.0001"]), both, [0, 1])
    names = [stretch.cell.name if stretch.cell else "trunk" for stretch in stretches]
    assert names[:8] == [
        "trunk", "mnist-0.01-bn/as_written/seed0", "mnist-0.01-bn/as_run/seed0",
        "mnist-fc-0.01-bn/as_written/seed0", "mnist-fc-0.01-bn/as_run/seed0",
        "trunk", "cifar10-0.0001/constant/seed0", "cifar10-fc-0.0001/constant/seed0",
    ]  # fmt: skip
    assert [name.replace("seed1", "seed0") for name in names[8:]] == names[:8]
    assert [stretch.rate for stretch in stretches[:5]] == [0.01, 0.001, 0.01, 0.001, 0.01]
    every = grid.plan_stretches(grid.choose_rows(["*"]), both, [0])
    assert sum(stretch.cell is not None for stretch in every) == 14 + 8  # MNIST rows twice
    assert sum(stretch.cell is None for stretch in every) == 8


def write_run(folder: Path, cells: dict[str, list[float | None]], data: str = "MNIST") -> Path:
    """A metrics.jsonl whose cells have these test accuracies, epoch by epoch."""
    folder.mkdir(parents=True, exist_ok=True)
    lines: list[object] = [{"about": {"data": {"mnist": data}}}]
    for cell, accuracies in cells.items():
        for epoch, accuracy in enumerate(accuracies, 1):
            figures = {"loss": 0.5, "acc": 0.9, "val_loss": 0.25, "val_acc": accuracy}
            lines.append({"cell": cell, "epoch": epoch, "epochs": 2, **figures, "timing": {"seconds": 1.0}})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_table_averages_seeds_and_pairs_them(tmp_path: Path) -> None:
    plain, normed = "mnist-0.01/as_run/seed", "mnist-0.01-bn/as_run/seed"
    first = write_run(tmp_path / "a", {f"{plain}0": [0.5, 0.95], f"{normed}0": [0.5, 0.97]})
    more = {f"{plain}1": [0.5, 0.96], f"{normed}1": [0.5, 0.97], f"{plain}2": [0.5, 0.97]}
    second = write_run(tmp_path / "b", {**more, "mnist-0.01/as_written/seed0": [0.5]})
    cells = bn.results.read([first, second])
    text = bn.table.markdown(cells)
    mean, half = tables.interval([0.95, 0.96, 0.97])
    assert (mean, half) == (pytest.approx(0.96), pytest.approx(4.3026527 * 0.01 / math.sqrt(3)))
    assert "| mnist (1) | whole | 0.01 | no | as_run | 3 | 0.5000 ± 0.0000 |" in text
    assert f"| 0.9600 ± {half:.4f} | 0.2219, 0.9352 | 0.1436, 0.9582 |" in text
    assert "as_written" not in text  # it is not done
    _, half = tables.interval([2.0, 1.0])
    assert f"| mnist, whole | 0.01 | as_run | 2 | +1.50 ± {half:.2f} | +2.95 |" in text
    rows = bn.table.as_csv(cells).splitlines()
    assert rows[0].startswith(
        "data,net,bn,rate,then,schedule,seed,epochs,loss,acc,val_loss,val_acc,published"
    )
    assert rows[1] == (
        "mnist,whole,0,0.01,0.01,as_run,0,2,0.50000,0.90000,0.25000,0.95000,0.2219,0.9352,0.1436,0.9582,MNIST"
    )
    assert len(rows) == 6


def test_a_stand_in_is_never_averaged_with_the_real_set(tmp_path: Path) -> None:
    cell = "mnist-0.001/as_written/seed"
    real = write_run(tmp_path / "a", {f"{cell}0": [0.5, 0.99]})
    drawn = write_run(tmp_path / "b", {f"{cell}1": [0.5, 0.8]}, data="drawn digits, NOT MNIST")
    text = bn.table.markdown(bn.results.read([real, drawn]))
    assert "| 0.9900 |" in text
    assert "| 0.8000 |" in text
    assert "(2) drawn digits, NOT MNIST" in text


def test_a_training_that_blew_up_is_shown_as_such(tmp_path: Path) -> None:
    cells = bn.results.read([write_run(tmp_path, {"mnist-0.01/as_run/seed0": [0.5, None]})])
    assert "| nan |" in bn.table.markdown(cells)


def test_a_trunk_counts_once_in_the_seconds(tmp_path: Path) -> None:
    trunk = {"epoch": 1, "loss": 0.5, "timing": {"seconds": 2.0}}
    after = {"epoch": 2, "loss": 0.4, "timing": {"seconds": 3.0}}
    lines = [{"cell": "a", **trunk}, {"cell": "b", **trunk}, {"cell": "a", **after}]
    assert bn.results.seconds_trained(lines) == 5.0


def test_another_jobs_outputs_are_refused(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"about": {"data": "MNIST"}}\n{"epoch": 1}\n')
    with pytest.raises(tables.ResultsError, match="holds no metrics of this job"):
        bn.results.read([tmp_path])


def test_features_of_frozen_convolutions_give_the_same_answer(tmp_path: Path) -> None:
    """What the head is fed is what the whole net would have made of the image."""
    learn = modules_of("bn_study", "learn").learn
    images = bn.samples.load("cifar10", "drawn", tmp_path, limit=12)
    net = bn.nets.build("cifar10", bn=True, seed=0)
    feed = learn.FeatureFeed(net, images, lambda: None)
    net.eval()
    whole = net(images.batch(images.test, slice(0, 12))).detach()
    trained_on = net(images.batch(images.train, slice(None))).detach()
    assert torch.allclose(net.head(feed.test(slice(0, 12))).detach(), whole, atol=1e-5)
    learner = learn.Learner("cifar10", net.head, feed)
    before = {name: value.clone() for name, value in net.conv.state_dict().items()}
    loss, _ = learner.train_batch(torch.arange(12), 0.001).tolist()  # of all 12 training images
    answers = net(images.batch(images.train, slice(None))).detach()
    assert learner.steps == 1
    assert loss / 12 == pytest.approx(float(cross_entropy(trained_on, images.train.labels)), rel=1e-4)
    assert not torch.allclose(answers, trained_on)  # the head has learned
    assert all(torch.equal(value, before[name]) for name, value in net.conv.state_dict().items())
