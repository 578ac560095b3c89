"""Names and ids: making run ids, numbering machine names, listing what an unclear prefix may mean."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

RUN_ID_ALPHABET = "23456789abcdefghjkmnpqrstvwxyz"  # no 0/o, 1/i/l, u/v: ids are read aloud and typed
RUN_ID_LENGTH = 8  # 30^8 = 6.6e11: among 100,000 runs a new id is taken once in 6.6 million times
SHOWN_CANDIDATES = 5


def new_run_id() -> str:
    """A random run id. The store refuses the one that is taken already."""
    return "".join(RUN_ID_ALPHABET[_below(len(RUN_ID_ALPHABET))] for _ in range(RUN_ID_LENGTH))


def is_run_id(text: str) -> bool:
    """Whether it looks like one of ours."""
    return len(text) == RUN_ID_LENGTH and set(text) <= {*RUN_ID_ALPHABET}


def numbered(base: str, taken: Iterable[str]) -> str:
    """The first of base, base-2, base-3, ... that is not taken."""
    known = set(taken)
    name, number = base, 1
    while name in known:
        number += 1
        name = f"{base}-{number}"
    return name


def shortened(candidates: Sequence[str]) -> str:
    """The first few candidates of an ambiguous prefix, and how many more there are."""
    more = len(candidates) - SHOWN_CANDIDATES
    listed = ", ".join(candidates[:SHOWN_CANDIDATES])
    return f"{listed} and {more} more" if more > 0 else listed


def _below(limit: int) -> int:
    """An even random number below limit (at most 256) from the system; `secrets` costs start-up time."""
    while True:
        byte = os.urandom(1)[0]
        if byte < 256 - 256 % limit:
            return byte % limit
