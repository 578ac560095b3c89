"""What is judged of a machine's own words, without a machine."""

from __future__ import annotations

import base64
import shutil
import subprocess
import time
import zlib
from dataclasses import replace

import pytest
from samples import A_MACHINE

from cloudrun.assets import provisioning_dir
from cloudrun.cli.machine_view import FINDING_COLUMNS, finding_rows
from cloudrun.cli.table import lines
from cloudrun.errors import RemoteError
from cloudrun.gpu_seen import why_no_gpu
from cloudrun.health import Finding, Severity, judge
from cloudrun.health_look import Disk, Look, look
from cloudrun.models import Machine, Market, Result, Stack
from cloudrun.provision_steps import Checks, Step, read_checks
from cloudrun.remote.agentlink import FRAME, MAGIC

STACK = Stack(name="small", frameworks=(("torch", "2.0.1"),), packages=(("nvidia-384", "384.66-0ubuntu1"),))
STEPS = [Step("14-packages", {}), Step("90-gpu-seen", {"SEEN_BY": "torch"})]
MACHINE = replace(
    A_MACHINE,
    stack="small",
    versions=(("driver", "384.66"), ("gpu", "Tesla K80"), ("kernel", "4.4.0-1"), ("torch", "2.0.1")),
    disk_gb=100,
)
SEEN = Look(
    checks=Checks({"14-packages": 0, "90-gpu-seen": 0}, {}, {}, root=True),
    facts={"driver": "384.66", "gpu": "Tesla K80", "gpu_count": "1", "kernel": "4.4.0-1", "torch": "2.0.1"},
    watched=True,
    held=frozenset({"nvidia-384"}),
    disks=(Disk("/", 100 * 10**9, 50 * 10**9, 50),),
)


def left(seen: Look, machine: Machine = MACHINE, steps: list[Step] = STEPS) -> dict[str, Finding]:
    return {each.check: each for each in judge(machine, STACK, steps, seen) if not each.ok}


def test_a_sound_machine_has_nothing_left_to_mend() -> None:
    assert left(SEEN) == {}


@pytest.mark.parametrize(
    ("code", "words", "meaning", "hint"),
    [
        (18, "Failed to initialize NVML: Driver/library version mismatch", "replaced under", "--fix"),
        (6, "No devices were found", "finds no GPU", "cloudrun stop k80, then cloudrun start k80"),
        (15, "Unable to determine the device handle: GPU is lost.", "no longer answers", "cloudrun stop k80"),
        (124, "", "hangs", "--fix"),
        (1, "something new", "does not answer; nvidia-smi says: something new", "--fix"),
    ],
)
def test_words_of_nvidia_smi(code: int, words: str, meaning: str, hint: str) -> None:
    assert meaning in why_no_gpu(code, words)
    found = left(replace(SEEN, smi_code=code, smi_words=words, facts={**SEEN.facts, "driver": ""}))
    assert list(found) == ["driver"]  # its versions are not known then, which is no fault of theirs
    assert hint in found["driver"].hint


def test_a_framework_that_sees_no_gpu() -> None:
    said = "the driver answers, but torch sees no GPU"
    checks = Checks({"14-packages": 0, "90-gpu-seen": 1}, {"90-gpu-seen": said}, {}, root=True)
    found = left(replace(SEEN, checks=checks))
    assert [(each.check, each.detail) for each in found.values()] == [("gpu", said)]


def test_versions_beside_the_lock() -> None:
    found = left(replace(SEEN, facts={**SEEN.facts, "kernel": "4.4.0-2"}))["versions"]
    assert (found.severity, found.detail) == (Severity.WARNING, "kernel 4.4.0-2, not 4.4.0-1")
    found = left(replace(SEEN, facts={**SEEN.facts, "torch": ""}))["versions"]
    assert (found.severity, found.detail) == (Severity.WRONG, "torch gone, not 2.0.1")
    own = replace(MACHINE, market=Market.OWN)
    assert left(replace(SEEN, facts={**SEEN.facts, "torch": ""}), own, [])["versions"].hint == ""


