"""Whether a clean-up of many run folders keeps up with `rm -rf`, and choosing among many runs is quick.

On tmpfs where there is one, so that the disk's speed is not what is measured. `rm -rf` deletes the same
folders. The clean-up also looks at every file to say how much would go, asks the store, and locks each run.
"""

from __future__ import annotations

import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from measure import (
    CLOUDRUN,
    Goal,
    Report,
    arguments,
    child,
    child_environment,
    compile_everything,
    show,
    wall,
)
from stored import fill

from cloudrun.cleaning import Choice, plan_cleanup
from cloudrun.config import Settings
from cloudrun.store import Store

FOLDERS, RUNS = 20_000, 100_000
FILES = ("run.json", "lock", "attempt-1.log", "outputs/metrics.jsonl", "outputs/checkpoint/model.pt")
MANIFEST = '{"format": 1, "files": []}'
RM, CLEAN, WITH_TRASH = "rm -rf", "clean -y, into the trash", "clean -y, then clean --empty-trash -y"
CHOOSE = "choose among {:,} runs, none of which goes"


def main() -> None:
    parser = arguments(__doc__ or "", rounds=3)
    parser.add_argument("--folders", type=int, default=FOLDERS, help=f"runs that go ({FOLDERS:,})")
    parser.add_argument("--runs", type=int, default=RUNS, help=f"runs to choose from ({RUNS:,})")
    options = parser.parse_args()
    compile_everything()
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        reports = [
            delete_times(Path(folder, "few"), options.folders, options.rounds),
            choice_times(Path(folder, "many"), options.runs, options.rounds),
        ]
    show(reports, as_json=options.json)


def delete_times(home: Path, count: int, rounds: int) -> Report:
    report = Report(f"{count:,} run folders of {len(FILES) + 1} files", "s")
    fill(home, count)
    ids = [run.id for run in Store(Settings(home=home).store_path).list_runs()]
    environment = child_environment(home)
    for _ in range(rounds):
        lay_out(home, ids)
        report.add(RM, [child(["rm", "-rf", home / "runs"]).wall_s])
        lay_out(home, ids)
        cleaned = child([CLOUDRUN, "clean", "-y"], env=environment).wall_s
        emptied = child([CLOUDRUN, "clean", "--empty-trash", "-y"], env=environment).wall_s
        assert not any((home / "runs").iterdir())
        report.add(CLEAN, [cleaned])
        report.add(WITH_TRASH, [cleaned + emptied])
    report.goals = [Goal(CLEAN, RM, 3), Goal(WITH_TRASH, RM, 3)]
    return report


def choice_times(home: Path, count: int, rounds: int) -> Report:
    report = Report("Choosing", "s")
    fill(home, count)
    settings = Settings(home=home)
    for run in Store(settings.store_path).list_runs():
        (settings.runs_dir / run.id).mkdir(parents=True)
    now = datetime.now(UTC)
    nothing = Choice(older_than=timedelta(days=100_000))
    case = CHOOSE.format(count)
    report.add(case, [wall(lambda: plan_cleanup(settings, nothing, now=now)) for _ in range(rounds)])
    report.goals = [Goal(case, "", 5)]
    return report


def lay_out(home: Path, ids: list[str]) -> None:
    shutil.rmtree(home / "runs", ignore_errors=True)
    for run_id in ids:
        folder = home / "runs" / run_id
        (folder / "outputs" / "checkpoint").mkdir(parents=True)
        (folder / "bundle.json").write_text(MANIFEST)
        for name in FILES:
            (folder / name).write_bytes(b"x" * (0 if name == "lock" else 200))


if __name__ == "__main__":
    main()
