"""What `--data` means: a version of a dataset, or outputs of a run; and keeping it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from cloudrun import datasets, keptdata
from cloudrun.config import Settings
from cloudrun.errors import Ambiguous, NotFound, Refused
from cloudrun.models import DataInput, Run
from cloudrun.runfiles import RunFiles

FindRun = Callable[[str], Run]


def read_inputs(settings: Settings, words: Sequence[str], find_run: FindRun) -> tuple[DataInput, ...]:
    """The meaning of each NAME[:VERSION][:MOUNT] or RUN:PATH. Reads and hashes, keeps nothing.

    Raises UsageError for what is unknown, could mean both, or would stand in another's place.
    """
    found: dict[str, DataInput] = {}
    for word in words:
        data = read_input(settings, word, find_run)
        other = found.get(data.mount)
        if other is not None:
            hint = f"give one of them another name: --data {word}:OTHER"
            raise Refused(f"{data.source} and {other.source} would both be found at {data.mount}", hint=hint)
        found[data.mount] = data
    return tuple(found.values())


def read_input(settings: Settings, word: str, find_run: FindRun) -> DataInput:
    """One of them. A dataset's name and a run's id look alike: what exists decides."""
    first, _, rest = word.partition(":")
    known = bool(datasets.list_datasets(settings, first)) if _may_be_name(first) else False
    run = _find(find_run, first)
    if run is not None and (not known or rest.startswith("/")):
        return read_outputs(settings, run, rest)
    if known and (run is None or datasets.is_version(rest.partition(":")[0])):
        return _read_dataset(settings, first, rest)
    if known:
        raise Ambiguous(
            f"{first} is a dataset and a run",
            hint=f"write {first}:v1 for the dataset's version, {first}:/PATH for the run's outputs",
        )
    raise NotFound(
        f"there is neither a dataset nor a run {first!r}",
        hint="cloudrun data list and cloudrun status show both; cloudrun data upload adds a folder",
    )


def read_outputs(settings: Settings, run: Run, path: str) -> DataInput:
    """A folder of a run's outputs, as they are at home; "" or / is all of them."""
    tree = datasets.scan_folder(settings, outputs_of(settings, run, path))
    path = path.strip("/")
    return DataInput(
        mount=datasets.check_name(path.rpartition("/")[2] or run.id),
        digest=tree.digest,
        size_bytes=tree.size_bytes,
        files=len(tree.files),
        run=run.id,
        path=path,
    )


def outputs_of(settings: Settings, run: Run, path: str) -> Path:
    """The folder at home. Raises Refused for a run that goes on, NotFound for what it did not write."""
    if not run.state.final:
        raise Refused(f"{run.id} has not ended: its outputs may change", hint=f"cloudrun attach {run.id}")
    return _outputs_folder(settings, run.id, path.strip("/"))


def keep_inputs(settings: Settings, inputs: Sequence[DataInput]) -> None:
    """Make sure that what a run is given is kept at home: outputs are copied, datasets must be there.

    Idempotent, blocking. Raises NotFound and Refused where they changed since they were read.
    """
    for data in inputs:
        if data.run:
            tree = datasets.scan_folder(settings, _outputs_folder(settings, data.run, data.path))
            if tree.digest != data.digest:
                raise Refused(f"{data.source} changed after the plan was made", hint="submit again")
            datasets.keep_tree(settings, tree)
        elif not data.url:
            datasets.load_tree(settings, data.digest)


def _read_dataset(settings: Settings, name: str, rest: str) -> DataInput:
    version, mount = _version_and_mount(name, rest)
    dataset = datasets.find_dataset(settings, f"{name}:{version}" if version else name)
    if not dataset.url and not keptdata.manifest_path(settings, dataset.digest).exists():
        raise NotFound(f"the files of {dataset.label} are gone", hint="cloudrun data upload adds them again")
    return DataInput(
        mount=datasets.check_name(mount or name),
        digest=dataset.digest,
        size_bytes=dataset.size_bytes,
        files=dataset.files,
        name=name,
        version=dataset.version,
        url=dataset.url,
        sha256=dataset.sha256,
        extract=dataset.extract,
    )


def _version_and_mount(name: str, rest: str) -> tuple[str, str]:
    parts = rest.split(":") if rest else []
    if len(parts) > 2:
        raise Refused(f"{name}:{rest} has too many parts", hint="write NAME:VERSION:MOUNT")
    if len(parts) == 2:
        return parts[0], parts[1]
    return (parts[0], "") if parts and datasets.is_version(parts[0]) else ("", "".join(parts))


def _outputs_folder(settings: Settings, run_id: str, path: str) -> Path:
    outputs = RunFiles(settings, run_id).outputs
    folder = (outputs / path).resolve()
    if not folder.is_relative_to(outputs.resolve()):
        raise Refused(f"{path!r} leaves the outputs of {run_id}", hint=f"cloudrun outputs list {run_id}")
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        hint = f"cloudrun outputs list {run_id} shows what it wrote"
        raise NotFound(f"{path or 'outputs'!r} in the outputs of {run_id} {what}", hint=hint)
    return folder


def _may_be_name(word: str) -> bool:
    try:
        return bool(datasets.check_name(word))
    except Refused:
        return False


def _find(find_run: FindRun, word: str) -> Run | None:
    try:
        return find_run(word) if word else None
    except (NotFound, Ambiguous):
        return None
