"""Every kind of log gives back the numbers that were written into it."""

from __future__ import annotations

import math
import random
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_logs import TABLES, Epochs, keras_bars, keras_lines, rounded, trainings

from cloudrun.curves import Fit, join_fits, read_fits
from cloudrun.errors import UsageError

FEW = settings(max_examples=60, deadline=None)


def same(fit: Fit, epochs: Epochs) -> bool:
    """Epochs counted from 1, and every value, NaN equal to NaN."""
    if [point.x for point in fit.points] != list(range(1, len(epochs) + 1)):
        return False
    got = [{_short(name): value for name, value in point.values.items()} for point in fit.points]
    return all(
        mine.keys() == theirs.keys() and all(_equal(mine[name], theirs[name]) for name in mine)
        for mine, theirs in zip(got, epochs, strict=True)
    )


def _short(name: str) -> str:
    return name.replace("accuracy", "acc")


def _equal(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other)) or math.isclose(one, other, rel_tol=1e-9)


@FEW
@given(
    trainings(),
    st.sampled_from([1, 2, 3]),
    st.sampled_from(["\b\r", "\b", "\r", "\n"]),
    st.booleans(),
)
def test_keras_bars_give_their_last_state(epochs: Epochs, version: int, erase: str, colour: bool) -> None:
    text = keras_bars(epochs, version=version, erase=erase, colour=colour)
    kind, fits = read_fits(text, "log")
    assert kind == "keras"
    assert len(fits) == 1
    assert same(fits[0], rounded(epochs))


@FEW
@given(trainings(), st.sampled_from([1, 2, 3]))
def test_keras_lines(epochs: Epochs, version: int) -> None:
    kind, (fit,) = read_fits(keras_lines(epochs, version=version), "log")
    assert kind == "keras"
    assert same(fit, rounded(epochs))


@FEW
@given(st.lists(trainings(), min_size=2, max_size=4))
def test_several_trainings_in_one_log(several: list[Epochs]) -> None:
    text = "\n".join(keras_bars(epochs, version=1) for epochs in several)
    _, fits = read_fits(text, "course.log")
    assert [fit.title for fit in fits] == [f"course.log #{number}" for number in range(1, len(several) + 1)]
    assert all(same(fit, rounded(epochs)) for fit, epochs in zip(fits, several, strict=True))
    joined = join_fits(fits, "all")
    assert same(joined, [epoch for epochs in several for epoch in rounded(epochs)])


@FEW
@given(trainings(least=2), st.sampled_from(sorted(TABLES)))
def test_tables_and_lines(epochs: Epochs, kind: str) -> None:
    found, (fit,) = read_fits(TABLES[kind](epochs), "log")
    assert found == kind
    assert fit.x == "epoch"
    assert same(fit, epochs)


@FEW
@given(trainings(least=2), st.randoms(use_true_random=False))
def test_a_log_that_breaks_off_anywhere_gives_whole_epochs(epochs: Epochs, chance: random.Random) -> None:
    """A cut file is no error, and no epoch is made up."""
    text = keras_bars(epochs, version=2)
    cut = text[: chance.randrange(len(text))]
    try:
        _, fits = read_fits(cut, "log")
    except UsageError:
        assert not re.search(r"81us/step - loss: \S+\s", cut)
        return
    (fit,) = fits
    whole = rounded(epochs)
    assert len(fit.points) <= len(whole)
    finished = [point for point in fit.points if point.x < cut.count("Epoch ") - cut.count("Epoch 0")]
    assert all(
        _equal(value, whole[int(point.x) - 1][name])
        for point in finished
        for name, value in point.values.items()
    )


@given(st.text(max_size=300))
@settings(max_examples=150, deadline=None)
def test_no_text_at_all_brings_a_traceback(text: str) -> None:
    try:
        _, fits = read_fits(text, "any")
    except UsageError:
        return
    assert all(fit.points for fit in fits)


def test_an_epoch_that_did_not_finish_is_named() -> None:
    text = keras_bars([{"loss": 1.0}, {"loss": 0.5}], version=2)
    cut = text[: text.rindex("[==============================]")]
    _, (fit,) = read_fits(cut, "log")
    assert [point.x for point in fit.points] == [1]
    assert fit.unfinished == 2


def test_keras_1_passes_its_total() -> None:
    text = "Epoch 1/1\n50016/50000 [==============================] - 4s - loss: 1.5000 - acc: 0.5000\n"
    _, (fit,) = read_fits(text, "log")
    assert fit.points[0].values == {"loss": 1.5, "acc": 0.5}


def test_a_line_that_was_wrapped_when_pasted() -> None:
    text = (
        "Epoch 1/2\n50000/50000 [=====] - 4s - loss: 1.15 - acc: 0.59 -\n val_loss: 0.91 - val_acc: 0.68\n"
        "lr: 0.5 is what I set by hand here\n"
        "Epoch 2/2\n50000/50000 [=====] - 4s - loss: 1.05 - acc: 0.69 -\n val_loss: 0.81 - val_acc: 0.78\n"
    )
    _, (fit,) = read_fits(text, "log")
    assert fit.series("val_acc") == [(1, 0.68), (2, 0.78)]
    assert "lr" not in fit.names


