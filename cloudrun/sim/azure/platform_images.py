"""Images of the marketplace: those that the catalogue names, and two of Microsoft's own recordings.

Their disks' sizes are what the publishers give them: 30 GB for Ubuntu, 127 for Windows; 64 GB stands for the
larger ones, which the catalogue has no number for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from cloudrun.catalog.loader import read_csv
from cloudrun.sim.azure.routes import Route
from cloudrun.sim.azure.wire import ApiError, Body, Reply, Request

_URN = re.compile(r"([\w.-]+):([\w.-]+):([\w.-]+):([\w.-]+)")
_BUILD = "202609010"  # stands where a version has its date
_RECORDED = (
    "MicrosoftWindowsServer:WindowsServer:2016-Datacenter:14393.4283.2103051830",
    "Canonical:UbuntuServer:16.04.0-LTS:16.04.201906280",
)
_PLACE = (
    "/subscriptions/{subscription}/providers/Microsoft.Compute/locations/{location}/publishers/{publisher}"
    "/artifacttypes/vmimage/offers/{offer}/skus/{sku}/versions"
)


@dataclass(frozen=True, slots=True)
class PlatformImage:
    """One version of an image."""

    publisher: str
    offer: str
    sku: str
    version: str

    @property
    def generation(self) -> str:
        """Of Hyper-V. Ubuntu 24.04's `server` and the HPC images of today are of the second."""
        second = "gen2" in self.sku or self.offer in ("ubuntu-24_04-lts", "ubuntu-hpc")
        return "V2" if second else "V1"

    @property
    def windows(self) -> bool:
        return "Windows" in self.publisher

    @property
    def arm(self) -> bool:
        return "arm64" in self.sku

    @property
    def disk_gb(self) -> int:
        if self.windows:
            return 127
        return 30 if self.publisher == "Canonical" else 64


def find_image(reference: Body) -> PlatformImage:
    """The image that a machine is made from. Raises ApiError where there is none."""
    publisher, offer, sku, version = (
        str(reference.get(part, "")) for part in ("publisher", "offer", "sku", "version")
    )
    found = _images().get((publisher.lower(), offer.lower(), sku.lower()))
    if found is None or version.lower() not in ("latest", found.version.lower()):
        raise ApiError(
            "PlatformImageNotFound",
            f"The platform image '{publisher}:{offer}:{sku}:{version}' is not available. Verify that all "
            "fields "
            "in the storage profile are correct.",
            404,
        )
    return found


class PlatformImages:
    """Handlers of the calls about them."""

    def routes(self) -> list[Route]:
        right = "Microsoft.Compute/locations/publishers/artifacttypes/offers/skus/versions/read"
        return [
            Route("GET", _PLACE, right, self._list),
            Route("GET", f"{_PLACE}/{{version}}", right, self._get),
        ]

    def _list(self, request: Request) -> Reply:
        found = find_image({**request.params, "version": "latest"})
        return Reply(200, [_show(request, found)])

    def _get(self, request: Request) -> Reply:
        found = find_image(request.params)
        properties: Body = {
            "osDiskImage": {
                "operatingSystem": "Windows" if found.windows else "Linux",
                "sizeInGb": found.disk_gb,
            },
            "dataDiskImages": [],
            "hyperVGeneration": found.generation,
            "architecture": "Arm64" if found.arm else "x64",
        }
        return Reply(200, {**_show(request, found), "properties": properties})


def _show(request: Request, image: PlatformImage) -> Body:
    path = request.path.partition("/versions")[0]
    return {
        "location": request.params["location"],
        "name": image.version,
        "id": f"{path}/versions/{image.version}",
    }


@cache
def _images() -> dict[tuple[str, str, str], PlatformImage]:
    urns = [*_RECORDED]
    for row in read_csv("images.csv"):
        if row["provider"] == "azure":
            urns += [match[0] for match in _URN.finditer(row["urn_or_id"])]
    return {
        (image.publisher.lower(), image.offer.lower(), image.sku.lower()): image
        for image in map(_image, reversed(urns))
    }


def _image(urn: str) -> PlatformImage:
    publisher, offer, sku, version = urn.split(":")
    if version == "latest":
        release = re.search(r"(\d\d)[._]?(\d\d)", f"{sku} {offer}")
        version = f"{release[1]}.{release[2]}.{_BUILD}" if release else f"1.0.{_BUILD}"
    return PlatformImage(publisher, offer, sku, version)
