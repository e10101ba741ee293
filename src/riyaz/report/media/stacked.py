"""Plain tables for any width: what does not fit beside the first columns follows below, so that nothing is lost."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

from riyaz.report.media.markup import printable_line

GAP = 2  # spaces between two columns


@dataclass(frozen=True)
class Cells:
    """One column of a table: its title and its cells; text is aligned left, numbers right."""

    title: str
    cells: Sequence[str]
    text: bool = False

    @property
    def width(self) -> int:
        """Terminal cells of the widest entry."""
        return max(map(cell_len, (self.title, *self.cells)))


def table(
    columns: Sequence[Cells],
    width: int,
    later: Sequence[str] = (),
    styles: Sequence[str] = (),
    last: Sequence[str] = (),
    names: int = 1,
) -> list[Text]:
    """The lines of a table, at most `width` wide where a single column beside the first ones fits.

    A table that is too wide continues below with its first columns repeated, the `names` of the rows: first go the
    columns titled `later`, in this order, then whatever is left over. `styles` has a style for each row, `last` one for
    the last column's cells.
    """
    main, aside = list(columns), list[Cells]()
    for title in later:
        if _wide(main) <= width:
            break
        aside = [column for column in columns if column.title == title or column in aside]
        main = [column for column in columns if column not in aside]
    blocks = _blocks(main, width, names)
    if aside:
        blocks += _blocks([*columns[:names], *aside], width, names)
    lines: list[Text] = []
    for block in blocks:
        lines += [Text()] if lines else []
        lines += _lines(block, styles, last if block[-1] is columns[-1] else ())
    return lines


def _blocks(columns: Sequence[Cells], width: int, names: int) -> list[list[Cells]]:
    """The columns in groups that fit the width, each behind the first `names` ones."""
    blocks = [list(columns[:names])]
    for column in columns[names:]:
        if len(blocks[-1]) > names and _wide([*blocks[-1], column]) > width:
            blocks.append(list(columns[:names]))
        blocks[-1].append(column)
    return blocks


def _lines(block: Sequence[Cells], styles: Sequence[str], last: Sequence[str]) -> list[Text]:
    """Title and rows; the end of a line has no spaces."""
    lines = [Text(_row(block, [column.title for column in block]).rstrip(), "dim")]
    for place in range(len(block[0].cells)):
        line = Text(_row(block, [printable_line(column.cells[place]) for column in block]))
        if styles:
            line.stylize(styles[place])
        if last:
            line.stylize(last[place], len(_row(block[:-1], [printable_line(c.cells[place]) for c in block[:-1]])) + GAP)
        line.rstrip()
        lines.append(line)
    return lines


def _row(block: Sequence[Cells], cells: Collection[str]) -> str:
    filled = []
    for column, cell in zip(block, cells, strict=True):
        space = " " * (column.width - cell_len(cell))
        filled.append(cell + space if column.text else space + cell)
    return (" " * GAP).join(filled)


def _wide(columns: Sequence[Cells]) -> int:
    return sum(column.width for column in columns) + GAP * (len(columns) - 1)
