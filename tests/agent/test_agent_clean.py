"""The verb `clean`: what ended runs left on a machine is told, and goes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from localmachine import LocalShell, follow_to_end, start_script, wait_for

from cloudrun.remote import process
from cloudrun.remote.process import ProcessState

KEY = "aaaa2222.1"
LEAVES = "mkdir -p outputs/checkpoint && echo 12345678 > outputs/curve && echo 123 > outputs/checkpoint/model"


def left(machine: LocalShell, key: str = KEY) -> set[str]:
    folder = machine.run_dir(key) / "code"
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def cleaned(machine: LocalShell, part: str = "", *, keeps: bool = False) -> dict[str, tuple[int, int]]:
    return process.clean_runs(machine, [(KEY, keeps)], part=part, remove=True)


@pytest.fixture
def ended(machine: LocalShell) -> LocalShell:
    start_script(machine, LEAVES)
    follow_to_end(machine)
    return machine


def test_all_of_a_run(ended: LocalShell) -> None:
    told = process.clean_runs(ended, [(KEY, False)], remove=False)
    assert left(ended) == {"job.sh", "outputs/curve", "outputs/checkpoint/model"}
    assert cleaned(ended) == told
    assert told[KEY][0] >= 9 + 4 + len(LEAVES)
    assert not ended.run_dir(KEY).exists()
    assert cleaned(ended) == {}
    assert process.status(ended, KEY).state is ProcessState.ABSENT


@pytest.mark.parametrize(
    ("part", "keeps", "stay", "counts"),
    [
        ("outputs", False, {"job.sh"}, (13, 2)),
        ("outputs", True, {"job.sh", "outputs/checkpoint/model"}, (9, 1)),
        ("", True, {"job.sh", "outputs/checkpoint/model"}, (9, 1)),
        ("checkpoints", False, {"job.sh", "outputs/curve"}, (4, 1)),
        ("checkpoints", True, {"job.sh", "outputs/curve", "outputs/checkpoint/model"}, None),
        ("code", False, {"outputs/curve", "outputs/checkpoint/model"}, (len(LEAVES), 1)),
        ("code", True, {"job.sh", "outputs/curve", "outputs/checkpoint/model"}, None),
    ],
)
def test_parts(
    ended: LocalShell, part: str, keeps: bool, stay: set[str], counts: tuple[int, int] | None
) -> None:
    expected = {} if counts is None else {KEY: counts}
    assert process.clean_runs(ended, [(KEY, keeps)], part=part, remove=False) == expected
    assert cleaned(ended, part, keeps=keeps) == expected
    assert left(ended) == stay
    assert cleaned(ended, part, keeps=keeps) == {}
    assert process.status(ended, KEY).state is ProcessState.ENDED


def test_a_run_that_goes_on_is_not_touched(machine: LocalShell) -> None:
    start_script(machine, f"{LEAVES}; until [ -e $HOME/go ]; do sleep 0.02; done")
    start_script(machine, LEAVES, key="bbbb.1")  # waits for its turn
    wait_for(lambda: "outputs/checkpoint/model" in left(machine))
    assert process.clean_runs(machine, [(KEY, False), ("bbbb.1", False)], remove=True) == {}
    assert "outputs/checkpoint/model" in left(machine)
    (machine.home / "go").touch()
    assert follow_to_end(machine)[1].exit_code == 0
    assert follow_to_end(machine, "bbbb.1")[1].exit_code == 0


def test_links_go_and_what_they_point_at_stays(ended: LocalShell) -> None:
    other = ended.home / "mine"
    other.mkdir()
    (other / "thesis").write_text("all of it")
    outputs = ended.run_dir(KEY) / "code" / "outputs"
    (outputs / "link").symlink_to(other)
    locked = outputs / "locked"
    locked.mkdir()
    (locked / "file").write_text("x")
    locked.chmod(0o500)
    cleaned(ended)
    assert not ended.run_dir(KEY).exists()
    assert (other / "thesis").read_text() == "all of it"


@pytest.mark.parametrize("key", ["../runs", "", ".."])
def test_only_runs_can_be_named(ended: LocalShell, key: str) -> None:
    with pytest.raises(Exception, match="not a key"):
        process.clean_runs(ended, [(key, False)], remove=True)
    assert left(ended)


def test_cut_short_the_next_one_ends_it(ended: LocalShell) -> None:
    """Killed while it deletes: the run's state is still there, and the rest goes."""
    many = ended.run_dir(KEY) / "code" / "outputs" / "many"
    many.mkdir()
    for number in range(20_000):
        (many / f"{number:05d}").touch()
    stream = ended.open(_clean_command(ended))
    wait_for(lambda: not (ended.run_dir(KEY) / "code" / "job.sh").exists() or _fewer(many, 20_000))
    os.killpg(stream.process.pid, signal.SIGKILL)
    stream.close()
    assert (ended.run_dir(KEY) / "state.json").exists()
    assert cleaned(ended)[KEY][1] > 0
    assert not ended.run_dir(KEY).exists()


def _fewer(folder: Path, count: int) -> bool:
    return len(os.listdir(folder)) < count if folder.exists() else True  # noqa: PTH208


def _clean_command(machine: LocalShell) -> str:
    """The verb's command line, its request already on stdin."""
    from cloudrun.remote import agentlink

    cleaned(machine, "checkpoints")  # brings the verb
    request = machine.home / "request"
    request.write_bytes(agentlink.pack({"runs": [[KEY, False]], "part": "", "remove": True}))
    return f"({agentlink.launch_command('clean', 'cleaning')}) < {request}"
