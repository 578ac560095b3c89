"""What a cloud refuses, in our words: one table of codes a cloud, and how a code becomes an error of ours.

Each provider has its own kinds and rows; the rows of catalog/errors.csv are read by the same lines.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from cloudrun.errors import CloudrunError

LONGEST_WORDS = 300  # characters of a cloud's own message that are worth a terminal's lines


@dataclass(frozen=True, slots=True)
class Kind:
    """What errors of one kind become. hint "" leaves it to the code's own row."""

    error: type[CloudrunError]
    hint: str = ""
    quotes: bool = True  # the cloud's own message holds facts that ours has not


@dataclass(frozen=True, slots=True)
class Row:
    """One code in plain words."""

    kind: str
    meaning: str
    hint: str = ""


def rows_of(table: Iterable[Mapping[str, str]], providers: Collection[str]) -> dict[str, Row]:
    """The codes of these providers in errors.csv. A row's "same" stands for what the row above it says."""
    rows: dict[str, Row] = {}
    hint = ""
    for row in table:
        if row["provider"] in providers:
            hint = hint if row["what_to_do"] == "same" else row["what_to_do"]
            rows[row["code"]] = Row(row["kind"], row["meaning"], hint)
    return rows


def place(cloud: str, *, region: str, type: str = "", what: str = "") -> str:
    """What was tried and where, the beginning of every message: "launch p2.xlarge in us-east-1"."""
    return " ".join(filter(None, (what or cloud, type, region and f"in {region}")))


def shortened(words: str) -> str:
    words = words.strip()
    return words if len(words) <= LONGEST_WORDS else words[: LONGEST_WORDS - 3] + "..."
