"""The networks against their published sizes, frozen stages, rates by stage, and weights from files."""

from __future__ import annotations

import importlib.metadata
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812  as all of torch calls it
from torch.utils.flop_counter import FlopCounterMode
from transfer_help import job

BUILDERS = job.options.BUILDERS


@pytest.mark.parametrize(
    ("name", "outputs", "published"),
    [
        # torchvision's and the package's parameter counts, with ImageNet's 1,000 outputs
        ("vgg16", 1000, 138_357_544),
        ("resnet18", 1000, 11_689_512),
        ("resnet34", 1000, 21_797_672),
        ("lite0", 1000, 4_652_008),
        # five published convolutions, then 256*7*7, 4096, 1024, 1
        ("alexnet", 1, 2_469_696 + (256 * 49 + 1) * 4096 + 4097 * 1024 + 1025),
    ],
)
def test_parameter_counts_are_the_published_ones(name: str, outputs: int, published: int) -> None:
    with torch.device("meta"):
        net = BUILDERS[name](outputs)
    assert sum(parameter.numel() for parameter in net.parameters()) == published


def test_names_are_those_of_published_files() -> None:
    with torch.device("meta"):
        keys = {name: BUILDERS[name](10).state_dict().keys() for name in ("alexnet", "vgg16", "resnet34")}
    assert {f"features.{n}.weight" for n in (0, 3, 6, 8, 10)} < keys["alexnet"]
    assert {f"features.{n}.bias" for n in (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)} < keys["vgg16"]
    assert {"classifier.0.weight", "classifier.3.weight", "classifier.6.weight"} < keys["vgg16"]
    assert {"conv1.weight", "bn1.running_var", "layer3.5.conv2.weight", "layer2.0.downsample.1.bias",
            "fc.bias"} < keys["resnet34"]  # fmt: skip


def test_alexnet_at_128_pixels_has_maps_of_7_by_the_closed_form() -> None:
    """(W - F + 2P) / S + 1 through conv1, pool, conv2, pool, conv3 to 5."""
    side = 128
    for window, stride, padding in ((11, 4, 2), (3, 2, 0), (5, 1, 2), (3, 2, 0), *[(3, 1, 1)] * 3):
        side = (side - window + 2 * padding) // stride + 1
    assert side == 7
    with torch.device("meta"):
        maps = BUILDERS["alexnet"](3)(torch.zeros(1, 3, 128, 128), 0, 5)
    assert maps.shape == (1, 256, 7, 7)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("side", [7, 8])
