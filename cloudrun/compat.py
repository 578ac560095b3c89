"""Stage 3: whether a stack hangs together, and whether a machine's GPU can be driven with it.

Asked before anything is paid for. Every refusal names the one change that would mend it. What the catalogue
does not know is let through: only the machine can tell.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

from cloudrun import catalog
from cloudrun import compat_facts as facts
from cloudrun.errors import NotFound
from cloudrun.models import Stack
from cloudrun.stacks import list_stacks

_OPEN, _PROPRIETARY = "open", "proprietary"
_DRIVER_PACKAGES = ("nvidia-driver", "nvidia-headless", "nvidia-open", "cuda-drivers")
_CPYTHON = re.compile(r"cp(\d)(\d+)")  # of a wheel's name
_CUDA_FOLDER = re.compile(r"/cu(\d+)(\d)/")  # where PyTorch's server keeps what is built for one CUDA
_SAID = ("nvidia-driver-open", "nvidia-open")


@dataclass(frozen=True, slots=True)
class Fault:
    """Why something does not go together, and the one change that would mend it ("" where none is known)."""

    reason: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.reason}: {self.fix}" if self.fix else self.reason


def why_not(stack: Stack, capability: float | None, gpu_count: int, *, pinned: bool = True) -> Fault | None:
    """What keeps the stack from driving such a machine; None where nothing is known to.

    gpu_count is the machine's. pinned False: a machine that is taken as it is, where of all pins only
    the framework's GPU code matters. A GPU of unknown capability is let through.
    """
    broken = next(iter(faults(stack)), None) if pinned else None
    if broken:
        return broken
    reason = _gpu_reason(stack, capability, gpu_count, pinned=pinned)
    if not reason:
        return None
    other = _stack_instead(stack, capability, gpu_count) if gpu_count else ""
    return Fault(reason, f"use {other}" if other else "")


@cache
def faults(stack: Stack) -> tuple[Fault, ...]:
    """What in the stack itself does not go together, whatever the machine."""
    return tuple(fault for rule in _RULES for fault in rule(stack))


def uses_gpu(stack: Stack) -> bool:
    """Whether the stack has anything to drive a GPU with."""
    return stack.needs_gpu or bool(stack.cuda)


# --- the stack and the GPU ---------------------------------------------------------------


def _gpu_reason(stack: Stack, capability: float | None, gpu_count: int, *, pinned: bool) -> str:
    if not gpu_count:
        return f"stack {stack.name} needs a GPU" if stack.needs_gpu else ""
    if capability is None or not uses_gpu(stack):
        return ""
    reason = _limits(stack, capability) or _codes(stack, capability)
    return reason or (_architecture(stack, capability) if pinned else "")


def _limits(stack: Stack, capability: float) -> str:
    low, high = stack.min_capability, stack.max_capability
    if low is not None and capability < low:
        limit = f"only from {low:g}"
    elif high is not None and capability > high:
        limit = f"only up to {high:g}"
    else:
        return ""
    return f"stack {stack.name} (CUDA {stack.cuda}) drives compute capability {limit}, not {capability:g}"


def _codes(stack: Stack, capability: float) -> str:
    for name, release in stack.frameworks:
        for build in _builds_of(stack, name, release):
            if build.codes and not facts.runs_on(build.codes, capability):
                held = " ".join(f"{code:g}" for code in build.codes)
                return f"{name} {release} has no code for compute capability {capability:g}, only {held}"
    return ""


def _architecture(stack: Stack, capability: float) -> str:
    known = facts.architecture(capability)
    if known is None:
        return ""
    cuda, driver = facts.version(stack.cuda), facts.version(stack.driver)
    about = f"{known.name} ({capability:g})"
    if cuda and known.cuda_first and facts.is_older(cuda, known.cuda_first):
        return f"CUDA {stack.cuda} is older than {about}, which begins with {_dotted(known.cuda_first)}"
    if cuda and known.cuda_last and facts.is_older(known.cuda_last, cuda):
        return f"CUDA {stack.cuda} has dropped {about}, which ends with {_dotted(known.cuda_last)}"
    if driver and known.driver_last and driver[0] > known.driver_last:
        return f"driver {stack.driver} ignores {about}, whose last branch is {known.driver_last}"
    flavour = _modules(stack)
    if flavour and known.modules not in ("either", flavour):
        return f"{about} needs the {known.modules} kernel modules, stack {stack.name} has the {flavour} ones"
    return ""


def _modules(stack: Stack) -> str:
    """The flavour of NVIDIA's kernel modules that the packages bring, "" where they bring none."""
    drivers = [name for name, _version in stack.packages if name.startswith(_DRIVER_PACKAGES)]
    if not drivers:
        return ""
    said_open = any(name.startswith(_SAID) or name.endswith("-open") for name in drivers)
    return _OPEN if said_open else _PROPRIETARY


