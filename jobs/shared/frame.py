"""What stands around the training in every job: settings, device, checkpoint, metrics, when to speak or save.

frame = Frame(args, folders, job=HERE)      # the checkpoint is read, and refused if it is of other settings
frame.refuse_others(data="MNIST ...")       # or of other data
frame.open(about)                           # metrics.jsonl, with the lines of the checkpoint
...                                         # the job's own loop: frame.save({...}) when frame.save_due()
frame.close()
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from shared import checkpoint, metrics, settings

# What may differ between a run and the checkpoint that it continues. "describe" stood in older checkpoints.
FREE = frozenset({"preset", "checkpoint_minutes", "device", "threads", "describe"})
SAY_EVERY_S = 15.0


class Frame:
    """One run's surroundings. Making it fixes the randomness, reads the checkpoint, and writes nothing.

    args: has device, threads and checkpoint_minutes (arguments.py). free: further settings that may differ
    from the checkpoint's. device, cpus: where others than those of `args` and of this machine are to be
    used. Raises checkpoint.CheckpointError.
    """

    def __init__(
        self, args: argparse.Namespace, folders: settings.Folders, *, job: Path, seed: int = 0,
        free: frozenset[str] = frozenset(), device: torch.device | None = None, cpus: int = 0,
    ) -> None:  # fmt: skip
        self.args, self.folders, self.job = args, folders, job
        self.saved = checkpoint.load(folders.resume_from) if folders.resume_from else None
        if self.saved:
            checkpoint.refuse_other_settings(self.saved["settings"], vars(args), free=FREE | free)
        self.device = device or settings.pick_device(args.device)
        cpus = cpus or settings.usable_cpus()
        self.threads = args.threads or (self.saved["threads"] if self.saved else cpus)
        settings.fix_randomness(seed, self.threads, self.device)
        self._facts: dict[str, Any] = {}
        self._said_at = self._saved_at = time.monotonic()

    def refuse_others(self, **facts: Any) -> None:
        """Refuse a checkpoint with other facts (such as the data) than these, which ours will hold."""
        for name, now in facts.items():
            if self.saved and self.saved[name] != now:
                raise checkpoint.CheckpointError(f"trained on {self.saved[name]}, but here is {now}")
        self._facts = facts

    def about(self) -> dict[str, Any]:
        """What each job's "about" ends with: machine, settings, and which code it was."""
        return {
            "machine": settings.describe_machine(self.device),
            "settings": vars(self.args),
            "source_sha256": settings.source_sha256(self.job),
        }

    def open(self, about: dict[str, Any]) -> None:
        """Begin metrics.jsonl, with what the checkpoint has of it. From now on time counts."""
        history = self.saved["history"] if self.saved else []
        self.metrics = metrics.Metrics(self.folders.outputs, about, history)
        self._said_at = self._saved_at = time.monotonic()

    def save(self, state: dict[str, Any]) -> None:
        """The job's state with what is the same in every job. Durable when it returns."""
        checkpoint.save(self.folders.checkpoint, {
            "settings": vars(self.args), "threads": self.threads, **self._facts, **state,
            "history": self.metrics.history,
        })  # fmt: skip
        self._saved_at = time.monotonic()

    def save_due(self) -> bool:
        return time.monotonic() - self._saved_at > 60 * self.args.checkpoint_minutes

    def say(self, line: str) -> None:
        say(line)
        self._said_at = time.monotonic()

    def say_due(self) -> bool:
        """Whether nothing was said for a while."""
        return time.monotonic() - self._said_at > SAY_EVERY_S

    def close(self) -> None:
        self.metrics.close()
        out = self.folders.outputs
        say(f"outputs  {out}: {', '.join(sorted(file.name for file in out.iterdir()))}")


def say(line: str) -> None:
    """A line for whoever follows the run, at once."""
    print(line, flush=True)
