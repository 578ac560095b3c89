"""Import a job's modules without leaving their names behind: several jobs have a `table` or a `figure`."""

from __future__ import annotations

import importlib
import sys
from types import SimpleNamespace

from job_paths import JOBS


def modules_of(job: str, *names: str) -> SimpleNamespace:
    """The named modules of jobs/JOB, which import each other by plain names, as they do on a machine."""
    folder = JOBS / job
    own = {file.stem for file in folder.glob("*.py")}
    before = {name: sys.modules.pop(name) for name in own & sys.modules.keys()}
    sys.path[:0] = [str(folder), str(JOBS)]
    try:
        return SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    finally:
        del sys.path[:2]
        for name in own & sys.modules.keys():
            del sys.modules[name]
        sys.modules.update(before)
