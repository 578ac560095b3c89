"""images: the stacks that machines are made ready with."""

from __future__ import annotations

from cloudrun.cli.lazy import Entry, LazyGroup

_HERE = "cloudrun.cli.images_stacks"

images = LazyGroup(
    "images",
    help="Show stacks, and check them before paying.\n\n"
    "A stack pins what a job stands on: driver, CUDA, cuDNN, Python, frameworks and tuning. A job lists the "
    "ones that it accepts, and --stack names one, or a TOML file of your own.",
    sections={
        "Commands": (
            Entry("list", f"{_HERE}:list_images", "List the stacks and the GPUs that they drive."),
            Entry("show", f"{_HERE}:show", "Show all that a stack pins, and where the facts come from."),
            Entry("check", f"{_HERE}:check", "Say whether a stack and a machine go together."),
        )
    },
    examples=(
        "cloudrun images list",
        "cloudrun images show cuda8-theano",
        "cloudrun images check cuda12-torch p2.xlarge",
    ),
)
