"""Two processes that share each batch: the losses of one, exact resume, one exit code for all."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import rcnn_steps
from job_outputs import metric_lines

STEPS = Path(rcnn_steps.__file__)
PAIR = (
    *("--preset", "smoke", "--channels", "4", "--steps", "2", "--batch", "40", "--dropout", "0.3"),
    *("--limit", "500", "--epochs", "2", "--processes", "2"),
)


def torchrun_environment(folder: Path, rank: int) -> dict[str, str]:
    where = {
        "MASTER_ADDR": "127.0.0.1",
        "RCNN_RENDEZVOUS": f"file://{folder}/meet",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    return {**os.environ, **where, "RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}


@pytest.mark.parametrize("norm", ["batch", "local"])
def test_two_processes_have_the_losses_of_one_with_the_same_batch(norm: str, tmp_path: Path) -> None:
    """In double precision, where the order of sums shows in the last digits only."""
    processes = [
        subprocess.Popen(
            [sys.executable, STEPS, norm], env=torchrun_environment(tmp_path, rank), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]  # fmt: skip
    said = [process.communicate(timeout=100) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    alone = subprocess.run([sys.executable, STEPS, norm], capture_output=True, text=True, check=True).stdout
    for words, _ in said:
        for name, losses in json.loads(words).items():
            assert losses == pytest.approx(json.loads(alone)[name], rel=1e-10, abs=0), name


def test_two_processes_are_stopped_at_one_step_and_resume_exactly(
    start_job: Callable[..., subprocess.Popen[str]], run_job: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    code, said = run_job(*PAIR, outputs="whole")
    assert code == 0, said
    assert len(re.findall("^epoch", said, re.MULTILINE)) == 2  # one of them speaks

    process = start_job(*PAIR, outputs="first")
    assert any(line.startswith("epoch 1/2") for line in process.stdout)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 75, said
    places = re.findall(r"saved in epoch 2 after (\d+) of", said)
    assert len(places) == 2, said
    assert len(set(places)) == 1

    resume = {"CLOUDRUN_RESUME_FROM": str(tmp_path / "first" / "checkpoint")}
    code, said = run_job(*PAIR, outputs="second", env=resume)
    assert code == 0, said
    assert metric_lines(tmp_path / "second") == metric_lines(tmp_path / "whole")


def test_a_batch_that_cannot_be_shared_equally_is_refused(run_job: Callable[..., tuple[int, str]]) -> None:
    code, said = run_job(*PAIR[:-1], "3")
    assert code == 1, said
    assert "cannot be shared equally by 3 processes" in said
    assert "Traceback" not in said
