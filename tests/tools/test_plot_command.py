"""`cloudrun plot` on files, stdin, runs and the clipboard; what it refuses, and how."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from made_logs import keras_bars, keras_lines, metrics_jsonl

from cloudrun.client import Client
from cloudrun.config import load_settings
from cloudrun.models import Run, RunState, Stage

Tool = Callable[..., Any]
EPOCHS = [
    {"loss": 1 / n, "acc": 1 - 0.5 / n, "val_loss": 1.2 / n, "val_acc": 0.9 - 0.5 / n} for n in range(1, 6)
]


@pytest.fixture
def log(here: Path) -> Path:
    (here / "keras.log").write_text(keras_bars(EPOCHS, version=1))
    return here / "keras.log"


def a_run(client: Client, id: str, **changes: Any) -> Run:
    facts: dict[str, Any] = {
        "id": id, "job": "digits", "project": "p", "preset": "quick", "args": (), "command": ("true",),
        "stack": "none", "bundle": "ab" * 32, "outputs": "outputs", "state": RunState.SUCCEEDED,
        "stage": Stage.RELEASE, "submitted_at": datetime(2026, 3, 4, tzinfo=UTC),
        "ended_at": datetime(2026, 3, 4, 1, tzinfo=UTC),
    }  # fmt: skip
    run = Run(**{**facts, **changes})
    client.store.save_run(run)
    return run


def test_a_file_is_drawn_in_the_terminal(tool: Tool, log: Path) -> None:
    said = tool("plot", "keras.log")
    assert said.code == 0
    lines = said.out.splitlines()
    assert lines[:2] == ["keras.log", "loss"]
    assert max(map(len, lines)) <= 100
    assert "accuracy" in lines


@pytest.mark.parametrize(
    ("name", "start"), [("a.png", b"\x89PNG"), ("a.SVG", b"<?xml"), ("a.html", b"<!doctype")]
)
def test_pictures_are_written(tool: Tool, log: Path, here: Path, name: str, start: bytes) -> None:
    said = tool("plot", "keras.log", "-", "-o", name, stdin=keras_lines(EPOCHS, version=3).encode())
    assert (said.code, said.out) == (0, "")
    assert (here / name).read_bytes().startswith(start)
    assert "2 trainings drawn" in said.err


def test_json_gives_the_numbers(tool: Tool, log: Path) -> None:
    said = tool("plot", "keras.log", "--json")
    (found,) = json.loads(said.out)
    assert (found["title"], found["format"], found["x"], found["unfinished"]) == (
        "keras.log",
        "keras",
        "epoch",
        0,
    )
    assert found["points"][1] == {"epoch": 2, "loss": 0.5, "acc": 0.75, "val_loss": 0.6, "val_acc": 0.65}


def test_nan_is_null_in_json(tool: Tool) -> None:
    said = tool("plot", "-", "--json", stdin=b"Epoch 1/1\n4s - loss: nan - acc: 0.5000\n")
    assert json.loads(said.out)[0]["points"] == [{"epoch": 1, "loss": None, "acc": 0.5}]


def test_several_trainings_of_a_log_and_end_to_end(tool: Tool, here: Path) -> None:
    (here / "two.log").write_text(keras_lines(EPOCHS[:1], version=1) + keras_lines(EPOCHS, version=1))
    apart = json.loads(tool("plot", "two.log", "--json").out)
    assert [len(fit["points"]) for fit in apart] == [1, 5]
    (joined,) = json.loads(tool("plot", "two.log", "--join", "--json").out)
    assert (joined["title"], [point["epoch"] for point in joined["points"]]) == (
        "two.log",
        [1, 2, 3, 4, 5, 6],
    )


def test_a_run_by_its_metrics_or_else_by_its_log(tool: Tool, here: Path) -> None:
    client = Client(load_settings())
    for run in (a_run(client, "withmetr"), a_run(client, "logalone")):
        client.files(run.id).create()
        client.files(run.id).log(1).write_text(keras_bars(EPOCHS[:3], version=2))
    client.files("withmetr").outputs.mkdir()
    (client.files("withmetr").outputs / "metrics.jsonl").write_text(metrics_jsonl(EPOCHS))
    by_metrics, by_log = json.loads(tool("plot", "with", "logalone", "--json").out)
    assert (by_metrics["title"], by_metrics["format"], len(by_metrics["points"])) == (
        "digits quick withmetr",
        "jsonl",
        5,
    )
    assert (by_log["format"], len(by_log["points"])) == ("keras", 3)


def test_a_folder_with_outputs(tool: Tool, here: Path) -> None:
    (here / "results" / "outputs").mkdir(parents=True)
    (here / "results" / "outputs" / "metrics.jsonl").write_text(metrics_jsonl(EPOCHS))
    assert json.loads(tool("plot", "results", "--json").out)[0]["title"] == "results"


def test_a_log_of_powershell(tool: Tool, here: Path) -> None:
    (here / "win.log").write_bytes(keras_lines(EPOCHS, version=2).replace("\n", "\r\n").encode("utf-16"))
    assert len(json.loads(tool("plot", "win.log", "--json").out)[0]["points"]) == 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "no file and no run 'nowhere'"),
        (["keras.log", "-o", "x.gif"], "what kind of picture"),
        (["keras.log", "-o", "gone/x.png"], "no such folder"),
        (["keras.log", "--metric", "los"], "no metric 'los'"),
        (["keras.log", "--clipboard"], "no clipboard here"),
        (["--paste"], "no clipboard here"),
        (["keras.log", "--show"], "no window can be opened"),
        (["empty.log"], "no curves found"),
        (["."], "no metrics.jsonl or metrics.csv in it"),
        (["a" * 5000], "no file and no run"),
        (["-"], "no curves found"),
    ],
)
def test_what_is_refused(tool: Tool, log: Path, here: Path, words: list[str], message: str) -> None:
    (here / "empty.log").touch()
    said = tool("plot", *words)
    assert said.code == 2
    assert message in said.err
    assert "hint:" in said.err
    assert "Traceback" not in said.err


def test_a_file_that_may_not_be_written(tool: Tool, log: Path, here: Path) -> None:
    (here / "folder.png").mkdir()
    said = tool("plot", "keras.log", "-o", "folder.png")
    assert (said.code, "folder.png" in said.err) == (2, True)


def test_names_cannot_steer_the_terminal(tool: Tool, here: Path) -> None:
    (here / "m.jsonl").write_text('{"epoch": 1, "a\\u001b[2Jb": 1}\n{"epoch": 2, "a\\u001b[2Jb": 2}\n')
    said = tool("plot", "m.jsonl")
    assert said.code == 0
    assert "\x1b" not in said.out + said.err


def test_the_clipboard_of_x11(tool: Tool, log: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program called xclip that keeps what it is given, and gives it back."""
    program = here / "bin" / "xclip"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\ncase "$*" in *-o*) cat {log};; *) echo "$@" > {here}/said; cat > {here}/held;; esac\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("DISPLAY", ":7")
    assert tool("plot", "keras.log", "--clipboard").code == 0
    assert (here / "held").read_bytes().startswith(b"\x89PNG")
    assert "image/png" in (here / "said").read_text()
    pasted = json.loads(tool("plot", "--paste", "--json").out)
    assert (pasted[0]["title"], len(pasted[0]["points"])) == ("clipboard", 5)
    program.write_text("#!/bin/sh\nexit 1\n")
    assert tool("plot", "--paste").code == 2


def test_where_there_is_no_unicode(log: Path, here: Path) -> None:
    """The real command in a terminal of plain ASCII."""
    import subprocess
    import sys

    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-m", "cloudrun", "plot", "keras.log"],
        capture_output=True, env=environment, check=True, cwd=here,
    )  # fmt: skip
    assert b"\\u" not in done.stdout
    assert b"+--" in done.stdout
