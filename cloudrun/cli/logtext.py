"""A job's log as text that cannot steer the terminal: control sequences are dropped, bad UTF-8 is replaced.

Newline, tab and carriage return stay (progress bars use the last). Everything else of C0, C1
and DEL goes, whole escape sequences at once, also when a chunk border cuts them.
ECMA-48 names the forms: CSI, and the strings DCS, SOS, OSC, PM, APC, which end at ST or (xterm) BEL.
A string that never ends hides at most the rest of its line.
"""

from __future__ import annotations

import codecs
import re

HELD_MOST = 4096  # characters of an unfinished sequence that are waited for; longer is no sequence

_CSI = r"(?:\x1b\[|\x9b)[0-?]*[ -/]*"
_STRING = r"(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x18\x1a\x1b\x9c\n]*"
_ESCAPE = r"\x1b[ -/]*"
_CONTROL = re.compile(
    rf"{_CSI}[@-~]|{_STRING}(?:\x07|\x1b\\|\x9c|[\x18\x1a]|(?=\n)|(?=\x1b))|{_ESCAPE}[0-~]"
    r"|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"
)
_UNFINISHED = re.compile(rf"(?:{_CSI}|{_STRING}\x1b?|{_ESCAPE})\Z")


class LogText:
    """One log's decoder: feed it bytes in order, show what it returns."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""

    def feed(self, data: bytes) -> str:
        """The text that is safe to show so far."""
        return self._clean(self._decoder.decode(data), end=False)

    def close(self) -> str:
        """What was held back for a sequence that never ended."""
        return self._clean(self._decoder.decode(b"", final=True), end=True)

    def _clean(self, text: str, *, end: bool) -> str:
        text = self._held + text
        self._held = ""
        if not end and (found := _UNFINISHED.search(text, max(0, len(text) - HELD_MOST))):
            self._held = text[found.start() :]
            text = text[: found.start()]
        return _CONTROL.sub("", text)
