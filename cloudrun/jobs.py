"""Stage 1, load: a folder with a job.toml becomes a Job, or one JobError that says what to mend.

```toml
name = "svhn_rcnn"
command = ["python3", "train.py"]   # or one string, run by `sh -c`; "$@" in it takes the arguments
description = "..."
project = "svhn"                    # default "default"
stack = ["cuda13-torch", "cpu-torch"]  # accepted, best first; default: every torch stack; "none" = bare
outputs = "outputs"                 # the one folder that the job writes; comes home
resume = true                       # exits 75 on SIGTERM and reads CLOUDRUN_RESUME_FROM
shared = ["checkpoint"]             # modules placed in shared/ of the job's tree
metric = { name = "val_acc", direction = "max" }
[gpu]                               # the least GPU; count 0 = also runs on a CPU alone
count = 0
min_memory_gib = 0
min_capability = 3.5
[presets.smoke]                     # `--preset smoke`; one called "default" is used when none is named
args = ["--epochs", "1"]
max_hours = 0.1
[data.svhn]                         # read below CLOUDRUN_DATA_DIR/svhn
description = "..."
required = false
```
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cloudrun import assets
from cloudrun.errors import JobError, NotFound
from cloudrun.models import DataNeed, GpuNeed, Job, Metric, Preset
from cloudrun.stacks import list_stacks
from cloudrun.tomlfile import mistake, read_toml
from cloudrun.words import nearest

# the shipped torch stacks, newest first: the first that the machine can drive is taken
DEFAULT_STACKS = ("cuda13-torch", "cuda12-torch", "cuda11-torch", "cpu-torch")
DEFAULT_PRESET = "default"
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"  # also a folder's, a tag's and a column's name

_Name = Annotated[str, Field(pattern=NAME)]
_Text = Annotated[str, Field(max_length=10_000, pattern=r"^[^\x00]*$")]
_Word = Annotated[str, Field(min_length=1, max_length=10_000, pattern=r"^[^\x00]*$")]
_Positive = Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)]
_NotNegative = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]


class _Table(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", regex_engine="python-re")


class _Gpu(_Table):
    count: Annotated[int, Field(ge=0, le=1024)] = 0
    min_memory_gib: _NotNegative = 0.0
    min_capability: _NotNegative = 0.0


class _Metric(_Table):
    name: _Word
    direction: Literal["max", "min"] = "max"


class _Preset(_Table):
    args: list[_Text] = []
    max_hours: _Positive | None = None
    description: _Text = ""


class _Data(_Table):
    description: _Text = ""
    required: bool = False


class _JobFile(_Table):
    name: _Name
    command: _Word | Annotated[list[_Word], Field(min_length=1)]
    description: _Text = ""
    project: _Name = "default"
    stack: _Word | Annotated[list[_Word], Field(min_length=1)] = list(DEFAULT_STACKS)
    outputs: _Word = "outputs"
    resume: bool = False
    shared: list[_Name] = []
    metric: _Metric | None = None
    gpu: _Gpu = _Gpu()
    presets: dict[_Name, _Preset] = {}
    data: dict[_Name, _Data] = {}


def load_job(path_or_name: str) -> Job:
    """Read a job from its folder, its job.toml, or by the name of a bundled job.

    Raises JobError (file, line, key, what was expected, the nearest known key) for a job that
    cannot be used, NotFound where there is neither a folder nor a bundled job of that name.
    """
    path = _find(path_or_name)
    data, text = read_toml(path)
    try:
        parsed = _JobFile.model_validate(data)
    except ValidationError as error:
        raise _explain(path, text, error) from error
    _check(path, text, parsed)
    return _job(path.parent, parsed)


def find_shared(job: Job) -> dict[str, Path]:
    """Where each of the job's shared modules is taken from, by its name below shared/.

    The job's own shared/ wins (a cloned run carries its modules), then shared/ beside the
    job's folder, then the bundled modules.
    """
    found: dict[str, Path] = {}
    for name in job.shared:
        path = _shared_module(job.folder, name)
        if path is None:
            raise JobError(f"job {job.name} has no shared module {name!r} any more", hint="look into shared/")
        found[path.name] = path
        package = path.parent / "__init__.py"
        if package.is_file():
            found.setdefault(package.name, package)
    return found


def find_preset(job: Job, name: str = "") -> Preset:
    """The preset of that name; without one the preset called "default", or no extra arguments."""
    by_name = {preset.name: preset for preset in job.presets}
    if not name:
        return by_name.get(DEFAULT_PRESET, Preset(name=""))
    if name not in by_name:
        hint = nearest(name, by_name) or "it has no [presets.NAME] table"
        raise NotFound(f"job {job.name} has no preset {name!r}", hint=hint)
    return by_name[name]


def _find(text: str) -> Path:
    if "\0" in text:
        raise NotFound("a job's path cannot hold a NUL character", hint="name a folder with a job.toml")
    try:
        path = Path(text).expanduser()
        if path.is_file() and path.suffix == ".toml":
            return path.absolute()
        if (path / "job.toml").is_file():
            return path.absolute() / "job.toml"
        is_folder = path.is_dir()
    except (OSError, RuntimeError) as error:  # a name too long for the system; ~ of an unknown user
        raise NotFound(f"no job {text[:80]!r}: {error}", hint="give the path of a job folder") from error
    bundled = assets.bundled_jobs()
    name = text.rstrip("/").removeprefix("jobs/")
    if name in bundled:
        return assets.jobs_dir() / name / "job.toml"
    if is_folder:
        raise JobError(f"{path}: has no job.toml", hint=f"write one with: cloudrun init {text}")
    hint = nearest(name, bundled)
    raise NotFound(f"no folder and no bundled job {text!r}", hint=hint or "give the path of a job folder")


def _explain(path: Path, text: str, error: ValidationError) -> JobError:
    """The mistake to mend first, in words: an unknown key often explains why another is missing."""
    mistakes = error.errors(include_url=False)
    first = next((each for each in mistakes if each["type"] == "extra_forbidden"), mistakes[0])
    key = tuple(part for part in first["loc"] if not _is_branch(part))
    if first["type"] == "extra_forbidden":
        word = str(key[-1])
        known = _known_keys(key[:-1])
        return mistake(path, text, key, "unknown key", hint=nearest(word, known))
    if first["type"] == "missing":
        return mistake(path, text, key, "missing", hint=f"add a line: {_EXAMPLES.get(str(key[-1]), key[-1])}")
    hint = f"for example: {_EXAMPLES[str(key[0])]}" if key and str(key[0]) in _EXAMPLES else ""
    return mistake(path, text, key, f"{_expected(first)}, not {_shown(first['input'])}", hint=hint)


_EXAMPLES = {
    "name": 'name = "mnist"',
    "command": 'command = ["python3", "train.py"]',
    "stack": 'stack = ["cuda12-torch", "cpu-torch"]',
    "outputs": 'outputs = "outputs"',
    "resume": "resume = true",
    "shared": 'shared = ["checkpoint"]',
    "metric": 'metric = { name = "val_acc", direction = "max" }',
    "gpu": "[gpu] then count = 1",
    "presets": '[presets.smoke] then args = ["--epochs", "1"]',
    "data": "[data.svhn] then required = false",
    "project": 'project = "svhn"',
}


def _is_branch(part: str | int) -> bool:
    """pydantic names the branch of a union in the path, e.g. 'constrained-str'; it is no key."""
    return isinstance(part, str) and (
        part in ("[key]", "str", "list") or "[" in part or part.startswith("constrained")
    )


def _expected(error: Any) -> str:
    if error["type"] == "string_pattern_mismatch":
        if error["ctx"]["pattern"] == NAME:
            return "expected letters, digits, '.', '_' and '-', at most 64"
        return "expected text without a NUL character"
    if error["type"] in ("too_short", "string_too_short"):
        return "expected at least one"
    message = str(error["msg"]).removeprefix("Input should be ")
    return f"expected {message[:1].lower()}{message[1:]}"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _known_keys(table: Sequence[str | int]) -> list[str]:
    """The keys that may stand in the table at that path."""
    if not table:
        return list(_JobFile.model_fields)
    tables: dict[str, type[_Table]] = {"gpu": _Gpu, "metric": _Metric, "presets": _Preset, "data": _Data}
    return list(tables[str(table[0])].model_fields)


def _check(path: Path, text: str, parsed: _JobFile) -> None:
    """What only the folder and the rest of the package can tell."""
    folder = path.parent
    _check_outputs(path, text, parsed)
    _check_command(path, text, parsed)
    known = [stack.name for stack in list_stacks()]
    for name in _listed(parsed.stack):
        if name not in known:
            raise mistake(path, text, ("stack",), f"no stack {name!r}", hint=nearest(name, known))
    for name in parsed.shared:
        if _shared_module(folder, name) is None:
            hint = nearest(name, _shared_names(folder)) or "there are none"
            raise mistake(path, text, ("shared",), f"no shared module {name!r}", hint=hint)


def _check_outputs(path: Path, text: str, parsed: _JobFile) -> None:
    outputs = PurePosixPath(parsed.outputs)
    if outputs.is_absolute() or ".." in outputs.parts or not outputs.parts:
        hint = 'a folder inside the job\'s own, e.g. outputs = "outputs"'
        raise mistake(
            path, text, ("outputs",), f"{parsed.outputs!r} is not below the job's folder", hint=hint
        )
    if parsed.shared and outputs.parts[0] == "shared":
        hint = "the shared modules are placed there; choose another name"
        raise mistake(path, text, ("outputs",), f"{parsed.outputs!r} is taken", hint=hint)
    try:
        clash = (path.parent / outputs).exists() and not (path.parent / outputs).is_dir()
    except OSError as error:
        raise mistake(path, text, ("outputs",), f"{error.strerror}", hint="use a shorter name") from error
    if clash:
        raise mistake(path, text, ("outputs",), f"{parsed.outputs!r} is a file", hint="name a folder")


def _check_command(path: Path, text: str, parsed: _JobFile) -> None:
    if isinstance(parsed.command, str):
        for name, preset in parsed.presets.items():
            if preset.args and "$" not in parsed.command:
                hint = f'write it as: command = "{parsed.command} \\"$@\\"", or as a list'
                raise mistake(
                    path, text, ("presets", name, "args"), "the command takes no arguments", hint=hint
                )
        return
    script = _script(parsed.command)
    try:
        missing = script and not (path.parent / script).is_file()
    except OSError:
        missing = True
    if missing:
        scripts = sorted(entry.name for entry in path.parent.glob("*.py"))
        hint = nearest(script, scripts) or f"there is no .py file in {path.parent}"
        raise mistake(path, text, ("command",), f"there is no {script}", hint=hint)


def _script(command: Sequence[str]) -> str:
    """The script of `python3 [options] SCRIPT.py ...`, "" for anything else."""
    if PurePosixPath(command[0]).name not in ("python", "python3"):
        return ""
    rest = [word for word in command[1:] if not word.startswith("-")]
    plain = len(command) > 1 and rest and "-m" not in command and "-c" not in command
    return rest[0] if plain and rest[0].endswith(".py") else ""


def _shared_module(folder: Path, name: str) -> Path | None:
    for place in _shared_places(folder):
        for path in (place / f"{name}.py", place / name):
            if path.is_file() if path.suffix == ".py" else path.is_dir():
                return path
    return None


def _shared_names(folder: Path) -> list[str]:
    found = {
        entry.stem
        for place in _shared_places(folder)
        if place.is_dir()
        for entry in place.iterdir()
        if entry.suffix == ".py" and entry.stem != "__init__"
    }
    return sorted(found)


def _shared_places(folder: Path) -> tuple[Path, ...]:
    return (folder / "shared", folder.parent / "shared", assets.shared_dir())


def _listed(value: str | list[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _job(folder: Path, parsed: _JobFile) -> Job:
    command = parsed.command
    return Job(
        name=parsed.name,
        folder=folder,
        command=("sh", "-c", command, "sh") if isinstance(command, str) else tuple(command),
        stacks=_listed(parsed.stack),
        gpu=GpuNeed(parsed.gpu.count, parsed.gpu.min_memory_gib, parsed.gpu.min_capability),
        presets=tuple(
            Preset(name, tuple(preset.args), preset.max_hours, preset.description)
            for name, preset in parsed.presets.items()
        ),
        data=tuple(DataNeed(name, need.description, need.required) for name, need in parsed.data.items()),
        outputs=str(PurePosixPath(parsed.outputs)),
        metric=Metric(parsed.metric.name, parsed.metric.direction) if parsed.metric else None,
        resume=parsed.resume,
        shared=tuple(parsed.shared),
        project=parsed.project,
        description=parsed.description,
    )
