"""The steps of a stack: which scripts, with which parameters, as what a machine is sent to run them, and what
it answers."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from cloudrun import assets
from cloudrun.config import AS_FOUND, Settings
from cloudrun.models import Stack
from cloudrun.stacks_lock import pip_words

FRAMEWORKS = "20-frameworks"
GPU_SEEN = "90-gpu-seen"
WITHOUT_ROOT = (FRAMEWORKS, "30-theanorc")  # the login user's own; every other step takes root
END = "END_OF_STEP"  # no step has a line of it
PACKAGES = "14-packages"
TUNING = "40-gpu-tuning"
ASKED = ("torch", "tensorflow", "chainer", "theano")  # that 90-gpu-seen.sh knows to ask
DRIVERS = ("nvidia-", "libnvidia-", "libcuda1-", "cuda-drivers")  # how packages of a driver begin
SAID_CHARS = 300  # of what a check printed last


@dataclass(frozen=True, slots=True)
class Step:
    """One script of provisioning/steps and its parameters."""

    name: str  # without .sh
    parameters: Mapping[str, str]

    @property
    def needs_root(self) -> bool:
        return self.name not in WITHOUT_ROOT

    def call(self, *verbs: str) -> str:
        """Shell text that runs it with each verb in turn, until one fails."""
        script = (assets.provisioning_dir() / "steps" / f"{self.name}.sh").read_text(encoding="utf-8")
        given = " ".join(f"{key}={shlex.quote(value)}" for key, value in self.parameters.items())
        file = f'"$work/{self.name}.sh"'
        runs = " && ".join(f"{given} sh {file} {verb} </dev/null".strip() for verb in verbs)
        return f"cat >{file} <<'{END}'\n{script}{END}\n{runs}"


def steps_of(stack: Stack, settings: Settings) -> list[Step]:
    """The steps that the stack names, in its order; its frameworks alone where it names none."""
    names = [name.removesuffix(".sh") for name in stack.steps] or ([FRAMEWORKS] if stack.frameworks else [])
    parameters = _parameters(stack, settings)
    return [Step(name, parameters.get(name, {})) for name in names if _applies(name, stack, settings)]


@dataclass(frozen=True, slots=True)
class Checks:
    """What a machine answered to `check_script`."""

    codes: Mapping[str, int]  # exit code of each step's check; 0: nothing to do
    words: Mapping[str, str]  # what each printed last on stderr
    packages: Mapping[str, str]  # apt:NAME to version, of those that are there
    root: bool  # whether the login user may become root

    def failing(self, steps: Sequence[Step]) -> list[Step]:
        """Those that do not hold, in their order."""
        return [step for step in steps if self.codes.get(step.name) != 0]


def check_script(steps: Sequence[Step], packages: Sequence[str]) -> bytes:
    """One script for all checks; `read_checks` reads its lines."""
    lines = [_HEAD]
    for step in steps:
        lines.append(f'( {step.call("check")}\n) >/dev/null 2>"$work/said"')
        lines.append(f'echo step {step.name} $? "$(tail -n 1 "$work/said" | cut -c 1-{SAID_CHARS})"')
    if packages:
        names = " ".join(shlex.quote(name) for name in packages)
        lines.append(f"dpkg-query -W -f 'apt ${{Package}} ${{Version}}\\n' {names} 2>/dev/null")
    lines.append("echo root $(sudo -n id -u 2>/dev/null || id -u)")
    return "\n".join([*lines, "true\n"]).encode()


def read_checks(text: str) -> Checks:
    """`step NAME CODE WORDS`, `apt NAME VERSION` for a package that is there, `root ID`; other lines are not
    ours."""
    lines = [line.split(maxsplit=3) for line in text.splitlines()]
    steps = [words for words in lines if len(words) >= 3 and words[0] == "step" and words[2].isdecimal()]
    return Checks(
        codes={words[1]: int(words[2]) for words in steps},
        words={words[1]: words[3] for words in steps if len(words) == 4},
        packages={f"apt:{words[1]}": words[2] for words in lines if len(words) == 3 and words[0] == "apt"},
        root=["root", "0"] in lines,
    )


def apply_script(step: Step, *, anew: bool = False) -> bytes:
    """Apply one step and check it. Exit code 194: applied, once the machine has started anew.

    anew: also where its check says yes, for a driver that is installed and does not work. Its packages are
    taken away first: what they set up at their installation (DKMS) is done again then.
    """
    take_away = _take_driver_away(step.parameters.get("PACKAGES", "").split()) if anew else ""
    return "\n".join([_HEAD, take_away, step.call("apply", "check"), ""]).encode()


def _take_driver_away(pins: Sequence[str]) -> str:
    """Shell text that removes the pinned packages of a driver and those that came with them, which have its
    very version: the pinned one may only be a name for them."""
    named = [pin.partition("=") for pin in pins]
    versions = {version for name, _, version in named if name.startswith(DRIVERS)}
    same = " || ".join(f'$2 == "{version}"' for version in sorted(versions))
    return (
        "dpkg-query -W -f '${Package} ${Version} ${db:Status-Status}\\n' | "
        f"awk '/^(lib)?(nvidia|cuda)/ && $3 == \"installed\" && ({same}) {{ print $1 }}' | "
        f"xargs -r {_SUDO} dpkg --remove --force-depends >&2"
        if versions
        else ""
    )


_SUDO = "$(sudo -n true 2>/dev/null && echo sudo -n)"
_HEAD = "work=$(mktemp -d) && trap 'rm -rf \"$work\"' EXIT || exit 1"


def mirrored(url: str, settings: Settings) -> str:
    """Where a wheel is fetched from: its own server, or the mirror, which has it at the same path."""
    mirror = settings.wheels_url
    return f"{mirror}{urlsplit(url).path}" if mirror else url


def _applies(name: str, stack: Stack, settings: Settings) -> bool:
    """As-found machines of stacks whose driver comes with the image have no driver to ask."""
    drivers = any(package.startswith(("nvidia-", "cuda-drivers")) for package, _ in stack.packages)
    return name != GPU_SEEN or drivers or settings.frameworks != AS_FOUND


def _parameters(stack: Stack, settings: Settings) -> Mapping[str, Mapping[str, str]]:
    as_found = settings.frameworks == AS_FOUND
    tuning = dict(stack.tuning)
    frameworks = [name for name, _ in stack.frameworks]
    asked = next((name for name in ASKED if name in frameworks), "")
    # What is taken as it is found has its own idea of what it stands on.
    lock = () if as_found else stack.lock
    pins = [(name, version) for name, version, _hexes in lock] or [*stack.frameworks, *stack.pip]
    hashes = [(name, hexes) for name, _version, hexes in lock] or stack.sha256
    return {
        "12-nvidia-repository": {
            "REPOSITORIES": " ".join(stack.repositories),
            "STACK_OS": stack.os,
            "NVIDIA_REPOSITORY_URL": settings.nvidia_repository_url,
        },
        PACKAGES: {"PACKAGES": " ".join(f"{name}={version}" for name, version in stack.packages)},
        "16-python": {"PYTHON": "" if as_found else stack.python},
        FRAMEWORKS: {
            "FRAMEWORKS": " ".join(pip_words(pins, {})),
            "WHEELS": " ".join(f"{name}={mirrored(url, settings)}" for name, url in stack.wheels),
            "HASHES": "" if as_found else " ".join(f"{name}={hexes}" for name, hexes in hashes),
            "PIP_INDEX": settings.pip_index_url,
            "AS_FOUND": "1" if as_found else "",
        },
        "30-theanorc": {"THEANORC": "\n".join(f"{key}={value}" for key, value in stack.theanorc)},
        "32-environment": {"ENVIRONMENT": "\n".join(f"{key}={value}" for key, value in stack.env)},
        TUNING: {
            "PERSISTENCE": tuning.get("persistence", ""),
            "AUTO_BOOST": tuning.get("auto-boost", ""),
            "CLOCKS": tuning.get("clocks", ""),
        },
        GPU_SEEN: {"SEEN_BY": "" if as_found else asked},
    }
