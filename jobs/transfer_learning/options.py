"""What train.py can be told, and the named presets of it."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass

import sets
from lite0 import Lite0
from nets import NETS
from shared import arguments

HOWS = {
    "scratch": "nothing is given: He initialisation, all layers train",
    "features": "pretrained layers, their answers computed once; only the head trains",
    "frozen": "pretrained layers run at every step, without a backward pass; only the head trains",
    "finetune": "pretrained, all layers train, the earlier the slower",
}
BUILDERS = {**NETS, "lite0": Lite0}
PRESETS: arguments.Presets = {
    # Proves the whole way in seconds, with nothing fetched.
    "smoke": {"dataset": "shapes", "arms": "scratch:small@32", "limit": 300, "batch": 32, "epochs": 2,
              "lr": "0.003"},
    # Learning-rate finder, frozen against scratch, pictures: some minutes on two CPU cores.
    "quick": {"arms": "features,frozen,scratch,scratch:small@48", "limit": 1000, "epochs": 8},
    # When does a frozen backbone beat training from scratch? The table of README.md.
    "study": {"dataset": "emoji", "arms": "features,scratch:small@32", "sizes": "50,100,300,1000,0",
              "seeds": 5, "epochs": 10, "least_steps": 300},
    # A score predicted from pictures, split by year, as with the photographs of horses.
    "score": {"dataset": "sizes", "arms": "features,scratch:small@32", "seeds": 3, "epochs": 12},
    # AlexNet at 128 pixels as in 2017: conv1-5 from a file and frozen, then all layers. --weights FILE.
    "alexnet": {"dataset": "sizes", "arms": "frozen:alexnet@128,finetune:alexnet@128", "epochs": 30,
                "lr": "0.0001"},
    # Dogs and cats: ResNet-34 at 224 pixels, 3 epochs. --weights FILE --images FOLDER.
    "paper": {"arms": "finetune:resnet34@224", "epochs": 3, "unfreeze_every": 1},
}  # fmt: skip


@dataclass(frozen=True)
class Arm:
    """One way to train one network at one size of image, written HOW:NET@SIDE."""

    how: str
    net: str
    side: int

    def __str__(self) -> str:
        return f"{self.how}:{self.net}@{self.side}"

    @property
    def pretrained(self) -> bool:
        return self.how != "scratch"


def parse_arms(text: str, net: str, side: int) -> list[Arm]:
    """Arms from their words; NET and SIDE default to --net and --side. Raises ValueError."""
    arms = []
    for word in text.split(","):
        match = re.fullmatch(r"(\w+)(?::(\w+))?(?:@(\d+))?", word.strip())
        if not match or match[1] not in HOWS or (match[2] or net) not in BUILDERS:
            raise ValueError(f"{word!r} is not HOW:NET@SIDE with HOW of {', '.join(HOWS)} and NET of "
                             f"{', '.join(BUILDERS)}")  # fmt: skip
        arm = Arm(match[1], match[2] or net, int(match[3] or side))
        if not 16 <= arm.side <= 1024:
            raise ValueError(f"{word!r}: images of {arm.side} pixels, expected 16 to 1024")
        arms.append(arm)
    if len(set(arms)) < len(arms):
        raise ValueError(f"{text!r} names an arm twice")
    return arms


def parse(argv: list[str] | None, text: str) -> argparse.Namespace:
    """The settings of a run; argv None: of this program. Ends it with 2 where they make no sense."""
    parser = arguments.begin(text, PRESETS)
    data = parser.add_argument_group("images").add_argument
    data("--dataset", choices=sets.NAMES, default="auto", help="auto: emoji if they can be had, else shapes")
    data("--images", default="", help="a folder of yours, or a name of --data: "
        "class folders, or labels.csv with file,target")  # fmt: skip
    data("--split-column", default="", help="column of labels.csv to split by, e.g. year")
    data("--split-value", default="", help="its value for validation and test; all others are for training")
    data("--test-column", default="", help="column that marks those for test; else half of them by chance")
    data("--limit", type=int, default=0, help="use at most so many images for training (0: all)")
    data("--augment", default="flips,contrast", help="of flips, contrast, shifts; or none")
    arm = parser.add_argument_group("what is trained").add_argument
    arm("--arms", default="frozen,scratch", help="HOW:NET@SIDE, several with commas; HOW is "
        + "; ".join(f"{how} ({what})" for how, what in HOWS.items()))  # fmt: skip
    arm("--net", choices=sorted(BUILDERS), default="lite0", help="of arms that name none")
    arm("--side", type=int, default=96, help="pixels of an image's side, of arms that name none")
    arm("--weights", default="auto", help="a file; auto: lite0's package; none: start from scratch")
    arm("--sizes", default="0", help="how many training images, several with commas (0: all)")
    arm("--seeds", type=int, default=1, help="repeat everything with so many seeds")
    arm("--seed", type=int, default=0, help="the first of them")
    train = parser.add_argument_group("how it is trained").add_argument
    train("--epochs", type=int, default=10)
    train("--least-steps", type=int, default=0, help="more epochs where they would be fewer steps than this")
    train("--batch", type=int, default=64, help="images a step, at most a quarter of the training set")
    train("--lr", default="auto", help="AdamW's highest rate; auto: each arm's from its learning-rate finder")
    train("--weight-decay", type=float, default=0.01)
    train("--rate-decay", type=float, default=2.6,
        help="finetune: each stage learns so much slower than the next")  # fmt: skip
    train("--unfreeze-every", type=int, default=0,
        help="finetune: one stage more after so many epochs (0: all)")  # fmt: skip
    train("--target-scale", type=float, default=10.0, help="a score is multiplied by this for training")
    parser.add_argument("--precision", choices=["auto", "float32", "bfloat16"], default="auto",
        help="auto: bfloat16 on GPUs that have it")  # fmt: skip
    args = arguments.parse(parser, PRESETS, argv, minutes=5.0, what="the first arm's network")
    try:
        parse_arms(args.arms, args.net, args.side)
        parse_sizes(args.sizes)
        parse_rate(args.lr)
        parse_augment(args.augment)
    except ValueError as error:
        parser.error(str(error))
    if bool(args.split_column) != bool(args.split_value):
        parser.error("--split-column and --split-value belong together")
    return args


def parse_rate(text: str) -> float:
    """Above 0, or 0.0 for "auto"."""
    rate = 0.0 if text == "auto" else float(text)
    if text != "auto" and not 0 < rate < 100:
        raise ValueError(f"--lr {text} is not between 0 and 100")
    return rate


def parse_sizes(text: str) -> list[int]:
    sizes = [int(word) for word in text.split(",")]
    if min(sizes) < 0:
        raise ValueError(f"--sizes {text}: a size is below 0")
    return sizes


def parse_augment(text: str) -> frozenset[str]:
    words = frozenset(word.strip() for word in text.split(",")) - {"none"}
    unknown = words - {"flips", "contrast", "shifts"}
    if unknown:
        raise ValueError(
            f"--augment {text}: {', '.join(sorted(unknown))} is not one of flips, contrast, shifts"
        )
    return words
