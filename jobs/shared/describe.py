"""What a network takes, measured on the network itself: layers, operations, memory, seconds of a step.

    python train.py --preset paper --describe

prints one line of JSON, which `cloudrun model JOB` reads. A job needs three lines for it:

    facts = describe.describe(model, (3, 32, 32))
    timing = describe.time_steps(step, batch=args.batch, device=device)  # step(n) trains on n samples
    describe.print_report(facts, timing=timing, batch=args.batch, epochs=args.epochs, samples=60_000)

Operations count 2 for a multiply-add. Convolutions, products of matrices and attention count; what the rest
takes is told by the bytes that it moves. Everything that grows with the batch is given for one sample.
"""

from __future__ import annotations

import copy
import functools
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

BETWEEN = "(between)"  # the row of what runs in functions, outside of every layer
SMALL, LARGE = 2, 3  # batches that are measured: what grows from one to the other is a sample's
STEPS, WARM_UP = 20, 3
MEASURE_S = 20.0  # about so long may the timed steps take: a smaller batch is timed where they would not
PEAK_SIDE = 1024  # of the matrices multiplied to learn the device's peak
COPY_BYTES = 1 << 27  # copied to learn its bandwidth: more than any cache of a CPU


def describe(model: nn.Module, input_shape: tuple[int, ...], *, optimizer_slots: int = 2) -> dict[str, Any]:
    """The layers of a model and what one training step takes. `input_shape` is one sample's, no batch.

    optimizer_slots: values that the optimiser keeps for each weight (Adam 2, RMSprop 1, plain SGD 0). The
    model is copied and measured in training mode on the CPU in float32; neither it nor the random state
    changes. A frozen weight (requires_grad False) costs no gradient here, as in training. Blocks: a forward
    and a backward pass of five samples in all.
    """
    model = copy.deepcopy(model).cpu().float().train()
    with torch.random.fork_rng(devices=[]):
        small, large = (_measure(model, (batch, *input_shape)) for batch in (SMALL, LARGE))
    weights = list(model.parameters())
    trainable = sum(weight.numel() for weight in weights if weight.requires_grad)
    parameters = sum(weight.numel() for weight in weights)
    buffers = sum(buffer.numel() for buffer in model.buffers())
    update = 3 + 2 * optimizer_slots  # the optimiser reads weight, gradient, slots and writes weight, slots
    grown = {name: large.totals[name] - small.totals[name] for name in small.totals}
    return {
        "input": list(input_shape),
        "layers": _rows(model, small, large),
        "parameters": parameters,
        "trainable": trainable,
        "buffers": buffers,
        "forward_flops": grown["forward_flops"],
        "backward_flops": grown["backward_flops"],
        "saved_bytes": grown["saved_bytes"],
        "saved_bytes_fixed": _fixed(small, grown, "saved_bytes"),
        "peak_bytes": grown["peak_bytes"],
        "state_bytes": 4 * (parameters + buffers + trainable * (1 + optimizer_slots)),
        "moved_bytes": grown["moved_bytes"],
        "moved_bytes_fixed": _fixed(small, grown, "moved_bytes") + 4 * trainable * update,
        "kernels": small.totals["kernels"],
        "optimizer_slots": optimizer_slots,
    }


