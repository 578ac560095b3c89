"""Intervals against scipy, files that are another job's, and the program table.py."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from scipy import stats
from shared import tables


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 9, 10, 29, 30, 200])
def test_quantiles_are_students(freedom: int) -> None:
    assert tables.student_t(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-9)


def test_an_interval_needs_enough_values() -> None:
    mean, half = tables.interval([0.5, 0.6, 0.7])
    assert (mean, half) == pytest.approx((0.6, stats.t.ppf(0.975, 2) * 0.1 / math.sqrt(3)))
    assert tables.shown(mean, half, ".3f") == "0.600 ± 0.248"
    assert tables.shown(*tables.interval([0.5, 0.6], least=3), ".1%", sign="+") == "+55.0%"
    assert all(map(math.isnan, tables.interval([])))


def test_a_table_in_both_forms() -> None:
    assert tables.head("a", "b") == ["| a | b |", "|---|---|"]
    assert tables.line("1", "2, 3") == "| 1 | 2, 3 |"
    assert tables.as_csv(["a", "b"], [[1, "2, 3"]]) == 'a,b\n1,"2, 3"\n'


@pytest.mark.parametrize("content", [None, "", "not JSON", '{"epoch": 1}\n', '{"about": {}}\n{"loss": 1}\n'])
def test_what_is_not_this_jobs_is_refused(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "metrics.jsonl").write_text(content)
    with pytest.raises(tables.ResultsError, match="holds no metrics of this job"):
        tables.read_metrics(tmp_path, lambda about, lines: [line["epoch"] for line in lines])


def test_lines_come_as_they_were_written(tmp_path: Path) -> None:
    lines = [{"about": {"data": "MNIST"}}, {"epoch": 1}, {"epoch": 2}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = tables.read_metrics(tmp_path, lambda about, lines: (about["data"], lines))
    assert found == ("MNIST", [{"epoch": 1}, {"epoch": 2}])
