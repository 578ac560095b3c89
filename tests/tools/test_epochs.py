"""Cutting what a training printed: the first and the last epoch stay, and everything that is no training."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_logs import Epochs, keras_bars, keras_lines, trainings

from cloudrun.curves import read_fits
from cloudrun.epochs import Cut, cut_html, cut_texts

FEW = settings(max_examples=60, deadline=None)


@FEW
@given(trainings(), st.sampled_from([1, 2, 3]), st.sampled_from(["\b\r", "\b", "\r"]))
def test_the_first_and_the_last_epoch_of_keras_stay(epochs: Epochs, version: int, erase: str) -> None:
    text = keras_bars(epochs, version=version, erase=erase)
    (short,), cut = cut_texts([text])
    assert cut.epochs == max(0, len(epochs) - 2)
    _, (before,) = read_fits(text, "log")
    _, (after,) = read_fits(short, "log")
    kept = [before.points[0], before.points[-1]][: len(epochs)]
    assert repr(after.points) == repr(tuple(kept))
    assert "\b" not in short
    assert ("epochs left out" in short or "epoch left out" in short) is (len(epochs) > 2)


@FEW
@given(st.lists(trainings(), min_size=1, max_size=3), st.lists(st.integers(0, 3000), max_size=4))
def test_a_training_may_go_on_in_the_next_output(several: list[Epochs], cuts: list[int]) -> None:
    """However the text is dealt to outputs, the same comes out in all; and a second time nothing changes."""
    text = "before\n" + "".join(keras_lines(epochs, version=1) for epochs in several)
    places = sorted({min(place, len(text)) for place in cuts} | {0, len(text)})
    pieces = [text[start:end] for start, end in pairwise(places)]
    (whole,), cut = cut_texts([text])
    dealt, same_cut = cut_texts(pieces)
    assert ("".join(dealt), same_cut) == (whole, cut)
    assert len(dealt) == len(pieces)
    assert cut_texts(dealt) == (dealt, Cut())
    assert whole.startswith("before\nEpoch 1/")


@pytest.mark.parametrize(
    ("text", "short"),
    [
        (
            "Epoch 0/3\n-----\nloss: 0.9\n\nEpoch 1/3\n-----\nloss: 0.8\n\nEpoch 2/3\n-----\nloss: 0.7\n\n"
            "Training complete in 3m 2s\n",
            "Epoch 0/3\n-----\nloss: 0.9\n\n... (1 epoch left out)\nEpoch 2/3\n-----\nloss: 0.7\n\n"
            "Training complete in 3m 2s\n",
        ),
        (
            "".join(f"epoch {n}: loss {1 / n:.3f}\n" for n in range(1, 5)) + "done\n",
            "epoch 1: loss 1.000\n... (2 epochs left out)\nepoch 4: loss 0.250\ndone\n",
        ),
        (
            "".join(f"[epoch {n}/4] loss {1 / n:.3f}\n" for n in range(1, 5)),
            "[epoch 1/4] loss 1.000\n... (2 epochs left out)\n[epoch 4/4] loss 0.250\n",
        ),
        (
            "epoch   main/loss\n" + "".join(f"{n}       {1 / n:.3f}\n" for n in range(1, 5)) + "the end\n",
            "epoch   main/loss\n1       1.000\n... (2 epochs left out)\n4       0.250\nthe end\n",
        ),
        (
            "".join(f"Epoch {n}:  10%|#  | 1/9\rEpoch {n}: 100%|###| 9/9, loss=0.{n}\n" for n in range(3)),
            "Epoch 0: 100%|###| 9/9, loss=0.0\n... (1 epoch left out)\nEpoch 2: 100%|###| 9/9, loss=0.2\n",
        ),
    ],
    ids=["torch", "lines", "brackets", "table", "tqdm"],
)
def test_other_programs(text: str, short: str) -> None:
    assert cut_texts([text])[0] == [short]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello\nworld\n",
        "Epoch 1\nEpoch 2\nEpoch 3\nEpoch 4\n",  # a list of words, nothing is measured
        "1 0.5\n2 0.4\n3 0.3\n4 0.2\n",  # a table without a head
        "downloading  10%\rdownloading 100%\n",  # a bar, and no training
        "epochs: 50\nlearning rate: 0.1\nepochs: 60\n",
        "Epoch 1/2\nloss: 0.5\nEpoch 2/2\nloss: 0.4\r\n",
    ],
)
def test_what_is_no_long_training_stays_as_it_is(text: str) -> None:
    assert cut_texts([text]) == ([text], Cut())


def test_a_callback_of_an_early_keras_counts_from_zero_and_begins_no_training() -> None:
    text = "".join(
        f"Epoch {n}/4\n100/100 [=====] - 1s - loss: 0.{n}\nEpoch {n - 1:05d}: val_loss improved to 0.5\n"
        for n in range(1, 5)
    )
    (short,), cut = cut_texts([text])
    assert cut == Cut(epochs=2)
    assert short.count("Epoch 0000") == 2


def test_two_trainings_of_one_epoch_are_two() -> None:
    text = "Epoch 1/1\n9/9 [==] - 1s - loss: 0.5\n" * 3
    assert cut_texts([text]) == ([text], Cut())


def table(rows: int, *, head: str = "epoch", index: bool = False) -> str:
    first = "<th></th>" if index else ""
    body = "\n".join(
        f"    <tr>\n      {f'<th>{n}</th>' if index else ''}<td>{n}</td><td>{1 / (n + 1):.5f}</td>\n    </tr>"
        for n in range(rows)
    )
    return (
        '<table border="1" class="dataframe">\n  <thead>\n    <tr style="text-align: left;">'
        f"{first}<th>{head}</th><th>train_loss</th></tr>\n  </thead>\n"
        f"  <tbody>\n{body}\n  </tbody>\n</table><p>hm"
    )


@pytest.mark.parametrize("index", [False, True])
def test_rows_of_an_html_table(index: bool) -> None:
    short, cut = cut_html(table(6, index=index))
    assert cut == Cut(epochs=4)
    assert ("1.00000" in short, "0.50000" in short, "0.16667" in short) == (True, False, True)
    assert short.count("<tr") == short.count("</tr>") == 4
    assert "... (4 epochs left out)" in short
    assert short.endswith("</table><p>hm")
    assert cut_html(short) == (short, Cut())


def test_other_tables_stay() -> None:
    for html in (table(6, head="name"), table(2), "<p>epoch</p>", table(1)):
        assert cut_html(html) == (html, Cut())
    both = table(5) + table(5, head="batch")
    assert cut_html(both)[0].endswith(table(5, head="batch"))


def test_a_log_in_pre() -> None:
    lines = "".join(f"Epoch {n}/4\nloss: 0.{n}\n" for n in range(1, 5))
    short, cut = cut_html(f"<b>log</b><pre>{lines}</pre>")
    assert cut == Cut(epochs=2)
    assert (
        short == "<b>log</b><pre>Epoch 1/4\nloss: 0.1\n... (2 epochs left out)\nEpoch 4/4\nloss: 0.4\n</pre>"
    )
