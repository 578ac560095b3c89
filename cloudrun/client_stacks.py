"""The verbs of stacks: which there are, what is in one, and whether a machine goes with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cloudrun.models import Stack

if TYPE_CHECKING:
    from cloudrun.compat import Fault, Verdict


class StackVerbs:
    """The part of Client that knows stacks. Reads shipped files and stack files only; asks no provider."""

    def stacks(self) -> Sequence[Stack]:
        """The stacks that come with cloudrun, by name."""
        from cloudrun.stacks import list_stacks

        return list_stacks()

    def stack(self, name_or_path: str) -> Stack:
        """A shipped stack, or a file of one's own. Raises NotFound, JobError for a bad file."""
        from cloudrun.stacks import load_stack

        return load_stack(name_or_path)

    def stack_faults(self, stack: Stack) -> Sequence[Fault]:
        """What in a stack does not go together, whatever the machine, with the change that would mend it."""
        from cloudrun import compat

        return compat.faults(stack)

    def check_stack(self, stack: Stack, type: str = "") -> list[Verdict]:
        """The stack beside each type of that name, or beside every kind of GPU. Raises NotFound."""
        from cloudrun import compat

        return compat.check_type(stack, type) if type else compat.check_gpus(stack)
