"""Which image of one's own a launch begins with: the newest there on which the very same stack stands."""

from __future__ import annotations

from contextlib import suppress

from cloudrun.context import Context
from cloudrun.errors import ProviderError
from cloudrun.models import LaunchSpec
from cloudrun.providers.base import SnapshotImages


def find(ctx: Context, spec: LaunchSpec) -> str:
    """Its id; "" where there is none, the launch shall have the published one, or nobody can be asked.

    A machine that boots from it is provisioned as any other: the one check of all steps says that they hold.
    """
    provider, stack = ctx.provider(spec.offer.provider), spec.stack
    bare = not (stack.steps or stack.frameworks)  # nothing to save
    if bare or spec.options.base_image or not isinstance(provider, SnapshotImages):
        return ""
    from cloudrun.stacks import stack_hash  # it loads pydantic

    with suppress(ProviderError):
        return provider.own_image(stack_hash(stack), spec.offer)
    return ""