def time_steps(
    step: Callable[[int], object], *, batch: int, device: torch.device, precision: torch.dtype = torch.float32
) -> dict[str, Any]:
    """Time 20 training steps; `step(n)` must do a whole one (forward, backward, update) on n samples.

    Beside it the device's own peak (a product of two matrices in `precision`) and bandwidth (a copy), so that
    the figure can be carried to another device. A batch of which 20 steps would take more than about 20
    seconds is timed with fewer samples.
    """
    batch = _affordable(step, batch, device)
    for _ in range(WARM_UP):
        step(batch)
    seconds = sorted(_timed(lambda: step(batch), device) for _ in range(STEPS))
    return {
        "steps": STEPS,
        "batch": batch,
        "step_s": (seconds[STEPS // 2 - 1] + seconds[STEPS // 2]) / 2,
        "fastest_s": seconds[0],  # undisturbed by others on this computer, as the peaks below
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "precision": str(precision).removeprefix("torch."),
        "peak_flops": _peak_flops(device, precision),
        "bytes_per_s": _bytes_per_s(device),
    }


def print_report(
    facts: dict[str, Any], *, batch: int, epochs: int, samples: int, evaluated: int = 0,
    timing: dict[str, Any] | None = None, note: str = "",
) -> None:  # fmt: skip
    """One line of JSON, the last that --describe prints: `facts` of describe(), and what the settings ask.

    samples: trained on in an epoch. evaluated: seen in an epoch without training. note: what was assumed,
    e.g. the size of a data set that is not here.
    """
    asked = {"batch": batch, "epochs": epochs, "samples": samples, "evaluated": evaluated, "note": note}
    print(json.dumps({"describe": 1, "model": facts, "asked": asked, "timing": timing}), flush=True)


class _Measured:
    """One forward and backward pass: totals, and for each layer what was seen of it."""

    def __init__(self) -> None:
        self.layers: dict[str, dict[str, Any]] = {}
        self.totals: dict[str, int] = {}


def _measure(model: nn.Module, shape: tuple[int, ...]) -> _Measured:
    measured, counter, seen = _Measured(), _Counter(), _known_storages(model)
    current = [BETWEEN]
    saved: dict[str, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in seen:
            seen.add(storage.data_ptr())
            saved[current[0]] = saved.get(current[0], 0) + storage.nbytes()
        return tensor.detach()

    with _watched(model, current, counter, measured), torch.enable_grad():
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), counter:
            answer = model(torch.randn(shape))
        forward = counter.flops
        with counter:
            torch.autograd.backward([part.sum() for part in _tensors(answer) if part.requires_grad])
    model.zero_grad(set_to_none=True)
    for name, record in measured.layers.items():
        record["saved_bytes"] = saved.get(name, 0)
    measured.totals = {
        "forward_flops": forward,
        "backward_flops": counter.flops - forward,
        "saved_bytes": sum(saved.values()),
        "peak_bytes": counter.largest_bytes,
        "moved_bytes": counter.moved_bytes,
        "kernels": counter.kernels,
    }
    return measured


def _fixed(small: _Measured, grown: dict[str, int], name: str) -> int:
    """What does not grow with the batch."""
    return max(0, small.totals[name] - SMALL * grown[name])


@contextmanager
def _watched(model: nn.Module, current: list[str], counter: _Counter, measured: _Measured) -> Iterator[None]:
    """Hooks on every layer: they say which one is at work, and note what went in and came out."""

    def enter(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any) -> None:
            current[0] = name
            counter.mark = counter.flops

        return hook

    def leave(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            current[0] = BETWEEN
            record = measured.layers.setdefault(name, {"calls": 0, "forward_flops": 0, "backward_flops": 0})
            flops = counter.flops - counter.mark
            first, out = _tensors(inputs), _tensors(output)
            passes = any(part.requires_grad for part in first)
            learns = any(weight.requires_grad for weight in module.parameters())
            record["calls"] += 1
            record["forward_flops"] += flops
            record["backward_flops"] += flops * (passes + learns)
            record["input"] = list(first[0].shape[1:]) if first else []
            record["output"] = list(out[0].shape[1:]) if out else []
            record["output_bytes"] = sum(part.nbytes for part in out)

        return hook

    handles = []
    for name, layer in _layers(model):
        handles += [layer.register_forward_pre_hook(enter(name)), layer.register_forward_hook(leave(name))]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Counter(TorchDispatchMode):
    """Counts what the operations beneath autograd do: FLOPs, bytes read and written, their number."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.mark = self.moved_bytes = self.largest_bytes = self.kernels = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if any(part.alias_info and not part.alias_info.is_write for part in func._schema.returns):
            return result  # a view: nothing moves
        count = flop_registry.get(func._overloadpacket)
        if count:
            self.flops += count(*args, **kwargs, out_val=result)
        touched = sum(part.nbytes for part in (*_tensors((args, kwargs)), *_tensors(result)))
        self.moved_bytes += touched
        self.largest_bytes = max(self.largest_bytes, touched)
        self.kernels += 1
        return result


def _rows(model: nn.Module, small: _Measured, large: _Measured) -> list[dict[str, Any]]:
    """A row for each layer in the order of its first call, then the layers never called, then the rest."""
    layers = dict(_layers(model))
    unused = [name for name, layer in layers.items() if name not in small.layers and _count(layer)]
    rows = []
    for name in [*small.layers, *unused]:
        before, after = small.layers.get(name, {}), large.layers.get(name, {})
        keys = ("forward_flops", "backward_flops", "output_bytes", "saved_bytes")
        rows.append({
            "name": name,
            "kind": type(layers[name]).__name__,
            "calls": before.get("calls", 0),
            "input": before.get("input", []),
            "output": before.get("output", []),
            "window": _window(layers[name]),
            "parameters": _count(layers[name]),
            "trainable": sum(weight.numel() for weight in layers[name].parameters() if weight.requires_grad),
            **{key: after.get(key, 0) - before.get(key, 0) for key in keys},
        })  # fmt: skip
    rest = {
        key: max(0, large.totals[key] - small.totals[key] - sum(row[key] for row in rows))
        for key in ("forward_flops", "backward_flops", "saved_bytes")
    }
    if any(rest.values()):
        rows.append({"name": BETWEEN, "kind": "", "calls": 1, "input": [], "output": [], "window": None,
                     "parameters": 0, "trainable": 0, "output_bytes": 0, **rest})  # fmt: skip
    return rows


def _layers(model: nn.Module, name: str = "", met: set[int] | None = None) -> Iterator[tuple[str, nn.Module]]:
    """Modules that hold weights of their own or no modules: those are shown, and not what is inside them."""
    met = set() if met is None else met
    if id(model) in met:
        return
    met.add(id(model))
    if not any(True for _ in model.children()) or any(True for _ in model.parameters(recurse=False)):
        yield name or type(model).__name__, model
        return
    for child, module in model.named_children():
        yield from _layers(module, f"{name}.{child}" if name else child, met)


def _window(layer: nn.Module) -> dict[str, list[int]] | None:
    """Kernel, stride, padding, dilation of a sliding window, one a direction; None for other layers."""
    kernel, padding = getattr(layer, "kernel_size", None), getattr(layer, "padding", 0)
    plain = re.search(r"(?<!Transpose)([123])d$", type(layer).__name__)
    if kernel is None or isinstance(padding, str) or not plain:
        return None
    directions = len(kernel) if isinstance(kernel, tuple) else int(plain[1])
    dilation = getattr(layer, "dilation", 1)
    values = {"kernel": kernel, "stride": layer.stride, "padding": padding, "dilation": dilation}
    return {
        name: list(value) if isinstance(value, tuple) else [int(value)] * directions
        for name, value in values.items()
    }


def _count(layer: nn.Module) -> int:
    return sum(weight.numel() for weight in layer.parameters())


def _known_storages(model: nn.Module) -> set[int]:
    """Weights are kept anyway: what autograd saves of them takes no further memory."""
    return {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}


def _tensors(value: Any) -> list[Tensor]:
    """All tensors in a nest of tuples, lists and dicts."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [tensor for part in value for tensor in _tensors(part)] if isinstance(value, (list, tuple)) else []


def _affordable(step: Callable[[int], object], batch: int, device: torch.device) -> int:
    """The batch, or as much of it as 20 steps do in about MEASURE_S, learnt from steps of growing size."""
    tried = min(8, batch)
    while tried < batch:
        # the first step of a size also sets things up
        seconds = min(_timed(functools.partial(step, tried), device) for _ in range(3))
        doubled = min(2 * tried, batch)
        if seconds * doubled / tried * (STEPS + WARM_UP) > MEASURE_S:
            break
        tried = doubled
    return tried


def _timed(work: Callable[[], object], device: torch.device) -> float:
    _wait(device)
    started = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - started


def _peak_flops(device: torch.device, precision: torch.dtype) -> float:
    side = PEAK_SIDE * (8 if device.type == "cuda" else 1)
    left, right = (torch.randn(side, side, device=device).to(precision) for _ in range(2))
    torch.mm(left, right)
    return 2.0 * side**3 / min(_timed(lambda: torch.mm(left, right), device) for _ in range(5))


def _bytes_per_s(device: torch.device) -> float:
    """Read and written by a copy, in all."""
    source = torch.empty(COPY_BYTES * (8 if device.type == "cuda" else 1), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    return 2.0 * source.nbytes / min(_timed(lambda: target.copy_(source), device) for _ in range(5))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
