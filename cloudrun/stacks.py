"""Stage 2, resolve: the name of a stack, or a file of one's own, becomes a Stack.

A stack pins what a job stands on: driver, CUDA, cuDNN, Python and frameworks. It is a TOML
file in images/, whose comments say where each fact comes from.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cloudrun import assets
from cloudrun.errors import NotFound
from cloudrun.models import Stack
from cloudrun.stacks_lock import ANEW, Locked, plain_name, read_lock
from cloudrun.tomlfile import mistake, read_toml
from cloudrun.words import nearest

NONE = "none"  # the stack that installs nothing: whatever the machine has

_TOLD = {"name", "description", "source"}  # for people only: they change nothing on a machine

_Capability = Annotated[float, Field(ge=1, le=100, allow_inf_nan=False)]
# What goes into apt's, pip's and a shell's command lines: nothing that any of them would take for more.
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+_-]*$", max_length=100)]
_Version = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+:~_-]*$", max_length=100)]
_Pin = Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9.+_!-]*)?$", max_length=100)]
_Value = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]*$", max_length=1000)]
_Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=100)]
_Section = Annotated[str, Field(pattern=r"^[a-z_0-9]+\.[A-Za-z_0-9.]+$", max_length=100)]
_Wheel = Annotated[str, Field(pattern=r"^https://[A-Za-z0-9.:-]+/[A-Za-z0-9./%+_-]+\.whl$", max_length=500)]
# Several where the index has a file for each system.
_Hashes = Annotated[str, Field(pattern=r"^[0-9a-f]{64}(,[0-9a-f]{64})*$", max_length=1000)]
_File = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.lock$", max_length=100)]
_Repository = Annotated[str, Field(pattern=r"^[A-Za-z0-9][^\x00-\x1f\x7f]*$", max_length=500)]


class _StackFile(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    description: str
    source: str
    python: str = ""
    cuda: str = ""
    cudnn: str = ""
    driver: str = ""
    needs_gpu: bool = False
    min_capability: _Capability | None = None
    max_capability: _Capability | None = None
    os: Annotated[str, Field(pattern=r"^([a-z]+-[0-9.]+)?$")] = ""
    steps: list[_Name] = []
    repositories: list[_Repository] = []
    packages: dict[_Name, _Version] = {}
    frameworks: dict[_Name, _Pin] = {}
    pip: dict[_Name, _Pin] = {}
    wheels: dict[_Name, _Wheel] = {}
    sha256: dict[_Name, _Hashes] = {}
    lock: _File | None = None
    theanorc: dict[_Section, _Value] = {}
    env: dict[_Variable, _Value] = {}
    tuning: dict[_Name, _Value] = {}
    images: dict[str, str] = {}

    @model_validator(mode="after")
    def _name_what_pip_installs(self) -> _StackFile:
        pinned = {name for name, pin in (*self.frameworks.items(), *self.pip.items()) if pin}
        for table, names in (("wheels", set(self.wheels)), ("sha256", set(self.sha256))):
            if strange := sorted(names - pinned):
                raise ValueError(f"[{table}] has {strange[0]}, which [frameworks] and [pip] do not pin")
        installed = {*self.frameworks, *self.pip}
        if self.sha256 and (bare := sorted(installed - set(self.sha256))):
            raise ValueError(f"[sha256] has none of {bare[0]}: pip asks for all or for none")
        if self.sha256 and self.lock:
            raise ValueError("lock has every sha256 already: take [sha256] away")
        return self


def load_stack(name_or_path: str) -> Stack:
    """The stack of that name, or the one in a TOML file of your own.

    Raises NotFound with the nearest names, JobError with file, line and key for a bad file.
    """
    if name_or_path.endswith(".toml") and Path(name_or_path).is_file():
        return _read(Path(name_or_path).absolute())
    path = assets.images_dir() / f"{name_or_path}.toml"
    names = _names()
    if name_or_path not in names:
        raise NotFound(f"no stack {name_or_path!r}", hint=nearest(name_or_path, names))
    return _read(path)


def list_stacks() -> list[Stack]:
    """The stacks that come with cloudrun, by name."""
    return [_read(assets.images_dir() / f"{name}.toml") for name in _names()]


def load_unlocked(path: Path) -> tuple[Stack, Path]:
    """The stack of that file without its lock, and where that belongs. Raises JobError for a bad file."""
    parsed, _text = _parse(path)
    return _stack(path.stem, parsed, ()), path.parent / (parsed.lock or f"{path.stem}.lock")


def stack_hash(stack: Stack) -> str:
    """sha256 (hex) over every pin of the stack and the text of the steps that it names; names and tags take
    the first 12 digits. Equal for stacks that make the same machine. Raises NotFound for an unknown step."""
    pins = {key: value for key, value in asdict(stack).items() if key not in _TOLD}
    digest = hashlib.sha256(json.dumps(pins, sort_keys=True).encode())
    for name in stack.steps:
        digest.update(_step(name).read_bytes())
    return digest.hexdigest()


def _step(name: str) -> Path:
    folder = assets.provisioning_dir() / "steps"
    path = folder / (name if name.endswith(".sh") else f"{name}.sh")
    if not path.is_file():
        hint = nearest(name, [step.stem for step in folder.glob("*.sh")])
        raise NotFound(f"no provisioning step {name!r}", hint=hint)
    return path


def _names() -> list[str]:
    return sorted(path.stem for path in assets.images_dir().glob("*.toml"))


@cache
def _read(path: Path) -> Stack:
    parsed, text = _parse(path)
    return _stack(path.stem, parsed, _locked(path, parsed, text) if parsed.lock else ())


def _parse(path: Path) -> tuple[_StackFile, str]:
    data, text = read_toml(path)
    try:
        return _StackFile.model_validate(data), text
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        hint = (
            nearest(str(first["loc"][-1]), _StackFile.model_fields)
            if first["type"] == "extra_forbidden"
            else ""
        )
        raise mistake(path, text, first["loc"], str(first["msg"]).lower(), hint=hint) from error


def _locked(path: Path, parsed: _StackFile, text: str) -> tuple[Locked, ...]:
    """Its lock, which has all that the stack pins, under the names that the stack gives them."""
    found = {plain_name(locked[0]): locked for locked in read_lock(path.parent / str(parsed.lock))}
    for table, pins in (("frameworks", parsed.frameworks), ("pip", parsed.pip)):
        for name, pin in pins.items():
            _, version, hexes = found.get(plain_name(name), (name, "", ""))
            if not version or pin not in ("", version):
                reason = f"{parsed.lock} has {version}" if version else f"{parsed.lock} does not have it"
                raise mistake(path, text, (table, name), reason, hint=ANEW)
            found[plain_name(name)] = (name, version, hexes)
    return tuple(found.values())


def _stack(name: str, parsed: _StackFile, lock: tuple[Locked, ...]) -> Stack:
    return Stack(
        name=name,
        description=parsed.description,
        python=parsed.python,
        cuda=parsed.cuda,
        cudnn=parsed.cudnn,
        driver=parsed.driver,
        frameworks=tuple(parsed.frameworks.items()),
        min_capability=parsed.min_capability,
        max_capability=parsed.max_capability,
        needs_gpu=parsed.needs_gpu,
        images=tuple(parsed.images.items()),
        steps=tuple(parsed.steps),
        source=parsed.source,
        os=parsed.os,
        packages=tuple(parsed.packages.items()),
        repositories=tuple(parsed.repositories),
        pip=tuple(parsed.pip.items()),
        wheels=tuple(parsed.wheels.items()),
        sha256=tuple(parsed.sha256.items()),
        lock=lock,
        theanorc=tuple(parsed.theanorc.items()),
        env=tuple(parsed.env.items()),
        tuning=tuple(parsed.tuning.items()),
    )
