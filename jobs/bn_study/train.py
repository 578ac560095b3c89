"""Run the grid of the batch-norm study, or cells of it: `python train.py --preset quick`.

Reads CLOUDRUN_DATA_DIR, writes CLOUDRUN_OUTPUT_DIR, continues from CLOUDRUN_RESUME_FROM (defaults for use by
hand: ~/.cloudrun/data, ./outputs, nothing). Results, with hardware, versions and seeds: README.md.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path
from typing import Any

if not (
    Path(__file__).parent / "shared"
).is_dir():  # by hand, not in a bundle: the modules are in jobs/shared
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from shared.stop import Stop

STOP = Stop()  # before torch is imported, which takes seconds: SIGTERM counts from the first moment on
# ruff: noqa: E402
import figure
import grid
import nets
import results
import samples
import table
import torch
from learn import FeatureFeed, ImageFeed, Learner
from shared import checkpoint, describe, imagesets, metrics, settings

HERE = Path(__file__).resolve().parent
PRESETS: dict[str, dict[str, Any]] = {
    # Proves the whole way in seconds: all 14 rows, both schedules, on drawn images.
    "smoke": {"data": "drawn", "limit": 256, "trunk_epochs": 1, "epochs": 1, "schedule": "both"},
    # The MNIST rows under both schedules, with fewer images and epochs. Under ten minutes on two CPU cores.
    "quick": {"cells": ["mnist-*"], "limit": 12_000, "epochs": 3, "schedule": "both"},
    # The published table with the rates that the notebooks name.
    "as_written": {"schedule": "as_written"},
    # The same with the rates that the compiled step very likely used.
    "as_run": {"schedule": "as_run"},
    # Everything, with enough seeds for an interval.
    "paper": {"schedule": "both", "seeds": [0, 1, 2]},
}
FREE_ON_RESUME = frozenset({"preset", "checkpoint_minutes", "device", "threads", "describe"})
SCHEDULES = {
    "both": [grid.AS_WRITTEN, grid.AS_RUN], "as_written": [grid.AS_WRITTEN], "as_run": [grid.AS_RUN]
}  # fmt: skip
SAY_EVERY_S = 15.0
FEATURES_FROM = 500  # epochs on features have orders of their own


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    defaults_in_help = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=defaults_in_help)
    add = parser.add_argument
    add("--preset", choices=sorted(PRESETS), help="a named set of the arguments below; those beside it win")
    add("--cells", nargs="+", default=["*"], metavar="NAME",
        help="rows of the table by name or pattern: mnist-0.01-bn, 'mnist-*', '*-fc-*'")  # fmt: skip
    add("--schedule", choices=sorted(SCHEDULES), default="as_written",
        help="as_written lowers the rate after the first epoch, as_run keeps it (MNIST rows)")  # fmt: skip
    add("--seeds", nargs="+", type=int, default=[0], metavar="N")
    add("--data", choices=imagesets.SOURCES, default="auto",
        help="auto: real, or a stand-in where it cannot be had; drawn: made here")  # fmt: skip
    add("--limit", type=int, default=0, help="training images at most, and test images at most (0: all)")
    add("--trunk-epochs", type=int, default=0, help="before the rate changes (0: 1 on MNIST, 25 on CIFAR-10)")
    add("--epochs", type=int, default=0, help="after that (0: 8 on MNIST, 25 on CIFAR-10)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    add("--threads", type=int, default=0,
        help="on the CPU (0: all, or as in the checkpoint); a part of the result")  # fmt: skip
    add("--checkpoint-minutes", type=float, default=2.0, help="save after so many minutes")
    add("--describe", action="store_true", help="print what the first cell's net takes, as JSON, and end")
    preset = parser.parse_known_args(argv)[0].preset
    parser.set_defaults(**PRESETS.get(preset, {}))
    args = parser.parse_args(argv)
    try:
        grid.choose_rows(args.cells)
    except ValueError as error:
        parser.error(str(error))
    return args


def main() -> int:
    args = parse_arguments()
    if args.describe:
        print_description(args)
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
        self.args, self.folders = args, folders
        saved = checkpoint.load(folders.resume_from) if folders.resume_from else None
        if saved:
            checkpoint.refuse_other_settings(saved["settings"], vars(args), free=FREE_ON_RESUME)
        self.device = settings.pick_device(args.device)
        self.threads = args.threads or (saved["threads"] if saved else settings.usable_cpus())
        settings.fix_randomness(0, self.threads, self.device)

        rows = grid.choose_rows(args.cells)
        self.stretches = grid.plan_stretches(rows, SCHEDULES[args.schedule], args.seeds)
        self.images = {
            name: samples.load(name, args.data, folders.data, limit=args.limit).to(self.device)
            for name in sorted({row.data for row in rows})
        }
        about_data = {name: part.about for name, part in self.images.items()}
        if saved and saved["data"] != about_data:
            raise checkpoint.CheckpointError(f"trained on {saved['data']}, but here is {about_data}")
        self.place = self.epoch = self.batch = 0  # done: stretches, epochs of this one, batches of this epoch
        self.sums = torch.zeros(2, dtype=torch.float64, device=self.device)  # losses and hits in this epoch
        self.seconds = 0.0  # of training in this epoch
        self.trunk: dict[str, Any] = {}  # the state that cells branch off
        self.features: FeatureFeed | None = None  # made by its convolutions
        self.metrics = metrics.Metrics(folders.outputs, self.about(), saved["history"] if saved else [])
        self.saved, self.restoring = saved, False

    def run(self) -> None:
        """Each stretch from where it stands, then table and figure."""
        self.announce()
        self.said_at = self.saved_at = time.monotonic()
        STOP.hold()
        if self.saved:
            self.restore(self.saved)
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
            if time.monotonic() - self.saved_at > 60 * self.args.checkpoint_minutes:
                self.save()
            if time.monotonic() - self.said_at > SAY_EVERY_S:
                self.say_progress()

    def end_epoch(self, val: tuple[float, float]) -> None:
        seen, before = len(self.learner.feed.train_labels), self.epochs_before()
        loss, accuracy = (self.sums / seen).tolist()
        figures = {"loss": loss, "acc": accuracy, "val_loss": val[0], "val_acc": val[1]}
        self.epoch, self.batch = self.epoch + 1, 0
        entry = {
            "epoch": before + self.epoch, "step": self.learner.steps, "lr": self.stretch.rate,
            **{name: value if math.isfinite(value) else None for name, value in figures.items()},
            "timing": {"seconds": round(self.seconds, 3), "images_per_s": round(seen / self.seconds, 1)},
        }  # fmt: skip
        for cell, epochs in self.reported_as():
            self.metrics.add({"cell": cell, **entry, "epochs": epochs})
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
        checkpoint.save(self.folders.checkpoint, {
            "settings": vars(self.args), "data": self.about()["data"], "threads": self.threads,
            "place": self.place, "epoch": self.epoch, "batch": self.batch, "sums": self.sums,
            "seconds": self.seconds, "trunk": self.trunk, "learner": self.learner.state() if begun else None,
            "history": self.metrics.history,
        })  # fmt: skip
        self.saved_at = time.monotonic()

    def restore(self, saved: dict[str, Any]) -> None:
        checkpoint.restore_random(saved)
        checkpoint.save(self.folders.checkpoint, saved)  # among our own outputs, before anything can go wrong
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
            "machine": settings.describe_machine(self.device),
            "settings": vars(self.args),
            "source_sha256": settings.source_sha256(HERE),
        }

    def announce(self) -> None:
        about = self.about()
        for name, words in about["data"].items():
            say(f"data     {name}: {words}")
            plain, bn = about["parameters"][name], about["parameters_bn"][name]
            running = nets.PARAMETERS[name, True][1]
            say(f"network  {plain:,} parameters, {bn:,} with BN, of which {running:,} are running statistics")
        say("machine  " + ", ".join(f"{name} {value}" for name, value in about["machine"].items()))
        cells = sum(stretch.cell is not None for stretch in self.stretches)
        epochs = sum(map(self.epochs_of, self.stretches))
        say(f"plan     {cells} cells and {len(self.stretches) - cells} trunks, {epochs} epochs in all")
        if self.saved:
            say(f"resumed  in stretch {self.saved['place'] + 1} of {len(self.stretches)}, epoch "
                f"{self.saved['epoch'] + 1}, after {self.saved['batch']} batches")  # fmt: skip

    def say_progress(self) -> None:
        seen = self.batch * self.learner.batch
        loss, accuracy = (self.sums / seen).tolist()
        epoch, speed = self.epochs_before() + self.epoch + 1, seen / self.seconds
        say(f"  {self.name()}, epoch {epoch}: batch {self.batch} of {len(self.learner)}, "
            f"loss {loss:.4f}, acc {accuracy:.2%}, {speed:.0f} images/s")  # fmt: skip
        self.said_at = time.monotonic()

    def say_epoch(self, entry: dict[str, Any]) -> None:
        figures = (math.nan if entry[name] is None else entry[name] for name in grid.Figures._fields)
        loss, acc, val_loss, val_acc = figures
        seconds, speed = entry["timing"]["seconds"], entry["timing"]["images_per_s"]
        say(f"{self.name()}  epoch {entry['epoch']}  loss {loss:.4f}  acc {acc:.2%}  "
            f"val_loss {val_loss:.4f}  val_acc {val_acc:.2%}  "
            f"({seconds:.1f} s, {speed:.0f} images/s)")  # fmt: skip
        self.said_at = time.monotonic()

    def name(self) -> str:
        cell = self.stretch.cell.name if self.stretch.cell else f"{self.reported_as()[0][0]} (trunk)"
        return f"[{self.place + 1}/{len(self.stretches)}] {cell}"

    def finish(self) -> None:
        """table.md, table.csv, curves.png and summary.json."""
        out, about = self.folders.outputs, self.about()
        self.save()
        cells = results.read([out])
        table.write(out, cells)
        figure.draw(out / "curves.png", cells)
        metrics.write_json(out / "summary.json", {
            **about, "cells": [cell.summary() for cell in cells],
            "training_seconds": round(results.seconds_trained(self.metrics.history), 1),
        })  # fmt: skip
        self.metrics.close()
        print(table.markdown(cells), flush=True)
        say(f"outputs  {out}: {', '.join(sorted(file.name for file in out.iterdir()))}")


def print_description(args: argparse.Namespace) -> None:
    """What `cloudrun model` reads: the net of the first cell asked for, and 20 steps on random images."""
    row = grid.choose_rows(args.cells)[0]
    shape, batch, device = nets.SHAPES[row.data], nets.BATCH[row.data], settings.pick_device(args.device)
    settings.fix_randomness(0, args.threads or settings.usable_cpus(), device)
    net = nets.build(row.data, bn=row.bn, seed=0)
    facts = describe.describe(net, shape, optimizer_slots=2 if row.data == grid.MNIST else 1)
    pixels = torch.randint(0, 256, (batch, *shape[1:], shape[0]), dtype=torch.uint8)
    part = samples.Part(pixels, torch.arange(batch) % 10)
    data = samples.Images("random", part, part, 128.0, 64.0, augmented=row.data != grid.MNIST).to(device)
    learner = Learner(row.data, net.to(device, memory_format=torch.channels_last), ImageFeed(data))

    def step(count: int) -> None:
        learner.train_batch(torch.arange(count, device=device), row.rate)

    timing = describe.time_steps(step, batch=batch, device=device)
    epochs = (args.trunk_epochs or row.trunk_epochs) + (args.epochs or row.epochs)
    images, tested = 60_000 if row.data == grid.MNIST else 50_000, 10_000
    describe.print_report(
        facts, timing=timing, batch=batch, epochs=epochs, samples=min(args.limit or images, images),
        evaluated=min(args.limit or tested, tested), note=f"one cell, {row.name}",
    )  # fmt: skip


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
