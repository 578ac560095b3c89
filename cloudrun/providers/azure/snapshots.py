"""Images of one's own: the disk of a machine, kept as a managed image in the machine's region.

Azure makes one of a machine that is deallocated and declared generalized, which ends that machine: nobody
starts it again ("Remove machine specific information by generalizing a VM", 2026). No step is waited for:
each look takes the next one, so whoever repeats it after a kill goes on. Tags on the machine say which image
it becomes; they are the image's own later.

Images lie in a group beside those of the machines, "cloudrun-images-REGION", which no termination touches, or
in the group of the user's in which the machine lies. A generation 2 machine that the subscription makes with
trusted launch cannot be kept so ("Capture a managed image": those need a gallery), and is refused at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from cloudrun.errors import ImageNotFound, Refused
from cloudrun.images import ImageState, OwnImage
from cloudrun.models import Machine, Offer
from cloudrun.providers import tags as t
from cloudrun.providers.answers import forget, kept, side_by_side
from cloudrun.providers.azure import power
from cloudrun.providers.azure.arm import Body, begin, id_of, shown_or_none, state_of
from cloudrun.providers.azure.ending import GOING
from cloudrun.providers.azure.errors import mapped
from cloudrun.providers.azure.instances import PROVIDER, find_vm, machine_of
from cloudrun.providers.azure.leftovers import SNAPSHOT_ROW, list_price
from cloudrun.providers.azure.parts import ASKED, IMAGE, OWN_GROUP, Parts, canonical, parts_of_id
from cloudrun.providers.azure.session import Session
from cloudrun.providers.azure.skus import generations
from cloudrun.providers.rented import image_told_by

GROUP = OWN_GROUP + "images-"  # and the region
ANSWER, AGE = "own-images", timedelta(minutes=5)  # what own_image keeps of a list
SOURCE = "source"  # fact: the machine that it is made of
STATES = {"Succeeded": ImageState.AVAILABLE, "Failed": ImageState.FAILED, "Canceled": ImageState.FAILED}
TAGS = tuple(t.image_tags("", "", "", owner="", stored_gb=0))  # keys
MARKS = tuple(key for key in TAGS if key not in (t.OURS, t.OWNER, t.STACK))  # that no other machine has
NO_IMAGE_OF = ("TrustedLaunch", "ConfidentialVM")  # security types


def create_image(session: Session, machine: Machine, name: str, tags: Mapping[str, str]) -> OwnImage:
    """Mark the machine as that image to be, and have it deallocated; describe_image takes the other steps.
    Idempotent by name. Raises NotFound when the machine is gone, Refused where Azure makes no image of it.
    """
    parts = parts_of_id(machine.id)
    group = GROUP + machine.region if parts.own_group else parts.group
    place = canonical(id_of(session, group, IMAGE, name), IMAGE)
    with mapped(region=machine.region, what="make an image"):
        there = _find(session, place)
        if there is not None:
            return _image_of(there)
        seen = power.look(session, machine)
        _refuse_secured(machine, seen.body)
        power.change_tags(session, machine, seen, {**tags, power.OFF: "1"})
        return _take_step(session, place, {**seen.body, "tags": {**seen.tags, **tags}})


def describe_image(session: Session, image: OwnImage) -> OwnImage:
    """As it is now; takes the step that is due. One of which Azure knows nothing is FAILED."""
    with mapped(region=image.region, what=f"make the image {image.name}"):
        found = _find(session, image.id)
        if found is None:
            vm = _source(session, image) if image.state is ImageState.PENDING else None
            if vm is None:
                return replace(image, state=ImageState.FAILED, why=image.why or "Azure knows no such image")
            return _take_step(session, image.id, vm)
    seen = _image_of(found)
    if seen.state is not image.state:
        forget(session, ANSWER)
    return seen


def list_images(session: Session) -> list[OwnImage]:
    """Every one of ours in the subscription, and machines that are to become one: two calls."""
    compute = session.compute
    with mapped(region="", what="list images"):
        images, vms = side_by_side(
            lambda ask: [each.as_dict() for each in ask() if _is_image(each.as_dict())],
            [compute.images.list, compute.virtual_machines.list_all],
        )
    made = [_image_of(each) for each in images]
    known = {each.id for each in made}
    coming = [_pending(_id_for(session, each), each) for each in vms]
    every = [*made, *(each for each in coming if each.id not in known)]
    return sorted(every, key=lambda each: each.created_at or datetime.max.replace(tzinfo=UTC))


def delete_image(session: Session, image: OwnImage) -> None:
    """Have it deleted and return at once; its machine says no more that it becomes it. Idempotent."""
    from azure.core.exceptions import ResourceNotFoundError

    place = parts_of_id(image.id)
    with mapped(region=image.region, what=f"delete the image {image.name}"):
        vm = _source(session, image)
        if vm is not None:
            machine, marks = machine_of(session.settings, vm), dict.fromkeys(MARKS, "")
            power.change_tags(session, machine, power.look_at(vm), marks)
        with suppress(ResourceNotFoundError):
            begin(session.compute.images.begin_delete, place.group, place.stem)
    forget(session, ANSWER)


def own_image(session: Session, stack_hash: str, offer: Offer) -> str:
    """The id of the newest one for the offer, "" where there is none. The list is asked for once in five
    minutes."""

    def ask() -> list[dict[str, str]]:
        ready = [each for each in list_images(session) if each.state is ImageState.AVAILABLE]
        return [
            {"id": each.id, "region": each.region, "hash": each.stack_hash, "kind": each.kind}
            for each in ready
        ]

    rows = kept(session, ANSWER, AGE, ask).value
    wanted = [each for each in rows if (each["region"], each["hash"]) == (offer.region, stack_hash)]
    if not wanted:
        return ""
    boots = generations(session, offer.type, offer.region)
    return next((str(each["id"]) for each in reversed(wanted) if each["kind"] in boots), "")


def least_disk_gb(session: Session, image: str, region: str) -> int:
    """The size of the disk that an image of ours holds: no smaller one boots from it. Raises ImageNotFound
    where it is gone."""
    with mapped(region=region, what="look at the image"):
        found = _find(session, image)
    if found is None or _image_of(found).state is not ImageState.AVAILABLE:
        forget(session, ANSWER)
        raise ImageNotFound(
            f"the image {parts_of_id(image).stem} is not there (any more)",
            hint="try again: without it the stack is installed as on any machine",
        )
    return _image_of(found).size_gb


def _take_step(session: Session, id: str, vm: Body) -> OwnImage:
    """Deallocate the machine; once it is, have the image made of it."""
    now = power.look_at(vm).power
    if now == power.DEALLOCATED:
        _make(session, parts_of_id(id), vm)
    elif now != power.DEALLOCATING:
        power.deallocate(session, machine_of(session.settings, vm))
    return _pending(id, vm)


def _make(session: Session, place: Parts, vm: Body) -> None:
    """Declare the machine generalized, which it may be already, and ask for the image."""
    source, region = parts_of_id(str(vm["id"])), str(vm["location"])
    tags: Mapping[str, str] = vm["tags"]
    session.compute.virtual_machines.generalize(source.group, source.stem)
    if place.group.startswith(GROUP):
        session.resources.resource_groups.create_or_update(place.group, {"location": region})
    body: dict[str, Any] = {
        "location": region,
        "tags": {**{key: tags[key] for key in TAGS if key in tags}, ASKED: datetime.now(UTC).isoformat()},
        "properties": {
            "sourceVirtualMachine": {"id": vm["id"]},
            "hyperVGeneration": vm["properties"]["instanceView"]["hyperVGeneration"],
        },
    }
    begin(session.compute.images.begin_create_or_update, place.group, tags[t.IMAGE], body)


def _refuse_secured(machine: Machine, vm: Body) -> None:
    kind = (vm["properties"].get("securityProfile") or {}).get("securityType", "")
    if kind in NO_IMAGE_OF:
        raise Refused(
            f"{machine.name} is a machine with {kind}, and Azure makes no managed image of those",
            hint="bake on a size that boots generation 1, or have the subscription leave trusted launch out",
        )


def _find(session: Session, id: str) -> Body | None:
    place = parts_of_id(id)
    return shown_or_none(session.compute.images.get, place.group, place.stem)


def _source(session: Session, image: OwnImage) -> Body | None:
    """The machine that becomes or became the image, as it is now; None where there is none that says so."""
    place = dict(image.detail).get(SOURCE, "")
    vm = find_vm(session, place) if place else None
    if vm is None or state_of(vm) == GOING or not _is_image(vm):
        return None
    return vm if _id_for(session, vm) == image.id else None


def _id_for(session: Session, vm: Body) -> str:
    """The id of the image that a marked machine becomes."""
    parts = parts_of_id(canonical(str(vm["id"])))
    group = GROUP + str(vm["location"]) if parts.own_group else parts.group
    return canonical(id_of(session, group, IMAGE, str(vm["tags"][t.IMAGE])), IMAGE)


def _image_of(body: Body) -> OwnImage:
    """An image as Azure shows it. Of one that failed it does not show why."""
    tags: Mapping[str, str] = body.get("tags") or {}
    properties = body["properties"]
    state = STATES.get(state_of(body), ImageState.PENDING)
    source = str((properties.get("sourceVirtualMachine") or {}).get("id", ""))
    gone = state_of(body) == GOING
    why = "it is being deleted" if gone else "Azure could not make it" if state is ImageState.FAILED else ""
    return OwnImage(
        provider=PROVIDER,
        region=str(body["location"]),
        id=canonical(str(body["id"]), IMAGE),
        name=tags.get(t.IMAGE, str(body["name"])),
        state=ImageState.FAILED if gone else state,
        created_at=t.time_of(tags.get(ASKED, "")),
        why=why,
        kind=str(properties.get("hyperVGeneration", "V1")),
        detail=((SOURCE, source),),
        **image_told_by(tags, _size_gb(properties), list_price(SNAPSHOT_ROW)),
    )


def _pending(id: str, vm: Body) -> OwnImage:
    """What a marked machine is to become."""
    tags: Mapping[str, str] = vm["tags"]
    return OwnImage(
        provider=PROVIDER,
        region=str(vm["location"]),
        id=id,
        name=tags[t.IMAGE],
        state=ImageState.PENDING,
        detail=((SOURCE, canonical(str(vm["id"]))),),
        **image_told_by(tags, _size_gb(vm["properties"]), list_price(SNAPSHOT_ROW)),
    )


def _size_gb(properties: Mapping[str, Any]) -> int:
    disk = (properties.get("storageProfile") or {}).get("osDisk") or {}
    return int(disk.get("diskSizeGB") or 0)


def _is_image(each: Body) -> bool:
    """Whether it is an image of ours that is not being deleted, or a machine that is to become one."""
    tags: Mapping[str, str] = each.get("tags") or {}
    return tags.get(t.OURS) == "1" and t.IMAGE in tags and state_of(each) != GOING
