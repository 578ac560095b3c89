"""One machine, asked for once: group, network and address side by side, interface, machine.

What will be asked for is kept beside the keys before anything is (providers/launched.py), and every part is
named after the token: whoever repeats a launch that was killed anywhere meets the parts that are there, and
gets the same machine. A launch that is refused has all of its parts deleted. Where Azure accepts and fails
later, `describe` says so.

Calls in a prepared subscription: seven (group, network, security group, address, interface, machine, its
right over itself), and a look or two at those that take a moment. provisioning/policies/azure-role.json has
the rights that they take.
"""

from __future__ import annotations

import base64
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from cloudrun.errors import CloudrunError, ConnectionLost, ProviderError, Refused
from cloudrun.guard import policy
from cloudrun.keys import Keys, make_keys
from cloudrun.models import LaunchSpec, Machine, Market, OnPreempt
from cloudrun.payload import MAX_AZURE_BYTES, companion_path, user_data
from cloudrun.providers import tags as t
from cloudrun.providers.azure.arm import Body, begin, id_of, shown_or_none
from cloudrun.providers.azure.disks import disk_type
from cloudrun.providers.azure.ending import delete_parts
from cloudrun.providers.azure.errors import mapped
from cloudrun.providers.azure.images import boot_image, image_key, image_reference, is_own, login_user
from cloudrun.providers.azure.instances import (
    DNS_LABEL,
    PROVIDER,
    SELF_RELEASE,
    describe,
    find_vm,
    let_it_release_itself,
    machine_of,
    refuse_failed,
)
from cloudrun.providers.azure.names import refuse_taken
from cloudrun.providers.azure.network import make_interface, make_network
from cloudrun.providers.azure.parts import ASKED, IP, NIC, VM, Parts, parts_of, parts_of_id, stem_of
from cloudrun.providers.azure.power import BUSY, has_code
from cloudrun.providers.azure.session import Session
from cloudrun.providers.azure.snapshots import least_disk_gb
from cloudrun.providers.firewall import my_address
from cloudrun.providers.launched import Launched, launch_folder, load_launched, now
from cloudrun.providers.rented import as_asked

RELEASE = ("sudo", "python3", companion_path(PROVIDER), "release")
# Ubuntu takes 2 GB, a driver with CUDA 10 to 15, torch 5; Azure's images have up to 64.
LEAST_DISK_GB = 64
ANY_PRICE = -1  # as high as on demand ("Use Azure Spot Virtual Machines", pricing)
GOES = {"deleteOption": "Delete"}


def launch(session: Session, spec: LaunchSpec) -> Machine:
    """Ask for one machine; returns when Azure has accepted it (a few seconds: Azure makes a network first).

    Raises NoCapacity, Quota, NotOffered, ImageNotFound, Credentials; ConnectionLost where an answer got lost:
    then the machine may be there, and the same launch again tells.
    """
    folder = launch_folder(session.settings, spec.name, batch=False)
    known = load_launched(folder)
    if known and known.token != spec.token:
        _clear_name(session, folder, known, spec.name)
        known = None
    if known and known.machines:
        return describe(session, known.machines[0])
    vm = _found_again(session, spec) if known else None
    if known is None:
        known = _prepare(session, spec, folder)
    try:
        vm = vm or _make(session, spec, known)
        return _keep(session, spec, folder, known, vm)
    except ConnectionLost as loss:
        raise _not_known(spec, loss) from loss
    except CloudrunError:
        _take_back(session, spec, folder)
        raise


def on_preempt_of(spec: LaunchSpec) -> OnPreempt | None:
    """What becomes of a spot machine that is taken: one of a run ends, for the run goes on elsewhere; one
    that was launched to stay waits with its disk."""
    if spec.offer.market is not Market.SPOT:
        return None
    return spec.options.on_preempt or (OnPreempt.TERMINATE if spec.run_owned else OnPreempt.STOP)


