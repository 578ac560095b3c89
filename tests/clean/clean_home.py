"""Homes with finished runs in them, for the tests of the clean-up."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from cloudrun.config import Settings
from cloudrun.manifest import digest_files, save_manifest
from cloudrun.models import Attempt, Bundle, BundleFile, Market, Offer, Run, RunState, Stage
from cloudrun.runfiles import RunFiles
from cloudrun.store import Store

NOW = datetime(2026, 6, 1, tzinfo=UTC)
OFFER = Offer("local", "local", "local", Market.OWN, Decimal(0))


class Home:
    """A home that is filled run by run."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(home=folder)
        self.store = Store(self.settings.store_path)

    def add(self, run_id: str, *, code: Sequence[str] = ("shared",), mb: int = 0, **changes: Any) -> Run:
        """A run that ended a day before NOW, with log, record, outputs and a checkpoint."""
        bundle = self.keep(code)
        run = Run(
            id=run_id,
            job="svhn",
            project="street",
            preset="quick",
            args=(),
            command=("python3", "train.py"),
            stack="cpu",
            bundle=bundle.digest,
            outputs="outputs",
            state=RunState.SUCCEEDED,
            stage=Stage.RELEASE,
            submitted_at=NOW - timedelta(days=1, hours=1),
            ended_at=NOW - timedelta(days=1),
            metric_name="val_acc",
            metric_value=0.5,
        )
        run = replace(run, **changes)
        files = RunFiles(self.settings, run_id)
        files.checkpoint.mkdir(parents=True)
        save_manifest(bundle, files.bundle)
        files.record.write_text("{}")
        files.log(1).write_text(f"log of {run_id}\n")
        (files.checkpoint / "model.pt").write_bytes(run_id.encode())
        with (files.outputs / "curve.bin").open("wb") as large:
            large.truncate(mb * 10**6)  # sparse
        self.store.add_run(run, Attempt(run_id, 1, f"token-{run_id}", OFFER), [])
        return run

    def keep(self, texts: Sequence[str]) -> Bundle:
        """Keep code in the object store, one file for each text."""
        bundle = bundle_of(texts)
        for text, file in zip(texts, bundle.files, strict=True):
            sha256 = file.sha256
            place = self.settings.objects_dir / sha256[:2] / sha256
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
        return bundle

    def runs(self) -> set[str]:
        """Of which anything but a lock is at home."""
        folders = self.settings.runs_dir.iterdir()
        return {folder.name for folder in folders if {path.name for path in folder.iterdir()} - {"lock"}}

    def code(self) -> set[str]:
        return {path.read_text() for path in self.settings.objects_dir.glob("*/*")}

    def content(self, below: str = "") -> dict[str, bytes]:
        """Every file at home but the store, the locks and the trash."""
        root = self.settings.home
        return {
            str(path.relative_to(root)): path.read_bytes()
            for part in ("runs", "objects")
            for path in (root / below / part).rglob("*")
            if path.is_file() and path.name != "lock"
        }


def bundle_of(texts: Sequence[str]) -> Bundle:
    """Code with one file for each text, as a manifest."""
    files = tuple(
        BundleFile(f"{text}.py", len(text), 0o644, hashlib.sha256(text.encode()).hexdigest())
        for text in texts
    )
    return Bundle(digest_files(files), files)


def many(home: Home, count: int, *, seed: int = 0) -> None:
    """Runs of all kinds, the same for the same seed."""
    chance = random.Random(seed)
    for number in range(count):
        state = chance.choice([*RunState])
        home.add(
            f"run{number:05d}",
            code=chance.sample(["a", "b", "c", "d", f"own{number}"], 2),
            mb=chance.randrange(3),
            state=state,
            job=chance.choice(["svhn", "bn"]),
            project=chance.choice(["street", "norm"]),
            resume=chance.random() < 0.5,
            submitted_at=NOW - timedelta(hours=number + 1),
            ended_at=NOW - timedelta(hours=number) if state.final else None,
            metric_value=chance.choice([None, 0.1, 0.7, 0.9]),
            metric_direction="max",
        )
