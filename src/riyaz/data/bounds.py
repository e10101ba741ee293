"""Limits on rows, checked while a file is read and before anything of it is tokenised.

A tokenizer needs some 130 bytes for each character of a row, and few models read more than 131,072 tokens.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from riyaz.errors import RiyazError

ROW = 2**20  # characters of a row as it stands in the file: about 250,000 tokens, 140 MB while it is tokenised
MAX_ROWS = 1_000_000  # of a file; each takes nearly 1 kB of memory even if it is empty
MAX_BYTES = 2**31  # of a file, decompressed
# A file that decodes to more than BOMB_BYTES and BOMB_RATIO times its size is a bomb: text that people wrote has a
# lower ratio, and gzip reaches 1032.
BOMB_BYTES = 16 * 2**20
BOMB_RATIO = 300
DOCUMENT = 16 * 2**20  # characters of a row that is a document to retrieve from: it is cut before it is tokenised
CR_IS_LF = bytes.maketrans(b"\r", b"\n")
BYTES = 4  # most bytes of a character, in UTF-8 and in other encodings
SHORTEN = "shorten it, split it into several rows or leave out what is not needed"


@dataclass
class Bounds:
    """Counts the rows of one file and their characters; `stored` is the size in bytes of a packed file."""

    path: Path
    mark: str = ":"  # between path and line, as in `Table`
    stored: int | None = None
    row: int | None = ROW  # most characters of a row; None: no limit on rows
    streamed: bool = False  # the rows are not in memory together, so there may be any number
    rows: int = 0
    size: int = 0

    def check(self, number: int, size: int, hint: str = SHORTEN, *, least: bool = False) -> None:
        """Raises RiyazError if the row on line `number` is longer than the limit; `size` are its characters, or the
        `least` that it has."""
        if self.row is not None and size > self.row:
            what = f"the row has {'at least ' * least}{size:,} characters, and a row may have {self.row:,}"
            raise RiyazError(what, f"{self.path}{self.mark}{number}", hint)

    def add(self, number: int, size: int) -> None:
        """Count one row. Raises RiyazError if it, the number of rows or what the file decodes to exceeds the limits."""
        self.check(number, size)
        self.rows += 1
        self.size += size
        self.check_rows(self.rows)
        if self.stored is None:
            return
        if self.size > MAX_BYTES or (self.size > BOMB_BYTES and self.size > BOMB_RATIO * self.stored):
            what = f"{self.stored:,} bytes decode to more than {self.size - size:,} characters; reading stopped"
            raise RiyazError(what, str(self.path), "split it, or save it as .jsonl if you trust it")

    def check_rows(self, rows: int) -> None:
        """Raises RiyazError if a file has more rows than are read."""
        if self.row is not None and not self.streamed and rows > MAX_ROWS:
            what = f"has more than {MAX_ROWS:,} rows"
            raise RiyazError(what, str(self.path), "take a part of them, such as the first 100,000")


def short_lines(pieces: Iterable[bytes], bounds: Bounds) -> Iterator[bytes]:
    """The pieces of a file, unchanged. Raises RiyazError at a line of more bytes than a row's characters can take, so
    that a file of one endless line is refused before it is in memory."""
    line, length = 1, 0  # the number of the open line, and its bytes so far
    for piece in pieces:
        ends = piece.translate(CR_IS_LF)
        first, last = ends.find(b"\n"), ends.rfind(b"\n")
        length += first if last >= 0 else len(piece)
        if bounds.row is not None and length > BYTES * bounds.row:
            bounds.check(line, bounds.row + 1, least=True)
        if last >= 0:
            line, length = line + piece.count(b"\n"), len(piece) - last - 1
        yield piece
