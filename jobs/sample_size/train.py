"""Accuracy against the number of training images: `python train.py --preset quick`.

Reads CLOUDRUN_DATA_DIR, writes CLOUDRUN_OUTPUT_DIR, continues from CLOUDRUN_RESUME_FROM (defaults for use by
hand: ~/.cloudrun/data, ./outputs, nothing). Results, with hardware, versions and seeds: README.md.
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

if not (Path(__file__).parent / "shared").is_dir():  # not in a bundle: the modules are in jobs/shared
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from shared.stop import Stop

STOP = Stop()  # before torch is imported, which takes seconds: SIGTERM counts from the first moment on
# ruff: noqa: E402
import describing
import figure
import net
import options
import results
import table
import torch
from shared import checkpoint, imagesets, metrics, settings
from shared.frame import Frame, say
from torch.nn import functional as F

HERE = Path(__file__).resolve().parent
REPORTS = 4  # of a training, spread evenly over its epochs: few images take many short epochs
EVALUATION_BATCH = 500


class Cell(NamedTuple):
    """One training: data set, number of images, seed."""

    set: str
    images: int
    seed: int

    def __str__(self) -> str:
        return f"{self.set}/n{self.images}/seed{self.seed}"


def main() -> int:
    args = options.parse(None, __doc__.splitlines()[0])
    if vars(args).pop("describe"):
        describing.report(args)
        return 0
    try:
        Study(args, settings.read_folders(HERE)).run()
    except (imagesets.DataError, checkpoint.CheckpointError) as error:
        print(f"sample_size: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


class Images:
    """One set on the device, standardised by one mean and deviation when a batch is made."""

    def __init__(self, sets: imagesets.Sets, device: torch.device) -> None:
        self.about = sets.about
        self.images, self.labels, self.test_images, self.test_labels = (
            torch.tensor(array).to(device) for array in (*sets.train, *sets.test)
        )
        self.mean, self.spread = float(sets.train[0].mean()), float(sets.train[0].std())

    def batch(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 N x H x W x C -> float32 N x C x H x W, channels last in memory."""
        return ((images.float() - self.mean) / self.spread).permute(0, 3, 1, 2)


