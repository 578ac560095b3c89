"""What stands in the files of each job agrees: job.toml, presets, the shared modules that are imported."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from job_modules import modules_of
from job_paths import JOBS

STUDIES = ["bn_study", "sample_size", "svhn_rcnn", "transfer_learning"]


def shared_imports(file: Path) -> set[str]:
    """The modules of jobs/shared that a file imports, wherever in it."""
    source = file.read_text()
    several = re.findall(r"^\s*from shared import (.+)$", source, re.MULTILINE)
    single = re.findall(r"^\s*from shared\.(\w+) import", source, re.MULTILINE)
    return {name.strip() for names in several for name in names.split(",")} | set(single)


@pytest.mark.parametrize("job", STUDIES)
def test_job_toml_names_the_shared_modules_that_are_needed_and_no_others(job: str) -> None:
    described = tomllib.loads((JOBS / job / "job.toml").read_text())
    needed: set[str] = set()
    found = set().union(*map(shared_imports, (JOBS / job).glob("*.py")))
    while found - needed:
        needed |= found
        found = set().union(*(shared_imports(JOBS / "shared" / f"{name}.py") for name in needed))
    assert described["shared"] == sorted(needed)


@pytest.mark.parametrize("job", STUDIES)
def test_job_toml_names_the_presets_that_exist(job: str) -> None:
    described = tomllib.loads((JOBS / job / "job.toml").read_text())["presets"]
    options = modules_of(job, "options").options
    assert sorted(described) == sorted(options.PRESETS)
    for name, preset in described.items():
        assert preset["args"] == ["--preset", name]
        assert options.parse(preset["args"], "").preset == name


@pytest.mark.parametrize("job", STUDIES)
def test_what_is_given_beside_a_preset_wins(job: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = modules_of(job, "options").options
    arguments = options.parse(["--preset", "smoke", "--limit", "77"], "")
    assert arguments.limit == 77
    chosen = {name: getattr(arguments, name) for name in options.PRESETS["smoke"] if name != "limit"}
    assert chosen == {name: value for name, value in options.PRESETS["smoke"].items() if name != "limit"}
    with pytest.raises(SystemExit, match="0"):
        options.parse(["--help"], "What it does")
    told = capsys.readouterr().out
    assert all(word in told for word in ("What it does", "--describe", "--threads", "(default: "))
