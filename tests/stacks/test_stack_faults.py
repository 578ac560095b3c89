"""Each kind of refusal, by a stack file that has just that one mistake, and how versions compare."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudrun.compat import check_gpus, check_type, faults, why_not
from cloudrun.compat_facts import is_older, runs_on, version, within
from cloudrun.errors import JobError, NotFound
from cloudrun.models import Stack
from cloudrun.stacks import load_stack, stack_hash

HEAD = 'description = "d"\nsource = "s"\nneeds_gpu = true\n'


def stack_of(tmp_path: Path, text: str) -> Stack:
    file = tmp_path / "mine.toml"
    file.write_text(HEAD + text)
    return load_stack(str(file))


def wheel_of(name: str, folder: str = "cu80") -> str:
    return (
        'os = "ubuntu-16.04"\npython = "3.5"\ncuda = "8.0.61"\n[frameworks]\ntorch = "1.0.0"\n'
        f'[wheels]\ntorch = "https://download.example.test/whl/{folder}/{name}.whl"\n'
    )


@pytest.mark.parametrize(
    ("text", "reason", "fix"),
    [
        ('cuda = "12.8"\ndriver = "470"\n', "driver 470 is too old for CUDA 12.8", 'driver = "525.60.13"'),
        ('cuda = "8.0.61"\ndriver = "375.20"\n', "too old for CUDA 8.0.61", "375.26"),
        ('cuda = "8.0.61"\ncudnn = "8.5.0.96"\n', "cuDNN 8.5.0.96 is not for CUDA 8.0.61", 'cudnn = "6"'),
        ('cuda = "11.8"\n[frameworks]\ntorch = "2.10.0"\n', "not built for CUDA 11.8", 'cuda = "12.8"'),
        ('cuda = "8.0"\ncudnn = "6"\n[frameworks]\ntheano = "0.9.0"\n', "does not know cuDNN 6", "up to 5.1"),
        ('python = "3.9"\n[frameworks]\ntorch = "2.15.0"\n', "does not run on Python 3.9", ">=3.11"),
        ('os = "ubuntu-22.04"\npython = "3.5"\n', "ubuntu-22.04 has Python 3.10", 'os = "ubuntu-16.04"'),
        ('os = "ubuntu-16.04"\n[images]\naws = "ubuntu-22.04"\n', "not ubuntu-16.04", 'aws = "ubuntu-16.04"'),
        (
            'os = "ubuntu-24.04"\n[packages]\nnvidia-driver-470 = "470.256.02-0ubuntu0.22.04.1"\n',
            "is not of ubuntu-24.04",
            'os = "ubuntu-22.04"',
        ),
        (
            '[frameworks]\ntheano = "1.0.0"\n[theanorc]\n"global.device" = "gpu"\n',
            "removed the old GPU back-end",
            'theano = "0.9.0"',
        ),
        (
            '[frameworks]\ntheano = "1.0.5"\n[theanorc]\n"lib.cnmem" = "0.95"\n',
            "has no lib.cnmem",
            "gpuarray.preallocate",
        ),
        (wheel_of("torch-1.0.1-cp35-cp35m-linux_x86_64"), "wheel of torch is 1.0.1, not 1.0.0", '"1.0.1"'),
        (wheel_of("torch-1.0.0-cp36-cp36m-linux_x86_64"), "is for Python 3.6", 'python = "3.6"'),
        (wheel_of("torch-1.0.0-cp35-none-macosx_10_7_x86_64"), "not for Linux on amd64", ""),
        (
            wheel_of("torch-1.0.0-cp35-cp35m-linux_aarch64"),
            "is for linux_aarch64, not for Linux on amd64",
            "",
        ),
        (wheel_of("torch"), "a name that pip takes for no wheel's", ""),
        (wheel_of("torch-1.0.0-cp35-cp35m-linux_x86_64", "cu100"), "built for CUDA 10.0", 'cuda = "10.0"'),
    ],
)
def test_a_mistake_in_the_stack_is_named_with_its_mending(
    tmp_path: Path, text: str, reason: str, fix: str
) -> None:
    found = faults(stack_of(tmp_path, text))
    assert len(found) == 1
    assert reason in found[0].reason
    assert fix in found[0].fix
    assert why_not(load_stack(str(tmp_path / "mine.toml")), 7.5, 1) == found[0]


@pytest.mark.parametrize(
    ("text", "capability", "reason"),
    [
        ('cuda = "8.0"\n', 7.0, "CUDA 8.0 is older than Volta"),
        ('cuda = "12.8"\n', 3.7, "CUDA 12.8 has dropped Kepler"),
        ('cuda = "11.8"\ndriver = "520"\n', 3.7, "driver 520 ignores Kepler"),
        ('cuda = "12.8"\n[packages]\nnvidia-open-570 = "570.148.08-1ubuntu1"\n', 7.0, "proprietary kernel"),
        ('cuda = "12.8"\n[packages]\nnvidia-driver-570 = "570.1"\n', 12.0, "needs the open kernel modules"),
        ('cuda = "12.6"\n[frameworks]\ntorch = "2.7.1"\n', 3.7, "has no code for compute capability 3.7"),
        ('cuda = "12.6"\nmin_capability = 8.0\n', 7.5, "only from 8"),
    ],
)
def test_a_gpu_that_the_stack_cannot_drive(tmp_path: Path, text: str, capability: float, reason: str) -> None:
    stack = stack_of(tmp_path, text)
    assert faults(stack) == ()
    found = why_not(stack, capability, 1)
    assert found is not None
    assert reason in found.reason


def test_on_a_machine_of_ones_own_only_the_code_in_the_framework_counts(tmp_path: Path) -> None:
    stack = stack_of(tmp_path, 'cuda = "12.6"\ndriver = "470"\n[frameworks]\ntorch = "2.7.1"\n')
    assert why_not(stack, 7.5, 1) is not None
    assert why_not(stack, 7.5, 1, pinned=False) is None
    assert why_not(stack, 3.7, 1, pinned=False) is not None


def test_a_type_that_no_stack_is_for() -> None:
    (arm,) = check_type(load_stack("cuda13-torch"), "g5g.xlarge")
    assert arm.fault is not None
    assert "arm64" in arm.fault.reason
    (radeon,) = check_type(load_stack("cuda13-torch"), "g4ad.xlarge")
    assert radeon.fault is not None
    assert "not an NVIDIA GPU" in radeon.fault.reason
    with pytest.raises(NotFound, match="taken as it is"):
        check_type(load_stack("cuda13-torch"), "local")


def test_a_stack_of_unknown_parts_is_let_through(tmp_path: Path) -> None:
    stack = stack_of(tmp_path, 'cuda = "99.1"\ncudnn = "77"\ndriver = "999"\n[frameworks]\njax = "0.4"\n')
    assert faults(stack) == ()
    assert not [each for each in check_gpus(stack) if each.gpu == "A10G" and each.fault]


@pytest.mark.parametrize(
    "text",
    [
        '[packages]\n"cuda; rm -rf ~" = "1"\n',
        '[packages]\ncuda = "$(id)"\n',
        '[env]\n"A B" = "1"\n',
        '[env]\nA = "1\\n2"\n',
        '[theanorc]\ndevice = "gpu"\n',
        '[frameworks]\ntorch = "1 --index-url x"\n',
        '[frameworks]\ntorch = "1"\n[wheels]\ntorch = "http://a.test/torch.whl"\n',
        '[frameworks]\ntorch = "1"\n[wheels]\ntorch = "https://a.test/torch.whl --no-deps"\n',
        '[frameworks]\ntorch = "1"\n[wheels]\nnumpy = "https://a.test/numpy.whl"\n',
        '[frameworks]\ntorch = "1"\n[sha256]\ntorch = "0123"\n',
        f'[frameworks]\ntorch = ""\n[sha256]\ntorch = "{"0" * 64}"\n',
        f'[frameworks]\ntorch = "1"\nnumpy = "2"\n[sha256]\ntorch = "{"0" * 64}"\n',
        'os = "Windows"\n',
        'steps = ["../../etc/passwd"]\n',
    ],
)
def test_what_a_shell_or_apt_would_take_for_more_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(JobError, match=r"mine\.toml, line"):
        stack_of(tmp_path, text)


def test_the_wheel_of_the_shipped_stack_is_for_it() -> None:
    stack = load_stack("cuda8-torch")
    assert stack.wheels
    assert faults(stack) == ()


def test_an_unknown_step_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="14-package") as caught:
        stack_hash(stack_of(tmp_path, 'steps = ["14-package"]\n'))
    assert "14-packages" in caught.value.hint


VERSIONS = st.lists(st.integers(0, 999), min_size=1, max_size=4).map(tuple)


@given(VERSIONS, VERSIONS)
def test_at_most_one_of_two_versions_is_older(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    assert not (is_older(a, b) and is_older(b, a))
    assert is_older(a, b) or is_older(b, a) or a[: len(b)] == b[: len(a)]


@given(VERSIONS, st.sampled_from(["", "-1", "-0ubuntu1", "+cuda8.0"]))
def test_a_version_reads_back(numbers: tuple[int, ...], tail: str) -> None:
    assert version(".".join(str(each) for each in numbers) + tail) == numbers


@given(VERSIONS, VERSIONS, VERSIONS)
def test_a_range_holds_what_lies_between(a: tuple[int, ...], b: tuple[int, ...], c: tuple[int, ...]) -> None:
    low, middle, high = sorted(each + (0,) * (4 - len(each)) for each in (a, b, c))
    words = [".".join(str(part) for part in each) for each in (low, high)]
    assert within(middle, "-".join(words)) is True


@pytest.mark.parametrize(
    ("wanted", "cell", "answer"),
    [
        ("3.10", "3.8-3.11", True),
        ("3.12", "3.8-3.11", False),
        ("3.5", "2.7 3.3 3.4 (classifiers; NEWS: better 3.5)", True),
        ("3.9", ">=3.8 (3.8-3.11)", True),
        ("3.12", ">=3.8 (3.8-3.11)", False),
        ("3.15", "3.10-3.14/3.15", True),
        ("5.1", "up to 5.1", True),
        ("6", "up to 5.1", False),
        ("11.8", "11.8/12.1/12.4", True),
        ("11.9", "", None),
    ],
)
def test_the_cells_of_the_tables_are_read_as_people_mean_them(
    wanted: str, cell: str, answer: bool | None
) -> None:
    assert within(version(wanted), cell) is answer


def test_code_runs_on_its_own_major_version_and_newer_minors() -> None:
    assert runs_on((8.6,), 8.9)
    assert not runs_on((8.6,), 8.0)
    assert not runs_on((8.6,), 9.0)
