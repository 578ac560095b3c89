"""The network against closed forms and against its definition unrolled by hand."""

from __future__ import annotations

import pytest
import rcnn
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812  as all of torch calls it
from torch.utils.flop_counter import FlopCounterMode

IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("channels", "steps"), [(8, 2), (32, 4), (128, 4)])
@pytest.mark.parametrize("as_run", [False, True])
@pytest.mark.parametrize("norm", ["batch", "local"])
def test_parameter_count_is_the_closed_form(channels: int, steps: int, norm: str, as_run: bool) -> None:
    model = rcnn.RCNN(channels, steps, 0.1, norm=norm, as_run=as_run)
    counted = sum(parameter.numel() for parameter in model.parameters())
    assert counted == rcnn.count_parameters(channels, steps, norm=norm, as_run=as_run)


def test_maps_have_the_sizes_of_the_closed_form_and_layers_its_parameters() -> None:
    """(W - F + 2P) / S + 1 for every convolution and pool; (F * F * in + 1) * out for the convolutions."""
    seen: list[tuple[nn.Module, torch.Size, torch.Size]] = []
    model = rcnn.RCNN(8, 3, 0.0).eval()
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.MaxPool2d)):
            module.register_forward_hook(lambda layer, x, y: seen.append((layer, x[0].shape, y.shape)))
    with torch.no_grad():
        model(IMAGES)
    assert len(seen) == 1 + 2 + 4 * 3
    for layer, before, after in seen:
        window, stride, padding = (
            value[0] if isinstance(value, tuple) else value
            for value in (layer.kernel_size, layer.stride, layer.padding)
        )
        assert after[2:] == ((before[2] - window + 2 * padding) // stride + 1,) * 2
        if isinstance(layer, nn.Conv2d):
            counted = sum(parameter.numel() for parameter in layer.parameters())
            bias = 0 if layer.bias is None else 1
            assert counted == (window * window * before[1] + bias) * after[1]


def test_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(0)
    layer = rcnn.RCL(3, 3, "local").double()
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: layer(x).sum((2, 3)), x)


def test_local_response_normalisation_is_the_formula_of_the_paper() -> None:
    """f / (1 + alpha / N * sum of f^2 over N neighbouring maps) ^ beta, with N = K / 8 + 1."""
    maps = torch.rand(2, 16, 4, 4, dtype=torch.float64)
    found = rcnn.make_norm("local", 16)(maps)
    for k in range(16):
        neighbours = maps[:, max(0, k - 1) : k + 2].square().sum(1)  # N = 3
        torch.testing.assert_close(found[:, k], maps[:, k] / (1 + 1e-3 / 3 * neighbours) ** 0.75)


def test_parameters_of_the_quick_preset_by_hand() -> None:
    first = 5 * 5 * 3 * 32 + 32 + 2 * 32
    layer = 2 * 3 * 3 * 32 * 32 + 32 + 3 * 2 * 32
    assert rcnn.count_parameters(32, 4) == first + 4 * layer + 33 * 10 == 77_450


@pytest.mark.parametrize(("channels", "hoisted", "naive"), [(32, 52.1, 87.5), (128, 775, 1341)])
def test_operations_per_image(channels: int, hoisted: float, naive: float) -> None:
    """The counts by torch, and the figures measured for the naive network, in millions."""
    model = rcnn.RCNN(channels, 4, 0.0).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(IMAGES[:1])
    assert counter.get_total_flops() == rcnn.count_flops(channels, 4)
    assert rcnn.count_flops(channels, 4) / 1e6 == pytest.approx(hoisted, rel=2e-3)
    assert rcnn.count_flops(channels, 4, hoisted=False) / 1e6 == pytest.approx(naive, rel=2e-3)


@pytest.mark.parametrize("steps", [2, 4])
def test_hoisted_layer_equals_the_definition_unrolled(steps: int) -> None:
    torch.manual_seed(3)
    layer = rcnn.RCL(6, steps).double()
    for norm in layer.norms:
        torch.nn.init.normal_(norm.weight)
    x = torch.randn(5, 6, 9, 9, dtype=torch.float64, requires_grad=True)
    ours = layer(x)
    gradients = torch.autograd.grad(ours.square().sum(), [x, *layer.parameters()])

    r = F.conv2d(x, layer.ff.weight, layer.ff.bias, padding=1)
    for norm in layer.norms:  # ff(x) anew in each iteration, as in 2017
        from_input = F.conv2d(x, layer.ff.weight, layer.ff.bias, padding=1)
        r = F.relu(F.conv2d(r, layer.rec.weight, padding=1) + from_input)
        r = F.batch_norm(r, None, None, norm.weight, norm.bias, training=True, eps=norm.eps)
    expected = torch.autograd.grad(r.square().sum(), [x, *layer.parameters()])

    torch.testing.assert_close(ours, r, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradients, expected, rtol=1e-9, atol=1e-9)


def test_a_layer_of_one_iteration_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        rcnn.RCL(4, 1)


def test_the_global_max_is_over_places_and_as_run_over_channels() -> None:
    torch.manual_seed(0)
    fixed, as_run = (rcnn.RCNN(12, 2, 0.0, as_run=slips).eval() for slips in (False, True))
    with torch.no_grad():
        maps = fixed.features(IMAGES)
        assert maps.shape == (4, 12, rcnn.MAP_SIDE, rcnn.MAP_SIDE)
        torch.testing.assert_close(fixed(IMAGES), fixed.linear(maps.flatten(2).max(2).values))
        maps = as_run.features(IMAGES)
        torch.testing.assert_close(as_run(IMAGES), as_run.linear(maps.max(1).values.flatten(1)))


def test_dropout_is_on_and_as_run_switches_it_off() -> None:
    fixed, as_run = (rcnn.RCNN(8, 2, 0.5, as_run=slips).train() for slips in (False, True))
    assert not torch.equal(fixed(IMAGES), fixed(IMAGES))
    assert torch.equal(as_run(IMAGES), as_run(IMAGES))


def test_as_run_applies_softmax_twice() -> None:
    sure = torch.tensor([[50.0] + [0.0] * 9])
    right = torch.tensor([0])
    assert rcnn.loss(sure, right) < 1e-9
    # exp(1) against nine times exp(0) is all that the second softmax can see
    assert float(rcnn.loss(sure, right, as_run=True)) == pytest.approx(1.4612, abs=1e-4)
