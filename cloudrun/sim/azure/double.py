"""AzureDouble: the rehearsal cloud's Azure half, started, steered and asked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cloudrun.sim.azure.addresses import ADDRESS_KINDS, DnsNames
from cloudrun.sim.azure.app import App
from cloudrun.sim.azure.blobs import Storage
from cloudrun.sim.azure.calls import Call
from cloudrun.sim.azure.compute import Compute
from cloudrun.sim.azure.faults import Fault
from cloudrun.sim.azure.groups import Groups
from cloudrun.sim.azure.network import NETWORK_KINDS
from cloudrun.sim.azure.operations import Operations
from cloudrun.sim.azure.store import SUBSCRIPTION, Delays, World
from cloudrun.sim.azure.tls import CA_FILE, HttpsServer
from cloudrun.sim.control import Control
from cloudrun.sim.faults import EVERY_CALL
from cloudrun.sim.serving import Serving, started

if TYPE_CHECKING:
    from cloudrun.sim.machine import MachineHost

NOTICE_S = 30.0  # Azure, "Scheduled Events": at least 30 seconds before a Preempt
PRICES_PATH = "/api/retail/prices"


class AzureDouble:
    """Azure Resource Manager, its login service and its price list on a loopback port, over https.

    Not started until start(). Without a host no machine boots, but states move as they do with one.
    `folder` gets the certificate authority that clients have to trust. Errors of the methods that steer
    are ValueErrors that say what was wrong.
    """

    def __init__(
        self,
        host: MachineHost | None = None,
        *,
        folder: Path,
        delay_s: Delays | None = None,
    ) -> None:
        self._host = host
        self._folder = folder
        self._delays = delay_s or Delays()
        self._serving: Serving | None = None
        self._world: World | None = None
        self._compute: Compute | None = None
        self._app: App | None = None
        self.url = ""

    @property
    def ca_path(self) -> Path:
        """Certificates to trust (PEM): the double's own authority, and those of the world."""
        return self._folder / CA_FILE

    def start(self, port: int = 0) -> str:
        """Serve an empty subscription; returns the endpoint's URL. Port 0: any free one."""
        world = World(self._host, self._delays)
        operations = Operations(world)
        app = App(world, self._control())
        kinds = [kind(world, operations) for kind in (*NETWORK_KINDS, *ADDRESS_KINDS)]
        compute = Compute(world, operations)
        parts = (compute, *kinds, DnsNames(world), operations, world.authorization)
        for part in (*parts, Groups(world, operations)):
            app.routes.add(part.routes())
        self._serving = Serving(HttpsServer(app, port, self._folder), "cloudrun-sim-azure")
        self._world, self._compute, self._app = world, compute, app
        self.url = f"https://localhost:{self._serving.port}"
        return self.url

    def stop(self) -> None:
        """Stop answering and end every machine. Idempotent."""
        if self._serving is None or self._world is None:
            return
        self._serving.stop()
        self._serving = None
        self._world.timers.close()
        self._computer().close()

    def __enter__(self) -> AzureDouble:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def environment(self) -> dict[str, str]:
        """The variables that point azure-identity, requests and cloudrun at this double."""
        tokens = self._running().tokens
        return {
            "AZURE_TENANT_ID": tokens.tenant,
            "AZURE_CLIENT_ID": tokens.client,
            "AZURE_CLIENT_SECRET": tokens.secret,
            "AZURE_SUBSCRIPTION_ID": SUBSCRIPTION,
            "AZURE_AUTHORITY_HOST": self.url,
            "CLOUDRUN_AZURE_ENDPOINT": self.url,
            "CLOUDRUN_AZURE_PRICES_URL": f"{self.url}{PRICES_PATH}",
            "REQUESTS_CA_BUNDLE": str(self.ca_path),
            "SSL_CERT_FILE": str(self.ca_path),
            **self.storage.environment(self.url),
        }

    @property
    def storage(self) -> Storage:
        """The account that keeps blobs."""
        return self._application().storage

    # Steering

    def fault(self, operation: str, code: str = "", **how: Any) -> None:
        """Let calls fail; `how` are the other fields of Fault.

        operation is Azure's name of the right that a call takes, "Microsoft.Compute/virtualMachines/write";
        * is every call. type and market restrict calls that put or start a machine.
        """
        self._running().faults.add(Fault(operation, code, **how))

    def throttle(
        self, operation: str = EVERY_CALL, *, times: int | None = 1, every: int = 1, retry_after_s: float = 1
    ) -> None:
        """429 with Retry-After for the next `times` calls (None: for good), or each `every`-th of them."""
        self.fault(operation, "TooManyRequests", times=times, every=every, retry_after_s=retry_after_s)

    def clear_faults(self) -> None:
        self._running().faults.clear()

    def allow(self, operations: Iterable[str] | None = None) -> None:
        """The caller may do these operations alone (* stands for anything), others are answered with
        AuthorizationFailed. None: everything again."""
        self._running().authorization.allow(operations)

    def expire_tokens(self) -> None:
        """No token that is out is good any longer: calls with one are answered 401, with a challenge."""
        self._running().tokens.expire()

    def preempt(self, instance_id: str, *, notice_s: float = NOTICE_S, action: str | None = None) -> None:
        """Azure evicts a spot machine in notice_s seconds (0: at once, without notice).

        action None: what its eviction policy says (Deallocate, Delete). Returns at once.
        """
        self._computer().preempt(instance_id, notice_s=notice_s, action=action)

    def event(self, instance_id: str, kind: str, *, notice_s: float = NOTICE_S) -> None:
        """A scheduled event for a machine: Freeze, Reboot, Redeploy, Terminate. Returns at once."""
        self._computer().event(instance_id, kind, notice_s=notice_s)

    def set_capacity(self, type: str, region: str = "", market: str = "", count: int | None = 0) -> None:
        """So many machines more are free. region, market "": all of them. count None: no limit."""
        self._computer().set_capacity(type, region, market, count)

    def set_quota(self, region: str, family: str, limit: int) -> None:
        """vCPUs of a family that a region may run ("cores": all; "lowPriorityCores": spot)."""
        self._computer().set_quota(region, family, limit)

    def restrict(self, type: str, region: str, reason: str = "NotAvailableForSubscription") -> None:
        """The subscription may not have that size in that region; reason "": it may again."""
        self._computer().restrict(type, region, reason)

    def set_spot_price(self, type: str, region: str, usd: Decimal | float | str) -> None:
        """From now on that price an hour. Machines with a lower maximum are evicted."""
        price = Decimal(str(usd))
        if not price > 0:
            raise ValueError("a price is above 0")
        self._computer().set_spot_price(type, region, price)

    def halt(self, instance_id: str) -> None:
        """The system of a machine shuts itself down: it is off and billed on."""
        self._computer().halt(instance_id)

    # Asking

    def calls(self) -> list[Call]:
        """Every call since the start or since forget_calls, oldest first (the last 100,000)."""
        return self._application().calls.all()

    def forget_calls(self) -> None:
        self._application().calls.clear()

    def instances(self) -> list[dict[str, Any]]:
        """What the double knows of each machine that ever was: id, region, zone, type, market, state,
        request, notice, tags."""
        return self._computer().instances()

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
            self.event,
            self.restrict,
            self.allow,
            self.halt,
            self.expire_tokens,
            self.forget_calls,
        )

    def _running(self) -> World:
        return started(self._world)

    def _computer(self) -> Compute:
        return started(self._compute)

    def _application(self) -> App:
        return started(self._app)