def test_a_stack_that_has_changed_since() -> None:
    machine = replace(MACHINE, versions=(*MACHINE.versions, ("stack-hash", "0" * 64)))
    assert "has changed since" in left(SEEN, machine)["stack"].detail
    assert judge(machine, None, [], SEEN)[0].detail == "small is a file of its own: its steps are not checked"


@pytest.mark.parametrize(
    ("ahead_s", "said"),
    [
        ((-0.2, 3.0), ""),
        ((-4.0, 30.0), ""),  # between these two lies the truth: it may be right
        ((6.0, 9.0), "6 s fast"),
        ((-80.0, -70.0), "70 s slow"),
    ],
)
def test_a_clock_is_off_only_where_that_is_sure(ahead_s: tuple[float, float], said: str) -> None:
    found = left(replace(SEEN, ahead_s=ahead_s))
    assert found["clock"].detail.startswith(said) if said else found == {}


def test_the_folder_that_fills_a_disk() -> None:
    folders = (
        ("/home/me", 90 * 10**9),
        ("/home/me/.cloudrun", 80 * 10**9),
        ("/home/me/.cloudrun/runs", 70 * 10**9),
        ("/var", 5 * 10**9),
        ("/home/me/.cloudrun/runs/a.1", 30 * 10**9),
    )
    full = replace(SEEN, disks=(Disk("/", 100 * 10**9, 5 * 10**9, 95),), folders=folders)
    found = left(full)["disk"]
    assert found.severity is Severity.WARNING
    assert found.detail == "nearly full: 5.0 of 100.0 GB free; 70.0 GB lie in /home/me/.cloudrun/runs"
    assert found.hint == "cloudrun clean --on k80, or cloudrun machines resize-disk k80 200"


def test_checks_are_read_among_other_words() -> None:
    read = read_checks(
        "hello\nstep 14-packages 1 held: no\nstep 16-python 0 \napt cuda-8-0 8.0.61-1\nroot 0\n"
    )
    assert (read.codes, read.words) == ({"14-packages": 1, "16-python": 0}, {"14-packages": "held: no"})
    assert (read.packages, read.root) == ({"apt:cuda-8-0": "8.0.61-1"}, True)


class OddShell:
    """Answers the same to everything."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    def run(self, command: str, **options: object) -> Result:
        return Result(command, 0, self._answer, b"")


@pytest.mark.parametrize(
    "answer", [b"", b"probe ????", b"probe QUJD", b"disk a b c /\nprobe QUJD\n", b"smi x\n"]
)
def test_an_answer_that_cannot_be_read_is_no_traceback(answer: bytes) -> None:
    with pytest.raises(RemoteError):
        look(OddShell(answer), [], [], [])  # type: ignore[arg-type]


def test_a_clock_is_judged_by_the_first_and_the_last_word() -> None:
    """The machine's first word is at most as much later than our question as its clock is ahead."""
    frame = FRAME.pack(b"Z", len(empty := zlib.compress(b"{}"))) + empty
    now = time.time()
    answer = f"clock {now + 20}\nprobe {base64.b64encode(MAGIC + frame).decode()}\nclock {now - 20}\n"
    least_s, most_s = look(OddShell(answer.encode()), [], [], []).ahead_s  # type: ignore[arg-type]
    assert (least_s, most_s) == (pytest.approx(-20, abs=4), pytest.approx(20, abs=4))


@pytest.mark.parametrize("columns", [80, 120])
def test_lines_fit_the_terminal_and_commands_stay_whole(columns: int) -> None:
    found = [
        Finding("30-theanorc", Severity.WRONG, "word " * 60, "cloudrun machines doctor k80 --fix"),
        Finding("disk", Severity.OK, "fine"),
    ]
    shown = lines(FINDING_COLUMNS, finding_rows(found, columns), columns)
    assert max(map(len, shown)) <= columns
    assert any(line.endswith("-> cloudrun machines doctor k80 --fix") for line in shown)


def test_the_script_is_good_shell() -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed")
    script = provisioning_dir() / "health.sh"
    done = subprocess.run(["shellcheck", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
