"""Two processes that share each batch: the losses of one, exact resume, one exit code for all."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rcnn_steps
from job_outputs import metric_lines
from warm_job import WarmJob

RunJob = Callable[..., tuple[int, str]]
StartJob = Callable[..., WarmJob]
STEPS = Path(rcnn_steps.__file__)
PAIR = (
    *("--preset", "smoke", "--channels", "4", "--steps", "2", "--batch", "40", "--dropout", "0.3"),
    *("--limit", "500", "--epochs", "2", "--processes", "2"),
)


def run_pair(start_job: StartJob, meet: Path, *args: str, **options: Any) -> list[str]:
    """Two processes as torchrun starts them; what each said."""
    where = {"RCNN_RENDEZVOUS": f"file://{meet}", "GLOO_SOCKET_IFNAME": "lo", "WORLD_SIZE": "2"}
    env = {**where, **options.pop("env", {})}
    processes = [
        start_job(*args, env={**env, "RANK": str(rank), "LOCAL_RANK": str(rank)}, **options)
        for rank in range(2)
    ]
    said = [process.communicate(timeout=100)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    return said


@pytest.mark.parametrize("norm", ["batch", "local"])
def test_two_processes_have_the_losses_of_one_with_the_same_batch(
    norm: str, start_job: StartJob, run_job: RunJob, tmp_path: Path
) -> None:
    """In double precision, where the order of sums shows in the last digits only."""
    both = run_pair(start_job, tmp_path / "meet", norm, train=STEPS)
    code, alone = run_job(norm, train=STEPS)
    assert code == 0, alone
    for words in both:
        for name, losses in json.loads(words.splitlines()[-1]).items():
            assert losses == pytest.approx(json.loads(alone)[name], rel=1e-10, abs=0), name


def test_two_processes_are_stopped_at_one_step_and_resume_exactly(
    start_job: StartJob, run_job: RunJob, tmp_path: Path
) -> None:
    both = run_pair(start_job, tmp_path / "meet", *PAIR, outputs="whole")
    assert sorted(len(re.findall("^epoch", said, re.MULTILINE)) for said in both) == [0, 2]  # one speaks

    process = start_job(*PAIR, outputs="first")
    assert any(line.startswith("epoch 1/2") for line in process.stdout)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=100)
    assert process.returncode == 75, said
    places = re.findall(r"saved in epoch 2 after (\d+) of", said)
    assert len(places) == 2, said
    assert len(set(places)) == 1

    resume = {"CLOUDRUN_RESUME_FROM": str(tmp_path / "first" / "checkpoint")}
    run_pair(start_job, tmp_path / "meet-again", *PAIR, outputs="second", env=resume)
    assert metric_lines(tmp_path / "second") == metric_lines(tmp_path / "whole")


def test_a_batch_that_cannot_be_shared_equally_is_refused(run_job: RunJob) -> None:
    code, said = run_job(*PAIR, "--batch", "41")
    assert code == 1, said
    assert "cannot be shared equally by 2 processes" in said
    assert "Traceback" not in said
