"""job.toml: what is read, and that every mistake becomes one JobError that says what to mend."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cloudrun.errors import CloudrunError, JobError, NotFound
from cloudrun.jobs import DEFAULT_STACKS, find_preset, find_shared, load_job
from cloudrun.models import Job, Metric, Preset
from cloudrun.tomlfile import key_lines

FULL = """\
name = "svhn_rcnn"
description = "d"
project = "svhn"
command = ["python3", "train.py"]
stack = ["cuda12-torch", "cpu-torch"]
outputs = "out/run/"
resume = true
shared = ["plumbing"]
metric = { name = "val_acc", direction = "min" }

[gpu]
count = 1
min_memory_gib = 11.5
min_capability = 3.5

[presets.smoke]
args = ["--epochs", "1"]
max_hours = 0.1
description = "short"

[presets.default]
args = ["--all"]

[data.svhn]
description = "digits"
required = true
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "job").mkdir()
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "plumbing.py").write_text("")
    (tmp_path / "job" / "train.py").write_text("")
    return tmp_path / "job"


def load(folder: Path, text: str | bytes) -> Job:
    raw = text if isinstance(text, bytes) else text.encode()
    (folder / "job.toml").write_bytes(raw)
    return load_job(str(folder))


def test_every_key_is_read(folder: Path) -> None:
    job = load(folder, FULL)
    assert (job.name, job.project, job.outputs, job.resume) == ("svhn_rcnn", "svhn", "out/run", True)
    assert job.folder == folder
    assert job.command == ("python3", "train.py")
    assert job.stacks == ("cuda12-torch", "cpu-torch")
    assert (job.gpu.count, job.gpu.min_memory_gib, job.gpu.min_capability) == (1, 11.5, 3.5)
    assert job.metric == Metric("val_acc", "min")
    assert job.presets[0] == Preset("smoke", ("--epochs", "1"), 0.1, "short")
    assert job.data[0].required
    assert find_shared(job) == {"plumbing.py": folder.parent / "shared" / "plumbing.py"}


def test_the_shortest_job_and_its_defaults(folder: Path) -> None:
    job = load(folder, 'name = "x"\ncommand = "true"\n')
    assert job.command == ("sh", "-c", "true", "sh")
    assert (job.stacks, job.outputs, job.resume, job.project) == (DEFAULT_STACKS, "outputs", False, "default")
    assert find_preset(job) == Preset("")


def test_a_preset_called_default_is_taken_when_none_is_named(folder: Path) -> None:
    job = load(folder, FULL)
    assert find_preset(job).args == ("--all",)
    assert find_preset(job, "smoke").max_hours == 0.1
    with pytest.raises(NotFound) as caught:
        find_preset(job, "smoek")
    assert caught.value.hint == "did you mean smoke?"


BASE = 'name = "x"\ncommand = ["python3", "train.py"]\n'
MISTAKES = [
    ('nmae = "x"\ncommand = "true"', 1, "nmae: unknown key", "name"),
    ('command = "true"', 1, "name: missing", "name ="),
    (BASE + "outptus = 'o'", 3, "outptus: unknown key", "outputs"),
    (BASE + "resume = 1", 3, "resume: expected a valid boolean", "resume = true"),
    (BASE + '[gpu]\ncount = "one"', 4, "gpu.count: ", "count = 1"),
    (BASE + "[gpu]\n\ncuont = 1", 5, "gpu.cuont: unknown key", "count"),
    (BASE + "[presets.smoke]\nmax_hours = 0", 4, "presets.smoke.max_hours: ", "presets"),
    (BASE + "[presets.smoke]\nmax_hours = nan", 4, "presets.smoke.max_hours: ", "presets"),
    (BASE + '[presets.smoke]\nargs = [\n "a",\n 3,\n]', 4, "presets.smoke.args[1]: ", "presets"),
    (BASE + "[presets.smoke]\nagrs = []", 4, "presets.smoke.agrs: unknown key", "args"),
    (BASE + "presets.smoke.max_hour = 1", 3, "presets.smoke.max_hour: unknown key", "max_hours"),
    (BASE + 'metric = { name = "a", direction = "up" }', 3, "metric.direction: ", "max"),
    (BASE + 'stack = "cuda12-torhc"', 3, "stack: no stack", "cuda12-torch"),
    (BASE + 'shared = ["plumbin"]', 3, "shared: no shared module", "plumbing"),
    (BASE + 'outputs = "../x"', 3, "outputs: ", "inside"),
    (BASE + 'outputs = "/x"', 3, "outputs: ", "inside"),
    (BASE + 'outputs = "."', 3, "outputs: ", "inside"),
    (BASE + 'outputs = "train.py"', 3, "is a file", "folder"),
    ('name = "x"\n\ncommand = ["python3", "-u", "tran.py"]', 3, "command: there is no tran.py", "train.py"),
    ('name = "x"\ncommand = []', 2, "command: ", "command = ["),
    ('name = "a b"\ncommand = "true"', 1, "name: expected letters", "name ="),
    ('name = "x"\ncommand = "a\\u0000b"', 2, "command: ", "command"),
    ('name = "x"\ncommand = "true"\n[presets.p]\nargs = ["a"]', 4, "takes no arguments", "$@"),
    ('name = "x"\nname = "y"', 2, "not valid TOML", "mend"),
    ("name = x", 1, "not valid TOML", "quotes"),
    ("name = ", 1, "not valid TOML", "mend"),
]


