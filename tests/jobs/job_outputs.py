"""What a job left, and how it is stopped: shared by the tests of all jobs."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from warm_job import WarmJob


def metric_lines(outputs: Path) -> list[dict[str, object]]:
    """The lines of the epochs, without what may differ from run to run."""
    lines = [json.loads(line) for line in (outputs / "metrics.jsonl").read_text().splitlines()]
    assert list(lines[0]) == ["about"]
    return [{name: value for name, value in line.items() if name != "timing"} for line in lines[1:]]


def read_summary(outputs: Path) -> dict[str, object]:
    return json.loads((outputs / "summary.json").read_text())


def stop_at(start_of_line: str, process: WarmJob) -> str:
    """Send SIGTERM when the job says that; it has to leave with 75. What it said after."""
    assert any(line.startswith(start_of_line) for line in process.stdout)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=100)
    assert process.returncode == 75, said
    assert "resume me" in said
    return said
