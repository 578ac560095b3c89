"""AwsDouble: the rehearsal cloud's AWS half, started, steered and asked."""

from __future__ import annotations

import threading
from dataclasses import asdict
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from werkzeug.serving import WSGIRequestHandler, make_server

from cloudrun.errors import UsageError
from cloudrun.models import Market
from cloudrun.sim.aws import seeds
from cloudrun.sim.aws.app import App, Call
from cloudrun.sim.aws.faults import Fault
from cloudrun.sim.aws.spot import Spot
from cloudrun.sim.aws.world import Delays, World
from cloudrun.sim.control import Control
from cloudrun.sim.faults import EVERY_CALL
from cloudrun.sim.serving import Serving, started

if TYPE_CHECKING:
    from cloudrun.sim.machine import MachineHost

LOOPBACK = "127.0.0.1"
NOTICE_S = 120.0  # EC2 user guide, "Spot Instance interruption notices": two minutes

_in_use = threading.Lock()  # moto's objects are the process's own: one double at a time


class AwsDouble:
    """EC2 and the services around it on a loopback port. Not started until start().

    Without a host no machine boots, but states move as they do with one. Errors of the methods that
    steer are ValueErrors that say what was wrong.
    """

    def __init__(
        self, host: MachineHost | None = None, *, delay_s: Delays | None = None, seed: int = 0
    ) -> None:
        self._host = host
        self._delays = delay_s or Delays()
        self._seed = seed
        self._serving: Serving | None = None
        self._world: World | None = None
        self._spot: Spot | None = None
        self._app: App | None = None
        self.url = ""

    def start(self, port: int = 0) -> str:
        """Serve an empty account; returns the endpoint's URL. Port 0: any free one.

        Raises UsageError where this process already has a double.
        """
        if not _in_use.acquire(blocking=False):
            raise UsageError("this process already runs a rehearsal cloud", hint="stop it first")
        try:
            seeds.enable_regions()
            seeds.add_types()
            self._world = World(self._host, self._delays, self._seed)
            self._world.backend.reset()
            self._spot = Spot(self._world)
            self._app = App(self._world, self._spot, self._control())
            server = make_server(LOOPBACK, port, self._app, threaded=True, request_handler=_QuietHandler)
        except BaseException:
            _in_use.release()
            raise
        self._serving = Serving(server, "cloudrun-sim-aws")
        self.url = f"http://{LOOPBACK}:{self._serving.port}"
        return self.url

    def stop(self) -> None:
        """Stop answering and end every machine. Idempotent."""
        if self._serving is None or self._world is None:
            return
        try:
            self._serving.stop()
            self._world.timers.close()
            for instance in list(self._world.instances.values()):
                if instance.machine is not None:
                    instance.machine.destroy()
        finally:
            self._serving = None
            _in_use.release()

    def __enter__(self) -> AwsDouble:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # Steering

    def fault(self, action: str, code: str = "", **how: Any) -> None:
        """Let calls of that action fail (*: every call); `how` are the other fields of CloudFault.

        zone, type and market restrict RunInstances and StartInstances.
        """
        self._running().faults.add(Fault(action, code, **how))

    def throttle(self, action: str = EVERY_CALL, *, times: int | None = 1, every: int = 1) -> None:
        """RequestLimitExceeded for the next `times` calls (None: for good), or each `every`-th of them."""
        self.fault(action, "RequestLimitExceeded", times=times, every=every)

    def clear_faults(self) -> None:
        self._running().faults.clear()

    def preempt(self, instance_id: str, *, notice_s: float = NOTICE_S, action: str | None = None) -> None:
        """EC2 takes a spot machine back in notice_s seconds (0: at once, without notice).

        action None: what its request said (terminate, stop, hibernate). Returns at once.
        """
        world = self._running()
        with world.lock:
            self._spotter().preempt(instance_id, notice_s, action or "")

    def set_spot_price(
        self, type: str, zone: str, usd: Decimal | float | str, *, notice_s: float = NOTICE_S
    ) -> None:
        """From now on that price an hour. Machines with a lower maximum are taken back, with notice."""
        price = Decimal(str(usd))
        if not price > 0:
            raise ValueError("a price is above 0")
        self._check_type(type)
        world = self._running()
        with world.lock:
            world.spot_prices.set_price(zone, type, price, datetime.now(UTC))
            self._spotter().price_rose(type, zone, price, notice_s)

    def set_quota(self, region: str, code: str, vcpus: float) -> None:
        self._running().quotas.set_quota(region, code, vcpus)

    def set_capacity(self, type: str, zone: str = "", market: str = "", count: int | None = 0) -> None:
        """So many machines more are free. zone, market "": all of them. count None: no limit."""
        self._check_type(type)
        if market:
            Market(market)
        self._running().capacity.set_free(type, zone, market, count)

    def set_visible_after_s(self, seconds: float) -> None:
        """Machines launched from now on are unknown to other calls for so long."""
        if seconds < 0:
            raise ValueError("seconds is at least 0")
        self._running().visible_after_s = seconds

    def set_rights(self, on: bool) -> None:
        """Check signatures and IAM policies from now on, or no longer."""
        self._application().rights_on = bool(on)

    # Asking

    def calls(self) -> list[Call]:
        """Every API call since the start or since forget_calls, oldest first (the last 100,000)."""
        return self._application().calls()

    def forget_calls(self) -> None:
        self._application().forget_calls()

    def instances(self) -> list[dict[str, Any]]:
        """What the double knows of each instance that ever was: id, state, machine and so on."""
        world = self._running()
        with world.lock:
            return [
                {
                    "id": each.id,
                    "region": each.region,
                    "zone": each.zone,
                    "type": each.type,
                    "market": each.market.value,
                    "state": each.state,
                    "request": each.request_id,
                    "notice": each.notice[0] if each.notice else "",
                    "tags": world.backend.tags(each.region, each.id),
                }
                for each in world.instances.values()
            ]

    def calls_as_json(self) -> list[dict[str, Any]]:
        return [{**asdict(call), "at": call.at.isoformat()} for call in self.calls()]

    def _control(self) -> Control:
        """What other processes may do."""
        return Control(
            self,
            self.fault,
            self.throttle,
            self.clear_faults,
            self.preempt,
            self.set_spot_price,
            self.set_quota,
            self.set_capacity,
            self.set_visible_after_s,
            self.set_rights,
            self.forget_calls,
        )

    def _check_type(self, type: str) -> None:
        if not seeds.is_known(type):
            raise ValueError(f"no instance type {type!r}")

    def _running(self) -> World:
        return started(self._world)

    def _spotter(self) -> Spot:
        return started(self._spot)

    def _application(self) -> App:
        return started(self._app)


class _QuietHandler(WSGIRequestHandler):
    """Keeps connections open as clients like it, and prints nothing: calls are recorded."""

    protocol_version = "HTTP/1.1"

    def log(self, type: str, message: str, *args: Any) -> None:
        """Nothing."""
