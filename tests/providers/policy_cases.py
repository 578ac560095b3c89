"""Rights as a cloud's owner grants them, played part by part: with all of them, and without each one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from cloudrun.errors import CloudrunError

# A part of what the provider does returns what came of it, which is the same every time.
Part = Callable[[Any], object]


class Stage(Protocol):
    """An account at a double, where parts are played one after the other."""

    def grant(self, actions: list[str]) -> None:
        """These are all the rights that count where a part has its rights checked."""

    def clear(self) -> None:
        """Nothing is left of the part that was played last."""

    def used(self) -> frozenset[str]:
        """The rights that it used, as the policy names them."""

    def refused(self) -> frozenset[str]:
        """Those of them that it lacked."""


@dataclass(frozen=True)
class Played:
    """What came of a part, which error of ours ended it, and which rights were used and refused."""

    outcome: object
    error: str
    used: frozenset[str]
    refused: frozenset[str]


def play(stage: Stage, part: Part) -> Played:
    outcome, error = None, ""
    try:
        outcome = part(stage)
    except CloudrunError as caught:
        error = f"{type(caught).__name__}: {caught.message}"
    finally:
        stage.clear()
    return Played(outcome, error, stage.used(), stage.refused())


def play_all(stage: Stage, parts: Iterable[Part], actions: list[str]) -> dict[Part, Played]:
    """Every part, with just these rights."""
    stage.grant(actions)
    return {part: play(stage, part) for part in parts}


def outcomes_of(whole: Mapping[Part, Played]) -> dict[str, object]:
    """By name, once nothing went wrong."""
    assert {part.__name__: played.error for part, played in whole.items() if played.error} == {}
    assert {part.__name__: played.refused for part, played in whole.items() if played.refused} == {}
    return {part.__name__: played.outcome for part, played in whole.items()}


def used_by(whole: Mapping[Part, Played]) -> list[str]:
    """All rights that the parts used together."""
    return sorted(frozenset().union(*(played.used for played in whole.values())))


def broken_without(stage: Stage, whole: Mapping[Part, Played], action: str) -> Iterator[str]:
    """What each part that breaks without that one right says: "" for one that goes on and ends otherwise."""
    stage.grant([each for each in used_by(whole) if each != action])
    for part, before in whole.items():
        if action not in before.used:
            continue
        played = play(stage, part)
        if action in played.refused and (played.error or played.outcome != before.outcome):
            yield played.error
