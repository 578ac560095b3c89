"""Train pretrained and fresh networks on a folder of images, and compare: `python train.py --preset quick`.

Reads CLOUDRUN_DATA_DIR, writes CLOUDRUN_OUTPUT_DIR, continues from CLOUDRUN_RESUME_FROM (defaults for use by
hand: ~/.cloudrun/data, ./outputs, nothing). A run is a row of cells: each arm (how, network, image size) for
each number of training images and each seed. Results, with seeds and intervals: README.md.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

if not (Path(__file__).parent / "shared").is_dir():  # not in a bundle: the modules are in jobs/shared
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from shared.stop import Stop

STOP = Stop()  # before torch is imported, which takes seconds: SIGTERM counts from the first moment on
# ruff: noqa: E402
import describing
import finder
import numpy as np
import options
import outcome
import sets
import torch
import weights
from folder import DataError, SplitBy
from learn import FEATURES_WARNING, Learner, Scores, build
from options import Arm
from shared import checkpoint, metrics, settings
from shared.frame import Frame, say

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Cell:
    """One training. images: how many to train on, 0 for all."""

    arm: Arm
    images: int
    seed: int


def main() -> int:
    args = options.parse(None, __doc__.splitlines()[0])
    if vars(args).pop("describe"):
        describing.report(args)
        return 0
    try:
        Run(args, settings.read_folders(HERE)).run()
    except (DataError, weights.WeightsError, checkpoint.CheckpointError) as error:
        print(f"transfer_learning: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


class Run:
    """What a run holds (`__init__`), its road (`run`), and below that each part of the road once."""

    def __init__(self, args: argparse.Namespace, folders: settings.Folders) -> None:
        self.args = args
        self.frame = Frame(args, folders, job=HERE, seed=args.seed, free=frozenset({"precision"}))
        self.device, saved = self.frame.device, self.frame.saved
        asked = "float32" if args.precision == "auto" and self.device.type == "cpu" else args.precision
        self.precision = settings.pick_precision(asked, self.device)
        arms = options.parse_arms(args.arms, args.net, args.side)
        self.found, self.weights = self.find_weights(arms)
        by = SplitBy(args.split_column, args.split_value, args.test_column) if args.split_column else None
        images = sets.load(args.dataset, folders.data, folder=args.images, split_by=by)
        self.images = images.limited(args.limit)
        self.cells = self.list_cells(arms)
        self.about = self.gather_about()
        self.frame.refuse_others(about=[self.about["data"], self.about["weights"]])
        self.reports: dict[str, Any] = {}  # which tensors of the weights file were copied, by arm
        self.features: dict[Arm, torch.Tensor] = {}  # of frozen stages, once for all cells of an arm
        self.results: list[dict[str, Any]] = saved["results"] if saved else []  # of the cells that are done
        self.rates: dict[str, float] = saved["rates"] if saved else {}  # by arm
        self.curves: dict[str, Any] = saved["curves"] if saved else {}  # of the finder, by arm
        self.unfinished = saved if saved and saved["learner"] else None  # the cell in which it was stopped
        self.training: Training | None = None
        self.frame.open(self.about)

    def run(self) -> None:
        """Cell after cell, then the tables and figures over all of them."""
        self.announce()
        STOP.hold()
        for cell in self.cells[len(self.results) :]:
            self.training = self.begin(cell)
            self.training.run()
            self.end(cell, self.training)
            self.training = None
            self.save()
        self.finish()

    def begin(self, cell: Cell) -> Training:
        """The cell's network and images, or where it was stopped. Its seed alone decides its randomness."""
        torch.manual_seed(cell.seed)
        picks = np.sort(self.images.parts["train"])
        if cell.images:
            order = np.random.default_rng(cell.seed).permutation(picks)
            picks = np.sort(order[: cell.images])
        net, report = build(cell.arm, self.images.outputs, self.found)
        if report and str(cell.arm) not in self.reports:
            self.reports[str(cell.arm)] = report.as_dict()
            say("\n".join(f"weights  {line}" for line in report.lines()))
        learner = Learner(
            cell.arm, net, self.images, picks, augment=options.parse_augment(self.args.augment),
            target_scale=self.args.target_scale, device=self.device, precision=self.precision,
            between=self.leave_if_asked,
        )  # fmt: skip
        if cell.arm.how == "features":
            if cell.arm not in self.features:
                say(f"warning  {FEATURES_WARNING}")
            self.features[cell.arm] = learner.compute_features(self.features.get(cell.arm))
        training = Training(self, cell, learner)
        if self.unfinished:
            training.restore(self.unfinished)
            self.unfinished = None
        return training

    def rate_for(self, arm: Arm, learner: Learner) -> float:
        """As given, or once for each arm from the finder, which leaves its curve."""
        if self.args.lr != "auto":
            return options.parse_rate(self.args.lr)
        if str(arm) not in self.rates:
            batch = min(self.args.batch, len(learner.picks))
            make_optimiser = partial(learner.optimiser, self.args.weight_decay, self.args.rate_decay)
            rate, curve = finder.find(learner, make_optimiser, batch)
            self.rates[str(arm)] = rate
            self.curves[str(arm)] = [list(point) for point in curve]
            say(f"finder   {arm}: rate {rate:.2g}")
        return self.rates[str(arm)]

    def end(self, cell: Cell, training: Training) -> None:
        """Ask the test set, keep the result, and draw what the network says of it: once for each arm."""
        test = training.learner.evaluate(self.images.parts["test"])
        val = self.frame.metrics.history[-1]
        count = len(training.learner.picks)
        self.results.append({
            "arm": str(cell.arm), "images": count, "seed": cell.seed, "lr": training.rate,
            "epochs": training.epochs, "trained_parameters": training.trained, "val_score": val["val_score"],
            "test_loss": test.loss, "test_score": test.score, "test_error": test.error,
            "timing": {"seconds": round(training.total_seconds, 2)},
        })  # fmt: skip
        word = "accuracy" if self.images.classes else "R²"
        say(f"  {cell_name(cell)}: test {word} {test.score:.4f}, {training.total_seconds:.1f} s of training")
        if cell.seed == self.args.seed and count == self.largest():
            outcome.draw_answers(self.frame.folders.outputs, self.images, cell.arm, test, self.about["data"])

    def finish(self) -> None:
        out = self.frame.folders.outputs
        metrics.write_json(out / "summary.json", {
            **self.about, "metrics": self.best(), "rates": self.rates, "results": self.results,
        })  # fmt: skip
        metrics.write_json(out / "weights.json", self.reports)
        outcome.write_all(
            out, self.images, self.frame.metrics.history, self.results, self.about,
            curves={arm: (self.rates[arm], curve) for arm, curve in self.curves.items()},
        )  # fmt: skip
        say(outcome.table(self.images, self.results))
        say(f"done     on {self.about['data']}")
        self.frame.close()

    def leave_if_asked(self) -> None:
        """Save and exit on SIGTERM, as of the last step; a finder or an evaluation is done again."""
        if STOP.asked:
            self.save()
            where = self.training.place() if self.training else "before its first step"
            STOP.leave(f"saved in cell {len(self.results) + 1} of {len(self.cells)}, {where}")

    def save(self) -> None:
        self.frame.save({
            "results": self.results, "rates": self.rates, "curves": self.curves,
            "learner": self.training.state() if self.training else None,
        })  # fmt: skip

    def find_weights(self, arms: list[Arm]) -> tuple[dict[str, torch.Tensor] | None, str]:
        """The tensors that pretrained arms start from, and what they are in words."""
        if not any(arm.pretrained for arm in arms):
            return None, "none"
        if self.args.weights == "none":
            raise weights.WeightsError("--weights is none, and an arm other than scratch needs some")
        if self.args.weights != "auto":
            file = Path(self.args.weights).expanduser()
            return weights.read(file), file.name
        others = [str(arm) for arm in arms if arm.pretrained and arm.net != "lite0"]
        if others:
            raise weights.WeightsError(
                f"{', '.join(others)}: only lite0's weights come as a package; give --weights FILE"
            )
        return weights.read(weights.find_lite0()), f"{weights.LITE0_PACKAGE} 0.1.0, ImageNet"

    def list_cells(self, arms: list[Arm]) -> list[Cell]:
        """Seed by seed, so that a run that is cut short has compared all arms as often."""
        sizes = list(dict.fromkeys(min(size, len(self.images.parts["train"])) if size else 0
                                   for size in options.parse_sizes(self.args.sizes)))  # fmt: skip
        seeds = range(self.args.seed, self.args.seed + self.args.seeds)
        largest_first = sorted(sizes, key=lambda size: -(size or math.inf))
        return [Cell(arm, size, seed) for seed in seeds for size in largest_first for arm in arms]

    def largest(self) -> int:
        return max(cell.images or len(self.images.parts["train"]) for cell in self.cells)

    def best(self) -> dict[str, Any]:
        """The best mean test score over the seeds at the largest size: what runs are compared by."""
        of_largest = [result for result in self.results if result["images"] == self.largest()]
        arms = list(dict.fromkeys(result["arm"] for result in of_largest))
        means = {
            arm: float(np.mean([r["test_score"] for r in of_largest if r["arm"] == arm])) for arm in arms
        }
        arm = max(means, key=lambda name: means[name])
        return {"arm": arm, "test_score": means[arm]}

    def gather_about(self) -> dict[str, Any]:
        """What the numbers were measured on: stands on top of metrics.jsonl and in summary.json."""
        return {
            "data": self.images.described(),
            "weights": self.weights,
            "cells": len(self.cells),
            "precision": settings.name_of(self.precision),
            **self.frame.about(),
        }

    def announce(self) -> None:
        say(f"data     {self.about['data']}")
        say(f"weights  {self.about['weights']}")
        say(f"machine  {settings.in_words(self.about['machine'])}, {self.about['precision']}")
        say(f"cells    {len(self.cells)}: {', '.join(dict.fromkeys(str(cell.arm) for cell in self.cells))}")
        if self.results or self.unfinished:
            say(f"resumed  {len(self.results)} of {len(self.cells)} cells are done")


