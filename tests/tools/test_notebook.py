"""`cloudrun notebook trim` on notebooks of every format version: what goes, what stays, what is refused."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_logs import keras_bars
from nbformat import v4
from test_epochs import table

from cloudrun import notebook as notebooks
from cloudrun.notebook import load_notebook, make_html, trim, why_invalid

Tool = Callable[..., Any]
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
EIGHT = [{"loss": 1 / n, "val_loss": 1.1 / n} for n in range(1, 9)]
FRAMES = ["---", "Traceback (most recent call last)", "----> 1 1/0", "ZeroDivisionError: division by zero"]


def course() -> Any:
    """A lesson: a training in three outputs, a fastai table, a picture, an error, words."""
    log = keras_bars(EIGHT, version=1)
    return v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}, "mine": [1]},
        cells=[
            v4.new_markdown_cell("# Lesson 1\nepoch 1: loss 3\nepoch 2: loss 2\nepoch 3: loss 1\nü"),
            v4.new_code_cell("model.fit()", execution_count=3, outputs=[
                v4.new_output("stream", name="stdout", text=log[:700]),
                v4.new_output("stream", name="stderr", text="a warning\n"),
                v4.new_output("stream", name="stdout", text=log[700:] + "Test accuracy: 0.91\n"),
            ]),
            v4.new_code_cell("learn.fit(6)", execution_count=4, outputs=[
                v4.new_output("display_data", data={"text/html": table(6), "text/plain": "<IPython HTML>"}),
            ]),
            v4.new_code_cell("plot()", execution_count=5, outputs=[
                v4.new_output("execute_result", execution_count=5, data={"text/plain": "0.25"}),
                v4.new_output("display_data", data={"image/png": PNG, "text/plain": "<Figure size 4x3>"}),
            ]),
            v4.new_code_cell("1/0", execution_count=6, outputs=[
                v4.new_output("error", ename="ZeroDivisionError", evalue="division by zero",
                              traceback=FRAMES),
            ]),
            v4.new_code_cell("never run"),
        ],
    )  # fmt: skip


@pytest.fixture
def lesson(here: Path) -> Path:
    nbformat.write(course(), here / "course.ipynb")
    return here / "course.ipynb"


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def test_a_copy_is_cut_and_the_original_stays(tool: Tool, lesson: Path, here: Path) -> None:
    before = lesson.read_bytes()
    said = tool("notebook", "trim", "course.ipynb", "-o", "short.ipynb")
    assert (said.code, said.out) == (0, "")
    assert "cell   2  6 epochs" in said.err
    assert "cell   3  4 epochs" in said.err
    assert re.search(r"cut: 10 epochs, \d+ overwritten bars", said.err)
    assert re.search(r"kB became .* kB: short.ipynb", said.err)
    assert lesson.read_bytes() == before
    short = read(here / "short.ipynb")
    nbformat.validate(short)
    log = "".join(output["text"] for output in short.cells[1].outputs if output.name == "stdout")
    assert re.findall(r"^Epoch (\d)/8$", log, re.MULTILINE) == ["1", "8"]
    assert log.endswith("Test accuracy: 0.91\n")
    assert short.cells[2].outputs[0].data["text/html"].count("<tr") == 4


def test_everything_else_is_as_it_was(lesson: Path) -> None:
    notebook, _ = load_notebook(lesson)
    original, _ = load_notebook(lesson)
    trim(notebook)
    for cell, was in zip(notebook.cells, original.cells, strict=True):
        if cell.source not in ("model.fit()", "learn.fit(6)"):
            assert cell == was
        assert {**cell, "outputs": 0} == {**was, "outputs": 0}
    assert {**notebook, "cells": 0} == {**original, "cells": 0}
    assert notebook.cells[1].outputs[1] == original.cells[1].outputs[1]


def test_twice_is_once(tool: Tool, lesson: Path, here: Path) -> None:
    tool("notebook", "trim", "course.ipynb", "-o", "one.ipynb")
    said = tool("notebook", "trim", "one.ipynb", "-o", "two.ipynb")
    assert "nothing to cut" in said.err
    assert (here / "one.ipynb").read_bytes() == (here / "two.ipynb").read_bytes()


def test_in_place_needs_a_yes(tool: Tool, lesson: Path) -> None:
    before = lesson.read_bytes()
    refused = tool("notebook", "trim", "course.ipynb")
    assert (refused.code, "-y" in refused.err) == (2, True)
    assert tool("notebook", "trim", "course.ipynb", "--dry-run").code == 0
    assert lesson.read_bytes() == before
    lesson.chmod(0o640)
    assert tool("notebook", "trim", "course.ipynb", "-y").code == 0
    assert len(lesson.read_bytes()) < len(before)
    assert lesson.stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in lesson.parent.iterdir()) == ["course.ipynb"]


def test_a_notebook_without_trainings_is_not_touched(tool: Tool, here: Path) -> None:
    strange = json.dumps(
        json.loads(nbformat.writes(v4.new_notebook(cells=[v4.new_code_cell("1")]))), indent=7
    )
    (here / "plain.ipynb").write_text(strange)
    assert tool("notebook", "trim", "plain.ipynb", "-y").code == 0
    assert (here / "plain.ipynb").read_text() == strange


def test_images_tracebacks_and_counts_go_on_demand(tool: Tool, lesson: Path, here: Path) -> None:
    words = ["--no-images", "--no-tracebacks", "--no-counts", "-o", "bare.ipynb", "--json"]
    said = tool("notebook", "trim", "course.ipynb", *words)
    found = json.loads(said.out)
    assert (found["epochs"], found["images"], found["tracebacks"], found["counts"]) == (10, 1, 1, 5)
    bare = read(here / "bare.ipynb")
    nbformat.validate(bare)
    assert [output.output_type for output in bare.cells[3].outputs] == ["execute_result"]
    assert bare.cells[4].outputs[0].traceback == ["ZeroDivisionError: division by zero"]
    assert {cell.get("execution_count") for cell in bare.cells} == {None}


def test_a_picture_in_html_goes_and_the_words_beside_it_stay() -> None:
    data = {
        "text/html": f'<p>three</p><img src="data:image/png;base64,{PNG}"/>',
        "text/plain": "<Figure size 4x3>",
    }
    cell = v4.new_code_cell(outputs=[v4.new_output("display_data", data=data)])
    assert trim(v4.new_notebook(cells=[cell]), images=False).images == 1
    assert cell.outputs[0].data["text/html"] == "<p>three</p>"


def test_a_notebook_of_2013(tool: Tool, here: Path) -> None:
    old = nbformat.v3.new_notebook(worksheets=[nbformat.v3.new_worksheet(cells=[
        nbformat.v3.new_code_cell(input="fit()", prompt_number=1, outputs=[
            nbformat.v3.new_output("stream", output_text=keras_bars(EIGHT, version=1)),
        ]),
    ])])  # fmt: skip
    (here / "old.ipynb").write_text(nbformat.v3.writes_json(old))
    said = tool("notebook", "trim", "old.ipynb", "-o", "new.ipynb")
    assert (said.code, "converted from nbformat 3 to 4" in said.err) == (0, True)
    new = read(here / "new.ipynb")
    nbformat.validate(new)
    assert new.cells[0].outputs[0].text.count("Epoch ") < 8


def test_a_notebook_that_is_slightly_invalid_is_cut_all_the_same(
    tool: Tool, lesson: Path, here: Path
) -> None:
    content = json.loads(lesson.read_text())
    for cell in content["cells"]:
        cell.pop("id", None)
        cell["extra"] = 1
    lesson.write_text(json.dumps(content))
    assert tool("notebook", "trim", "course.ipynb", "-o", "short.ipynb").code == 0
    assert all("id" not in cell for cell in json.loads((here / "short.ipynb").read_text())["cells"])


V4 = b'{"nbformat": 4, "nbformat_minor": 4, "metadata": {}, "cells": [%s]}'


@pytest.mark.parametrize(
    "content",
    [b"", b"no json", b"[]", b"{}", b"3", b"\xff\xfe\x00", b'{"nbformat": 4, "cells": 3}', b'{"nbformat": 9}',
     V4 % b'{"cell_type": "code"}', V4 % b"3", V4 % b'{"cell_type": "code", "outputs": [1]}',
     V4 % b'{"cell_type": "code", "outputs": [{}]}'],
)  # fmt: skip
def test_what_is_no_notebook(tool: Tool, here: Path, content: bytes) -> None:
    (here / "x.ipynb").write_bytes(content)
    said = tool("notebook", "trim", "x.ipynb", "-y")
    assert (said.code, "hint:" in said.err) == (2, True), said.err
    assert "cloudrun itself" not in said.err
    assert (here / "x.ipynb").read_bytes() == content


@pytest.mark.parametrize("words", [["gone.ipynb"], ["."], ["course.ipynb", "-o", "no/such/x.ipynb"],
                                   ["course.ipynb", "--html", "no/such/x.html"]])  # fmt: skip
def test_paths_that_are_not_there(tool: Tool, lesson: Path, words: list[str]) -> None:
    said = tool("notebook", "trim", *words, "-y")
    assert (said.code, "hint:" in said.err) == (2, True), said.err


def test_html_is_one_file_that_asks_nobody(tool: Tool, lesson: Path, here: Path) -> None:
    before = lesson.read_bytes()
    said = tool("notebook", "trim", "course.ipynb", "--html", "course.html")
    assert said.code == 0
    page = (here / "course.html").read_text()
    assert "<title>course</title>" in page
    assert "@media print" in page
    assert page.count("Epoch 1/8") == 1
    assert "Epoch 2/8" not in page
    assert not re.search(r"<(?:script|link|img)[^>]*(?:src|href)=\"(?!data:)", page)
    assert lesson.read_bytes() == before


def test_html_with_formulas_has_mathjax() -> None:
    with_formula = v4.new_notebook(cells=[v4.new_markdown_cell("$x^2$")])
    assert re.search(r'<script src="https://[^"]*mathjax', make_html(with_formula, "t"))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.text(max_size=80)), max_size=6))
def test_outputs_of_any_text_stay_valid_and_whole(streams: list[tuple[str, str]]) -> None:
    """Text without a training in it is not touched, whatever it is."""
    outputs = [v4.new_output("stream", name=name, text=text) for name, text in streams]
    notebook = v4.new_notebook(cells=[v4.new_code_cell(outputs=outputs)])
    report = trim(notebook)
    assert not report
    assert [output.text for output in notebook.cells[0].outputs] == [text for _, text in streams]
    assert why_invalid(notebook) == ""


def test_without_nbformat_the_message_names_the_extra(here: Path, lesson: Path) -> None:
    code = (
        "import sys; sys.modules['nbformat'] = None\n"
        "from cloudrun.cli import run\n"
        "sys.exit(run(['notebook', 'trim', 'course.ipynb']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=here)
    assert (done.returncode, "pip install 'cloudrun[tools]'" in done.stderr) == (2, True)
    assert notebooks.FORMAT == 4