def _stack_instead(stack: Stack, capability: float | None, gpu_count: int) -> str:
    """The newest shipped stack with one of the same frameworks that drives such a GPU, "" for none."""
    wanted = {name for name, _pin in stack.frameworks}
    able = [
        other
        for other in list_stacks()
        if uses_gpu(other)
        and wanted & {name for name, _pin in other.frameworks}
        and not faults(other)
        and not _gpu_reason(other, capability, gpu_count, pinned=True)
    ]
    newest = max(able, key=lambda other: facts.version(other.cuda), default=None)
    return newest.name if newest else ""


# --- the stack by itself -----------------------------------------------------------------


def _driver_runs_cuda(stack: Stack) -> Iterator[Fault]:
    least = facts.least_driver(stack.cuda) if stack.cuda and stack.driver else ""
    if least and facts.is_older(facts.version(stack.driver), facts.version(least)):
        yield Fault(f"driver {stack.driver} is too old for CUDA {stack.cuda}", f'driver = "{least}" or newer')


def _cudnn_fits_cuda(stack: Stack) -> Iterator[Fault]:
    if stack.cuda and stack.cudnn and facts.cudnn_goes_with(stack.cudnn, stack.cuda) is False:
        newest = facts.newest_cudnn(stack.cuda)
        yield Fault(
            f"cuDNN {stack.cudnn} is not for CUDA {stack.cuda}", f'cudnn = "{newest}"' if newest else ""
        )


def _framework_is_built_for(stack: Stack) -> Iterator[Fault]:
    for name, release in stack.frameworks if stack.cuda else ():
        rows = [row for row in facts.builds(name, release) if row.cudas or facts.version(row.cuda_text)]
        fitting = _builds_of(stack, name, release)
        if rows and not fitting:
            known = ", ".join(sorted({each for row in rows for each in row.cudas or (row.cuda_text,)}))
            yield Fault(f"{name} {release} is not built for CUDA {stack.cuda}", f'cuda = "{known}"')
        cudnns = [row.cudnn for row in fitting if row.cudnn]
        if stack.cudnn and cudnns and not any(_fits(stack.cudnn, cell) for cell in cudnns):
            yield Fault(f"{name} {release} does not know cuDNN {stack.cudnn}", f"cuDNN {cudnns[0]}")


def _framework_runs_on_python(stack: Stack) -> Iterator[Fault]:
    for name, release in stack.frameworks if stack.python else ():
        rows = facts.builds(name, release)
        cells = [row.python for row in _builds_of(stack, name, release) or rows if row.python]
        if cells and not any(_fits(stack.python, cell) for cell in cells):
            yield Fault(f"{name} {release} does not run on Python {stack.python}", f"Python {cells[0]}")


def _wheels_are_for_this(stack: Stack) -> Iterator[Fault]:
    """By their names, as PEP 427 gives them: name-version-python-abi-platform.whl."""
    pins = dict((*stack.frameworks, *stack.pip))
    for name, url in stack.wheels:
        words = url.rpartition("/")[2].removesuffix(".whl").split("-")
        if len(words) not in (5, 6):  # 6: with a number of the build
            yield Fault(f"the wheel of {name} has a name that pip takes for no wheel's")
            continue
        release, python, platform = words[1], words[-3], words[-1]
        if release.partition("+")[0] != pins.get(name):
            yield Fault(f"the wheel of {name} is {release}, not {pins.get(name)}", f'{name} = "{release}"')
        tag = _CPYTHON.fullmatch(python)
        if tag and stack.python not in ("", found := f"{tag[1]}.{tag[2]}"):
            yield Fault(f"the wheel of {name} is for Python {found}", f'python = "{found}"')
        if platform != "any" and not platform.endswith("linux_x86_64") and "manylinux" not in platform:
            yield Fault(f"the wheel of {name} is for {platform}, not for Linux on amd64")
        built = _CUDA_FOLDER.search(url)
        if built and stack.cuda and facts.version(stack.cuda)[:2] != (int(built[1]), int(built[2])):
            cuda = f"{built[1]}.{built[2]}"
            yield Fault(f"the wheel of {name} is built for CUDA {cuda}, not {stack.cuda}", f'cuda = "{cuda}"')


def _system_has_python(stack: Stack) -> Iterator[Fault]:
    has = facts.SYSTEM_PYTHONS.get(stack.os)
    if not has or not stack.python or facts.version(stack.python)[:2] == facts.version(has):
        return
    wanted = facts.version(stack.python)[:2]
    other = next((os for os, python in facts.SYSTEM_PYTHONS.items() if facts.version(python) == wanted), "")
    yield Fault(f"{stack.os} has Python {has}, not {stack.python}", f'os = "{other}"' if other else "")


