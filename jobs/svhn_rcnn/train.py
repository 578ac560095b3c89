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

if not (
    Path(__file__).parent / "shared"
).is_dir():  # by hand, not in a bundle: the modules are in jobs/shared
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from shared.stop import Stop

STOP = Stop()  # before torch is imported, which takes seconds: SIGTERM counts from the first moment on
# ruff: noqa: E402
import describing
import digits
import rcnn
import torch
from shared import checkpoint, metrics, plots, settings

HERE = Path(__file__).resolve().parent
PRESETS: dict[str, dict[str, Any]] = {
    # Proves the whole way in seconds.
    "smoke": {"dataset": "rendered", "hard": 0.3, "limit": 1500, "channels": 16, "steps": 3, "dropout": 0.0,
              "batch": 20, "epochs": 3, "lr": 3e-3},
    # Two to three minutes on two CPU cores; far above 90 % in typefaces that were never trained on.
    "quick": {"dataset": "rendered", "limit": 18_000, "channels": 32, "batch": 64, "epochs": 5, "lr": 4e-3},
    # The real MNIST through the same network.
    "mnist": {"dataset": "mnist", "channels": 32, "batch": 128, "epochs": 4, "lr": 4e-3},
    # The run of 2017 with its three slips: no dropout, max over the channels, softmax twice.
    "as_run": {"dataset": "svhn", "variant": "as_run", "channels": 128, "batch": 1024, "epochs": 512,
               "schedule": "constant"},
    # The same training without the slips.
    "paper": {"dataset": "svhn", "channels": 128, "dropout": 0.5, "batch": 1024, "epochs": 512,
              "schedule": "constant"},
}  # fmt: skip
FREE_ON_RESUME = frozenset(
    {"preset", "checkpoint_epochs", "checkpoint_minutes", "device", "precision", "threads", "compile"}
)
SAY_EVERY_S = 15.0
EVALUATION_BATCH = 500


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    defaults_in_help = argparse.ArgumentDefaultsHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], formatter_class=defaults_in_help)
    add = parser.add_argument
    add(
        "--preset",
        choices=sorted(PRESETS),
        help="a named set of the arguments below; those given beside it win",
    )
    add(
        "--dataset",
        choices=digits.NAMES,
        default="auto",
        help="auto: SVHN if it can be had, else rendered digits",
    )
    add("--limit", type=int, default=0, help="about so many images for training and validation (0: all)")
    add("--hard", type=float, default=1.0, help="how hard rendered digits are to read, 0 to 2")
    add(
        "--variant", choices=["fixed", "as_run"], default="fixed", help="as_run: with the three slips of 2017"
    )
    add("--channels", type=int, default=128, help="K, feature maps of every layer")
    add("--steps", type=int, default=4, help="T, iterations of a recurrent layer")
    add("--dropout", type=float, default=0.1, help="share of activations dropped after a recurrent layer")
    add("--batch", type=int, default=128, help="images a step")
    add("--epochs", type=int, default=8)
    add("--lr", type=float, default=1e-3, help="Adam's rate, the highest one of the schedule")
    add(
        "--schedule",
        choices=["cosine", "constant"],
        default="cosine",
        help="cosine: 5 %% warm-up, then down to 0",
    )
    add("--seed", type=int, default=0)
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    add(
        "--precision",
        choices=["auto", "float32", "bfloat16"],
        default="auto",
        help="auto: bfloat16 if in hardware",
    )
    add(
        "--threads",
        type=int,
        default=0,
        help="on the CPU (0: all, or as in the checkpoint); a part of the result",
    )
    add("--compile", action="store_true", help="torch.compile: saves time on runs of hours only")
    add("--checkpoint-epochs", type=int, default=1, help="save after so many epochs")
    add("--checkpoint-minutes", type=float, default=5.0, help="and within an epoch after so many minutes")
    add("--describe", action="store_true", help="train nothing: print what the network and its settings take")
    preset = parser.parse_known_args(argv)[0].preset
    parser.set_defaults(**PRESETS.get(preset, {}))
    return parser.parse_args(argv)