class Training:
    """One cell on its way: epoch, batch, rate. The network and its images are in `learner`."""

    def __init__(self, run: Run, cell: Cell, learner: Learner) -> None:
        self.owner, self.cell, self.learner = run, cell, learner
        args, count = run.args, len(learner.picks)
        self.size = max(1, min(args.batch, count // 4))  # of a batch
        self.batches = max(1, count // self.size)
        self.epochs = max(args.epochs, math.ceil(args.least_steps / self.batches))
        self.rate = 0.0  # the highest one; 0 until it is known
        self.optimiser = learner.optimiser(args.weight_decay, args.rate_decay)
        self.trained = sum(p.numel() for group in self.optimiser.param_groups for p in group["params"])
        self.epoch, self.batch = 0, 0
        self.sums = torch.zeros(2, dtype=torch.float64, device=run.device)
        self.seconds, self.total_seconds = 0.0, 0.0

    def run(self) -> None:
        if not self.rate:
            self.rate = self.owner.rate_for(self.cell.arm, self.learner)
            torch.manual_seed(self.cell.seed + 1)
        while self.epoch < self.epochs:
            self.unfreeze()
            self.train_epoch()
            self.end_epoch(self.learner.evaluate(self.owner.images.parts["val"]))

    def unfreeze(self) -> None:
        """Gradual unfreezing: the head first, then every so many epochs one stage more, from the top."""
        every = self.owner.args.unfreeze_every
        if self.cell.arm.how == "finetune" and every:
            self.learner.freeze(max(0, self.learner.head - self.epoch // every))

    def train_epoch(self) -> None:
        """The batches of this epoch that are not done yet, in an order that seed and epoch alone decide."""
        order = np.random.default_rng((self.cell.seed, self.epoch)).permutation(self.learner.picks)
        self.learner.train(True)
        while self.batch < self.batches:
            started = time.monotonic()
            picks = order[self.batch * self.size :][: self.size]
            loss, hits = self.learner.step(self.optimiser, picks, self.current_rate())
            self.sums += torch.stack([loss.double() * len(picks), hits.double()])
            self.batch += 1
            self.seconds += time.monotonic() - started
            self.owner.leave_if_asked()
            if self.owner.frame.save_due():
                self.owner.save()
            if self.owner.frame.say_due():
                self.owner.frame.say(f"  {cell_name(self.cell)}: {self.place()}")

    def end_epoch(self, val: Scores) -> None:
        loss, hits = (self.sums / (self.batches * self.size)).tolist()
        word = "acc" if self.owner.images.classes else "mae"
        entry = {
            "epoch": self.epoch + 1, "cell": cell_name(self.cell), "lr": self.current_rate(), "loss": loss,
            word: hits, "val_loss": val.loss, f"val_{word}": val.score if word == "acc" else val.error,
            "val_score": val.score, "timing": {"seconds": round(self.seconds, 3)},
        }  # fmt: skip
        self.owner.frame.metrics.add(entry)
        if self.epoch + 1 == self.epochs or self.owner.frame.say_due():
            names = ("loss", word, "val_loss", f"val_{word}")
            told = "  ".join(f"{name} {entry[name]:.4f}" for name in names)
            self.owner.frame.say(f"{entry['cell']}  epoch {self.epoch + 1}/{self.epochs}  {told}")
        self.total_seconds += self.seconds
        self.epoch, self.batch, self.seconds = self.epoch + 1, 0, 0.0
        self.sums.zero_()
        self.owner.leave_if_asked()

    def current_rate(self) -> float:
        """Up over the first tenth of all steps, then down to 0 along a cosine: the step alone decides."""
        step, steps = self.epoch * self.batches + self.batch, self.epochs * self.batches
        warm_up = max(1, steps // 10)
        if step < warm_up:
            return self.rate * (step + 1) / warm_up
        return self.rate * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))

    def place(self) -> str:
        return f"in epoch {self.epoch + 1} of {self.epochs} after {self.batch} of {self.batches} batches"

    def state(self) -> dict[str, Any]:
        """All that the rest of the cell depends on, with the state of the random generators beside it."""
        return {
            "rate": self.rate, "epoch": self.epoch, "batch": self.batch, "sums": self.sums,
            "seconds": [self.seconds, self.total_seconds], "net": self.learner.net.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }  # fmt: skip

    def restore(self, saved: dict[str, Any]) -> None:
        state = saved["learner"]
        self.rate, self.epoch, self.batch = state["rate"], state["epoch"], state["batch"]
        self.seconds, self.total_seconds = state["seconds"]
        self.sums.copy_(state["sums"])
        if not self.rate:  # stopped within the finder: the cell begins anew
            return
        self.learner.net.load_state_dict(state["net"])
        self.optimiser.load_state_dict(state["optimiser"])
        checkpoint.restore_random(saved)


def cell_name(cell: Cell) -> str:
    return f"{cell.arm} {cell.images or 'all'} images seed {cell.seed}"


if __name__ == "__main__":
    sys.exit(main())