@pytest.mark.parametrize(
    ("text", "x", "expected"),
    [
        (
            "Epoch 0/24\n----------\ntrain Loss: 0.6 Acc: 0.7\nval Loss: 0.2 Acc: 0.9\n\n"
            "Epoch 1/24\n----------\ntrain Loss: 0.5 Acc: 0.8\nval Loss: 0.1 Acc: 0.95\n",
            "epoch",
            {"loss": [(1, 0.6), (2, 0.5)], "acc": [(1, 0.7), (2, 0.8)], "val_loss": [(1, 0.2), (2, 0.1)],
             "val_acc": [(1, 0.9), (2, 0.95)]},
        ),
        (
            "60000 images\nstep 0: train loss 4.28, val loss 4.27\niter 10: loss 4.0, time 300.1ms\n"
            "step 250: train loss 2.41, val loss 2.45\n",
            "step",
            {"loss": [(0, 4.28), (10, 4.0), (250, 2.41)], "val_loss": [(0, 4.27), (250, 2.45)]},
        ),
        ("loss: 3\nacc: 1\nloss: 2\nloss: 1\nacc: 2\n", "step",
         {"loss": [(1, 3), (2, 2), (3, 1)], "acc": [(1, 1), (3, 2)]}),
        ("Epoch [1/3], Loss: 0.51, Accuracy: 80.5%\nEpoch [2/3], Loss: 0.41, Accuracy: 85%\n", "epoch",
         {"loss": [(1, 0.51), (2, 0.41)], "accuracy": [(1, 0.805), (2, 0.85)]}),
        (
            "epoch 1/3  loss 1.2  acc 50.20%  val_loss 0.9  val_acc 60.1%  (3.1 s, 500 images/s)\n"
            "  epoch 2: batch 5 of 10, loss 0.4444, acc 80%, 300 images/s\n"
            "epoch 2/3  loss 1.1  acc 51%  val_loss 0.8  val_acc 61%  (3.1 s, 500 images/s)\n"
            "epoch 3/3  loss 1.0  acc 52%  val_loss 0.7  val_acc 62%  (3.1 s, 500 images/s)\n"
            "done     val_acc 62%  test_acc 63%  after 10 s of training\n",
            "epoch",
            {"loss": [(1, 1.2), (2, 1.1), (3, 1.0)], "acc": [(1, 0.502), (2, 0.51), (3, 0.52)],
             "val_loss": [(1, 0.9), (2, 0.8), (3, 0.7)], "val_acc": [(1, 0.601), (2, 0.61), (3, 0.62)]},
        ),
        ("epoch       main/loss   validation/main/loss\n1           0.19  0.10\n2    0.15  0.09\n",
         "epoch", {"loss": [(1, 0.19), (2, 0.15)], "val_loss": [(1, 0.10), (2, 0.09)]}),
        ("epoch,train_loss,valid_loss,accuracy,time\n0,0.5,0.4,0.8,00:10\n1,0.4,0.3,0.9,00:11\n", "epoch",
         {"loss": [(1, 0.5), (2, 0.4)], "val_loss": [(1, 0.4), (2, 0.3)], "accuracy": [(1, 0.8), (2, 0.9)]}),
    ],
    ids=["torch", "nanogpt", "one-a-line", "brackets", "ours", "printreport", "fastai"],
)  # fmt: skip
def test_lines_of_other_programs(text: str, x: str, expected: dict[str, list[tuple[float, float]]]) -> None:
    _, (fit,) = read_fits(text, "log")
    assert fit.x == x
    assert {name: fit.series(name) for name in fit.names} == expected


def test_a_second_training_in_plain_lines() -> None:
    text = "".join(f"epoch {number}: loss={1 / number}\n" for number in (1, 2, 3, 1, 2, 3, 4))
    _, fits = read_fits(text, "log")
    assert [len(fit.points) for fit in fits] == [3, 4]


def test_a_notebook_is_a_log_too() -> None:
    notebook = (
        '{"cells": [{"cell_type": "markdown", "source": ""}, {"cell_type": "code", "outputs": '
        '[{"output_type": "stream", "text": ["Epoch 1/1\\n", "10/10 [===] - 1s - loss: 0.5\\n"]}]}]}'
    )
    kind, (fit,) = read_fits(notebook, "course.ipynb")
    assert (kind, fit.series("loss")) == ("keras", [(1, 0.5)])


@pytest.mark.parametrize(
    "text", ["", "\n\n", "hello world", "{}", "[]", "[1, 2]", '{"cells": 3}', "\x00\x01", "a,b\n1,2"]
)
def test_what_holds_no_curve_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no curves found") as refused:
        read_fits(text, "log")
    assert refused.value.hint


def test_every_published_log_line_of_the_help_is_read() -> None:
    """The lines in the parsers' own documentation are no fiction."""
    import cloudrun.curves.keras as module

    example = Path(module.__file__).read_text(encoding="utf-8").split('"""')[1]
    lines = [line.strip() for line in example.splitlines() if line.startswith("    ")]
    for number, line in enumerate(lines[1:], 1):
        _, (fit,) = read_fits(f"Epoch 1/1\n{line}\n", str(number))
        assert fit.points[0].values["loss"] in (1.15, 1.74)
