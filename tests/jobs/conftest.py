"""Jobs are programs: what they do is tested in a process of their own, their parts by import."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from job_paths import JOBS, TRAIN
from warm_job import WarmJob

sys.path[:0] = [str(JOBS), str(JOBS / "svhn_rcnn")]

StartJob = Callable[..., WarmJob]


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One data folder for the session: digits are rendered once."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def start_job(data_dir: Path, tmp_path: Path) -> Iterator[StartJob]:
    """Start train.py with its outputs in tmp_path/outputs; stdout and stderr come as one stream.

    On one thread: two threads that wait for each other crawl when other tests hold the other processor.
    """
    started: list[WarmJob] = []

    def start(
        *args: str, outputs: str = "outputs", env: Mapping[str, str] = {}, train: Path = TRAIN
    ) -> WarmJob:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("CLOUDRUN_")}
        ours = {"CLOUDRUN_DATA_DIR": str(data_dir), "CLOUDRUN_OUTPUT_DIR": str(tmp_path / outputs), **env}
        process = WarmJob(train, (*args, "--threads", "1"), {**kept, "OMP_NUM_THREADS": "1", **ours})
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def run_job(start_job: StartJob) -> Callable[..., tuple[int, str]]:
    """Run train.py to its end: exit code and all that it said."""

    def run(*args: str, **options: object) -> tuple[int, str]:
        process = start_job(*args, **options)
        said, _ = process.communicate(timeout=150)
        return process.returncode, said

    return run