def main() -> int:
    args = parse_arguments()
    if vars(args).pop("describe"):
        describing.report(args, build_model(args))
        return 0
    folders = settings.read_folders(HERE)
    try:
        Training(args, folders).run()
    except (digits.DataError, checkpoint.CheckpointError) as error:
        print(f"svhn_rcnn: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


def build_model(args: argparse.Namespace) -> rcnn.RCNN:
    return rcnn.RCNN(args.channels, args.steps, args.dropout, as_run=args.variant == "as_run")


class Training:
    """One run: what it holds (`__init__`), its road (`run`), and below that each part of the road once."""

    def __init__(self, args: argparse.Namespace, folders: settings.Folders) -> None:
        self.args, self.folders = args, folders
        self.as_run = args.variant == "as_run"
        saved = checkpoint.load(folders.resume_from) if folders.resume_from else None
        if saved:
            checkpoint.refuse_other_settings(saved["settings"], vars(args), free=FREE_ON_RESUME)
        self.device = settings.pick_device(args.device)
        self.precision = settings.pick_precision(args.precision, self.device)
        self.threads = args.threads or (saved["threads"] if saved else settings.usable_cpus())
        settings.fix_randomness(args.seed, self.threads, self.device)

        self.data = digits.load(args.dataset, folders.data, limit=args.limit, hard=args.hard)
        if saved and saved["data"] != self.data.about:
            raise checkpoint.CheckpointError(f"trained on {saved['data']}, but here is {self.data.about}")
        self.batches = len(self.data.train) // args.batch  # an epoch leaves out the last, partial batch
        if not self.batches:
            raise digits.DataError(f"a batch of {args.batch} is more than the {len(self.data.train)} images")
        self.mean = digits.mean_image(self.data.train.images).to(self.device)
        self.train_set, self.val_set, self.test_set = (
            part.to(self.device) for part in (self.data.train, self.data.val, self.data.test)
        )

        torch.manual_seed(
            args.seed
        )  # again: whether the data was made or read leaves no trace in the weights
        self.model = build_model(args).to(self.device, memory_format=torch.channels_last)
        self.net = torch.compile(self.model) if args.compile else self.model
        self.optimiser = torch.optim.Adam(self.model.parameters(), lr=args.lr)
        self.epoch, self.batch = 0, 0  # done: whole epochs, and batches of the current one
        self.sums = torch.zeros(2, dtype=torch.float64, device=self.device)  # loss and hits in this epoch
        self.seconds = 0.0  # of training in this epoch
        self.metrics = metrics.Metrics(folders.outputs, self.about(), saved["history"] if saved else [])
        if saved:
            self.restore(saved)

    def run(self) -> None:
        """Epochs until done or stopped, then the test set and the pictures."""
        self.announce()
        self.said_at = self.saved_at = time.monotonic()
        STOP.hold()
        while self.epoch < self.args.epochs:
            self.train_epoch()
            self.end_epoch(self.evaluate(self.val_set))
        self.finish(self.evaluate(self.test_set))

    def train_epoch(self) -> None:
        """The batches of this epoch that are not done yet, in an order that seed and epoch alone decide."""
        shuffle = torch.Generator().manual_seed(self.args.seed * 1_000_003 + self.epoch)
        order = torch.randperm(len(self.train_set), generator=shuffle)
        self.model.train()
        while self.batch < self.batches:
            started = time.monotonic()
            self.train_batch(order[self.batch * self.args.batch :][: self.args.batch].to(self.device))
            self.batch += 1
            self.seconds += time.monotonic() - started
            self.leave_if_asked()
            if time.monotonic() - self.saved_at > 60 * self.args.checkpoint_minutes:
                self.save()
            if time.monotonic() - self.said_at > SAY_EVERY_S:
                self.say_progress()

    def train_batch(self, picks: torch.Tensor) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate()
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
            labels = part.labels[start : start + EVALUATION_BATCH]
            logits = self.answer(part.images[start : start + EVALUATION_BATCH])
            loss = rcnn.loss(logits, labels, as_run=self.as_run)
            total += torch.stack([loss.double() * len(labels), (logits.argmax(1) == labels).sum().double()])
            self.leave_if_asked()
        loss_mean, accuracy = (total / len(part)).tolist()
        return loss_mean, accuracy

    def rate(self) -> float:
        """Adam's rate: a function of the step alone, so that the schedule has no state to save."""
        step, steps = self.epoch * self.batches + self.batch, self.args.epochs * self.batches
        if self.args.schedule == "constant":
            return self.args.lr
        warm_up = max(1, steps // 20)
        if step < warm_up:
            return self.args.lr * (step + 1) / warm_up
        return self.args.lr * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up)))

    def end_epoch(self, val: tuple[float, float]) -> None:
        seen = self.batches * self.args.batch
        loss, accuracy = (self.sums / seen).tolist()
        timing = {"seconds": round(self.seconds, 3), "images_per_s": round(seen / self.seconds, 1)}
        entry = {
            "epoch": self.epoch + 1, "step": (self.epoch + 1) * self.batches, "lr": self.rate(),
            "loss": loss, "acc": accuracy, "val_loss": val[0], "val_acc": val[1], "timing": timing,
        }  # fmt: skip
        self.metrics.add(entry)
        self.say_epoch(entry)
        self.epoch, self.batch, self.seconds = self.epoch + 1, 0, 0.0
        self.sums.zero_()
        if self.epoch % self.args.checkpoint_epochs == 0 or self.epoch == self.args.epochs:
            self.save()

    def leave_if_asked(self) -> None:
        """Save and exit on SIGTERM. In an evaluation it is the state before it, which will be done again."""
        if STOP.asked:
            self.save()
            STOP.leave(f"saved in epoch {self.epoch + 1} after {self.batch} of {self.batches} batches")

    def save(self) -> None:
        checkpoint.save(self.folders.checkpoint, {
            "settings": vars(self.args), "data": self.data.about, "threads": self.threads,
            "model": self.model.state_dict(), "optimiser": self.optimiser.state_dict(),
            "epoch": self.epoch, "batch": self.batch, "sums": self.sums, "seconds": self.seconds,
            "history": self.metrics.history,
        })  # fmt: skip
        self.saved_at = time.monotonic()

    def restore(self, saved: dict[str, Any]) -> None:
        self.model.load_state_dict(saved["model"])
        self.optimiser.load_state_dict(saved["optimiser"])
        self.epoch, self.batch, self.seconds = saved["epoch"], saved["batch"], saved["seconds"]
        self.sums.copy_(saved["sums"])
        checkpoint.restore_random(saved)
        self.save()  # among our own outputs as well, before anything else can go wrong

    def about(self) -> dict[str, Any]:
        """What the numbers were measured on: stands on top of metrics.jsonl and in summary.json."""
        args = self.args
        return {
            "data": self.data.about,
            "network": f"RCNN, {args.variant}, K={args.channels}, T={args.steps}",
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "forward_mflops_per_image": round(rcnn.count_flops(args.channels, args.steps) / 1e6, 1),
            "precision": str(self.precision).removeprefix("torch."),
            "machine": settings.describe_machine(self.device),
            "settings": vars(args),
            "source_sha256": settings.source_sha256(HERE),
        }

    def announce(self) -> None:
        about = self.about()
        machine = ", ".join(f"{name} {value}" for name, value in about["machine"].items())
        say(f"data     {about['data']}")
        say(f"network  {about['network']}: {about['parameters']:,} parameters, "
            f"{about['forward_mflops_per_image']} MFLOP an image forward, {about['precision']}")  # fmt: skip
        say(f"machine  {machine}")
        if self.epoch or self.batch:
            say(f"resumed  in epoch {self.epoch + 1} after {self.batch} of {self.batches} batches")

    def say_progress(self) -> None:
        seen = self.batch * self.args.batch
        loss, accuracy = (self.sums / seen).tolist()
        say(f"  epoch {self.epoch + 1}: batch {self.batch} of {self.batches}, "
            f"loss {loss:.4f}, acc {accuracy:.2%}, {seen / self.seconds:.0f} images/s")  # fmt: skip
        self.said_at = time.monotonic()

    def say_epoch(self, entry: dict[str, Any]) -> None:
        seconds, speed = entry["timing"]["seconds"], entry["timing"]["images_per_s"]
        left_s = seconds * (self.args.epochs - entry["epoch"])
        left = f", about {left_s / 60:.1f} min of training left" if left_s > 60 else ""
        say(f"epoch {entry['epoch']}/{self.args.epochs}  loss {entry['loss']:.4f}  acc {entry['acc']:.2%}  "
            f"val_loss {entry['val_loss']:.4f}  val_acc {entry['val_acc']:.2%}  "
            f"({seconds:.1f} s, {speed:.0f} images/s{left})")  # fmt: skip
        self.said_at = time.monotonic()

    def finish(self, test: tuple[float, float]) -> None:
        """summary.json, curves.png and predictions.png."""
        out, history, about = self.folders.outputs, self.metrics.history, self.about()
        final = {name: value for name, value in history[-1].items() if name != "timing"}
        final.update(test_loss=test[0], test_acc=test[1])
        seconds = sum(entry["timing"]["seconds"] for entry in history)
        metrics.write_json(
            out / "summary.json", {**about, "metrics": final, "training_seconds": round(seconds, 1)}
        )
        note = f"{about['data']}\ntest accuracy {test[1]:.2%} after {seconds / 60:.1f} min of training"
        plots.draw_curves(out / "curves.png", history, title=about["network"], note=note)
        self.draw_predictions(out / "predictions.png", test[1])
        self.metrics.close()
        say(f"done     val_acc {final['val_acc']:.2%}  test_acc {test[1]:.2%}  "
            f"after {seconds:.0f} s of training on {about['data']}")  # fmt: skip
        say(f"outputs  {out}: {', '.join(sorted(file.name for file in out.iterdir()))}")

    @torch.no_grad()
    def draw_predictions(self, file: Path, accuracy: float) -> None:
        images, labels = self.test_set.images[:64], self.test_set.labels[:64]
        answers = self.answer(images).argmax(1).tolist()
        title = f"The first 64 test images; of all test images {accuracy:.2%} are right"
        plots.draw_sheet(
            file, images.cpu().numpy(), labels.tolist(), answers, title=title, note=self.data.about
        )


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