def _prepare(session: Session, spec: LaunchSpec, folder: Path) -> Launched:
    """Make keys and request, and keep both before anything is asked for. Raises what can be refused now."""
    offer, options = spec.offer, spec.options
    if options.dns_label:
        place = parts_of(spec)
        refuse_taken(session, offer.region, options.dns_label, group=place.group, address=place.name(IP))
    if options.subnet and not options.subnet.lower().startswith("/subscriptions/"):
        raise Refused(
            f"{options.subnet!r} is no subnet of Azure's",
            hint="give its whole id: az network vnet subnet show --query id ...",
        )
    disk = disk_type(session, offer, options.disk_type)
    image, disk_gb = _boots(session, spec)
    user = login_user(image_key(spec.stack))
    asked_at = now()
    tags = t.launch_tags(
        spec,
        owner=t.owner_of(session.settings),
        user=user,
        disk_gb=disk_gb,
        on_preempt=on_preempt_of(spec),
    )
    tags[ASKED] = asked_at.isoformat()
    if options.dns_label:
        tags[DNS_LABEL] = options.dns_label
    keys = make_keys(folder, comment=f"cloudrun {spec.name}")
    guarded = policy(spec.guard, RELEASE, notices=companion_path(PROVIDER))
    data = user_data(keys, user=user, policy=guarded, companion=PROVIDER, most_bytes=MAX_AZURE_BYTES)
    request = {
        "location": offer.region,
        "tags": tags,
        "identity": {"type": "SystemAssigned"},
        **({"zones": [offer.zone]} if offer.zone else {}),
        "properties": {
            "hardwareProfile": {"vmSize": offer.type},
            "storageProfile": {
                "imageReference": image_reference(image),
                "osDisk": _disk(parts_of(spec), disk, disk_gb),
            },
            "osProfile": _system(parts_of(spec), user, keys, data),
            "networkProfile": {"networkInterfaces": [_interface(session, parts_of(spec))]},
            **_market(spec),
        },
    }
    launched = Launched(spec.token, offer.region, asked_at, request, provider=PROVIDER)
    launched.save(folder)
    return launched


def _boots(session: Session, spec: LaunchSpec) -> tuple[str, int]:
    """The image, and how big a disk: at least as big as an image of one's own is."""
    disk_gb = spec.disk_gb or LEAST_DISK_GB
    if not is_own(spec.image):
        return boot_image(session, spec.stack, spec.offer.type, spec.offer.region), disk_gb
    return spec.image, max(disk_gb, least_disk_gb(session, spec.image, spec.offer.region))


def _disk(parts: Parts, kind: str, disk_gb: int) -> dict[str, Any]:
    return {
        "name": f"{parts.stem}-disk",
        "createOption": "FromImage",
        "diskSizeGB": disk_gb,
        "managedDisk": {"storageAccountType": kind},
        "caching": "ReadWrite",
        **GOES,
    }


def _system(parts: Parts, user: str, keys: Keys, data: bytes) -> dict[str, Any]:
    """Nobody gets in but with the key; Azure's own agent would make the user anyway."""
    path = f"/home/{user}/.ssh/authorized_keys"
    return {
        "computerName": parts.stem,
        "adminUsername": user,
        "customData": base64.b64encode(data).decode(),
        "linuxConfiguration": {
            "disablePasswordAuthentication": True,
            "ssh": {"publicKeys": [{"path": path, "keyData": keys.login_public}]},
        },
    }


def _interface(session: Session, parts: Parts) -> dict[str, Any]:
    return {
        "id": id_of(session, parts.group, NIC, parts.name(NIC)),
        "properties": {"primary": True, **GOES},
    }


def _market(spec: LaunchSpec) -> dict[str, Any]:
    on_preempt = on_preempt_of(spec)
    if on_preempt is None:
        return {}
    most = spec.options.max_price_per_hour_usd
    return {
        "priority": "Spot",
        "evictionPolicy": "Delete" if on_preempt is OnPreempt.TERMINATE else "Deallocate",
        "billingProfile": {"maxPrice": ANY_PRICE if most is None else float(most)},
    }


def _make(session: Session, spec: LaunchSpec, known: Launched) -> Body:
    """Everything, step by step; the machine as Azure answers. What is there already is met."""
    parts, region = parts_of(spec), known.region
    tags: Mapping[str, str] = known.request["tags"]
    visitor, there = _make_group(session, spec, parts, tags)
    if there is not None:
        return there
    # The parts have the tags that say whose they are; what may change stands on the machine alone.
    marks = {key: tags[key] for key in (t.OURS, t.NAME, t.TOKEN, t.OWNER, ASKED)}
    host = make_network(
        session,
        parts,
        region,
        marks,
        visitor=visitor,
        dns_label=spec.options.dns_label,
        zone=spec.offer.zone,
    )
    make_interface(session, parts, region, marks, subnet=spec.options.subnet)
    request = {**known.request, "tags": {**tags, t.ADDRESS: host}}
    with mapped(region=region, type=spec.offer.type, what="launch"):
        return _put_machine(session, parts, request)


