"""Whether a machine still sees the GPU that it had: the look before each start, and what nvidia-smi's words
mean.

Provisioning asks the driver and the framework (step 90-gpu-seen). A machine that is kept is asked again
before each start, the driver alone: a framework takes seconds to say, nvidia-smi a fraction of one. The look
rides on the command with which the road knocks anyway.
"""

from __future__ import annotations

from cloudrun.errors import MachineError
from cloudrun.models import Machine, Result, Stack

NO_PROGRAM, TOO_LONG = 127, 124  # exit codes of sh and of timeout
# A driver that is slow to come back is no driver that is gone: 15 s for 16 GPUs without persistence mode.
GPU_LOOK = (
    "said=$(timeout 15 nvidia-smi -L 2>&1); code=$?; "
    f'[ $code -eq 0 ] || [ $code -eq {TOO_LONG} ] || {{ echo "$said"; exit $code; }}'
)
# What nvidia-smi says (NVIDIA's own words, of nvidia-smi and NVML), and what it means.
MEANINGS = (
    (
        "couldn't communicate with the NVIDIA driver",
        "the driver is not loaded, as after an update of driver or kernel",
    ),
    ("Driver/library version mismatch", "the driver was replaced under the one that is loaded, by an update"),
    ("No devices were found", "the driver answers and finds no GPU"),
    ("GPU is lost", "a GPU no longer answers the driver"),
    ("fallen off the bus", "a GPU no longer answers the driver"),
)


def look_command(machine: Machine, stack: Stack) -> str:
    """The command to knock with before a start: it fails where the stack needs a GPU and the machine, which
    had one when it was made ready for that stack, sees none any more. `true` where nothing is to be asked."""
    asked = stack.needs_gpu and machine.provisioned and machine.stack == stack.name
    return GPU_LOOK if asked and dict(machine.versions).get("gpu") else "true"


def no_gpu(machine: Machine, said: Result) -> MachineError:
    """What to raise where that command failed."""
    why = why_no_gpu(said.exit_code, said.text.strip())
    return MachineError(
        f"{machine.name} sees no GPU, which stack {machine.stack} needs: {why}",
        hint=f"cloudrun machines doctor {machine.name} --fix, then submit again",
    )


def why_no_gpu(code: int, words: str) -> str:
    """What it means that nvidia-smi ended so, with its own words."""
    if code == NO_PROGRAM:
        return "nvidia-smi is missing, and with it the driver"
    if code == TOO_LONG:
        return "nvidia-smi does not come back: the driver hangs"
    meaning = next((meaning for said, meaning in MEANINGS if said in words), "the driver does not answer")
    return f"{meaning}; nvidia-smi says: {words}" if words else meaning
