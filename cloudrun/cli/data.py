"""data: the group of commands about datasets."""

from __future__ import annotations

from cloudrun.cli.lazy import Entry, LazyGroup

data = LazyGroup(
    "data",
    help="Keep data for runs: folders, and what runs wrote.\n\n"
    "A dataset is kept by content: the same file is kept once, and travels to a machine once. "
    "`cloudrun submit JOB --data NAME` gives it to a run, which finds it at $CLOUDRUN_DATA_DIR/NAME.",
    sections={
        "Add": (
            Entry("init", "cloudrun.cli.data_add:init", "Tie a folder to a dataset's name."),
            Entry("upload", "cloudrun.cli.data_add:upload", "Keep what a folder holds as a new version."),
            Entry("add", "cloudrun.cli.data_add:add", "Make a version of a run's outputs, or of an address."),
        ),
        "Look and get": (
            Entry("list", "cloudrun.cli.data_look:list_all", "Show datasets, their versions and their runs."),
            Entry("files", "cloudrun.cli.data_look:files", "Show the files of a dataset."),
            Entry("get", "cloudrun.cli.data_look:get", "Write a dataset, or a part of it, into a folder."),
            Entry("delete", "cloudrun.cli.data_look:delete", "Delete a dataset, or one version of it."),
        ),
    },
    examples=(
        "cloudrun data upload ./images --name horses",
        "cloudrun submit jobs/transfer_learning --data horses --preset smoke",
    ),
)
