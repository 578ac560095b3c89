"""Train the recurrent convolutional network on house-number digits: `python train.py --preset quick`.

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

if not (Path(__file__).parent / "shared").is_dir():  # not in a bundle: the modules are in jobs/shared
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from shared.stop import Stop

STOP = Stop()  # before torch is imported, which takes seconds: SIGTERM counts from the first moment on
# ruff: noqa: E402
import describing
import digits
import options
import parallel
import rcnn
import torch
from shared import checkpoint, metrics, plots, settings
from shared.frame import Frame, say

HERE = Path(__file__).resolve().parent
FREE_ON_RESUME = frozenset({"checkpoint_epochs", "precision", "processes", "compile"})
EVALUATION_BATCH = 500


def main() -> int:
    args = options.parse(None, __doc__.splitlines()[0])
    if vars(args).pop("describe"):
        describing.report(args, build_model(args))
        return 0
    device = parallel.pick_device(settings.pick_device(args.device))
    count = 1 if parallel.is_one_of_many() else parallel.pick_count(args.processes, device, args.batch)
    if count > 1:
        return parallel.launch(count, Path(__file__).resolve(), sys.argv[1:])
    return train(args, device)


def train(args: argparse.Namespace, device: torch.device) -> int:
    """One process's whole run. Returns its exit code; does not return when it is one of several."""
    peers, code = parallel.join(device), 0
    try:
        Training(args, settings.read_folders(HERE), device, peers).run()
    except (digits.DataError, checkpoint.CheckpointError) as error:
        print(f"svhn_rcnn: {error}", file=sys.stderr, flush=True)
        code = 1
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    peers.end(code)
    return code


def build_model(args: argparse.Namespace) -> rcnn.RCNN:
    as_run = args.variant == "as_run"
    return rcnn.RCNN(args.channels, args.steps, args.dropout, norm=args.norm, as_run=as_run)


