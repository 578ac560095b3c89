"""What every benchmark here shares: child processes with their own CPU time, rounds in turn, one table.

A figure is only worth something beside another one of the same minutes on the same machine. So cases run
in turn, round by round, and what counts is the ratio of their medians; seconds are printed as context.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[1]
STATISTICS = ("min", "median", "p95", "max")
CLOUDRUN = Path(sys.executable).with_name("cloudrun")


@dataclass(frozen=True, slots=True)
class Sample:
    """One execution: seconds on the clock, and seconds of CPU of the child with its children."""

    wall_s: float
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Goal:
    """What was set out to reach: case / against at most `most`; with no `against`, the case itself.

    Medians are compared, unless the statistic is "p95".
    """

    case: str
    against: str
    most: float
    statistic: str = "median"


@dataclass
class Report:
    """One benchmark's figures, printed as a table or as JSON."""

    title: str
    unit: str
    values: dict[str, list[float]] = field(default_factory=dict)
    goals: list[Goal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, case: str, values: Sequence[float]) -> None:
        self.values.setdefault(case, []).extend(values)

    def value(self, case: str, statistic: str) -> float:
        values = sorted(self.values[case])
        if statistic == "p95":
            return values[min(len(values) - 1, round(0.95 * len(values)))]
        return {"min": values[0], "median": statistics.median(values), "max": values[-1]}[statistic]

    def rows(self) -> list[dict[str, object]]:
        return [
            {"case": case, "n": len(values)} | {name: self.value(case, name) for name in STATISTICS}
            for case, values in self.values.items()
        ]

    def verdicts(self) -> list[dict[str, object]]:
        found = []
        for goal in self.goals:
            if goal.case in self.values and (not goal.against or goal.against in self.values):
                beside = self.value(goal.against, goal.statistic) if goal.against else 1.0
                reached = self.value(goal.case, goal.statistic) / beside
                found.append({**asdict(goal), "reached": reached, "met": reached <= goal.most})
        return found


def child(
    command: Sequence[str | os.PathLike[str]],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    codes: Sequence[int] = (0,),
) -> Sample:
    """Run a program to its end and say what it took. Raises RuntimeError with its words if it failed."""
    started = time.perf_counter()
    process = subprocess.Popen(
        command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stderr.close()
    if process.returncode not in codes:
        raise RuntimeError(f"{command}: exit {process.returncode}\n{said.decode(errors='replace')}")
    return Sample(wall_s, usage.ru_utime + usage.ru_stime)


def wall(action: Callable[[], object]) -> float:
    """Seconds on the clock of one call."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def in_turn(cases: Mapping[str, Callable[[], T]], rounds: int, *, warm_up: int = 1) -> dict[str, list[T]]:
    """Each case once a round, so that a busy minute hits all of them alike. Warm-up rounds do not count."""
    found: dict[str, list[T]] = {case: [] for case in cases}
    for number in range(-warm_up, rounds):
        for case, action in cases.items():
            value = action()
            if number >= 0:
                found[case].append(value)
    return found


def child_environment(home: Path, **more: str) -> dict[str, str]:
    """This environment for children: our home, .pyc files allowed, no colour and no terminal width."""
    dropped = ("PYTHONDONTWRITEBYTECODE", "COLUMNS", "FORCE_COLOR")
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return kept | {"CLOUDRUN_HOME": str(home), "NO_COLOR": "1"} | more


def compile_everything(*folders: Path) -> None:
    """Byte-compile packages: whoever runs first must not pay for it."""
    with contextlib.redirect_stdout(io.StringIO()):
        for folder in folders or (ROOT / "cloudrun", Path(sysconfig.get_path("purelib"))):
            compileall.compile_dir(folder, quiet=2, workers=2)


def arguments(text: str, *, rounds: int) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    parser = argparse.ArgumentParser(description=text.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="figures as JSON on stdout")
    parser.add_argument("--rounds", type=int, default=rounds, help=f"rounds that count ({rounds})")
    return parser


def show(reports: Sequence[Report], *, as_json: bool) -> None:
    """Print all of it: tables for people, or one JSON object with the machine it was measured on."""
    if as_json:
        figures = [
            {"title": r.title, "unit": r.unit, "rows": r.rows(), "goals": r.verdicts(), "notes": r.notes}
            for r in reports
        ]
        print(json.dumps({"measured": this_machine(), "reports": figures}, indent=1))
        return
    print("  ".join(f"{name}: {value}" for name, value in this_machine().items()))
    for report in reports:
        print_report(report)


def print_report(report: Report) -> None:
    width = max((len(case) for case in report.values), default=4)
    print(f"\n{report.title} ({report.unit})")
    heads = " ".join(f"{name:>9}" for name in STATISTICS)
    print(f"  {'case':<{width}}  {'n':>4} {heads}")
    for row in report.rows():
        figures = " ".join(f"{row[name]:>9.3f}" for name in STATISTICS)
        print(f"  {row['case']:<{width}}  {row['n']:>4} {figures}")
    for verdict in report.verdicts():
        word = "met" if verdict["met"] else "MISSED"
        name = f"{verdict['case']} / {verdict['against']}" if verdict["against"] else verdict["case"]
        unit = "x" if verdict["against"] else f" {report.unit}"
        print(
            f"  {name}, {verdict['statistic']}: {verdict['reached']:.3g}{unit}, "
            f"goal {verdict['most']:.3g}{unit}: {word}"
        )
    for note in report.notes:
        print(f"  {note}")


def this_machine() -> dict[str, str]:
    """Where and with what the figures were taken."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "system": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "load": " ".join(f"{value:.1f}" for value in os.getloadavg()),
        "python": platform.python_version(),
        "ssh": version_of("ssh", "-V"),
        "rsync": version_of("rsync", "--version"),
    }


def version_of(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "none"
    first = (done.stdout or done.stderr).splitlines()[0]
    return first.split(",")[0].replace("rsync  version ", "").split("  ")[0]