def test_same_padding_gives_ceil_and_puts_the_odd_pixel_last(side: int, kernel: int, stride: int) -> None:
    layer = job.lite0.SameConv2d(2, 3, kernel, stride).double()
    x = torch.randn(1, 2, side, side, dtype=torch.float64)
    found = layer(x)
    assert found.shape[2:] == (-(-side // stride),) * 2
    missing = max((found.shape[2] - 1) * stride + kernel - side, 0)
    padded = F.pad(x, (missing // 2, missing - missing // 2) * 2)
    torch.testing.assert_close(found, F.conv2d(padded, layer.weight, stride=stride))


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_every_dropout_and_norm_of_a_stage_hears_of_training(name: str) -> None:
    """Stages are put together on each call: a module made there would stay in training mode for ever."""
    with torch.device("meta"):
        net = BUILDERS[name](4).eval()
    leaves = [leaf for _, stage in net.stages() for leaf in stage.modules() if not list(leaf.children())]
    assert not [
        leaf for leaf in leaves if leaf.training and not isinstance(leaf, (nn.ReLU, nn.ReLU6, nn.Flatten))
    ]


def test_he_initialisation_and_equal_answers_at_the_start() -> None:
    torch.manual_seed(0)
    net = BUILDERS["small"](5)
    job.nets.initialise(net)
    weights = net.conv3[0].weight
    assert float(weights.detach().std()) == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.02)
    assert not net.fc.bias.any()
    with torch.no_grad():
        assert float(net.eval()(torch.randn(4, 3, 32, 32)).std()) < 1.0


def make_images(count: int = 40, *, score: bool = False) -> job.folder.ImageSet:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (count, 3, 32, 32), np.uint8)
    targets = random.random(count).astype(np.float32) if score else np.arange(count) % 3
    third = count // 4
    parts = {"train": np.arange(2 * third), "val": np.arange(2 * third, 3 * third),
             "test": np.arange(3 * third, count)}  # fmt: skip
    return job.folder.ImageSet("noise", () if score else ("a", "b", "c"), targets, parts, lambda side: pixels)


def make_learner(how: str, net: nn.Module | None = None, *, score: bool = False) -> job.learn.Learner:
    torch.manual_seed(0)
    images = make_images(score=score)
    net = net or BUILDERS["small"](images.outputs)
    arm = job.options.Arm(how, "small", 32)
    return job.learn.Learner(
        arm, net, images, images.parts["train"], augment=frozenset({"flips", "contrast"}), target_scale=10.0,
        device=torch.device("cpu"), precision=torch.float32,
    )  # fmt: skip


def backward_flops(learner: job.learn.Learner, *, hook: bool = False) -> int:
    picks = learner.picks[:8]
    handles = []
    if hook:  # the way of 2017: the gradient is computed, then multiplied by zero
        learner.freeze(0)
        handles = [p.register_hook(torch.zeros_like) for p in learner.net.conv1.parameters()]
    answers = learner.answer(picks)
    with FlopCounterMode(display=False) as counter:
        learner.loss(answers, learner.targets[picks]).backward()
    for handle in handles:
        handle.remove()
    return counter.get_total_flops()


def test_frozen_stages_cost_no_backward_pass() -> None:
    """Only the head's product remains: 2 * inputs * outputs for each image, for the weights alone."""
    head = 2 * 8 * (128 * 16) * 3
    frozen, whole = backward_flops(make_learner("frozen")), backward_flops(make_learner("finetune"))
    assert frozen == head
    assert whole > 100 * head
    assert backward_flops(make_learner("frozen"), hook=True) == whole  # a hook saves nothing


def test_frozen_stages_stay_bit_for_bit_and_the_head_learns() -> None:
    learner = make_learner("frozen")
    before = {name: value.clone() for name, value in learner.net.state_dict().items()}
    optimiser = learner.optimiser(0.01, 2.6)
    learner.train(True)
    for _ in range(3):
        learner.step(optimiser, learner.picks, 1e-2)
    changed = {
        name for name, value in learner.net.state_dict().items() if not torch.equal(value, before[name])
    }
    assert changed == {"fc.weight", "fc.bias"}  # no running mean among them


def test_features_once_are_what_the_frozen_stages_say() -> None:
    learner = make_learner("features")
    learner.train(False)
    with torch.no_grad():
        slow = learner.answer(learner.picks)
        learner.compute_features()
        torch.testing.assert_close(learner.answer(learner.picks), slow)
    assert learner.augment == frozenset()


def test_earlier_stages_learn_slower_and_only_when_finetuned() -> None:
    shares = {g["name"]: g["scale"] for g in make_learner("finetune").optimiser(0.01, 2.6).param_groups}
    assert shares == pytest.approx({"fc": 1.0, "conv3": 1 / 2.6, "conv2": 2.6**-2, "conv1": 2.6**-3})
    scratch = make_learner("scratch").optimiser(0.01, 2.6).param_groups
    assert {group["scale"] for group in scratch} == {1.0}
    assert [group["name"] for group in make_learner("frozen").optimiser(0.01, 2.6).param_groups] == ["fc"]


def test_thawing_a_stage_lets_it_learn_and_its_statistics_move() -> None:
    learner = make_learner("finetune")
    optimiser = learner.optimiser(0.01, 2.6)
    for first in (3, 2):
        learner.freeze(first)
        learner.train(True)
        before = {name: value.clone() for name, value in learner.net.state_dict().items()}
        learner.step(optimiser, learner.picks, 1e-2)
        state = learner.net.state_dict()
        changed = {name.split(".")[0] for name in state if not torch.equal(state[name], before[name])}
        assert changed == {"fc", "conv3"} - ({"conv3"} if first == 3 else set())


def test_a_score_starts_at_the_mean_and_counts_in_its_own_units() -> None:
    learner = make_learner("scratch", score=True)
    with torch.no_grad():
        learner.net.fc.weight.zero_()
    scores = learner.evaluate(learner.picks)
    targets = learner.targets[learner.picks]
    assert scores.score == pytest.approx(0.0, abs=1e-5)  # R² of answering the mean
    assert scores.error == pytest.approx(float((targets - targets.mean()).abs().mean()), rel=1e-4)
    assert scores.loss == pytest.approx(100 * float((targets - targets.mean()).square().mean()), rel=1e-4)


def test_the_mean_image_of_the_training_images_is_subtracted_from_scratch() -> None:
    learner = make_learner("scratch")
    mean = learner.pixels[learner.picks].mean(0)
    np.testing.assert_allclose(learner.mean[0].numpy(), mean, atol=1e-3)
    assert make_learner("finetune").mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])


