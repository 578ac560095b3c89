"""jobs/shared/describe.py: what it measures equals what can be counted by hand."""

from __future__ import annotations

import json

import pytest
import torch
from shared import describe
from torch import nn
from torch.nn import functional as F  # noqa: N812  as all of torch calls it
from torch.utils.flop_counter import FlopCounterMode

from cloudrun.arithmetic import activation_bytes, conv_flops, conv_parameters, output_side


class Two(nn.Module):
    """One convolution that is used twice, and functions between the layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 5, padding=2)
        self.again = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.unused = nn.Linear(4, 4)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.last = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.first(x))
        x = self.again(self.again(x))
        return self.last(self.pool(x).mean((2, 3)))


@pytest.fixture(scope="module")
def facts() -> dict[str, object]:
    return describe.describe(Two(), (3, 16, 16))


def row(facts: dict[str, object], name: str) -> dict[str, object]:
    (found,) = [layer for layer in facts["layers"] if layer["name"] == name]
    return found


def test_a_convolution_by_hand(facts: dict[str, object]) -> None:
    first = row(facts, "first")
    assert (first["kind"], first["input"], first["output"]) == ("Conv2d", [3, 16, 16], [8, 16, 16])
    assert first["window"] == {"kernel": [5, 5], "stride": [1, 1], "padding": [2, 2], "dilation": [1, 1]}
    assert first["parameters"] == first["trainable"] == conv_parameters(5, 3, 8)
    assert first["forward_flops"] == conv_flops(5, 3, 8, 16)
    assert first["backward_flops"] == conv_flops(5, 3, 8, 16)  # nothing is wanted of the images
    assert first["output_bytes"] == activation_bytes([8, 16, 16])
    assert first["saved_bytes"] == activation_bytes([3, 16, 16])


def test_a_layer_used_twice_counts_twice_but_its_weights_once(facts: dict[str, object]) -> None:
    again = row(facts, "again")
    once = conv_flops(3, 8, 8, 16)
    assert (again["calls"], again["parameters"]) == (2, conv_parameters(3, 8, 8, bias=False))
    assert (again["forward_flops"], again["backward_flops"]) == (2 * once, 4 * once)


def test_the_pool_and_what_stands_between(facts: dict[str, object]) -> None:
    assert row(facts, "pool")["output"] == [8, output_side(16, 3, padding=1, stride=2)] * 1 + [8]
    assert row(facts, "unused")["calls"] == 0
    relu_and_its_input = row(facts, describe.BETWEEN)
    assert relu_and_its_input["saved_bytes"] >= activation_bytes([8, 16, 16]) // 4


def test_totals_are_torchs_own(facts: dict[str, object]) -> None:
    model, image = Two(), torch.rand(1, 3, 16, 16)
    with FlopCounterMode(display=False) as counter:
        answer = model(image)
    assert facts["forward_flops"] == counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        answer.sum().backward()
    assert facts["backward_flops"] == counter.get_total_flops()
    assert facts["parameters"] == sum(weight.numel() for weight in model.parameters())
    for name in ("forward_flops", "backward_flops", "saved_bytes"):
        assert facts[name] == sum(layer[name] for layer in facts["layers"])


def test_what_autograd_keeps_is_measured_in_bytes() -> None:
    """Three linear layers keep their inputs, float32, and nothing else."""
    facts = describe.describe(nn.Sequential(nn.Linear(7, 11), nn.Linear(11, 13), nn.Linear(13, 2)), (7,))
    assert facts["saved_bytes"] == 4 * (7 + 11 + 13)
    weights = 7 * 11 + 11 + 11 * 13 + 13 + 13 * 2 + 2
    assert facts["state_bytes"] == 4 * weights * 4  # weights, gradients, two values of Adam
    assert describe.describe(nn.Linear(7, 11), (7,), optimizer_slots=0)["state_bytes"] == 4 * 88 * 2


def test_what_two_layers_keep_is_kept_once() -> None:
    class Fork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.left, self.right = nn.Linear(7, 7), nn.Linear(7, 3), nn.Linear(7, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x)
            return self.left(x) + self.right(x)

    assert describe.describe(Fork(), (7,))["saved_bytes"] == 4 * (7 + 7)


def test_frozen_layers_cost_no_gradient() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(4 * 4 * 4, 2))
    for layer in list(model)[:2]:
        layer.requires_grad_(requires_grad=False)
    facts = describe.describe(model, (3, 8, 8))
    assert [layer["backward_flops"] for layer in facts["layers"]][:2] == [0, 0]
    assert facts["backward_flops"] == facts["layers"][-1]["forward_flops"]
    assert facts["trainable"] == 4 * 4 * 4 * 2 + 2


@pytest.mark.parametrize(
    ("layer", "shape", "output", "windowed"),
    [
        (nn.Conv1d(2, 3, 4, stride=2), (2, 10), [3, 4], True),
        (nn.Conv3d(1, 2, 3), (1, 5, 6, 7), [2, 3, 4, 5], True),
        (nn.Conv2d(1, 1, 3, dilation=2), (1, 9, 9), [1, 5, 5], True),
        (nn.Conv2d(1, 1, 3, padding="same"), (1, 9, 9), [1, 9, 9], False),
        (nn.ConvTranspose2d(1, 1, 2, stride=2), (1, 4, 4), [1, 8, 8], False),
        (nn.AdaptiveAvgPool2d(2), (3, 9, 9), [3, 2, 2], False),
        (nn.AvgPool2d(2), (3, 9, 9), [3, 4, 4], True),
        (nn.Unfold(3), (1, 5, 5), [9, 9], False),
        (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (5, 8), [5, 8], False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_module(layer: nn.Module, shape: tuple[int, ...], output: list[int], windowed: bool) -> None:
    if not list(layer.parameters()):
        layer = nn.Sequential(nn.Identity(), layer, nn.Flatten(), nn.LazyLinear(1))
        layer(torch.rand(2, *shape))
    facts = describe.describe(layer, shape)
    layers = [found for found in facts["layers"] if found["output"] == output]
    assert layers
    assert any(found["window"] for found in layers) is windowed
    for found in layers:
        if found["window"]:
            sides = [
                output_side(found["input"][1 + way], found["window"]["kernel"][way], **{
                    name: found["window"][name][way] for name in ("stride", "padding", "dilation")
                })
                for way in range(len(output) - 1)
            ]  # fmt: skip
            assert sides == output[1:]


def test_neither_the_model_nor_the_random_state_changes() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5)).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    describe.describe(model, (1, 8, 8))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.training
    assert all(weight.grad is None for weight in model.parameters())


def test_timing_and_the_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    model = nn.Linear(8, 8)
    sizes: list[int] = []

    def step(count: int) -> None:
        sizes.append(count)
        model(torch.rand(count, 8)).sum().backward()

    timing = describe.time_steps(step, batch=24, device=torch.device("cpu"))
    assert (timing["steps"], timing["batch"], timing["device"]) == (20, 24, "cpu")
    assert sizes[-23:] == [24] * 23
    assert 0 < timing["fastest_s"] <= timing["step_s"]
    assert timing["peak_flops"] > 1e8
    assert timing["bytes_per_s"] > 1e7
    describe.print_report(describe.describe(model, (8,)), timing=timing, batch=24, epochs=3, samples=100)
    report = json.loads(capsys.readouterr().out)
    assert report["asked"] == {"batch": 24, "epochs": 3, "samples": 100, "evaluated": 0, "note": ""}
    assert report["timing"] == timing


def test_slow_steps_are_timed_with_fewer_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def step(count: int) -> None:
        now[0] += 0.1 * count

    assert describe._affordable(step, 1024, torch.device("cpu")) == 8
    assert describe._affordable(step, 5, torch.device("cpu")) == 5
