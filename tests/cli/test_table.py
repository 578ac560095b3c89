"""Tables are aligned, fit the screen, and lose the least important first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cloudrun.cli.table import Column, layout, lines
from cloudrun.cli.text import width

COLUMNS = (
    Column("ID", 0),
    Column("NAME", 1, least=6),
    Column("NOTE", 3, least=5),
    Column("COST", 2, right=True),
)
ROWS = [["8f3k", "a-rather-long-name", "something to say", "0.17"], ["9abc", "short", "", "12.00"]]


def test_a_wide_screen_shows_everything() -> None:
    header, first, _ = lines(COLUMNS, ROWS, 120)
    assert header.split() == ["ID", "NAME", "NOTE", "COST"]
    assert first.split() == ["8f3k", "a-rather-long-name", "something", "to", "say", "0.17"]


def test_numbers_are_aligned_to_the_right() -> None:
    _, first, second = lines(COLUMNS, ROWS, 120)
    assert first.index("0.17") + 4 == second.index("12.00") + 5


def test_the_least_important_column_shrinks_first_then_goes() -> None:
    assert lines(COLUMNS, ROWS, 45)[1] == "8f3k  a-rather-long-name  something t…   0.17"
    assert lines(COLUMNS, ROWS, 24)[0].split() == ["ID", "NAME", "COST"]
    assert lines(COLUMNS, ROWS, 24)[1] == "8f3k  a-rather-l…   0.17"
    assert lines(COLUMNS, ROWS, 3)[1] == "8f3k"  # what names the row always stays, whole


def test_an_optional_column_without_content_is_left_out() -> None:
    columns = (Column("ID", 0), Column("STAGE", 1, optional=True))
    assert lines(columns, [["a", ""]], 80)[0] == "ID"
    assert lines(columns, [["a", ""], ["b", "follow"]], 80)[0] == "ID  STAGE"


CELL = st.text(st.characters(blacklist_categories=("Cc", "Cs", "Zl", "Zp", "Mn")), max_size=30)


@given(st.lists(st.tuples(CELL, CELL, CELL, CELL), max_size=5), st.integers(40, 160))
def test_every_line_fits_and_columns_stand_under_each_other(rows: list[tuple[str, ...]], wide: int) -> None:
    drawn = layout(COLUMNS, rows, wide)
    for cells in drawn:
        assert [width(cell) for cell in cells] == [width(cell) for cell in drawn[0]]
        assert len(cells) == 1 or sum(map(width, cells)) + 2 * (len(cells) - 1) <= max(wide, 60)
