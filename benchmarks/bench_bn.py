"""The batch-norm study on this CPU: its training step, cached features, and the MNIST half of its grid.

Beside it stands the usual way: images that a DataLoader fetches one by one, Adam as it comes, the default
layout; and for the grid every cell by itself, rows "fc" through the whole frozen net in each of their epochs.
Drawn images: what they show does not change how long a step takes. With --threads 1 CPU time is compared and
not the clock, for a machine that does other things too.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measure import ROOT, Goal, Report, arguments, in_turn, show

sys.path[:0] = [str(ROOT / "jobs" / "bn_study"), str(ROOT / "jobs")]
# ruff: noqa: E402
import grid
import learn
import nets
import options
import samples
import torch
import train
from shared import settings
from torch.nn import functional

RATE = 0.001
WHOLE, LOADER, FEATURES = "resident images", "DataLoader, one by one", "head on features"
SHARED, ONE_BY_ONE = "grid with shared work", "cells one by one"


def main() -> None:
    parser = arguments(__doc__ or "", rounds=7)
    parser.add_argument("--images", type=int, default=2_560, help="of a timed epoch (2560)")
    parser.add_argument("--grid-images", type=int, default=640, help="of each epoch of the grid (640)")
    parser.add_argument("--grid-rounds", type=int, default=2, help="0 leaves the grid out")
    parser.add_argument("--threads", type=int, default=settings.usable_cpus())
    asked = parser.parse_args()
    settings.fix_randomness(0, asked.threads, torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        reports = [steps(Path(folder), bn=bn, asked=asked) for bn in (False, True)]
        if asked.grid_rounds:
            reports.append(whole_grid(Path(folder), asked))
    show(reports, as_json=asked.json)


def steps(folder: Path, *, bn: bool, asked: argparse.Namespace) -> Report:
    """Seconds of an epoch of training, without evaluation."""
    images = samples.load(grid.MNIST, "drawn", folder, limit=asked.images)
    net, loaded = (nets.build(grid.MNIST, bn=bn, seed=0) for _ in range(2))
    net = net.to(memory_format=torch.channels_last)
    whole = learn.Learner(grid.MNIST, net, learn.ImageFeed(images))
    head = learn.Learner(grid.MNIST, net.head, learn.FeatureFeed(net, images, lambda: None))
    usual = Usual(images, loaded)
    cases = {
        WHOLE: lambda: timed(lambda: epoch_of(whole)),
        LOADER: lambda: timed(lambda: usual.train_epoch(RATE)),
        FEATURES: lambda: timed(lambda: epoch_of(head)),
    }
    report = Report(f"an epoch of {asked.images:,} images, {'with' if bn else 'without'} BN", "s")
    for case, seconds in in_turn(cases, asked.rounds).items():
        report.add(case, seconds)
    report.goals = [Goal(WHOLE, LOADER, 1 / 1.25), Goal(FEATURES, WHOLE, 1 / 4.5)]
    return report


def whole_grid(folder: Path, asked: argparse.Namespace) -> Report:
    """All 16 MNIST cells, 1 + 8 epochs each, evaluation included."""
    images = samples.load(grid.MNIST, "drawn", folder, limit=asked.grid_images)
    cases = {
        SHARED: lambda: timed(lambda: run_study(folder, asked)),
        ONE_BY_ONE: lambda: timed(lambda: run_one_by_one(images)),
    }
    report = Report(f"the MNIST half, both schedules, {asked.grid_images:,} images an epoch", "s")
    for case, seconds in in_turn(cases, asked.grid_rounds, warm_up=0).items():
        report.add(case, seconds)
    report.goals = [Goal(SHARED, ONE_BY_ONE, 0.5)]
    return report


def run_study(folder: Path, asked: argparse.Namespace) -> None:
    """The job's own road, in this process: checkpoints, metrics, table and figure are part of it."""
    words = ["--cells", "mnist-*", "--schedule", "both", "--data", "drawn"]
    words += ["--limit", str(asked.grid_images), "--threads", str(asked.threads)]
    outputs = folder / "outputs"
    outputs.mkdir(exist_ok=True)
    with contextlib.redirect_stdout(io.StringIO()):
        train.Study(options.parse(words, ""), settings.Folders(folder, outputs, None)).run()


def run_one_by_one(images: samples.Images) -> None:
    """As a notebook does it: a loop for each cell."""
    for row in grid.choose_rows(["mnist-*"]):
        for schedule in (grid.AS_WRITTEN, grid.AS_RUN):
            cell = grid.Cell(row, schedule, 0)
            usual = Usual(images, nets.build(row.data, bn=row.bn, seed=0))
            for epoch in range(row.trunk_epochs + row.epochs):
                frozen = row.net == grid.FC and epoch >= row.trunk_epochs
                usual.train_epoch(row.rate if epoch < row.trunk_epochs else cell.rate, frozen=frozen)
                usual.evaluate()


class Usual:
    """The usual loop: a data set that hands out one image at a time, Adam unfused, the default layout."""

    def __init__(self, images: samples.Images, net: nets.Net) -> None:
        self.images, self.net = images, net
        self.adam = torch.optim.Adam(net.parameters())
        self.train_loader, self.test_loader = (
            torch.utils.data.DataLoader(Items(images, part), batch_size=64, shuffle=part is images.train)
            for part in (images.train, images.test)
        )

    def train_epoch(self, rate: float, *, frozen: bool = False) -> None:
        self.net.train()
        for group in self.adam.param_groups:
            group["lr"] = rate
        for pictures, labels in self.train_loader:
            self.adam.zero_grad()
            functional.cross_entropy(self.answer(pictures, frozen=frozen), labels).backward()
            self.adam.step()

    def answer(self, pictures: torch.Tensor, *, frozen: bool) -> torch.Tensor:
        if not frozen:
            return self.net(pictures)
        self.net.conv.eval()
        with torch.no_grad():
            features = self.net.features(pictures)
        return self.net.head(features)

    @torch.no_grad()
    def evaluate(self) -> float:
        self.net.eval()
        hits = sum((self.net(pictures).argmax(1) == labels).sum() for pictures, labels in self.test_loader)
        return float(hits) / len(self.images.test)


class Items(torch.utils.data.Dataset[Any]):
    def __init__(self, images: samples.Images, part: samples.Part) -> None:
        self.images, self.part = images, part

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, place: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = (self.part.images[place].float() - self.images.mean) / self.images.spread
        return image.permute(2, 0, 1), self.part.labels[place]


def epoch_of(learner: learn.Learner) -> None:
    learner.layers.train()
    for picks in torch.randperm(len(learner.feed.train_labels)).split(learner.batch):
        learner.train_batch(picks, RATE)


def timed(work: Callable[[], object]) -> float:
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    started = clock()
    work()
    return clock() - started


if __name__ == "__main__":
    main()
