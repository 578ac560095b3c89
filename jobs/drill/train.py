"""Fits a straight line to noisy points, one epoch every quarter of a second. Keeps the contract of a job:
saves on SIGTERM and exits with 75, resumes from CLOUDRUN_RESUME_FROM, writes below CLOUDRUN_OUTPUT_DIR."""

import argparse
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

EPOCH_S = 0.25
RATE = 0.05
EXIT_RESUME_ME = 75

outputs = Path(os.environ.get("CLOUDRUN_OUTPUT_DIR", "outputs"))
resume_from = os.environ.get("CLOUDRUN_RESUME_FROM", "")
asked_to_stop = False


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=40)
    epochs = parser.parse_args().epochs
    signal.signal(signal.SIGTERM, note_stop)
    state = load() or {"epoch": 0, "slope": 0.0, "offset": 0.0, "history": []}
    print(f"begins after epoch {state['epoch']}", flush=True)
    while state["epoch"] < epochs:
        time.sleep(EPOCH_S)
        train_epoch(state)
        report(state, {"epoch": state["epoch"], "val_loss": val_loss(state)})
        save(state)
        if asked_to_stop:
            print(f"asked to stop after epoch {state['epoch']}", flush=True)
            return EXIT_RESUME_ME
    return 0


def note_stop(*_: object) -> None:
    global asked_to_stop
    asked_to_stop = True


def train_epoch(state: dict) -> None:
    for x, y in points(seed=state["epoch"], count=50):  # other points in every epoch, the same in every run
        error = state["slope"] * x + state["offset"] - y
        state["slope"] -= RATE * error * x
        state["offset"] -= RATE * error
    state["epoch"] += 1


def val_loss(state: dict) -> float:
    found = points(seed=-1, count=200)
    return sum((state["slope"] * x + state["offset"] - y) ** 2 for x, y in found) / len(found)


def points(seed: int, count: int) -> list:
    chance = random.Random(seed)
    xs = [chance.uniform(-1, 1) for _ in range(count)]
    return [(x, 3 * x + 1 + chance.gauss(0, 0.1)) for x in xs]


def load() -> "dict | None":
    file = Path(resume_from, "state.json")
    return json.loads(file.read_text()) if resume_from and file.is_file() else None


def save(state: dict) -> None:
    folder = outputs / "checkpoint"
    folder.mkdir(parents=True, exist_ok=True)
    draft = outputs / "state.new"
    draft.write_text(json.dumps(state))
    draft.replace(folder / "state.json")


def report(state: dict, values: dict) -> None:
    """The whole history each time: an attempt on another machine begins with empty outputs."""
    state["history"].append(values)
    lines = "".join(json.dumps(each) + "\n" for each in state["history"])
    (outputs / "metrics.jsonl").write_text(lines)
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    sys.exit(main())
