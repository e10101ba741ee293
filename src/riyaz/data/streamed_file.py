"""The rows of one file of any size, one after the other: JSON Lines, CSV and TSV in UTF-8, each also gzipped."""

import hashlib
import io
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from riyaz.data.bounds import ROW, Bounds
from riyaz.data.encodings import CHUNK, decode, unpacked
from riyaz.data.tables import GZIP, UNQUOTED, csv_rows, json_lines, kind_of, not_read, separator
from riyaz.errors import RiyazError

STREAMED = (".jsonl", ".csv", ".tsv")
LONGEST = 4 * ROW  # bytes of a line: a character of UTF-8 takes at most four
Row = dict[str, object]


def streamed_rows(path: Path, digest: "hashlib._Hash | None" = None) -> Iterator[tuple[int, Row]]:
    """(line the row starts on, its fields) of every row of a file of a kind in STREAMED; `digest` gets its bytes.
    Raises RiyazError."""
    kind, bounds, texts = kind_of(path), Bounds(path, streamed=True), _texts(path, digest)
    first = ""
    while not first.strip() and (text := next(texts, "")):
        first += text
    if kind == ".jsonl":
        lines = (line.removesuffix("\n") for text in chain([first], texts) for line in io.StringIO(text, newline=None))
        yield from json_lines(path, lines, first, kind, bounds)
    elif first.strip():
        cr = "\r" if "\n" in first else "\n"  # it ends lines in a file without LF; otherwise it may be part of a field
        blocks = (text.replace("\r\n", "\n").replace("\r", cr) for text in chain([first], texts))
        first = next(blocks)
        lines = (line for text in chain([first], blocks) for line in io.StringIO(text, newline=""))
        yield from csv_rows(path, lines, separator(first, kind), bounds)
    if not bounds.rows:
        raise RiyazError("the file is empty", str(path), "write one example per line")


def _texts(path: Path, digest: "hashlib._Hash | None") -> Iterator[str]:
    """The text of a file in pieces that end with a line. Raises RiyazError."""
    line, kept = 1, b""
    for piece in chain(_pieces(path, digest), [b""]):
        kept += piece
        cut = len(kept) if not piece else kept.rfind(b"\n") + 1
        if not cut and len(kept) > LONGEST:
            cut = kept.rfind(b"\r", 0, -1) + 1  # before the last byte, which may be the CR of a CRLF
            if not cut:
                Bounds(path).check(line, ROW + 1, UNQUOTED, least=True)
        if not cut:
            continue
        block, kept = kept[:cut], kept[cut:]
        try:
            yield decode(path, block) if line == 1 else block.decode()
        except UnicodeDecodeError:
            decode(path, block, first=line)  # raises the error that names the byte
            raise
        line += block.count(b"\n")


def _pieces(path: Path, digest: "hashlib._Hash | None") -> Iterator[bytes]:
    """The bytes of a file, decompressed, in pieces of 1 MiB, each of which `digest` gets."""
    try:
        with open(path, "rb") as file:
            packed = path.name.lower().endswith(GZIP)
            pieces = unpacked(path, file, path.stat().st_size) if packed else iter(lambda: file.read(CHUNK), b"")
            for piece in pieces:
                if digest is not None:
                    digest.update(piece)
                yield piece
    except OSError as error:
        raise not_read(error, path) from None