@pytest.mark.parametrize(("text", "line", "message", "hint"), MISTAKES, ids=[each[2] for each in MISTAKES])
def test_a_mistake_names_file_line_key_and_remedy(
    folder: Path, text: str, line: int, message: str, hint: str
) -> None:
    with pytest.raises(JobError) as caught:
        load(folder, text)
    assert f"{folder / 'job.toml'}, line {line}: " in caught.value.message
    assert message in caught.value.message
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    "text", ["a = " + "[" * 5000, "x = " + "9" * 5000, b"name = '\xff'", b"\0", "x" * 300_000]
)
def test_hostile_files_are_mistakes_too(folder: Path, text: str | bytes) -> None:
    with pytest.raises(JobError):
        load(folder, text)


def mistake_of(call: Callable[[], Job]) -> CloudrunError | None:
    """The error that it raises on purpose, if any; every other exception fails the test."""
    try:
        assert isinstance(call(), Job)
    except CloudrunError as error:
        return error
    return None


quiet = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@given(st.binary(max_size=200))
@quiet
def test_any_bytes_give_a_job_or_a_job_error(folder: Path, raw: bytes) -> None:
    error = mistake_of(lambda: load(folder, raw))
    assert error is None or (isinstance(error, JobError) and "job.toml" in error.message)


VALUES = st.sampled_from(
    [
        *("1", "-1", "0", "1e400", "nan", "inf", "true", "[]", "{}", '""', '"\\u0000"', '"/"', "9" * 400),
        *("1979-05-27", "[[1]]", '["a", 1]', "{ a = 1 }", '"""\n[gpu]\n"""', '["python3", "\\u0000.py"]'),
        '"' + "x" * 5000 + '"',
    ]
)


@given(st.integers(0, len(FULL.splitlines()) - 1), VALUES, st.booleans(), st.text(max_size=3))
@quiet
@example(3, '["python3", "' + "y" * 3000 + '.py"]', False, "")
@example(5, '"' + "y" * 3000 + '"', False, "")
def test_a_mutated_job_gives_a_job_or_a_job_error(
    folder: Path, number: int, value: str, double: bool, junk: str
) -> None:
    lines = FULL.splitlines()
    key = lines[number].partition("=")[0].strip() or "x"
    lines[number] = f"{key} = {value}{junk}"
    if double:
        lines.insert(number, lines[number])
    error = mistake_of(lambda: load(folder, "\n".join(lines).encode("utf-8", "replace")))
    assert error is None or "job.toml, line " in error.message


@given(st.text(max_size=60))
@quiet
@example("\0")
@example("a" * 5000)
@example("~nobody-of-that-name/x")
def test_any_name_of_a_job_is_found_or_not_found(text: str) -> None:
    error = mistake_of(lambda: load_job(text))
    assert error is None or error.exit_code == 2


def test_where_a_job_is_looked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(folder, BASE)
    monkeypatch.chdir(folder.parent)
    assert load_job("job").folder == load_job("job/job.toml").folder == folder
    assert load_job("svhn_rcnn").name == load_job("jobs/svhn_rcnn").name == load_job("jobs/svhn_rcnn/").name
    (folder.parent / "svhn_rcnn").mkdir()
    assert load_job("svhn_rcnn").name == "svhn_rcnn"
    (folder.parent / "empty").mkdir()
    with pytest.raises(JobError, match=r"has no job\.toml"):
        load_job("empty")
    with pytest.raises(NotFound) as caught:
        load_job("svhn_rcn")
    assert "svhn_rcnn" in caught.value.hint


def test_a_jobs_own_shared_module_wins(folder: Path) -> None:
    (folder / "shared").mkdir()
    (folder / "shared" / "plumbing.py").write_text("")
    (folder / "shared" / "__init__.py").write_text("")
    job = load(folder, BASE + 'shared = ["plumbing"]')
    own = folder / "shared"
    assert find_shared(job) == {"plumbing.py": own / "plumbing.py", "__init__.py": own / "__init__.py"}


def test_lines_of_keys_in_awkward_toml() -> None:
    text = '''\
a = """
[b]
c = 1
"""
"q r" = [ # comment = 1
  1, # ] not the end
  { x = 1 },
]
[t."u.v".w]
x.y = 1
[[many]]
k = '[z]'
'''
    lines = key_lines(text)
    assert lines[("a",)] == 1
    assert lines[("q r",)] == 5
    assert lines[("t", "u.v", "w")] == 9
    assert lines[("t", "u.v", "w", "x", "y")] == 10
    assert lines[("many", "k")] == 12
    tops = {"a", "q r", "t", "many"}
    assert {path[0] for path in lines} == tops  # nothing inside a string or an array is a key