class Study:
    """One run: what it holds (`__init__`), its road (`run`), and below that each part of the road once."""

    def __init__(self, args: argparse.Namespace, folders: settings.Folders) -> None:
        self.args = args
        self.frame = Frame(args, folders, job=HERE)
        self.device = self.frame.device
        self.data, self.left_out = self.load_data()
        self.frame.refuse_others(data={name: data.about for name, data in self.data.items()})
        self.cells = self.plan_cells()
        self.place = self.epoch = self.batch = 0  # done: cells, epochs of this one, batches of this epoch
        self.sums = torch.zeros(2, dtype=torch.float64, device=self.device)  # losses and hits in this epoch
        self.seconds = 0.0  # of training since the last report
        self.saved = self.frame.saved  # until it is restored
        if self.saved:
            self.place, self.epoch, self.batch = (self.saved[name] for name in ("place", "epoch", "batch"))
        self.frame.open(self.about())

    def load_data(self) -> tuple[dict[str, Images], dict[str, str]]:
        """The sets, and those left out because another one, which is named, has the same stand-in."""
        data: dict[str, Images] = {}
        left_out: dict[str, str] = {}
        for name in self.args.sets:
            sets = imagesets.load(name, self.args.data, self.frame.folders.data, limit=self.args.limit)
            images = Images(sets, self.device)
            same = [other for other in data if torch.equal(data[other].images, images.images)]
            if same:
                left_out[name] = same[0]
            else:
                data[name] = images
        return data, left_out

    def plan_cells(self) -> list[Cell]:
        """Seed by seed, so that a run that was stopped early has whole curves."""
        cells = []
        for seed in self.args.seeds:
            for name, data in self.data.items():
                most = len(data.labels)
                sizes = sorted({size or most for size in self.args.sizes})
                if sizes[-1] > most:
                    raise imagesets.DataError(
                        f"{sizes[-1]:,} images of {name} are wanted, {most:,} are there"
                    )
                cells += [Cell(name, size, seed) for size in sizes]
        return cells

    def run(self) -> None:
        """Each cell from where it stands, then table and curve."""
        self.announce()
        STOP.hold()
        while self.place < len(self.cells):
            self.begin()
            while self.epoch < self.epochs:
                self.train_epoch()
                self.end_epoch()
            self.place, self.epoch = self.place + 1, 0
        self.finish()

    @property
    def cell(self) -> Cell:
        return self.cells[self.place]

    def begin(self) -> None:
        """Net, optimiser and images of this cell; those of the checkpoint if there is one, once."""
        cell, data = self.cell, self.data[self.cell.set]
        torch.manual_seed(cell.seed)
        channels, side, _ = net.SHAPES[cell.set]
        self.net = net.Net(channels, side).to(self.device, memory_format=torch.channels_last)
        self.optimiser = torch.optim.Adam(self.net.parameters(), lr=self.args.lr, fused=True)
        chosen = torch.Generator().manual_seed(cell.seed)  # the first n of one order: fewer are part of more
        self.picked = torch.randperm(len(data.labels), generator=chosen)[: cell.images].to(self.device)
        self.batches = -(-cell.images // self.args.batch)
        self.epochs = max(self.args.epochs, -(-self.args.min_steps // self.batches))
        if self.saved:
            self.restore(self.saved)
            self.saved = None

    def train_epoch(self) -> None:
        """The batches of this epoch that are not done yet, in an order that seed and epoch alone decide."""
        number = (self.cell.seed + 1) * 1_000_003 + self.epoch
        shuffle = torch.Generator().manual_seed(number)
        order = self.picked[torch.randperm(self.cell.images, generator=shuffle).to(self.device)]
        if not self.batch:
            torch.manual_seed(number)  # so dropout does not depend on what was trained before
            self.sums.zero_()
        self.net.train()
        while self.batch < self.batches:
            started = time.monotonic()
            self.train_batch(order[self.batch * self.args.batch :][: self.args.batch])
            self.batch += 1
            self.seconds += time.monotonic() - started
            self.leave_if_asked()
            if self.frame.save_due():
                self.save()

    def train_batch(self, picks: torch.Tensor) -> None:
        if len(picks) == 1:
            return  # batch normalisation cannot learn from one image
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate()
        data = self.data[self.cell.set]
        labels = data.labels[picks]
        logits = self.net(data.batch(data.images[picks]))
        loss = F.cross_entropy(logits, labels)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        hits = (logits.argmax(1) == labels).sum()
        self.sums += torch.stack([loss.detach().double() * len(picks), hits.double()])

    def rate(self) -> float:
        """Adam's rate: a function of the step alone, so that the schedule has no state to save."""
        step, steps = self.epoch * self.batches + self.batch, self.epochs * self.batches
        warm_up = max(1, steps // 20)
        if step < warm_up:
            return self.args.lr * (step + 1) / warm_up
        return self.args.lr * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up)))

    def end_epoch(self) -> None:
        """A line of metrics at four places of a training, evenly spread; the last one is its result."""
        every = -(-self.epochs // REPORTS)
        if (self.epoch + 1) % every == 0 or self.epoch + 1 == self.epochs:
            self.report(self.evaluate())
        self.epoch, self.batch = self.epoch + 1, 0

    @torch.no_grad()
    def evaluate(self) -> tuple[float, float]:
        """Mean loss and accuracy over all test images."""
        self.net.eval()
        data, total = self.data[self.cell.set], torch.zeros(2, dtype=torch.float64, device=self.device)
        for start in range(0, len(data.test_labels), EVALUATION_BATCH):
            labels = data.test_labels[start : start + EVALUATION_BATCH]
            logits = self.net(data.batch(data.test_images[start : start + EVALUATION_BATCH]))
            loss = F.cross_entropy(logits, labels, reduction="sum")
            total += torch.stack([loss.double(), (logits.argmax(1) == labels).sum().double()])
            self.leave_if_asked()
        loss_mean, accuracy = (total / len(data.test_labels)).tolist()
        return loss_mean, accuracy

    def report(self, val: tuple[float, float]) -> None:
        loss, accuracy = (self.sums / self.cell.images).tolist()
        entry = {
            "cell": str(self.cell), "set": self.cell.set, "images": self.cell.images, "seed": self.cell.seed,
            "epoch": self.epoch + 1, "epochs": self.epochs, "step": (self.epoch + 1) * self.batches,
            "loss": loss, "acc": accuracy, "val_loss": val[0], "val_acc": val[1],
            "timing": {"seconds": round(self.seconds, 3)},
        }  # fmt: skip
        self.frame.metrics.add(entry)
        self.seconds = 0.0
        if entry["epoch"] == self.epochs or self.frame.say_due():
            where = f"[{self.place + 1}/{len(self.cells)}] {self.cell}  epoch {entry['epoch']}/{self.epochs}"
            told = f"loss {loss:.4f}  acc {accuracy:.2%}  val_loss {val[0]:.4f}  val_acc {val[1]:.2%}"
            self.frame.say(f"{where}  {told}")

    def leave_if_asked(self) -> None:
        """Save and exit on SIGTERM. In an evaluation it is the state before it, which will be done again."""
        if STOP.asked:
            self.save()
            STOP.leave(
                f"saved in {self.cell}, epoch {self.epoch + 1} after {self.batch} of {self.batches} batches"
            )

    def save(self) -> None:
        self.frame.save({
            "place": self.place, "epoch": self.epoch, "batch": self.batch, "sums": self.sums,
            "seconds": self.seconds, "net": self.net.state_dict(), "optimiser": self.optimiser.state_dict(),
        })  # fmt: skip

    def restore(self, saved: dict[str, Any]) -> None:
        self.net.load_state_dict(saved["net"])
        self.optimiser.load_state_dict(copy.deepcopy(saved["optimiser"]))
        self.sums.copy_(saved["sums"])
        self.seconds = saved["seconds"]
        checkpoint.restore_random(saved)
        self.save()  # among our own outputs as well, before anything else can go wrong

    def about(self) -> dict[str, Any]:
        """What the numbers were measured on: stands on top of metrics.jsonl and in summary.json."""
        return {
            "data": {name: data.about for name, data in self.data.items()},
            "test_images": {name: len(data.test_labels) for name, data in self.data.items()},
            "parameters": {name: net.count_parameters(*net.SHAPES[name][:2]) for name in self.data},
            **self.frame.about(),
        }

    def announce(self) -> None:
        about = self.about()
        for name, words in about["data"].items():
            say(f"data     {name}: {words}; a net of {about['parameters'][name]:,} parameters")
        for name, other in self.left_out.items():
            say(f"data     {name}: left out, as its stand-in is that of {other}")
        say(f"machine  {settings.in_words(about['machine'])}")
        sizes = ", ".join(f"{size:,}" for size in sorted({cell.images for cell in self.cells}))
        say(f"plan     {len(self.cells)} trainings, of {sizes} images")
        if self.saved:
            say(f"resumed  in training {self.place + 1} of {len(self.cells)}, epoch {self.epoch + 1}")

    def finish(self) -> None:
        """table.md, table.csv, curves.png and summary.json."""
        out = self.frame.folders.outputs
        if not self.saved:  # else the checkpoint was of a finished run, and nothing was trained
            self.save()
        curves = results.read([out])
        table.write(out, curves)
        figure.draw(out / "curves.png", curves)
        seconds = sum(line["timing"]["seconds"] for line in self.frame.metrics.history)
        metrics.write_json(out / "summary.json", {
            **self.about(), "curves": [curve.summary() for curve in curves],
            "training_seconds": round(seconds, 1),
        })  # fmt: skip
        say(table.markdown(curves))
        self.frame.close()


if __name__ == "__main__":
    sys.exit(main())
