"""Guess which word was meant, for the hints of errors."""

from __future__ import annotations

from collections.abc import Iterable


def nearest(word: str, known: Iterable[str], *, most: int = 20) -> str:
    """'did you mean x?' for the nearest known words, or the list of at most `most` when none is near."""
    from difflib import get_close_matches  # on use: only errors need it

    names = list(known)
    by_fold = {name.casefold(): name for name in names}
    near = [by_fold[name] for name in get_close_matches(word.casefold(), by_fold, n=3, cutoff=0.6)]
    if near:
        return f"did you mean {' or '.join(near)}?"
    listed = names[:most]
    return f"known: {', '.join(listed)}{' ...' if len(names) > most else ''}" if listed else ""
