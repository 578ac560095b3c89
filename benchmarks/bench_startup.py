"""How soon a command answers: CPU time of `cloudrun --help` and of `cloudrun status` with 1,000 stored runs.

Beside them in turn: an interpreter that does nothing, and `sky --help` where skypilot is installed in an
environment of its own (--sky PATH). Everything is byte-compiled first. CPU time of the process with its
children is compared, not the clock, for a machine that does other things too.
"""

from __future__ import annotations

import sys
import tempfile
from functools import partial
from pathlib import Path

from measure import (
    CLOUDRUN,
    Goal,
    Report,
    Sample,
    arguments,
    child,
    child_environment,
    compile_everything,
    in_turn,
    show,
)
from stored import fill

RUNS = 1_000
FLOOR, HELP, STATUS, STATUS_JSON, SKY = (
    "python -c pass",
    "cloudrun --help",
    "cloudrun status",
    "cloudrun status --json",
    "sky --help",
)


def main() -> None:
    parser = arguments(__doc__ or "", rounds=9)
    parser.add_argument("--sky", type=Path, help="path of the sky command, in its own environment")
    options = parser.parse_args()
    compile_everything()
    if options.sky:
        compile_everything(*(options.sky.parent.parent / "lib").glob("python*/site-packages"))
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        fill(home, RUNS)
        found = measure(home, options.sky, options.rounds)
    show(reports(found), as_json=options.json)


def measure(home: Path, sky: Path | None, rounds: int) -> dict[str, list[Sample]]:
    commands: dict[str, list[str | Path]] = {
        FLOOR: [sys.executable, "-c", "pass"],
        HELP: [CLOUDRUN, "--help"],
        STATUS: [CLOUDRUN, "status"],
        STATUS_JSON: [CLOUDRUN, "status", "--json"],
    }
    if sky:
        commands[SKY] = [sky, "--help"]
    environ = child_environment(home)
    return in_turn({case: partial(child, words, env=environ) for case, words in commands.items()}, rounds)


def reports(found: dict[str, list[Sample]]) -> list[Report]:
    cpu = Report(f"start-up, {RUNS} stored runs: CPU time", "s")
    clock = Report("the same on the clock", "s")
    for case, samples in found.items():
        cpu.add(case, [sample.cpu_s for sample in samples])
        clock.add(case, [sample.wall_s for sample in samples])
    cpu.goals = [
        Goal(HELP, FLOOR, 8),
        Goal(STATUS, FLOOR, 12),
        Goal(HELP, SKY, 1 / 15),
        Goal(STATUS, SKY, 1 / 15),
    ]
    if SKY not in found:
        cpu.notes = ["sky --help was not measured: name it with --sky"]
    return [cpu, clock]


if __name__ == "__main__":
    main()
