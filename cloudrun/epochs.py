"""Cut what a training printed down to its first and last epoch; everything else stays, letter for letter.

An epoch begins with a line `Epoch 3/50` (Keras), `epoch 3: loss 0.5`, `Epoch [3/50], Loss: 0.5`, or is a row
of a printed or HTML table whose first column is "epoch" (chainer's PrintReport, fastai). A number that does
not rise begins another training. Progress bars in the epochs that stay are kept as they ended, without the
states that they overwrote.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import unescape

_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_COLOURS = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_OVERWRITES = re.compile(r"[\r\x08]+")
_EPOCH = re.compile(r"^\W{0,4}epochs?\s*[:#=]?\s*[\[(]?\s*(\d+)(\s*/\s*\d+)?(.*)$", re.IGNORECASE | re.DOTALL)
_TABLE_HEAD = re.compile(r"^\s*epoch(?:\s+[A-Za-z_][\w/.()-]*)+\s*$", re.IGNORECASE)
_TABLE_ROW = re.compile(r"^\s*(\d+)(?:\s+(?:[-+\d.:e]+|nan|inf))+\s*$", re.IGNORECASE)
_MEASURE = re.compile(r"\d\.\d|\d\s*%|\d\s*/\s*\d|\bnan\b")
_BAR = re.compile(r"\d\s*/\s*\d|\d%")
_HTML_TABLE = re.compile(r"<table\b.*?</table\s*>", re.IGNORECASE | re.DOTALL)
_HTML_ROW = re.compile(r"\s*<tr\b[^>]*>.*?</tr\s*>", re.IGNORECASE | re.DOTALL)
_HTML_CELL = re.compile(r"<t[hd]\b[^>]*>(.*?)</t[hd]\s*>", re.IGNORECASE | re.DOTALL)
_HTML_TAG = re.compile(r"<[^>]*>")
_HTML_PRE = re.compile(r"(?<=>)[^<>]*(?=</pre\s*>)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Cut:
    """What was left out: epochs, and states of progress bars that other states overwrote."""

    epochs: int = 0
    bars: int = 0

    def __add__(self, other: Cut) -> Cut:
        return Cut(self.epochs + other.epochs, self.bars + other.bars)

    def __bool__(self) -> bool:
        return bool(self.epochs or self.bars)


@dataclass(slots=True)
class _Block:
    """One epoch: its number, and where it begins in the text. It ends where the next one begins."""

    number: int
    start: int
    counted: bool  # as i/n
    end: int = 0


@dataclass(frozen=True, slots=True)
class _Change:
    start: int
    end: int
    put: str


def cut_texts(texts: Sequence[str]) -> tuple[list[str], Cut]:
    """The texts that one cell printed, in order: a training may go on from one to the next."""
    whole = "".join(texts)
    cut, changes = Cut(), []
    for training in _trainings(whole):
        left_out = training[1:-1]
        if left_out:
            cut += Cut(epochs=len(left_out))
            changes.append(_Change(left_out[0].start, left_out[-1].end, _mark(len(left_out))))
        for kept in {block.start: block for block in (training[0], training[-1])}.values():
            for change, bars in _overwritten(whole, kept):
                cut += Cut(bars=bars)
                changes.append(change)
    return _applied(texts, sorted(changes, key=lambda change: change.start)), cut


def cut_html(html: str) -> tuple[str, Cut]:
    """The same for an HTML output: rows of tables, and what stands in <pre>."""
    cuts: list[Cut] = []

    def shorten(found: re.Match[str]) -> str:
        text, cut = _cut_rows(found[0]) if found.re is _HTML_TABLE else _cut_text(found[0])
        cuts.append(cut)
        return text

    html = _HTML_PRE.sub(shorten, _HTML_TABLE.sub(shorten, html))
    return html, sum(cuts, Cut())


def _cut_text(text: str) -> tuple[str, Cut]:
    (found,), cut = cut_texts([text])
    return found, cut


def _mark(epochs: int) -> str:
    return f"... ({epochs} epoch{'s' if epochs > 1 else ''} left out)\n"


def _trainings(text: str) -> Iterator[list[_Block]]:
    """Each training as its epochs, the last one reaching to the next training or the end."""
    blocks = list(_blocks(text))
    for block, after in zip(blocks, [*blocks[1:], None], strict=False):
        block.end = after.start if after else len(text)
    training: list[_Block] = []
    for block in blocks:
        if training and (block.number <= training[-1].number or block.counted != training[-1].counted):
            yield from _real(text, training)
            training = []
        training.append(block)
    yield from _real(text, training)


def _real(text: str, training: list[_Block]) -> Iterator[list[_Block]]:
    """A training measures something: a list of words "Epoch 1", "Epoch 2" is none."""
    if training and _MEASURE.search(_rest(text[training[0].start : training[0].end])):
        yield training


def _rest(block: str) -> str:
    found = _EPOCH.match(_plain(block))
    return found[3] if found else block


def _blocks(text: str) -> Iterator[_Block]:
    """Where epochs begin. A line of the epoch that goes on anyway (a callback's, a bar's) begins none."""
    last: _Block | None = None
    in_table = False
    for line in _LINE.finditer(text):
        shown = _plain(_states(line[0])[-1])
        row = _TABLE_ROW.match(shown) if in_table else None
        head = _EPOCH.match(shown)
        if row:
            last = _Block(int(row[1]), line.start(), counted=False)
            yield last
        elif _TABLE_HEAD.match(shown):
            in_table, last = True, None
        elif head and not _goes_on(last, int(head[1]), counted=bool(head[2]), rest=head[3]):
            in_table = False
            last = _Block(int(head[1]), line.start(), counted=bool(head[2]))
            yield last
        elif shown.strip():
            in_table = False


def _goes_on(last: _Block | None, number: int, *, counted: bool, rest: str) -> bool:
    """Is this line part of the epoch before it? Keras' callbacks print `Epoch 00003: ...` in `Epoch 3/50`,
    early versions of them one less; a second bare `Epoch 1/1` is another training."""
    if last is None:
        return False
    if last.counted and not counted:
        return True
    return number == last.number and counted == last.counted and bool(rest.strip(" \n-=:.])"))


def _overwritten(text: str, block: _Block) -> Iterator[tuple[_Change, int]]:
    """Lines of the epoch that were written over themselves: only how they ended."""
    for line in _LINE.finditer(text, block.start, block.end):
        states = _states(line[0])
        if len(states) > 1 and _BAR.search(states[-1]):
            end = "\n" if line[0].endswith("\n") else ""
            yield _Change(line.start(), line.end(), states[-1] + end), len(states) - 1


def _states(line: str) -> list[str]:
    """Everything that stood in this line, one after the other."""
    return [state for state in _OVERWRITES.split(line.rstrip("\n")) if state.strip()] or [""]


def _plain(text: str) -> str:
    return _COLOURS.sub("", text)


def _applied(texts: Sequence[str], changes: Sequence[_Change]) -> list[str]:
    """Each text with the changes that fall into it; a replacement stands where its change begins."""
    found = []
    offset = 0
    for text in texts:
        end = offset + len(text)
        kept, at = [], offset
        for change in changes:
            if change.end <= offset or change.start >= end:
                continue
            start, stop = max(change.start, offset), min(change.end, end)
            kept += [text[at - offset : start - offset], change.put if change.start >= offset else ""]
            at = stop
        found.append("".join([*kept, text[at - offset :]]))
        offset = end
    return found


def _cut_rows(table: str) -> tuple[str, Cut]:
    """Rows between the first and the last epoch, if the table has a column "epoch"."""
    trainings: list[list[re.Match[str]]] = []
    column, last = -1, 0
    for row in _HTML_ROW.finditer(table):
        cells = [unescape(_HTML_TAG.sub("", cell)).strip() for cell in _HTML_CELL.findall(row[0])]
        heads = [cell.lower() for cell in cells[:2]]  # pandas has its index in front
        if "epoch" in heads:
            column = heads.index("epoch")
            trainings.append([])
        elif 0 <= column < len(cells) and cells[column].isdecimal():
            number = int(cells[column])
            if trainings[-1] and number <= last:
                trainings.append([])
            trainings[-1].append(row)
            last = number
    changes = [_row_change(rows) for rows in trainings if len(rows) > 2]
    left_out = sum(len(rows) - 2 for rows in trainings if len(rows) > 2)
    return _applied([table], changes)[0], Cut(epochs=left_out)


def _row_change(rows: Sequence[re.Match[str]]) -> _Change:
    cells = len(_HTML_CELL.findall(rows[0][0]))
    space = rows[1][0][: len(rows[1][0]) - len(rows[1][0].lstrip())]
    mark = f'{space}<tr><td colspan="{cells}">{_mark(len(rows) - 2).strip()}</td></tr>'
    return _Change(rows[1].start(), rows[-2].end(), mark)