def _put_machine(session: Session, parts: Parts, request: Body) -> Body:
    """The machine as Azure answers. Where the answer gets lost the call is not sent again: a second one would
    meet the first one's work. Who asks again looks first."""
    from azure.core.exceptions import HttpResponseError

    machines = session.compute.virtual_machines
    try:
        put = begin(machines.begin_create_or_update, parts.group, parts.name(VM), request, retry_read=0)
    except HttpResponseError as error:
        if has_code(error, BUSY) and (found := find_vm(session, id_of(session, parts.group, VM, parts.stem))):
            return found
        raise
    return put.body


def _make_group(
    session: Session, spec: LaunchSpec, parts: Parts, tags: Mapping[str, str]
) -> tuple[str, Body | None]:
    """This computer's address, and the machine if it is there already, as after a launch on another computer
    with the same token. The group is made, or looked for."""
    region = spec.offer.region
    with ThreadPoolExecutor(3, thread_name_prefix="azure") as pool:
        address = pool.submit(my_address, session.settings)
        there: Future[Body | None] | None = None
        if not parts.own_group:
            there = pool.submit(_find, session, region, spec, parts)
            group = pool.submit(_require_group, session, region, parts.group)
        else:
            group = pool.submit(_put_group, session, region, parts.group, tags)
    made, visitor = group.result(), address.result()
    if there is not None:
        return visitor, there.result()
    return visitor, None if made else _find(session, region, spec, parts)


def _put_group(session: Session, region: str, name: str, tags: Mapping[str, str]) -> bool:
    """True where there was none before."""
    status: Callable[..., int] = lambda response, *_: response.http_response.status_code  # noqa: E731
    body = {"location": region, "tags": dict(tags)}
    with mapped(region=region, what="make the resource group"):
        answered = session.resources.resource_groups.create_or_update(name, body, cls=status)
    return bool(answered == 201)


def _require_group(session: Session, region: str, name: str) -> bool:
    with mapped(region=region, what="look for the resource group"):
        found = shown_or_none(session.resources.resource_groups.get, name)
    if found is None:
        raise ProviderError(
            f"there is no resource group {name!r} in this subscription",
            hint="az group list shows what there is; without --resource-group each machine gets its own",
        )
    return False


def _find(session: Session, region: str, spec: LaunchSpec, parts: Parts) -> Body | None:
    with mapped(region=region, type=spec.offer.type, what="launch"):
        return find_vm(session, id_of(session, parts.group, VM, parts.stem))


def _found_again(session: Session, spec: LaunchSpec) -> Body | None:
    """The machine that an earlier try at this launch got. Raises ConnectionLost where Azure does not tell:
    no refusal of now says what came of that."""
    try:
        return _find(session, spec.offer.region, spec, parts_of(spec))
    except ProviderError as error:
        raise _not_known(spec, error) from error


def _not_known(spec: LaunchSpec, error: CloudrunError) -> ConnectionLost:
    return ConnectionLost(
        f"whether Azure launched {spec.name} is not known: {error.message}",
        hint="give the same command again, or run: cloudrun machines list",
    )


def _take_back(session: Session, spec: LaunchSpec, folder: Path) -> None:
    """Azure refused: what was made for the machine goes. What cannot be reached now is found by its tags."""
    with suppress(CloudrunError):
        delete_parts(session, parts_of(spec), region=spec.offer.region)
    shutil.rmtree(folder, ignore_errors=True)


def _keep(session: Session, spec: LaunchSpec, folder: Path, known: Launched, vm: Body) -> Machine:
    """The answer as a machine, kept in the request's place. Raises where Azure has failed to make it."""
    machine = as_asked(machine_of(session.settings, vm), spec)
    refuse_failed(session, vm, machine)
    if right := let_it_release_itself(session, vm):
        machine = replace(machine, detail=(*machine.detail, (SELF_RELEASE, right)))
    replace(known, request={}, machines=(machine,)).save(folder)
    return machine


def _clear_name(session: Session, folder: Path, known: Launched, name: str) -> None:
    """Another launch has used this name. Its keys go, unless they open a machine that is still there."""
    interfaces = known.request.get("properties", {}).get("networkProfile", {}).get("networkInterfaces", ())
    ids = [machine.id for machine in known.machines] or [
        id_of(session, parts_of_id(each["id"]).group, VM, stem_of(known.token)) for each in interfaces
    ]
    with mapped(region=known.region, what="launch"):
        if any(find_vm(session, each) for each in ids):
            raise ProviderError(
                f"a machine named {name} is there already, in {known.region}",
                hint=f"choose another name, or run: cloudrun machines adopt && cloudrun terminate {name}",
            )
    shutil.rmtree(folder, ignore_errors=True)
