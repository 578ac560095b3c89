"""The arithmetic of convolutional networks, in closed form: sizes, parameters, memory, operations.

The formulas are those of Dumoulin and Visin, "A guide to convolution arithmetic for deep learning" (2016).
Values are float32, 4 bytes each; a multiply-add is two operations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

VALUE_BYTES = 4


def output_side(width: int, kernel: int, *, padding: int = 0, stride: int = 1, dilation: int = 1) -> int:
    """(W - F + 2P) / S + 1, rounded down; a dilated kernel is D (F - 1) + 1 wide."""
    return (width - (dilation * (kernel - 1) + 1) + 2 * padding) // stride + 1


def conv_parameters(kernel: int, inputs: int, outputs: int, *, bias: bool = True) -> int:
    """(F * F * in + 1) * out for a square kernel."""
    return (kernel * kernel * inputs + bias) * outputs


def conv_flops(kernel: int, inputs: int, outputs: int, side: int) -> int:
    """Forward, for one sample with a square output: 2 * F * F * in at each of the outputs."""
    return 2 * kernel * kernel * inputs * outputs * side * side


def activation_bytes(shape: Sequence[int]) -> int:
    """W * H * filters * 4 for one sample."""
    count = 1
    for size in shape:
        count *= size
    return count * VALUE_BYTES


def show_output_side(width: int, window: Mapping[str, Sequence[int]]) -> str:
    """The formula with its numbers, along the last direction: (32-5+2*2)/1+1 = 32."""
    kernel, stride = window["kernel"][-1], window["stride"][-1]
    padding, dilation = window["padding"][-1], window["dilation"][-1]
    wide = dilation * (kernel - 1) + 1
    side = output_side(width, kernel, padding=padding, stride=stride, dilation=dilation)
    padded = f"+2*{padding}" if padding else ""
    return f"({width}-{wide}{padded})/{stride}+1 = {side}"
