"""Logs as the programs write them, from numbers that are known: what the parsers must give back."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable

from hypothesis import strategies as st

Epochs = list[dict[str, float]]

NAMES = ("loss", "acc", "val_loss", "val_acc")
HEAD = {1: 50_000, 2: 50_000, 3: 1_563}


def _printed(value: float) -> str:
    """As Keras prints a metric: four decimals, or four digits with an exponent where it is small."""
    if not math.isfinite(value):
        return str(value)
    return f"{value:.4f}" if abs(value) > 1e-3 else f"{value:.4e}"


def rounded(epochs: Epochs) -> Epochs:
    """What remains of the numbers in print."""
    return [{name: float(_printed(value)) for name, value in epoch.items()} for epoch in epochs]


values = st.one_of(
    st.floats(min_value=0, max_value=5000, allow_nan=False), st.sampled_from([math.nan, math.inf, 0.0, 1e-7])
)


@st.composite
def trainings(draw: st.DrawFn, least: int = 1) -> Epochs:
    """One to eight epochs; all with the same metrics, validation perhaps missing."""
    names = draw(st.sampled_from([NAMES, NAMES[:2], NAMES[:1], ("loss", "val_loss")]))
    count = draw(st.integers(least, 8))
    return [{name: draw(values) for name in names} for _ in range(count)]


def keras_bars(epochs: Epochs, *, version: int, erase: str = "\b", colour: bool = False) -> str:
    """verbose=1: a bar that is overwritten, by backspaces, a return, both, or not at all."""
    total = HEAD[version]
    out = ["Train on 50000 samples, validate on 10000 samples\n"] if version == 1 else []
    for number, epoch in enumerate(epochs, 1):
        out.append(f"Epoch {number}/{len(epochs)}\n")
        shown = ""
        for step in (total // 50, total // 3, total):
            last = step == total
            known = {name: value for name, value in epoch.items() if last or not name.startswith("val_")}
            guess = {name: value if last else 9.87 for name, value in known.items()}
            wipe = (
                ""
                if not shown
                else {"\b": "\b" * len(shown), "\b\r": "\b" * len(shown) + "\r"}.get(erase, erase)
            )
            shown = _bar(step, total, guess, version=version, last=last, colour=colour)
            out.append(wipe + shown)
        out.append("\n")
        if version < 3 and number % 2:
            out.append(
                f"Epoch {number:05d}: val_loss improved from 9.99 to 0.51, saving model to weights.h5\n"
            )
    return "".join(out)


def keras_lines(epochs: Epochs, *, version: int) -> str:
    """verbose=2: a line an epoch."""
    out = []
    for number, epoch in enumerate(epochs, 1):
        metrics = " - ".join(f"{name}: {_printed(value)}" for name, value in epoch.items())
        start = {1: "4s", 2: " - 4s", 3: "1563/1563 - 4s - 3ms/step"}[version]
        out.append(f"Epoch {number}/{len(epochs)}\n{start} - {metrics}\n")
    return "".join(out)


def _bar(step: int, total: int, metrics: dict[str, float], *, version: int, last: bool, colour: bool) -> str:
    text = " - ".join(f"{name}: {_printed(value)}" for name, value in metrics.items())
    if version == 3:
        full = step * 20 // total
        bar = "━" * full + ("" if last else "╺" + "━" * (19 - full))
        if colour:
            bar = f"\x1b[32m{'━' * full}\x1b[0m\x1b[37m{'━' * (20 - full)}\x1b[0m"
            return f"\x1b[1m{step:>4}/{total}\x1b[0m {bar} \x1b[1m4s\x1b[0m 3ms/step - {text}"
        return f"{step:>4}/{total} {bar} 4s 3ms/step - {text}"
    full = step * 30 // total
    bar = "=" * 30 if last else "=" * full + ">" + "." * (29 - full)
    time = {1: "4s", 2: "4s 81us/step"}[version] if last else "ETA: 3:25" if version == 2 else "ETA: 325s"
    return f"{step:>5}/{total} [{bar}] - {time} - {text}"


def log_report(epochs: Epochs) -> str:
    names = {"loss": "main/loss", "acc": "main/accuracy", "val_loss": "validation/main/loss",
             "val_acc": "validation/main/accuracy"}  # fmt: skip
    return json.dumps([
        {"epoch": number, "iteration": 500 * number, "elapsed_time": 3.5 * number,
         **{names[name]: value for name, value in epoch.items()}}
        for number, epoch in enumerate(epochs, 1)
    ], indent=4)  # fmt: skip


def metrics_jsonl(epochs: Epochs) -> str:
    entries = [
        {"epoch": number, **epoch, "timing": {"seconds": 3.0}} for number, epoch in enumerate(epochs, 1)
    ]
    return "".join(json.dumps(entry) + "\n" for entry in [{"about": {"parameters": 3}}, *entries])


def lightning_csv(epochs: Epochs) -> str:
    """A row for each logged step, one for the epoch's training metrics, one for its validation metrics."""
    logged = {"loss": "train_loss", "acc": "train_acc", "val_loss": "val_loss", "val_acc": "val_acc"}
    header = ["epoch", "step", "train_loss_step", "train_loss_epoch", "train_acc", "val_loss", "val_acc"]
    stream = io.StringIO()
    table = csv.DictWriter(stream, header)
    table.writeheader()
    for number, epoch in enumerate(epochs):
        place = {"epoch": number, "step": 100 * number + 99}
        for step in (49, 99):
            table.writerow({"epoch": number, "step": 100 * number + step, "train_loss_step": 9.9})
        training = {logged[name]: value for name, value in epoch.items() if not name.startswith("val_")}
        table.writerow({**place, **{_epochs_own(name): value for name, value in training.items()}})
        validation = {logged[name]: value for name, value in epoch.items() if name.startswith("val_")}
        if validation:
            table.writerow({**place, **validation})
    return stream.getvalue()


def _epochs_own(name: str) -> str:
    return "train_loss_epoch" if name == "train_loss" else name


def plain_lines(epochs: Epochs) -> str:
    return "".join(
        f"epoch {number}/{len(epochs)}: {', '.join(f'{name}: {value!r}' for name, value in epoch.items())}\n"
        for number, epoch in enumerate(epochs, 1)
    )


# Each with what it keeps of a name: chainer writes accuracy in full.
TABLES: dict[str, Callable[[Epochs], str]] = {
    "logreport": log_report,
    "jsonl": metrics_jsonl,
    "csv": lightning_csv,
    "plain": plain_lines,
}
