"""Whether `cloudrun status` stays fast with a long past: 100 stored runs against 100,000."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

from measure import (
    CLOUDRUN,
    Goal,
    Report,
    arguments,
    child,
    child_environment,
    compile_everything,
    in_turn,
    show,
)
from stored import fill

FEW, MANY = 100, 100_000
COMMANDS = (("status", "--json"), ("status",))


def main() -> None:
    parser = arguments(__doc__ or "", rounds=9)
    parser.add_argument("--runs", type=int, default=MANY, help=f"runs of the long past ({MANY})")
    options = parser.parse_args()
    compile_everything()
    with tempfile.TemporaryDirectory() as folder:
        few, many = Path(folder, "few"), Path(folder, "many")
        fill(few, FEW)
        fill(many, options.runs)
        clock = Report("status with a short and a long past: on the clock", "s")
        cpu = Report("the same: CPU time", "s")
        homes = {FEW: few, options.runs: many}
        cases = {
            name(words, count): partial(child, [CLOUDRUN, *words], env=child_environment(home))
            for words in COMMANDS
            for count, home in homes.items()
        }
        for case, samples in in_turn(cases, options.rounds).items():
            clock.add(case, [sample.wall_s for sample in samples])
            cpu.add(case, [sample.cpu_s for sample in samples])
    for report in (clock, cpu):
        report.goals = [Goal(name(words, options.runs), name(words, FEW), 5) for words in COMMANDS]
    show([clock, cpu], as_json=options.json)


def name(words: tuple[str, ...], count: int) -> str:
    return f"cloudrun {' '.join(words)}, {count:,} runs"


if __name__ == "__main__":
    main()
