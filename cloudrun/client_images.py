"""The verbs of images of one's own, of the Python API. `Client` has them all; see there."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

from cloudrun.client_machines import MachineVerbs
from cloudrun.errors import ProviderError, Refused
from cloudrun.events import OnEvent
from cloudrun.images import SNAPSHOT
from cloudrun.models import Market

if TYPE_CHECKING:
    from cloudrun.images import OwnImage
    from cloudrun.images_bake import Bake
    from cloudrun.images_list import Listed


class ImageVerbs(MachineVerbs):
    """The part of Client that keeps machines' disks, so that others need not be provisioned."""

    def plan_bake(
        self,
        stack: str,
        *,
        type: str,
        market: Market | None = None,
        regions: Sequence[str] = (),
        name: str = "",
        disk_gb: int = 0,
        resource_group: str = "",
        again: bool = False,
    ) -> Bake:
        """What baking that stack on a machine of that type would make and cost. Free; asks the provider which
        images there are. Without regions it is made where that type is cheapest at the spot price, since that
        is where launches go. resource_group: one of Azure's that exists, for machine and image. Raises
        Refused where the very same one is there already, without `again`."""
        from cloudrun import images_bake

        ctx = self.context()
        found, candidates = self.plan_launch(
            type=type,
            market=market,
            stack=stack,
            regions=regions or self._spot_regions(type, stack),
            max_hours=images_bake.MAX_HOURS,
            disk_gb=disk_gb,
        )
        return images_bake.plan_bake(
            ctx,
            found,
            candidates,
            name=name,
            disk_gb=disk_gb,
            resource_group=resource_group,
            again=again,
        )

    def _spot_regions(self, type: str, stack: str) -> tuple[str, ...]:
        """The region of the cheapest spot offer; none, which restricts nothing, where there is no spot."""
        try:
            _, candidates = self.plan_launch(type=type, market=Market.SPOT, stack=stack)
        except (ProviderError, Refused):
            return ()
        return (candidates[0].region,) if candidates[0].region else ()

    def bake(self, plan: Bake, *, on_event: OnEvent | None = None) -> OwnImage:
        """Make the image (blocking, for many minutes). The machine is let go however it ends. Raises Refused
        where the month's budget does not reach for it."""
        from cloudrun import images_bake

        self.check_launch(plan.candidates, max_hours=images_bake.MAX_HOURS, disk_gb=plan.disk_gb)
        return images_bake.bake(self.context(on_event=on_event), plan)

    def own_images(self, *, on_event: OnEvent | None = None) -> list[Listed]:
        """Every image of one's own at every provider that can be asked (blocking), oldest first, with what
        it is for. One that cannot is named in a note; one without credentials has none."""
        from cloudrun import images_list
        from cloudrun.providers import provider_names

        return images_list.list_images(self.context(on_event=on_event), provider_names())

    def delete_image(self, image: OwnImage) -> None:
        """Remove it and all that is stored for it, which ends its line of the ledger. Idempotent; machines
        that were launched from it stay."""
        from cloudrun import images_bake, images_charged

        ctx = self.context()
        images_bake.keeper(ctx, image.provider).delete_image(image)
        images_charged.close_line(ctx, image)

    def kept_images_usd(self) -> tuple[int, Decimal | None]:
        """How many images the ledger has an open line of, and what they cost an hour: None where a price is
        unknown. Asks nobody."""
        lines = self.store.list_charges(what=SNAPSHOT, open_only=True)
        if not lines:
            return 0, Decimal(0)
        from cloudrun.ledger import per_hour_usd  # the catalogue with it

        known = [price for price in map(per_hour_usd, lines) if price is not None]
        return len(lines), sum(known, Decimal(0)) if len(known) == len(lines) else None
