"""Stage 2, resolve: the name of a stack, or a file of one's own, becomes a Stack.

A stack pins what a job stands on: driver, CUDA, cuDNN, Python and frameworks. It is a TOML
file in images/, whose comments say where each fact comes from.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cloudrun import assets
from cloudrun.errors import NotFound
from cloudrun.models import Stack
from cloudrun.tomlfile import mistake, read_toml
from cloudrun.words import nearest

NONE = "none"  # the stack that installs nothing: whatever the machine has

_Capability = Annotated[float, Field(ge=1, le=100, allow_inf_nan=False)]


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
    frameworks: dict[str, str] = {}
    images: dict[str, str] = {}
    steps: list[str] = []


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


def drives(stack: Stack, capability: float | None, gpu_count: int) -> str:
    """Why the stack cannot drive such a machine; "" where it can.

    gpu_count is the machine's. A GPU of unknown capability is let through: only the machine knows.
    """
    if gpu_count == 0:
        return f"stack {stack.name} needs a GPU" if stack.needs_gpu else ""
    if capability is None:
        return ""
    low, high = stack.min_capability, stack.max_capability
    if low is not None and capability < low:
        limit = f"only from {low:g}"
    elif high is not None and capability > high:
        limit = f"only up to {high:g}"
    else:
        return ""
    reason = f"stack {stack.name} (CUDA {stack.cuda}) drives compute capability {limit}, not {capability:g}"
    other = _stack_for(capability)
    return f"{reason}: use {other}" if other else reason


def _stack_for(capability: float) -> str:
    """The bundled GPU stack with the newest CUDA that drives this capability, "" for none."""
    able = [
        stack
        for stack in list_stacks()
        if stack.needs_gpu and (stack.min_capability or 0) <= capability <= (stack.max_capability or 0)
    ]
    newest = max(able, key=lambda stack: [int(part) for part in stack.cuda.split(".")], default=None)
    return newest.name if newest else ""


def _names() -> list[str]:
    return sorted(path.stem for path in assets.images_dir().glob("*.toml"))


@cache
def _read(path: Path) -> Stack:
    data, text = read_toml(path)
    try:
        parsed = _StackFile.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        hint = (
            nearest(str(first["loc"][-1]), _StackFile.model_fields)
            if first["type"] == "extra_forbidden"
            else ""
        )
        raise mistake(path, text, first["loc"], str(first["msg"]).lower(), hint=hint) from error
    return Stack(
        name=path.stem,
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
    )
