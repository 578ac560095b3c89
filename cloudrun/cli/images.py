"""images: the stacks that machines are made ready with, and disks on which they stand already."""

from __future__ import annotations

from cloudrun.cli.lazy import Entry, LazyGroup

_HERE = "cloudrun.cli.images_stacks"
_OWN = "cloudrun.cli.images_bake"

images = LazyGroup(
    "images",
    help="Show stacks, check them before paying, bake them.\n\n"
    "A stack pins what a job stands on: driver, CUDA, cuDNN, Python, frameworks and tuning. A job lists the "
    "ones that it accepts, and --stack names one, or a TOML file of your own. An image of your own is a disk "
    "with a stack on it: launches begin with it and skip the steps.",
    sections={
        "Commands": (
            Entry("list", f"{_HERE}:list_images", "List the stacks, and images of your own."),
            Entry("show", f"{_HERE}:show", "Show all that a stack pins, and where the facts come from."),
            Entry("check", f"{_HERE}:check", "Say whether a stack and a machine go together."),
            Entry("bake", f"{_OWN}:bake", "Keep a provisioned machine's disk as an image."),
            Entry("delete", f"{_OWN}:delete", "Delete images of your own, and what is stored for them."),
        )
    },
    examples=(
        "cloudrun images list",
        "cloudrun images show cuda8-theano",
        "cloudrun images check cuda12-torch p2.xlarge",
        "cloudrun images bake cuda8-theano --on p2.xlarge --spot",
    ),
)