def test_augmented_images_are_flipped_or_of_other_contrast_and_stay_in_range() -> None:
    torch.manual_seed(0)
    x = torch.rand(64, 3, 8, 8) * 255
    flipped = job.learn.augmented(x, frozenset({"flips"}))
    same = (flipped == x).flatten(1).all(1)
    mirrored = (flipped == x.flip(3)).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert 16 < int(mirrored.sum()) < 48
    changed = job.learn.augmented(x, frozenset({"contrast"}))
    assert 0 <= float(changed.min()) <= float(changed.max()) <= 255
    spread = changed.flatten(1).std(1) / x.flatten(1).std(1)
    assert float(spread.min()) < 0.9 < 1.1 < float(spread.max())
    assert job.learn.augmented(x, frozenset({"shifts"})).shape == x.shape


def test_the_finder_leaves_the_network_as_it_was_and_takes_a_rate_on_the_slope() -> None:
    learner = make_learner("scratch")
    before = {name: value.clone() for name, value in learner.net.state_dict().items()}
    rate, curve = job.finder.find(learner, lambda: learner.optimiser(0.0, 1.0), 8)
    assert all(torch.equal(value, before[name]) for name, value in learner.net.state_dict().items())
    lowest = min(curve, key=lambda point: point[1])[0]
    assert curve[0][0] < rate <= lowest
    rates = np.logspace(-6, 0, 61)
    bowl = [
        (float(r), 1.0 + abs(np.log10(r) + 2)) for r in rates
    ]  # lowest at 1e-2, half of the fall near 1e-4
    assert job.finder.suggest(bowl) == pytest.approx(1e-3, rel=0.4)


class Probe:
    """What a hostile weights file would run."""

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("ran"),))


def test_files_that_cannot_be_weights_are_refused_and_run_no_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hostile.pt").write_bytes(pickle.dumps({"conv1.weight": Probe()}, protocol=2))
    torch.save({"state_dict": {}}, tmp_path / "empty.pt")
    (tmp_path / "text.pth").write_text("no weights")
    np.savez(tmp_path / "objects.npz", a=np.array([Probe()], dtype=object))
    for name in ("hostile.pt", "empty.pt", "text.pth", "objects.npz", "missing.pt"):
        with pytest.raises(job.weights.WeightsError, match=name):
            job.weights.read(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_every_tensor_is_reported_copied_or_with_its_reason() -> None:
    torch.manual_seed(1)
    source, net = BUILDERS["small"](7), BUILDERS["small"](3)
    state = source.state_dict()
    state["conv2.0.weight"] = torch.zeros(5, 5)
    del state["conv3.1.bias"]
    state["extra"] = torch.zeros(2)
    report = job.weights.copy_into(net, state)
    assert torch.equal(net.conv1[0].weight, source.conv1[0].weight)
    assert "conv1.0.weight" in report.copied
    assert report.skipped == {
        "conv2.0.weight": "shape (5, 5) in the file, (64, 32, 3, 3) in the network",
        "conv3.1.bias": "the file has no such name",
        "fc.weight": "part of the new head",
        "fc.bias": "part of the new head",
    }
    assert report.unused["extra"] == "2; the network has no such name"
    assert len(report.copied) + len(report.skipped) == len(net.state_dict())
    assert all(name in "\n".join(report.lines()) for name in (*report.skipped, *report.unused))


def test_nothing_copied_is_refused_with_the_reasons() -> None:
    with pytest.raises(
        job.weights.WeightsError, match=r"(?s)no weight of the file fits.*conv1\.0\.weight: the file"
    ):
        job.weights.copy_into(BUILDERS["small"](3), BUILDERS["lite0"](3).state_dict())


def test_a_shape_that_is_not_known_yet_is_a_reason_and_no_silence() -> None:
    net = BUILDERS["small"](3)
    net.conv2[0] = nn.LazyConv2d(64, 3, padding=1, bias=False)
    report = job.weights.copy_into(net, BUILDERS["small"](3).state_dict())
    assert "not known yet" in report.skipped["conv2.0.weight"]


def test_wrapped_and_chainer_files_are_read(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "state_dict": {"module.conv1.weight": torch.ones(2)}}, tmp_path / "a.pt")
    assert list(job.weights.read(tmp_path / "a.pt")) == ["conv1.weight"]
    np.savez(tmp_path / "b.npz", **{"conv1/W": np.ones((2, 3)), "conv1/b": np.zeros(2)})
    assert {name: tuple(value.shape) for name, value in job.weights.read(tmp_path / "b.npz").items()} == {
        "conv1.weight": (2, 3),
        "conv1.bias": (2,),
    }


def test_the_pretrained_lite0_knows_its_own_file() -> None:
    try:
        importlib.metadata.version(job.weights.LITE0_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"the package {job.weights.LITE0_PACKAGE} is missing")
    found = job.weights.read(job.weights.find_lite0())
    job.lite0.Lite0(1000).load_state_dict(found, strict=True)
    report = job.weights.copy_into(job.lite0.Lite0(9), found)
    assert set(report.skipped) == set(report.unused) == {"_fc.weight", "_fc.bias"}