def _system_fits_images(stack: Stack) -> Iterator[Fault]:
    release = stack.os.rpartition("-")[2]
    for provider, key in stack.images if release else ():
        if "ubuntu-" in key and f"ubuntu-{release}" not in key:
            other = key.partition("ubuntu-")[0] + stack.os
            yield Fault(f"image {key} is not {stack.os}", f'{provider} = "{other}"')


def _packages_fit_system(stack: Stack) -> Iterator[Fault]:
    release = stack.os.rpartition("-")[2]
    for name, pin in stack.packages if release else ():
        _, marked, built = pin.partition("ubuntu0.")
        if marked and not built.startswith(release):
            yield Fault(f"package {name} {pin} is not of {stack.os}", f'os = "ubuntu-{built[:5]}"')


def _theano_has_its_back_end(stack: Stack) -> Iterator[Fault]:
    release = dict(stack.frameworks).get("theano", "")
    settings = dict(stack.theanorc)
    if not release or facts.version(release) < (1, 0):
        return
    if settings.get("global.device", "").startswith("gpu"):
        reason = f"theano {release} has no device=gpu: 1.0 removed the old GPU back-end"
        yield Fault(reason, '"global.device" = "cuda", or theano = "0.9.0"')
    elif "lib.cnmem" in settings:
        reason = f"theano {release} has no lib.cnmem: it went with the old GPU back-end"
        yield Fault(reason, '"gpuarray.preallocate" = "0.95" instead')


_RULES: tuple[Callable[[Stack], Iterator[Fault]], ...] = (
    _theano_has_its_back_end,
    _framework_is_built_for,
    _cudnn_fits_cuda,
    _driver_runs_cuda,
    _framework_runs_on_python,
    _wheels_are_for_this,
    _system_has_python,
    _system_fits_images,
    _packages_fit_system,
)


def _builds_of(stack: Stack, name: str, release: str) -> list[facts.Build]:
    """The builds of a framework's release for the stack's CUDA; those of unknown CUDA count as such."""
    cuda = facts.version(stack.cuda)
    return [
        row
        for row in facts.builds(name, release)
        if any(facts.version(each) == cuda[:2] for each in row.cudas)
        or (not row.cudas and facts.within(cuda, row.cuda_text) is not False)
    ]


def _fits(wanted: str, cell: str) -> bool:
    return facts.within(facts.version(wanted), cell) is not False


def _dotted(version: facts.Version) -> str:
    return ".".join(str(part) for part in version)


# --- the stack and the types of the catalogue --------------------------------------------


@dataclass(frozen=True, slots=True)
class Verdict:
    """A stack beside one kind of machine: a type, or one kind of GPU (type and provider are empty then)."""

    stack: str
    gpu: str  # "" for a machine without one
    capability: float | None
    provider: str = ""
    type: str = ""
    fault: Fault | None = None


def check_type(stack: Stack, text: str) -> list[Verdict]:
    """The stack beside each provider's type of that name. Raises NotFound with the nearest names."""
    found = [known for pair in catalog.resolve_type(text) if (known := catalog.find_type(*pair))]
    if not found:
        raise NotFound(f"{text} is taken as it is", hint="no pin of a stack is enforced there")
    return [
        Verdict(
            stack.name, known.gpu, known.gpu_capability, known.provider, known.type, _type_fault(stack, known)
        )
        for known in found
    ]


def check_gpus(stack: Stack) -> list[Verdict]:
    """The stack beside every kind of NVIDIA GPU that is for rent or was, oldest first, and beside none."""
    kinds = sorted(
        {
            (known.gpu_capability, known.gpu)
            for known in catalog.list_types()
            if known.nvidia and known.arch == "amd64" and known.gpu_capability is not None
        }
    )
    without = Verdict(stack.name, "", None, fault=why_not(stack, None, 0))
    return [without, *(Verdict(stack.name, gpu, cap, fault=why_not(stack, cap, 1)) for cap, gpu in kinds)]


def _type_fault(stack: Stack, known: catalog.InstanceType) -> Fault | None:
    if known.arch != "amd64":
        return Fault(f"the processor of {known.type} is {known.arch}; the stacks are for amd64")
    if known.gpu_count and not known.nvidia and uses_gpu(stack):
        return Fault(f"the {known.gpu} of {known.type} is not an NVIDIA GPU", "use cpu-torch")
    return why_not(stack, known.gpu_capability, known.gpu_count)
