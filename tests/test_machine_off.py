"""A machine that cannot be used any more is refused with what to do next; others are not refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from samples import A_MACHINE

from cloudrun.errors import CloudrunError, MachineError, NoCapacity, Preempted
from cloudrun.machine_off import refuse_ended
from cloudrun.models import MachineState

STOPPED = MachineState.STOPPED


@pytest.mark.parametrize(
    ("state", "detail", "error", "hint"),
    [
        (MachineState.PREEMPTED, {}, Preempted, "launch another"),
        (MachineState.TERMINATED, {}, MachineError, "machines list --all"),
        (MachineState.HALTED, {}, MachineError, "cloudrun stop k80"),
        (STOPPED, {}, MachineError, "machines start k80"),
        (STOPPED, {"preempted": "deallocate"}, Preempted, "machines start k80"),
        (STOPPED, {"failure": "AllocationFailed"}, NoCapacity, "machines start k80"),
    ],
)
def test_each_end_says_what_to_do_next(
    state: MachineState, detail: dict[str, str], error: type[CloudrunError], hint: str
) -> None:
    with pytest.raises(error) as caught:
        refuse_ended(replace(A_MACHINE, state=state, detail=tuple(detail.items())))
    assert hint in caught.value.hint


def test_a_machine_that_is_on_or_comes_back_is_not_refused() -> None:
    for state, detail in ((MachineState.RUNNING, ()), (MachineState.PENDING, ()), (STOPPED, ("stop",))):
        refuse_ended(replace(A_MACHINE, state=state, detail=tuple(("preempted", each) for each in detail)))
