"""Closed forms, batches that fit, hours and dollars: by hand and by what must hold between them."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudrun import catalog, estimate
from cloudrun.arithmetic import (
    activation_bytes,
    conv_flops,
    conv_parameters,
    output_side,
    show_output_side,
)
from cloudrun.describing import Asked, Description, Network, Timing
from cloudrun.jobs import load_job
from cloudrun.models import Market
from cloudrun.stacks import load_stack

# The RCNN with K = 128, as it describes itself; 20 steps on two cores of a server.
RCNN = Network(
    input=[3, 32, 32], layers=[], parameters=1_194_506, trainable=1_194_506, forward_flops=774_638_080,
    backward_flops=1_529_615_360, saved_bytes=4_043_264, saved_bytes_fixed=13_312, peak_bytes=1_572_864,
    state_bytes=19_125_460, moved_bytes=34_048_200, moved_bytes_fixed=76_136_004, kernels=175,
)  # fmt: skip
PAPER = Asked(batch=1024, epochs=512, samples=598_388, evaluated=6_000, note="")
TIMED = Timing(steps=20, batch=32, step_s=2.7, fastest_s=2.6, device="cpu", threads=2, precision="float32",
               peak_flops=82e9, bytes_per_s=17.5e9)  # fmt: skip


@pytest.fixture(scope="module")
def described() -> Description:
    return Description(load_job("svhn_rcnn"), "paper", RCNN, PAPER, TIMED)


def all_of(described: Description, **options: object) -> list[estimate.Estimate]:
    stacks = [load_stack(name) for name in described.job.stacks]
    return estimate.estimate_all(described, stacks, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("width", "kernel", "padding", "stride", "dilation", "side"),
    [
        (32, 5, 2, 1, 1, 32),
        (32, 3, 1, 2, 1, 16),
        (227, 11, 0, 4, 1, 55),
        (28, 3, 0, 1, 1, 26),
        (7, 3, 0, 1, 2, 3),
    ],
)
def test_output_side(width: int, kernel: int, padding: int, stride: int, dilation: int, side: int) -> None:
    assert output_side(width, kernel, padding=padding, stride=stride, dilation=dilation) == side


@given(st.integers(1, 64), st.integers(1, 7), st.integers(0, 3), st.integers(1, 4))
def test_output_side_counts_the_places_of_a_window(
    width: int, kernel: int, padding: int, stride: int
) -> None:
    places = range(-padding, width + padding - kernel + 1, stride)
    assert max(0, output_side(width, kernel, padding=padding, stride=stride)) == len(places)


def test_the_formulas_of_the_field_reports() -> None:
    """AlexNet's first layer, and the parameters of the MNIST network: 1,630,090."""
    assert conv_parameters(11, 3, 96) == 34_944
    assert activation_bytes([96, 55, 55]) == 96 * 55 * 55 * 4
    assert conv_flops(3, 128, 128, 16) == 2 * 9 * 128 * 128 * 256
    dense = (14 * 14 // 4 * 64 + 1) * 512
    assert conv_parameters(3, 1, 32) + conv_parameters(3, 32, 64) + dense + 513 * 10 == 1_630_090
    window = {"kernel": [5, 5], "stride": [1, 1], "padding": [2, 2], "dilation": [1, 1]}
    assert show_output_side(32, window) == "(32-5+2*2)/1+1 = 32"
    assert show_output_side(13, {**window, "padding": [0, 0], "stride": [2, 2]}) == "(13-5)/2+1 = 5"


def test_the_largest_batch_by_hand() -> None:
    """A K80: 12 GiB, of which 92 % less the context and the state are for samples of 4.04 + 1.57 MB."""
    free = 12 * 2**30 * 0.92 - 0.75 * 2**30 - 19_125_460 - 13_312
    assert estimate.largest_batch(RCNN, 12) == int(free // (4_043_264 + 1_572_864)) == 1_963
    assert estimate.largest_batch(RCNN, 0.5) == 0


def test_the_factor_is_what_was_measured_here() -> None:
    bound = 32 * (774_638_080 + 1_529_615_360) / 82e9 + (32 * 34_048_200 + 76_136_004) / 17.5e9
    assert estimate.slowness(RCNN, TIMED) == pytest.approx((2.6 - 175 * estimate.LAUNCH_S) / bound)
    assert estimate.slowness(RCNN, replace(TIMED, fastest_s=1e-9)) == 1
    assert estimate.slowness(RCNN, None) == estimate.UNMEASURED_FACTOR


def test_hours_and_dollars_on_a_t4(described: Description) -> None:
    (found,) = all_of(described, gpu="T4", market=Market.ON_DEMAND)[:1]
    assert (found.offer.gpu, found.precision, found.batch) == ("T4", "float32", 1024)
    bound = 1024 * 2_304_253_440 / 8.1e12 + (1024 * 34_048_200 + 76_136_004) / 300e9
    step = estimate.slowness(RCNN, TIMED) * bound
    assert found.step_s == pytest.approx(step)
    forward = 774_638_080 / 2_304_253_440
    hours = 512 * (585 * step + 6_000 / 1024 * step * forward) / 3600
    assert found.hours == pytest.approx(hours)
    assert found.offer.price_per_hour_usd is not None
    assert found.cost_usd == pytest.approx(
        found.offer.price_per_hour_usd * Decimal(str(hours)), abs=Decimal("1e-3")
    )


def test_the_estimate_is_of_the_size_of_the_run_of_2017(described: Description) -> None:
    """45 h on p2.xlarge, 512 epochs: with the 73,257 images of train alone and ff(x) computed in every
    iteration 231 images/s and 0.9 TFLOP/s; with extra 7.6, above what the GPU can do. A factor of 3."""
    naive = replace(RCNN, forward_flops=1_341_000_000, backward_flops=2_660_000_000)
    asked = replace(PAPER, samples=73_257, evaluated=0)
    (found,) = all_of(replace(described, network=naive, asked=asked), gpu="K80")[:1]
    assert found.hours is not None
    assert 45 / 3 < found.hours < 45 * 3


def test_a_small_step_takes_as_long_as_its_kernels(described: Description) -> None:
    tiny = replace(
        described,
        network=replace(RCNN, forward_flops=1, backward_flops=1, moved_bytes=1, moved_bytes_fixed=0),
        timing=None,
    )
    assert {found.step_s for found in all_of(tiny, gpu="H100") if found.hours} == {175 * estimate.LAUNCH_S}


def test_bfloat16_only_where_the_gpu_has_it(described: Description) -> None:
    by_gpu = {found.offer.gpu: found.precision for found in all_of(described)}
    assert (by_gpu["H100"], by_gpu["V100"], by_gpu["K80"]) == ("bfloat16", "float32", "float32")
    assert {found.precision for found in all_of(described, bfloat16=False)} == {"float32"}


def test_one_row_a_gpu_and_memory_cheapest_run_first(described: Description) -> None:
    found = all_of(described)
    assert len({(each.offer.gpu, each.offer.gpu_memory_gib) for each in found}) == len(found)
    usable = [
        each for each in found if each.offer.fits and not each.offer.warning and each.cost_usd is not None
    ]
    assert usable == found[: len(usable)]
    assert [each.cost_usd for each in usable] == sorted(each.cost_usd for each in usable)
    assert len(usable) > 8
    assert all("retired" in each.offer.warning for each in found if each.offer.gpu == "P40")
    assert not next(each for each in found if each.offer.gpu == "K520").offer.fits


def test_an_unknown_price_is_unknown_and_never_nothing(described: Description) -> None:
    unpriced = [found for found in all_of(described) if found.offer.price_per_hour_usd is None]
    assert all(found.cost_usd is None for found in unpriced)
    assert all(
        found.cost_usd is None or found.cost_usd > 0 for found in all_of(described, market=Market.SPOT)
    )


def test_a_batch_that_does_not_fit_is_made_smaller(described: Description) -> None:
    large = replace(described, asked=replace(PAPER, batch=100_000))
    (found,) = [each for each in all_of(large) if each.offer.gpu == "K80"]
    assert found.batch == found.largest_batch == 1_963


def test_a_job_that_only_lists_layers_gets_batches_but_no_hours(described: Description) -> None:
    found = all_of(replace(described, asked=None, timing=None))
    assert all(each.largest_batch > 0 and each.hours is None and each.cost_usd is None for each in found)
    assert estimate.hours_here(replace(described, timing=None)) is None


def test_here_the_timed_steps_alone_count(described: Description) -> None:
    hours = estimate.hours_here(described)
    assert hours == pytest.approx(512 * (585 * 1024 + 6_000 * 774_638_080 / 2_304_253_440) * 2.7 / 32 / 3600)


def test_every_gpu_that_is_offered_has_peaks_or_is_known_not_to() -> None:
    peaks = estimate.load_peaks()
    offered = {known.gpu for known in catalog.list_types() if known.nvidia and known.whole_gpus}
    assert offered - set(peaks) == {
        "RTXPRO4500",
        "RTXPRO6000",
    }  # no data sheet gives the server forms' figures
    assert set(peaks) <= offered
    assert all(peak.bf16_flops is None or peak.bf16_flops > peak.fp32_flops for peak in peaks.values())


def test_the_assumptions_name_every_number(described: Description) -> None:
    said = " ".join(estimate.assumptions(described))
    for part in ("92%", "0.75 GiB", "20 steps of 32 samples", "2.6 s", "175 kernels", "data sheet"):
        assert part in said
    assert Path(catalog.loader.FOLDER / "gpu_peaks.csv").read_text().count("NVIDIA") >= 18