class Training:
    """One run: what it holds (`__init__`), its road (`run`), and below that each part of the road once."""

    def __init__(
        self, args: argparse.Namespace, folders: settings.Folders, device: torch.device, peers: parallel.Peers
    ) -> None:
        self.args, self.device, self.peers = args, device, peers
        self.frame = Frame(
            args, folders, job=HERE, seed=args.seed, free=FREE_ON_RESUME, device=device,
            cpus=max(1, settings.usable_cpus() // peers.world),
        )  # fmt: skip
        self.precision = self.pick_precision(self.frame.saved)
        self.as_run = args.variant == "as_run"

        self.data = peers.leader_first(
            lambda: digits.load(args.dataset, folders.data, limit=args.limit, hard=args.hard)
        )
        self.frame.refuse_others(data=self.data.about)
        self.batches = len(self.data.train) // args.batch  # an epoch leaves out the last, partial batch
        if not self.batches:
            raise digits.DataError(f"a batch of {args.batch} is more than the {len(self.data.train)} images")
        if args.batch % peers.world:
            raise digits.DataError(
                f"a batch of {args.batch} cannot be shared equally by {peers.world} processes"
            )
        self.mean = digits.mean_image(self.data.train.images).to(device)
        self.train_set, self.val_set, self.test_set = (
            part.to(device) for part in (self.data.train, self.data.val, self.data.test)
        )

        torch.manual_seed(args.seed)  # again: making the data leaves no trace in the weights
        self.model = build_model(args).to(device, memory_format=torch.channels_last)
        if peers.world > 1:
            self.model = parallel.normalise_globally(self.model, device)
        shared_by_all = peers.wrap(self.model, device)
        self.net = torch.compile(shared_by_all) if args.compile else shared_by_all
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=args.lr)
        self.epoch, self.batch = 0, 0  # done: whole epochs, and batches of the current one
        self.sums = torch.zeros(2, dtype=torch.float64, device=device)  # loss and hits of ours in this epoch
        self.seconds = 0.0  # of training in this epoch
        if peers.leader:
            self.frame.open(self.about())
        if self.frame.saved:
            self.restore(self.frame.saved)

    def run(self) -> None:
        """Epochs until done or stopped, then the test set and the pictures."""
        self.announce()
        STOP.hold()
        while self.epoch < self.args.epochs:
            self.train_epoch()
            self.end_epoch(self.evaluate(self.val_set))
        test = self.evaluate(self.test_set)
        if self.peers.leader:
            self.finish(test)

    def train_epoch(self) -> None:
        """The batches of this epoch that are not done yet, in an order that seed and epoch alone decide."""
        shuffle = torch.Generator().manual_seed(self.args.seed * 1_000_003 + self.epoch)
        order = torch.randperm(len(self.train_set), generator=shuffle)
        self.model.train()
        while self.batch < self.batches:
            started = time.monotonic()
            picks = order[self.batch * self.args.batch :][: self.args.batch]
            self.train_batch(self.peers.share(picks).to(self.device))
            self.batch += 1
            self.seconds += time.monotonic() - started
            if self.leave_if_asked(self.frame.save_due()):
                self.save()
            if self.peers.leader and self.frame.say_due():
                self.say_progress()

    def train_batch(self, picks: torch.Tensor) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate()
        if self.peers.world > 1:  # dropout of its own in each process, with no state to save
            torch.manual_seed((self.args.seed * 1_000_003 + self.step()) * self.peers.world + self.peers.rank)
        labels = self.train_set.labels[picks]
        logits = self.answer(self.train_set.images[picks])
        loss = rcnn.loss(logits, labels, as_run=self.as_run)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        hits = (logits.argmax(1) == labels).sum()
        self.sums += torch.stack([loss.detach().double() * len(picks), hits.double()])

    def answer(self, images: torch.Tensor) -> torch.Tensor:
        """Logits of a batch of uint8 images."""
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            return self.net(digits.normalise(images, self.mean)).float()

    @torch.no_grad()
    def evaluate(self, part: digits.Part) -> tuple[float, float]:
        """Mean loss and accuracy over a whole set."""
        self.model.eval()
        total = torch.zeros(2, dtype=torch.float64, device=self.device)
        for start in range(0, len(part), EVALUATION_BATCH):
            mine = slice(start + self.peers.rank, min(start + EVALUATION_BATCH, len(part)), self.peers.world)
            labels = part.labels[mine]
            if len(labels):
                logits = self.answer(part.images[mine])
                loss = rcnn.loss(logits, labels, as_run=self.as_run)
                hits = (logits.argmax(1) == labels).sum()
                total += torch.stack([loss.double() * len(labels), hits.double()])
            self.leave_if_asked()
        loss_mean, accuracy = (self.peers.total(total) / len(part)).tolist()
        return loss_mean, accuracy

    def step(self) -> int:
        """Steps done since the first epoch began."""
        return self.epoch * self.batches + self.batch

    def rate(self) -> float:
        """Adam's rate: a function of the step alone, so that the schedule has no state to save."""
        step, steps = self.step(), self.args.epochs * self.batches
        if self.args.schedule == "constant":
            return self.args.lr
        warm_up = max(1, steps // 20)
        if step < warm_up:
            return self.args.lr * (step + 1) / warm_up
        return self.args.lr * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up)))

    def end_epoch(self, val: tuple[float, float]) -> None:
        seen = self.batches * self.args.batch
        loss, accuracy = (self.peers.total(self.sums) / seen).tolist()
        timing = {"seconds": round(self.seconds, 3), "images_per_s": round(seen / self.seconds, 1)}
        entry = {
            "epoch": self.epoch + 1, "step": (self.epoch + 1) * self.batches, "lr": self.rate(),
            "loss": loss, "acc": accuracy, "val_loss": val[0], "val_acc": val[1], "timing": timing,
        }  # fmt: skip
        if self.peers.leader:
            self.frame.metrics.add(entry)
            self.say_epoch(entry)
        self.epoch, self.batch, self.seconds = self.epoch + 1, 0, 0.0
        self.sums.zero_()
        if self.epoch % self.args.checkpoint_epochs == 0 or self.epoch == self.args.epochs:
            self.save()

    def leave_if_asked(self, due: bool = False) -> bool:
        """Save and exit on SIGTERM. In an evaluation it is the state before it, which will be done again.

        Returns whether a checkpoint is due, as the leader's clock has it.
        """
        leave, save = self.peers.agree(STOP.asked, due and self.peers.leader)
        if leave:
            self.save()
            STOP.leave(f"saved in epoch {self.epoch + 1} after {self.batch} of {self.batches} batches")
        return save

    def save(self) -> None:
        sums = torch.stack(self.peers.each(self.sums))
        if self.peers.leader:
            self.frame.save({
                "precision": settings.name_of(self.precision), "model": self.model.state_dict(),
                "optimiser": self.optimiser.state_dict(), "epoch": self.epoch, "batch": self.batch,
                "sums": sums, "seconds": self.seconds,
            })  # fmt: skip

    def restore(self, saved: dict[str, Any]) -> None:
        self.model.load_state_dict(saved["model"])
        self.optimiser.load_state_dict(saved["optimiser"])
        self.epoch, self.batch, self.seconds = saved["epoch"], saved["batch"], saved["seconds"]
        if len(saved["sums"]) == self.peers.world:
            self.sums.copy_(saved["sums"][self.peers.rank])
        elif self.peers.leader:  # of another number of processes: one of us carries it all
            self.sums.copy_(saved["sums"].sum(0))
        checkpoint.restore_random(saved)
        self.save()  # among our own outputs as well, before anything else can go wrong

    def pick_precision(self, saved: dict[str, Any] | None) -> torch.dtype:
        """As asked; "auto" on a CPU stays what the checkpoint has, so that resumed equals uninterrupted."""
        if saved and self.args.precision == "auto" and self.device.type == "cpu":
            return settings.pick_precision(saved["precision"], self.device)
        return settings.pick_precision(self.args.precision, self.device)

    def about(self) -> dict[str, Any]:
        """What the numbers were measured on: stands on top of metrics.jsonl and in summary.json."""
        args, frame = self.args, self.frame.about()
        return {
            "data": self.data.about,
            "network": f"RCNN, {args.variant}, {args.norm} norm, K={args.channels}, T={args.steps}",
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "forward_mflops_per_image": round(rcnn.count_flops(args.channels, args.steps) / 1e6, 1),
            "precision": settings.name_of(self.precision),
            **frame,
            "machine": {**frame["machine"], "processes": str(self.peers.world)},
        }

    def announce(self) -> None:
        if not self.peers.leader:
            return
        about = self.about()
        say(f"data     {about['data']}")
        say(f"network  {about['network']}: {about['parameters']:,} parameters, "
            f"{about['forward_mflops_per_image']} MFLOP an image forward, {about['precision']}")  # fmt: skip
        say(f"machine  {settings.in_words(about['machine'])}")
        if self.epoch or self.batch:
            say(f"resumed  in epoch {self.epoch + 1} after {self.batch} of {self.batches} batches")

    def say_progress(self) -> None:
        seen = self.batch * self.args.batch
        loss, accuracy = (self.sums * self.peers.world / seen).tolist()  # the others' are about like ours
        figures = f"loss {loss:.4f}, acc {accuracy:.2%}, {seen / self.seconds:.0f} images/s"
        self.frame.say(f"  epoch {self.epoch + 1}: batch {self.batch} of {self.batches}, {figures}")

    def say_epoch(self, entry: dict[str, Any]) -> None:
        seconds, speed = entry["timing"]["seconds"], entry["timing"]["images_per_s"]
        left_s = seconds * (self.args.epochs - entry["epoch"])
        left = f", about {left_s / 60:.1f} min of training left" if left_s > 60 else ""
        told = (f"loss {entry['loss']:.4f}  acc {entry['acc']:.2%}  "
                f"val_loss {entry['val_loss']:.4f}  val_acc {entry['val_acc']:.2%}")  # fmt: skip
        took = f"({seconds:.1f} s, {speed:.0f} images/s{left})"
        self.frame.say(f"epoch {entry['epoch']}/{self.args.epochs}  {told}  {took}")

    def finish(self, test: tuple[float, float]) -> None:
        """summary.json, curves.png and predictions.png."""
        out, history, about = self.frame.folders.outputs, self.frame.metrics.history, self.about()
        final = {name: value for name, value in history[-1].items() if name != "timing"}
        final.update(test_loss=test[0], test_acc=test[1])
        seconds = sum(entry["timing"]["seconds"] for entry in history)
        summary = {**about, "metrics": final, "training_seconds": round(seconds, 1)}
        metrics.write_json(out / "summary.json", summary)
        note = f"{about['data']}\ntest accuracy {test[1]:.2%} after {seconds / 60:.1f} min of training"
        plots.draw_curves(out / "curves.png", history, title=about["network"], note=note)
        self.draw_predictions(out / "predictions.png", test[1])
        say(f"done     val_acc {final['val_acc']:.2%}  test_acc {test[1]:.2%}  "
            f"after {seconds:.0f} s of training on {about['data']}")  # fmt: skip
        self.frame.close()

    @torch.no_grad()
    def draw_predictions(self, file: Path, accuracy: float) -> None:
        images, labels = self.test_set.images[:64], self.test_set.labels[:64]
        answers = self.answer(images).argmax(1).tolist()
        title = f"The first 64 test images; of all test images {accuracy:.2%} are right"
        plots.draw_sheet(
            file, images.cpu().numpy(), labels.tolist(), answers, title=title, note=self.data.about
        )


if __name__ == "__main__":
    sys.exit(main())
