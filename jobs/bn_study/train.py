"""Run the grid of the batch-norm study, or cells of it: `python train.py --preset quick`.

Reads CLOUDRUN_DATA_DIR, writes CLOUDRUN_OUTPUT_DIR, continues from CLOUDRUN_RESUME_FROM (defaults for use by
hand: ~/.cloudrun/data, ./outputs, nothing). Results, with hardware, versions and seeds: README.md.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

if not (Path(__file__).parent / "shared").is_dir():  # not in a bundle: the modules are in jobs/shared
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from shared.stop import Stop

STOP = Stop()  # before torch is imported, which takes seconds: SIGTERM counts from the first moment on
# ruff: noqa: E402
import describing
import figure
import grid
import nets
import options
import results
import samples
import table
import torch
from learn import FeatureFeed, ImageFeed, Learner
from shared import checkpoint, imagesets, metrics, settings
from shared.frame import Frame, say

HERE = Path(__file__).resolve().parent
FEATURES_FROM = 500  # epochs on features have orders of their own


def main() -> int:
    args = options.parse(None, __doc__.splitlines()[0])
    if vars(args).pop("describe"):
        describing.report(args)
        return 0
    try:
        Study(args, settings.read_folders(HERE)).run()
    except (imagesets.DataError, checkpoint.CheckpointError) as error:
        print(f"bn_study: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


class Study:
    """One run: what it holds (`__init__`), its road (`run`), and below that each part of the road once."""

    def __init__(self, args: argparse.Namespace, folders: settings.Folders) -> None:
        self.args = args
        self.frame = Frame(args, folders, job=HERE)
        self.device = self.frame.device
        rows = grid.choose_rows(args.cells)
        self.stretches = grid.plan_stretches(rows, options.SCHEDULES[args.schedule], args.seeds)
        self.images = {
            name: samples.load(name, args.data, folders.data, limit=args.limit).to(self.device)
            for name in sorted({row.data for row in rows})
        }
        self.frame.refuse_others(data={name: part.about for name, part in self.images.items()})
        self.place = self.epoch = self.batch = 0  # done: stretches, epochs of this one, batches of this epoch
        self.sums = torch.zeros(2, dtype=torch.float64, device=self.device)  # losses and hits in this epoch
        self.seconds = 0.0  # of training in this epoch
        self.trunk: dict[str, Any] = {}  # the state that cells branch off
        self.features: FeatureFeed | None = None  # made by its convolutions
        self.restoring = False
        self.frame.open(self.about())

    def run(self) -> None:
        """Each stretch from where it stands, then table and figure."""
        self.announce()
        STOP.hold()
        if self.frame.saved:
            self.restore(self.frame.saved)
        else:
            self.begin()
        while self.place < len(self.stretches):
            while self.epoch < self.epochs_of(self.stretch):
                self.train_epoch()
                self.end_epoch(self.learner.evaluate(self.leave_if_asked))
            self.end_stretch()
        self.finish()

    @property
    def stretch(self) -> grid.Stretch:
        return self.stretches[self.place]

    def trunk_epochs(self, row: grid.Row) -> int:
        return self.args.trunk_epochs or row.trunk_epochs

    def epochs_of(self, stretch: grid.Stretch) -> int:
        if stretch.cell is None:
            return self.trunk_epochs(stretch.row)
        return self.args.epochs or stretch.row.epochs

    def epochs_before(self) -> int:
        """Of the same training, before this stretch. A head on features begins anew."""
        whole_cell = self.stretch.cell and not self.stretch.on_features
        return self.trunk_epochs(self.stretch.row) if whole_cell else 0

    def begin(self) -> None:
        """The learner as it stands at the start of this stretch."""
        row, data = self.stretch.row, self.images[self.stretch.row.data]
        net = nets.build(row.data, bn=row.bn, seed=self.stretch.seed)
        net = net.to(self.device, memory_format=torch.channels_last)
        if self.stretch.on_features:
            net.load_state_dict(self.trunk["layers"])
            self.learner = Learner(row.data, net.head, self.features_of(net, data))
            return
        self.learner = Learner(row.data, net, ImageFeed(data))
        if self.stretch.cell:
            self.learner.restore(self.trunk)

    def features_of(self, net: nets.Net, data: samples.Images) -> FeatureFeed:
        """Computed once for all cells of a family, which are those with the same trunk."""
        if self.features is None:
            say("  computing the features that the convolutions make of every image")
            self.features = FeatureFeed(net, data, self.leave_if_asked)
        return self.features

    def train_epoch(self) -> None:
        """The batches of this epoch that are not done yet, in an order that seed and epoch alone decide."""
        number = self.stretch.seed * 1_000_003 + self.epochs_before() + self.epoch
        number += FEATURES_FROM * self.stretch.on_features
        shuffle = torch.Generator().manual_seed(number)
        order = torch.randperm(len(self.learner.feed.train_labels), generator=shuffle).to(self.device)
        if not self.batch:
            torch.manual_seed(number)  # so dropout and shifts do not depend on what was trained before
        self.learner.layers.train()
        while self.batch < len(self.learner):
            started = time.monotonic()
            picks = order[self.batch * self.learner.batch :][: self.learner.batch]
            self.sums += self.learner.train_batch(picks, self.stretch.rate)
            self.batch += 1
            self.seconds += time.monotonic() - started
            self.leave_if_asked()
            if self.frame.save_due():
                self.save()
            if self.frame.say_due():
                self.say_progress()

    def end_epoch(self, val: tuple[float, float]) -> None:
        seen, before = len(self.learner.feed.train_labels), self.epochs_before()
        loss, accuracy = (self.sums / seen).tolist()
        figures = {"loss": loss, "acc": accuracy, "val_loss": val[0], "val_acc": val[1]}
        self.epoch, self.batch = self.epoch + 1, 0
        entry = {
            "epoch": before + self.epoch, "step": self.learner.steps, "lr": self.stretch.rate,
            **figures,
            "timing": {"seconds": round(self.seconds, 3), "images_per_s": round(seen / self.seconds, 1)},
        }  # fmt: skip
        for cell, epochs in self.reported_as():
            self.frame.metrics.add({"cell": cell, **entry, "epochs": epochs})
        self.say_epoch(entry)
        self.seconds = 0.0
        self.sums.zero_()

    def reported_as(self) -> list[tuple[str, int]]:
        """The cells whose curve this epoch is a part of, and how many epochs they have in all.

        A trunk's epochs belong to every whole net that branches off it; where there is none, to itself.
        """
        if self.stretch.cell:
            return [(self.stretch.cell.name, self.epochs_before() + self.epochs_of(self.stretch))]
        trunk, row = self.epochs_of(self.stretch), self.stretch.row
        whole = [cell for cell in self.stretch.cells if cell.row.net == grid.WHOLE]
        if not whole:
            return [(f"{row.name}/{grid.TRUNK}/seed{self.stretch.seed}", trunk)]
        return [(cell.name, trunk + (self.args.epochs or row.epochs)) for cell in whole]

    def end_stretch(self) -> None:
        if self.stretch.cell is None:
            self.trunk, self.features = self.learner.state(), None
        self.place, self.epoch = self.place + 1, 0
        if self.place < len(self.stretches):
            self.begin()

    def leave_if_asked(self) -> None:
        """Save and exit on SIGTERM. In an evaluation it is the state before it, which will be done again."""
        if STOP.asked:
            if not self.restoring:
                self.save()
            STOP.leave(f"saved in stretch {self.place + 1} of {len(self.stretches)}, "
                       f"epoch {self.epoch + 1}, after {self.batch} batches")  # fmt: skip

    def save(self) -> None:
        begun = bool(self.epoch or self.batch)  # else the trunk says all
        self.frame.save({
            "place": self.place, "epoch": self.epoch, "batch": self.batch, "sums": self.sums,
            "seconds": self.seconds, "trunk": self.trunk, "learner": self.learner.state() if begun else None,
        })  # fmt: skip

    def restore(self, saved: dict[str, Any]) -> None:
        checkpoint.restore_random(saved)
        # Among our own outputs, before anything can go wrong.
        checkpoint.save(self.frame.folders.checkpoint, saved)
        self.place, self.epoch, self.batch = saved["place"], saved["epoch"], saved["batch"]
        self.sums.copy_(saved["sums"])
        self.seconds, self.trunk = saved["seconds"], saved["trunk"]
        if self.place == len(self.stretches):
            return
        self.restoring = True
        self.begin()
        if saved["learner"]:
            self.learner.restore(saved["learner"])
        checkpoint.restore_random(saved)
        self.restoring = False

    def about(self) -> dict[str, Any]:
        """What the numbers were measured on: stands on top of metrics.jsonl and in summary.json."""
        return {
            "data": {name: part.about for name, part in self.images.items()},
            "parameters": {name: sum(nets.PARAMETERS[name, False]) for name in self.images},
            "parameters_bn": {name: sum(nets.PARAMETERS[name, True]) for name in self.images},
            **self.frame.about(),
        }

    def announce(self) -> None:
        about = self.about()
        for name, words in about["data"].items():
            say(f"data     {name}: {words}")
            plain, bn = about["parameters"][name], about["parameters_bn"][name]
            running = nets.PARAMETERS[name, True][1]
            say(f"network  {plain:,} parameters, {bn:,} with BN, of which {running:,} are running statistics")
        say(f"machine  {settings.in_words(about['machine'])}")
        cells = sum(stretch.cell is not None for stretch in self.stretches)
        epochs = sum(map(self.epochs_of, self.stretches))
        say(f"plan     {cells} cells and {len(self.stretches) - cells} trunks, {epochs} epochs in all")
        if self.frame.saved:
            place, epoch, batch = (self.frame.saved[name] for name in ("place", "epoch", "batch"))
            say(f"resumed  in stretch {place + 1} of {len(self.stretches)}, epoch {epoch + 1}, "
                f"after {batch} batches")  # fmt: skip

    def say_progress(self) -> None:
        seen = self.batch * self.learner.batch
        loss, accuracy = (self.sums / seen).tolist()
        epoch, speed = self.epochs_before() + self.epoch + 1, seen / self.seconds
        figures = f"loss {loss:.4f}, acc {accuracy:.2%}, {speed:.0f} images/s"
        where = f"{self.name()}, epoch {epoch}: batch {self.batch} of {len(self.learner)}"
        self.frame.say(f"  {where}, {figures}")

    def say_epoch(self, entry: dict[str, Any]) -> None:
        loss, acc, val_loss, val_acc = (entry[name] for name in grid.Figures._fields)
        seconds, speed = entry["timing"]["seconds"], entry["timing"]["images_per_s"]
        told = f"loss {loss:.4f}  acc {acc:.2%}  val_loss {val_loss:.4f}  val_acc {val_acc:.2%}"
        took = f"({seconds:.1f} s, {speed:.0f} images/s)"
        self.frame.say(f"{self.name()}  epoch {entry['epoch']}  {told}  {took}")

    def name(self) -> str:
        cell = self.stretch.cell.name if self.stretch.cell else f"{self.reported_as()[0][0]} (trunk)"
        return f"[{self.place + 1}/{len(self.stretches)}] {cell}"

    def finish(self) -> None:
        """table.md, table.csv, curves.png and summary.json."""
        out = self.frame.folders.outputs
        self.save()
        cells = results.read([out])
        table.write(out, cells)
        figure.draw(out / "curves.png", cells)
        metrics.write_json(out / "summary.json", {
            **self.about(), "cells": [cell.summary() for cell in cells],
            "training_seconds": round(results.seconds_trained(self.frame.metrics.history), 1),
        })  # fmt: skip
        say(table.markdown(cells))
        self.frame.close()


if __name__ == "__main__":
    sys.exit(main())
