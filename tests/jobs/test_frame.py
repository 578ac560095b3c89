"""What all jobs share around their training: what a checkpoint may differ in, and when time is up."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from shared import checkpoint, settings
from shared.frame import Frame


@pytest.fixture(autouse=True)
def threads_and_algorithms() -> Iterator[None]:
    """A frame fixes them for the whole process."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(before[0])
    torch.use_deterministic_algorithms(before[1])
    torch.set_flush_denormal(False)  # hypothesis wants the smallest numbers


def frame_of(outputs: Path, resume_from: Path | None = None, **given: object) -> Frame:
    outputs.mkdir(exist_ok=True)
    values = {"device": "cpu", "threads": 1, "checkpoint_minutes": 2.0, "epochs": 3, **given}
    folders = settings.Folders(outputs, outputs, resume_from)
    return Frame(argparse.Namespace(**values), folders, job=Path(__file__).parent, cpus=2)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A checkpoint after one epoch."""
    frame = frame_of(tmp_path / "first")
    frame.refuse_others(data="drawn digits")
    frame.open({"data": "drawn digits", **frame.about()})
    frame.metrics.add({"epoch": 1, "loss": 0.5})
    frame.save({"place": 7})
    frame.close()
    return frame.folders.checkpoint


def test_a_checkpoint_brings_state_threads_and_history(saved: Path, tmp_path: Path) -> None:
    frame = frame_of(tmp_path / "second", saved, threads=0, checkpoint_minutes=9.0)
    frame.refuse_others(data="drawn digits")
    frame.open({"data": "drawn digits"})
    frame.close()
    assert frame.saved is not None
    assert (frame.saved["place"], frame.threads, frame.metrics.history) == (7, 1, [{"epoch": 1, "loss": 0.5}])
    assert len((tmp_path / "second" / "metrics.jsonl").read_text().splitlines()) == 2


def test_other_settings_and_other_data_are_refused(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(checkpoint.CheckpointError, match="epochs was 3, now 4"):
        frame_of(tmp_path / "second", saved, epochs=4)
    frame = frame_of(tmp_path / "second", saved)
    with pytest.raises(checkpoint.CheckpointError, match="trained on drawn digits, but here is MNIST"):
        frame.refuse_others(data="MNIST")


def test_a_checkpoint_from_when_describe_was_a_setting_is_continued(tmp_path: Path) -> None:
    older = frame_of(tmp_path / "first", describe=False)
    older.open({})
    older.save({})
    older.close()
    assert frame_of(tmp_path / "second", older.folders.checkpoint).saved is not None


def test_a_checkpoint_is_due_by_the_clock_and_saving_winds_it(tmp_path: Path) -> None:
    frame = frame_of(tmp_path / "first", checkpoint_minutes=0.0)
    frame.open({})
    assert frame.save_due()
    patient = frame_of(tmp_path / "second")
    patient.open({})
    assert not patient.save_due()
    assert not patient.say_due()
    frame.close()
    patient.close()


def test_numbers_of_a_training_that_blew_up_are_still_json(tmp_path: Path) -> None:
    """Strict readers take it: no NaN, no Infinity."""
    frame = frame_of(tmp_path / "blown")
    frame.open({"data": "drawn digits", **frame.about()})
    frame.metrics.add({"epoch": 1, "loss": math.nan, "val_loss": math.inf, "timing": {"images_per_s": 3.5}})
    frame.close()
    last = (tmp_path / "blown" / "metrics.jsonl").read_text().splitlines()[-1]
    read = json.loads(last, parse_constant=pytest.fail)
    assert read == {"epoch": 1, "loss": None, "val_loss": None, "timing": {"images_per_s": 3.5}}
