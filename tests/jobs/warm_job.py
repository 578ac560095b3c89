"""A job's script in a process of its own that need not import torch again: it is forked from one that has.

Five seconds of imports would come before each of fifty short trainings. The script is run as the main program
by its path, with its own arguments, variables and folder; nothing of the tests is on its import path.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import sys
import warnings
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from subprocess import TimeoutExpired
from threading import Timer

_TESTS = Path(__file__).resolve().parents[1]
_JOBS = _TESTS.parent / "jobs"
_forks = multiprocessing.get_context("forkserver")
# Making an optimiser imports torch's compiler, used or not: half of all that there is to import.
_HEAVY = ("torch.utils.tensorboard", "torch._inductor.config", "matplotlib.backends.backend_agg", "scipy.io")
_forks.set_forkserver_preload([*_HEAVY])


class WarmJob:
    """As much of subprocess.Popen as the tests use. stdout and stderr come as one stream."""

    def __init__(self, script: Path, arguments: Sequence[str], env: Mapping[str, str]) -> None:
        ours, its = _forks.Pipe(duplex=False)
        with its, ours:
            self._process = _forks.Process(target=_run, args=(its, str(script), list(arguments), dict(env)))
            self._process.start()
            self.stdout = os.fdopen(os.dup(ours.fileno()), encoding="utf-8")

    def poll(self) -> int | None:
        return self._process.exitcode

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def send_signal(self, number: int) -> None:
        if self.poll() is None and self._process.pid:
            os.kill(self._process.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float = 60.0) -> tuple[str, None]:
        """What it says from here on, once it has ended. Raises TimeoutExpired, and it is killed."""
        if self.stdout.closed:
            return "", None
        timer = Timer(timeout, self.kill)
        timer.start()
        with self.stdout:
            said = self.stdout.read()
        self._process.join()
        in_time = timer.is_alive()
        timer.cancel()
        if not in_time:
            raise TimeoutExpired(self._process.name, timeout, said)
        return said, None


def _run(output: Connection, script: str, arguments: list[str], env: dict[str, str]) -> None:
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    output.close()
    os.environ.clear()
    os.environ.update(env)
    os.chdir(Path(script).parent)
    others = [entry for entry in sys.path if not Path(entry).is_relative_to(_TESTS)]
    sys.path[:] = [str(Path(script).parent), *(e for e in others if not Path(e).is_relative_to(_JOBS))]
    sys.argv[:] = [script, *arguments]
    warnings.filterwarnings("error", category=UserWarning)
    runpy.run_path(script, run_name="__main__")
