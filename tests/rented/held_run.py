"""A run that gets to an epoch and stays there until its machine is taken: no test has to outrun it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rented_help import TYPE, last_epoch, wait_for

from cloudrun.client import Client
from cloudrun.models import Market, Plan, Run

EPOCHS, HELD_AT = 12, 5
SCRIPT = f"""\
import json, os, pathlib, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {{signal.SIGTERM}})
out = pathlib.Path(os.environ["CLOUDRUN_OUTPUT_DIR"])
resume_from = os.environ.get("CLOUDRUN_RESUME_FROM")
history = json.loads(pathlib.Path(resume_from, "history.json").read_text()) if resume_from else []
print("begins after epoch", len(history), flush=True)
(out / "checkpoint").mkdir(parents=True, exist_ok=True)
while len(history) < {EPOCHS}:
    history.append({{"epoch": len(history) + 1}})
    (out / "draft").write_text(json.dumps(history))
    (out / "draft").replace(out / "checkpoint" / "history.json")
    (out / "metrics.jsonl").write_text("".join(json.dumps(each) + "\\n" for each in history))
    print(json.dumps(history[-1]), flush=True)
    if len(history) == {HELD_AT} and not resume_from:
        signal.sigwait({{signal.SIGTERM}})
        sys.exit(75)
"""
JOB = 'name = "held"\ncommand = ["python3", "job.py"]\nstack = "none"\nresume = true\n'


@dataclass(frozen=True)
class Held:
    """A run that stands still; `ended` waits for its end."""

    run: Run
    _walk: Future[Run]

    def ended(self) -> Run:
        return self._walk.result(timeout=150)


@contextmanager
def held(client: Client, folder: Path, *, type: str = TYPE, **asked: object) -> Iterator[Held]:
    """One that is at that epoch."""
    (folder / "held").mkdir()
    (folder / "held" / "job.toml").write_text(JOB)
    (folder / "held" / "job.py").write_text(SCRIPT)
    plan = client.plan(folder / "held", type=type, market=Market.SPOT, **asked)  # type: ignore[arg-type]
    with walked(client, plan, lambda: last_epoch(client, "last") == HELD_AT) as begun:
        yield begun


@contextmanager
def walked(client: Client, plan: Plan, there: Callable[[], bool]) -> Iterator[Held]:
    """A run of that plan that is `there`, where it stands still until its machine is taken. It is walked by a
    thread of this process, which takes a fifth of the processor's time that a supervisor takes."""
    with ThreadPoolExecutor(1) as walker:
        walk = walker.submit(client.submit, plan)
        try:
            wait_for(lambda: walk.done() or (client.runs() and there()))
            assert not walk.done(), walk.result()
            yield Held(client.run("last"), walk)
        except BaseException:
            client.cancel("last")  # or its walk would be waited for in vain
            raise
