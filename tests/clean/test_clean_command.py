"""`cloudrun clean` and `cloudrun pin` as they are typed."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from clean_home import Home

from cloudrun.cli import run
from cloudrun.cli.text import width
from cloudrun.models import RunState

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    monkeypatch.setenv("CLOUDRUN_HOME", str(home.settings.home))
    monkeypatch.setenv("COLUMNS", "80")

    def call(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run(words)
        said = capsys.readouterr()
        return code, said.out, said.err

    return call


def test_it_shows_asks_and_moves(home: Home, cli: Call) -> None:
    home.add("aaaa", mb=3)
    home.add("bbbb", job="a-job-with-a-name-that-is-long-enough-to-be-cut", mb=1)
    home.add("cccc", state=RunState.RUNNING, ended_at=None)
    code, out, err = cli("clean", "--dry-run")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["RUN", "aaaa", "bbbb"]
    assert "2 runs, 4.0 MB would go" in err
    assert "stays: 1 active run\n" in err
    assert all(width(line) <= 80 for line in (out + err).splitlines())
    code, _, err = cli("clean")
    assert (code, home.runs()) == (2, {"aaaa", "bbbb", "cccc"})  # nobody there to ask
    assert "-y" in err
    code, _, err = cli("clean", "-y")
    assert (code, home.runs()) == (0, {"cccc"})
    assert "--undo" in err
    assert cli("clean", "-y")[2].startswith("there is nothing to clean")
    assert cli("clean", "--undo")[0] == 0
    assert home.runs() == {"aaaa", "bbbb", "cccc"}


def test_emptying_asks(home: Home, cli: Call) -> None:
    home.add("aaaa", mb=1)
    cli("clean", "-y")
    assert cli("clean", "--empty-trash")[0] == 2
    assert cli("clean", "--empty-trash", "--dry-run")[0] == 0
    assert cli("clean", "--undo", "--empty-trash", "-y")[0] == 2
    assert cli("clean", "--empty-trash", "--job", "x", "-y")[0] == 2
    assert "1.0 MB freed" in cli("clean", "--empty-trash", "-y")[2]
    assert "the trash is empty" in cli("clean", "--empty-trash", "-y")[2]
    assert cli("clean", "--undo")[0] == 2


def test_json_has_it_all(home: Home, cli: Call) -> None:
    for number in range(30):
        home.add(f"run{number:02d}", state=RunState.LOST, resume=number == 0)
    code, out, _ = cli("clean", "--json", "--dry-run")
    said = json.loads(out)
    assert code == 0
    assert len(said["runs"]) == 30
    assert said["kept"] == {"active": 0, "pinned": 0, "last_or_best": 0, "resumable": 1}
    assert said["cleaned"] is None
    assert {"paths": ["outputs/curve.bin"]}.items() <= next(
        one for one in said["runs"] if one["id"] == "run00"
    ).items()
    assert json.loads(cli("clean", "--json", "-y")[1])["cleaned"]["runs"] == 30


def test_pin_by_the_beginning_of_an_id(home: Home, cli: Call) -> None:
    home.add("aaaa")
    assert "aaaa is pinned" in cli("pin", "aa")[2]
    assert "stays: 1 pinned run" in cli("clean", "-y")[2]
    assert home.runs() == {"aaaa"}
    assert cli("pin", "aa", "--off")[0] == 0
    cli("clean", "-y")
    assert cli("pin", "aa")[0] == 2


@pytest.mark.parametrize(
    "words",
    [("--older-than", "soon"), ("--older-than", "30"), ("--larger-than", "much"), ("--keep-last", "-1")],
)
def test_what_cannot_be_read_is_refused(home: Home, cli: Call, words: tuple[str, ...]) -> None:
    home.add("aaaa")
    assert cli("clean", "-y", *words)[0] == 2
    assert home.runs() == {"aaaa"}


def test_sizes_and_ages(home: Home, cli: Call) -> None:
    home.add("aaaa", mb=2, ended_at=datetime(2017, 9, 1, tzinfo=UTC))
    for words in (("--larger-than", "1.5 MB"), ("--larger-than", "2000000"), ("--older-than", "2w")):
        assert "1 run, 2.0 MB would go" in cli("clean", "--dry-run", *words)[2]
    for words in (("--larger-than", "3mb"), ("--older-than", "99999d")):
        assert "nothing to clean" in cli("clean", "--dry-run", *words)[2]
