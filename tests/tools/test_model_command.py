"""`cloudrun model`: a job is asked in a process of its own, in a copy of its folder."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloudrun.config import load_settings
from cloudrun.describing import describe_job
from cloudrun.errors import JobError

Tool = Callable[..., Any]
LAYER = {"name": "conv", "kind": "Conv2d", "calls": 2, "input": [3, 32, 32], "output": [8, 32, 32],
         "window": {"kernel": [5, 5], "stride": [1, 1], "padding": [2, 2], "dilation": [1, 1]},
         "parameters": 608, "trainable": 0, "forward_flops": 1_228_800, "backward_flops": 0,
         "output_bytes": 32_768, "saved_bytes": 12_288}  # fmt: skip
NETWORK = {"input": [3, 32, 32], "layers": [LAYER], "parameters": 608, "trainable": 0, "buffers": 0,
           "forward_flops": 1_228_800, "backward_flops": 0, "saved_bytes": 12_288, "saved_bytes_fixed": 0,
           "peak_bytes": 45_056, "state_bytes": 2_432, "moved_bytes": 90_000, "moved_bytes_fixed": 9_000,
           "kernels": 9, "optimizer_slots": 2}  # fmt: skip
ASKED = {"batch": 64, "epochs": 5, "samples": 50_000, "evaluated": 0, "note": "the size of CIFAR-10 is taken"}


@pytest.fixture
def make_job(here: Path) -> Callable[..., str]:
    """A job whose train.py is this text; it may be asked."""

    def make(script: str, *, shared: str = '["describe"]') -> str:
        folder = here / "tiny"
        folder.mkdir()
        (folder / "train.py").write_text(script)
        (folder / "job.toml").write_text(
            f'name = "tiny"\ncommand = ["python3", "train.py"]\nshared = {shared}\nstack = "cuda12-torch"\n'
            '[presets.big]\nargs = ["--channels", "9"]\n'
        )
        return "tiny"

    return make


def says(report: object) -> str:
    return f"import json\nprint('a word before')\nprint({json.dumps(report)!r})\n"


def test_layers_totals_and_gpus(tool: Tool, make_job: Callable[..., str]) -> None:
    make_job(says({"describe": 1, "model": NETWORK, "asked": ASKED, "timing": None}))
    said = tool("model", "tiny", "--preset", "big")
    assert said.code == 0, said.err
    lines = said.out.splitlines()
    assert lines[0].split()[:3] == ["LAYER", "KIND", "OUTPUT"]
    row = "conv Conv2d x2 8x32x32 (32-5+2*2)/1+1 = 32 608 65.5 kB 12.3 kB 1.23 M"
    assert lines[1].split() == row.split()
    assert "608, 608 of them frozen" in said.out
    assert "ESTIMATES, on-demand, for preset big: 5 epochs of 50,000 samples in batches of 64" in said.out
    assert any(line.startswith("T4 ") and "g4dn.xlarge" in line for line in lines)
    assert "CIFAR-10" in said.err
    assert max(map(len, lines)) <= 100


def test_json(tool: Tool, make_job: Callable[..., str]) -> None:
    make_job(says({"describe": 1, "model": NETWORK, "asked": ASKED, "timing": None}))
    found = json.loads(tool("model", "tiny", "--gpu", "a100", "--spot", "--json").out)
    assert found["layers"] == [LAYER]
    assert {row["gpu"] for row in found["estimates"]} == {"A100"}
    assert {row["market"] for row in found["estimates"]} == {"spot"}
    assert all(row["estimated"] for row in found["estimates"])
    assert len(found["assumptions"]) == 5


def test_a_bare_description_is_enough(tool: Tool, make_job: Callable[..., str]) -> None:
    make_job(says(NETWORK))
    said = tool("model", "tiny", "--gpu", "t4")
    assert (said.code, "there are no hours" in said.out) == (0, True)


def test_the_job_gets_preset_and_arguments_and_its_shared_modules(
    here: Path, make_job: Callable[..., str]
) -> None:
    make_job(
        "import json, os, sys\n"
        "seen = [sys.argv[1:], os.path.isfile('shared/describe.py'), os.getcwd()]\n"
        "seen.append(os.environ['CLOUDRUN_OUTPUT_DIR'])\n"
        "print(seen, file=open(sys.argv[3], 'w'))\n" + says(NETWORK)
    )
    described = describe_job(load_settings(), "tiny", preset="big", args=[str(here / "seen")])
    assert (described.job.name, described.preset) == ("tiny", "big")
    seen = (here / "seen").read_text()
    assert f"['--channels', '9', {str(here / 'seen')!r}, '--describe']" in seen
    assert "True" in seen
    assert str(here / "tiny") not in seen
    assert sorted(path.name for path in (here / "tiny").iterdir()) == ["job.toml", "train.py"]


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("raise SystemExit('no data here')", "no data here"),
        ("print('hello')", "printed no description"),
        ("print('{')", "printed no description"),
        ("print('{}')", "printed no description"),
        (says({"model": {**NETWORK, "kernels": -1}}), "kernels is negative"),
        (says({"model": {**NETWORK, "layers": [{}]}}), "printed no description"),
        (says({"model": NETWORK, "asked": {"batch": 1}}), "printed no description"),
    ],
)
def test_a_job_that_answers_badly(
    tool: Tool, make_job: Callable[..., str], script: str, message: str
) -> None:
    make_job(script)
    said = tool("model", "tiny")
    assert said.code == 2
    assert message in said.err
    assert "hint:" in said.err
    assert "Traceback" not in said.err


def test_a_job_that_may_not_be_asked_is_not_run(tool: Tool, make_job: Callable[..., str], here: Path) -> None:
    make_job(f"open({str(here / 'ran')!r}, 'w')", shared="[]")
    said = tool("model", "tiny")
    assert (said.code, "cannot describe its network" in said.err) == (2, True)
    assert not (here / "ran").exists()


def test_a_job_that_trains_instead_is_ended_with_all_its_processes(
    make_job: Callable[..., str], here: Path
) -> None:
    make_job(
        "import subprocess, time\n"
        "child = subprocess.Popen(['sleep', '300'])\n"
        f"open({str(here / 'pid')!r}, 'w').write(str(child.pid))\n"
        "time.sleep(300)\n"
    )
    with pytest.raises(JobError, match="did not describe itself within 6 s"):
        describe_job(load_settings(), "tiny", timeout_s=6)
    pid = int((here / "pid").read_text())
    deadline = time.monotonic() + 60
    while _alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    """A process that runs; one that only waits to be collected does not."""
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return bool(done.stdout.strip()) and not done.stdout.startswith("Z")


@pytest.mark.parametrize(
    "words", [["nojob"], ["tiny", "--preset", "nope"], ["tiny", "--precision", "float8"]]
)
def test_what_is_refused(tool: Tool, make_job: Callable[..., str], words: list[str]) -> None:
    make_job(says(NETWORK))
    said = tool("model", *words)
    assert (said.code, "hint:" in said.err) == (2, True)


@pytest.mark.slow
def test_the_bundled_job_describes_itself(here: Path) -> None:
    """The real one, in its smallest preset: parameters in closed form, 20 steps timed."""
    done = subprocess.run(
        [sys.executable, "-m", "cloudrun", "model", "svhn_rcnn", "--preset", "smoke", "--json",
         "--", "--threads", "1"],
        capture_output=True, text=True, check=True, cwd=here, timeout=150,
    )  # fmt: skip
    found = json.loads(done.stdout)
    channels, steps = 16, 3
    first = (5 * 5 * 3 + 1) * channels + 2 * channels
    layer = (2 * 9 * channels + 1) * channels + 2 * channels * (steps - 1)
    assert found["network"]["parameters"] == first + 4 * layer + 17 * 10
    assert (found["timing"]["steps"], found["timing"]["batch"], found["asked"]["epochs"]) == (20, 20, 3)
    assert found["asked"]["samples"] + found["asked"]["evaluated"] == 1_500
    assert found["estimates"][0]["hours"] > 0
    assert "outputs" not in {path.name for path in here.iterdir()}
