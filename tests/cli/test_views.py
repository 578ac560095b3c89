"""What people read: the status table at 80 and 120 columns, a run's details, a plan, the end of a submit."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from cli_samples import NOW, a_machine, a_run

from cloudrun.cli import plan_view, run_view, table
from cloudrun.cli.machine_view import MACHINE_COLUMNS, machine_row
from cloudrun.cli.watch import stage_line
from cloudrun.models import (
    Attempt,
    Bundle,
    BundleFile,
    Ignored,
    Job,
    MachineState,
    Market,
    Offer,
    Outcome,
    Plan,
    RunState,
    Stack,
    Stage,
)

SPOT = Offer(
    "aws", "us-east-1", "p2.xlarge", Market.SPOT, Decimal("0.27"), date(2018, 2, 1),
    gpu="Tesla K80", gpu_count=1, gpu_memory_gib=12.0, vcpus=4, memory_gib=61.0,
)  # fmt: skip
HERE = Offer("local", "here", "local", Market.OWN, Decimal(0), vcpus=2)
FILES = tuple(BundleFile(f"file{n:02d}.py", n * 1000, 0o644, "ab" * 32) for n in range(15))
IGNORED = tuple(Ignored(f"data/{n}.bin", ".cloudrunignore:1 data/") for n in range(12))


def a_plan(**changes: object) -> Plan:
    facts: dict[str, object] = {
        "job": Job("svhn_rcnn", Path("/jobs/svhn_rcnn"), ("python3", "train.py"), ("cpu-torch",)),
        "preset": "quick",
        "args": ("--epochs", "3"),
        "stack": Stack("cuda11-torch"),
        "candidates": (SPOT, SPOT),
        "bundle": Bundle("cd" * 32, FILES, ignored=IGNORED, secrets=(".env",)),
        "target_reason": "a new p2.xlarge: asked for",
        "max_hours": 2.0,
        "worst_case_usd": Decimal("0.585"),
        "warnings": ("p2.xlarge was retired",),
        "stage_seconds": ((Stage.LOAD, 0.012), (Stage.BUNDLE, 0.31)),
    }
    return Plan(**{**facts, **changes})  # type: ignore[arg-type]


def plan_text(plan: Plan, *, full: bool = False, machine: object = None) -> str:
    return "\n".join(plan_view.plan_lines(plan, machine, now=NOW, full=full))  # type: ignore[arg-type]


def test_a_plan_says_all_that_is_decided() -> None:
    text = plan_text(a_plan())
    for fact in (
        "svhn_rcnn, preset quick",
        "python3 train.py --epochs 3",
        "aws us-east-1 p2.xlarge spot, 1 x Tesla K80 12 GiB, 4 vCPU, 61 GiB",
        "a new p2.xlarge: asked for",
        "0.27 USD an hour (price of 2018-02-01)",
        "0.585 USD at the deadline",
        "the job after 2 h at the latest",
        "105 kB in 15 files",
        "14.0 kB  file14.py",
        "by .cloudrunignore:1 data/",
        "p2.xlarge was retired",
        ".env would be sent",
        " 4 bundle                            0.31 s",
    ):
        assert fact in text
    assert text.count(".py") == 1 + 10  # the command, and the ten biggest
    assert "and 4 more (--dry-run lists all)" in text


def test_a_dry_run_lists_every_ignored_path() -> None:
    assert plan_text(a_plan(), full=True).count("by .cloudrunignore") == 12


def test_an_unknown_price_is_never_zero() -> None:
    offer = Offer("azure", "eastus", "NC6", Market.ON_DEMAND, None)
    text = plan_text(a_plan(candidates=(offer,), worst_case_usd=None))
    assert "price      unknown" in text
    assert plan_view.price(a_plan(candidates=(offer,)), None) == (None, True)


def test_a_machine_that_is_kept_ends_when_its_budget_is_spent_or_never() -> None:
    text = plan_text(a_plan(keep=True, worst_case_usd=None, budget_usd=None))
    assert "no limit (--keep without --budget): 0.286 USD an hour with disk and address until you end" in text
    assert "the machine stays up until you end it (--keep)" in text
    assert "deadline" not in text
    text = plan_text(a_plan(keep=True, worst_case_usd=Decimal(5), budget_usd=Decimal(5)))
    assert "at most    5.00 USD, the budget, at 0.286 USD an hour with disk and address; then it ends" in text
    assert "until its budget is spent or you end it (--keep)" in text


def test_what_bounds_a_run_on_a_machine_that_is_up() -> None:
    there = {"candidates": (), "machine": "p2-xlarge"}
    text = plan_text(a_plan(**there, worst_case_usd=Decimal(2)), machine=a_machine())
    assert "at most    2.00 USD for the run, disk and address included" in text
    text = plan_text(a_plan(**there, worst_case_usd=None), machine=replace(a_machine(), idle_minutes=30.0))
    assert "no limit but the machine's own: it ends itself after 30 min without work" in text
    text = plan_text(a_plan(**there, worst_case_usd=None), machine=replace(a_machine(), idle_minutes=None))
    assert "neither --max-hours nor --budget is given, and nothing but you ends the machine" in text


def test_this_computer_costs_nothing_and_needs_no_question() -> None:
    plan = a_plan(candidates=(HERE,), worst_case_usd=Decimal(0))
    assert "nobody bills this machine" in plan_text(plan)
    assert plan_view.price(plan, None)[1] is False


def test_a_machine_that_is_up_keeps_its_own_end() -> None:
    text = plan_text(a_plan(candidates=(), machine="p2-xlarge"), machine=a_machine())
    assert "p2-xlarge (aws p2.xlarge), which is up already" in text
    assert "the machine stays up, and ends at" in text
    assert "stays up until you end it (--keep)" in plan_text(a_plan(keep=True))


RUNS = [
    a_run(
        id="2abc3def",
        state=RunState.RUNNING,
        stage=Stage.FOLLOW,
        ended_at=None,
        metric_value=None,
        cost_usd=None,
    ),
    a_run(),
    a_run(
        id="9zzz9zzz",
        job="a-job-with-a-very-long-name-indeed",
        state=RunState.TIMED_OUT,
        machine="p2-xlarge-12",
    ),
]


def status_table(columns: int) -> list[str]:
    return table.lines(run_view.RUN_COLUMNS, [run_view.run_row(run, NOW) for run in RUNS], columns)


def test_status_at_120_columns_shows_everything() -> None:
    header, first, second, third = status_table(120)
    assert header.split() == [
        "RUN",
        "JOB",
        "PRESET",
        "MACHINE",
        "STATE",
        "STAGE",
        "METRIC",
        "AGE",
        "TOOK",
        "COST",
    ]
    assert "running    follow" in first
    assert second.split()[-4:] == ["0.9313", "5m", "4m00s", "0.0171"]
    assert "a-job-with-a-very-long-name-indeed" in third


def test_status_at_80_columns_keeps_what_matters() -> None:
    lines = status_table(80)
    assert all(len(line) <= 80 for line in lines)
    assert {"RUN", "JOB", "STATE", "METRIC", "AGE", "MACHINE"} <= set(lines[0].split())
    assert "a-job-" in lines[3]


@pytest.mark.parametrize("columns", [80, 120])
def test_machines_fit_too(columns: int) -> None:
    row = machine_row(a_machine(), Decimal("0.27"), ["8f3kq2zx"], NOW)
    lines = table.lines(MACHINE_COLUMNS, [row], columns)
    assert all(len(line) <= columns for line in lines)
    assert {"p2-xlarge", "running", "0.27"} <= set(lines[1].split())
    assert "(in 3 h)" in lines[1]


def test_the_last_line_of_status() -> None:
    plain = a_machine(name="bench", provider="local", price_per_hour_usd=Decimal(0), deadline_at=None)
    line = run_view.machines_line(
        [plain, a_machine(), a_machine(name="off", state=MachineState.STOPPED)], NOW
    )
    clock = a_machine().deadline_at.astimezone()  # type: ignore[union-attr]
    assert (
        line
        == f"2 machines up, 0.27 USD an hour; p2-xlarge ends at {clock:%H:%M} (in 3 h); bench has no guard: "
        "only you end it"
    )
    idle = a_machine(deadline_at=None, idle_minutes=30.0)
    assert run_view.machines_line([idle], NOW).endswith("p2-xlarge ends after 30 idle minutes")
    assert run_view.machines_line([], NOW) == "no machine is up"
    unknown = run_view.machines_line([a_machine(price_per_hour_usd=None)], NOW)
    assert "0.00 USD and an unknown price an hour" in unknown


def test_details_show_attempts_stages_and_why() -> None:
    run = a_run(state=RunState.FAILED, exit_code=3, message="out of memory")
    attempts = [
        Attempt(run.id, 1, "t1", SPOT, machine="m-1", outcome=Outcome.PREEMPTED, message="taken back"),
        Attempt(run.id, 2, "t2", SPOT, machine="m-2", outcome=Outcome.FAILED),
    ]
    stages = [(0, Stage.LOAD, NOW, 0.01), (1, Stage.LAUNCH, NOW, 61.0), (2, Stage.LAUNCH, NOW, 59.0)]
    text = "\n".join(run_view.detail_lines(run, attempts, stages, Path("/nowhere"), NOW))
    for fact in (
        "failed (exit code 3)",
        "out of memory",
        "attempt 1 on m-1, preempted: taken back",
        "1 min 01 s",
        "0.0171 USD",
    ):
        assert fact in text
    assert "outputs" not in text


def test_a_submit_ends_with_result_place_picture_cost_and_next(tmp_path: Path) -> None:
    files = [BundleFile("plots/curves.png", 2000, 0o644, ""), BundleFile("metrics.jsonl", 100, 0o644, "")]
    lines = run_view.ending_lines(a_run(), files, tmp_path, job="jobs/svhn_rcnn", now=NOW)
    text = "\n".join(lines)
    assert "validation accuracy  0.9313" in text
    assert f"{tmp_path} (2 files, 2.1 kB)" in text
    assert f"{tmp_path}/plots/curves.png" in text
    assert "0.0171 USD for 4 min on bench" in text
    assert [line.split()[0] for line in lines[-3:]] == ["cloudrun"] * 3


def test_stage_lines_stand_under_each_other() -> None:
    lines = [
        stage_line(stage, seconds)
        for stage, seconds in zip(Stage, (0.31, 7, 61, 3700, 90000) * 2, strict=True)
    ]
    assert len({len(line) for line in lines}) == 1
    assert stage_line(Stage.LAUNCH, 0.31, "local") == " 6 launch     local                  0.31 s"


def test_names_from_elsewhere_cannot_steer_the_terminal() -> None:
    assert "\x1b" not in plan_text(a_plan(target_reason="\x1b[2Jgone"))
    assert "\x1b" not in run_view.machines_line([a_machine(name="\x1b[2J")], NOW)


def test_age_of_a_run_from_the_future_is_zero() -> None:
    row = run_view.run_row(a_run(submitted_at=NOW + timedelta(hours=1), ended_at=None), NOW)
    assert "0s" in row


def test_a_plan_says_where_outputs_go_and_what_a_rented_machine_does_by_itself() -> None:
    place = "s3://results/svhn"
    rented = plan_text(a_plan(outputs_to=place))
    assert f"home, and from there to {place}" in rented
    assert "stores them there itself" in rented
    own = plan_text(a_plan(outputs_to=place, candidates=(HERE,), worst_case_usd=Decimal(0)))
    assert f"home, and from there to {place}" in own
    assert "itself where no client" not in own
    assert place not in plan_text(a_plan())
