"""Plain text to pretrain on: files, folders and JSON Lines as documents, in an order that never changes.

UTF-8 with or without a byte order mark; line ends become LF. What is no text is refused, never skipped silently:
only in a folder are files of other kinds and empty files passed over.
"""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from riyaz.data.encodings import SAVE, decode, gunzip
from riyaz.data.tables import PACKED, Problems, json_kind, kind_of, read_table
from riyaz.errors import RiyazError

TEXTS = (".txt", ".text", ".md", ".markdown", ".rst")
ROWS = ".jsonl"  # one object a line, its text under "text"
COLUMN = "text"
KINDS = "text and Markdown (.txt .md .rst), .jsonl with a text column, each also with .gz"
CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")  # bytes that text in no 8-bit encoding has
SAMPLE = 8192  # bytes looked at to tell a binary file
CUT = re.compile(r"(?<=\S\n)(?=\S)|(?<=\w)(?= [^\W\d_])")  # behind a lone line end, or before the space of a word
PIECE = 2**16  # characters of text that are encoded at once


@dataclass(frozen=True)
class Document:
    """One text, never blank; `where` is its file, with the line for a row of JSON Lines."""

    text: str
    where: str
    file: str = ""


def documents(paths: Sequence[str | Path], besides: Path | None = None) -> Iterator[Document]:
    """The documents under the paths in their order, a folder's in the order of their relative paths; a file that is
    named twice is read once, and what lies in the folder `besides` is passed over. RiyazError for a path that is none,
    for what is no UTF-8 text, and for no text at all."""
    found, seen = False, set[Path]()
    besides = besides and besides.resolve()
    for path in map(Path, paths):
        for file in _folder(path) if path.is_dir() else [path]:
            real = Path(os.path.realpath(file))  # a link that leads to itself is left for reading to refuse
            if real in seen or (besides and real.is_relative_to(besides)):
                continue
            seen.add(real)
            for document in _rows(file) if kind_of(file) == ROWS else _text(file, named=file is path):
                found = True
                yield document
    if not found:
        where = " ".join(map(str, paths))
        raise RiyazError("there is no text here", where, f"give {KINDS}")


def pieces(text: str) -> Iterator[str]:
    """The text in pieces of about PIECE characters, cut at CUT, across which no tokenizer that splits text into words
    makes a token (`blocks` asks the tokenizer)."""
    start = 0
    while len(text) - start > PIECE:
        cut = CUT.search(text, start + PIECE)
        if cut is None:
            break
        yield text[start : cut.end()]
        start = cut.end()
    if start < len(text):
        yield text[start:]


def _folder(folder: Path) -> list[Path]:
    """Every file of a known kind below a folder; hidden ones are passed over."""

    def refuse(error: OSError) -> None:
        raise RiyazError(f"cannot be read ({error.strerror})", str(error.filename), "check the folder") from None

    found = []
    for place, names, files in os.walk(folder, onerror=refuse):
        names[:] = [name for name in names if not name.startswith(".")]
        found += [Path(place, name) for name in files if not name.startswith(".") and _known(name)]
    return sorted((file for file in found if file.is_file()), key=lambda file: file.relative_to(folder).as_posix())


def _known(name: str) -> bool:
    return name.lower().removesuffix(PACKED).endswith((*TEXTS, ROWS))


def _text(path: Path, named: bool) -> Iterator[Document]:
    """A file as one document; when it was `named`, an empty one is an error."""
    if kind_of(path):
        hint = f"save its text as .txt, or as .jsonl with a {COLUMN} column"
        raise RiyazError(f"rows of {kind_of(path)} are not read as text", str(path), hint)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise RiyazError("no such file or folder", str(path), "check the path") from None
    except OSError as error:
        raise RiyazError(f"cannot be read ({error.strerror})", str(path), "check the file") from None
    if path.name.lower().endswith(PACKED):
        content = gunzip(path, content)
    _check_text(path, content)
    text = _unix(decode(path, content, hint=SAVE))
    if text.strip():
        yield Document(text, str(path), str(path))
    elif named:
        raise RiyazError("the file is empty", str(path), "give a file with text")


def _check_text(path: Path, content: bytes) -> None:
    """RiyazError for a binary file; what is text in another encoding is left to `decode`, which names it."""
    sample = content[:SAMPLE]
    wide = sample.startswith((b"\xff\xfe", b"\xfe\xff")) or sample[::2].count(0) * sample[1::2].count(0) == 0
    nul = b"\0" in sample
    if (nul and not wide) or len(CONTROL.findall(sample.replace(b"\0", b""))) > len(sample) // 100:
        raise RiyazError("is a binary file, not text", str(path), f"give {KINDS}")


def _rows(path: Path) -> Iterator[Document]:
    """The `text` of every row of a JSON Lines file; blank ones are passed over."""
    table = read_table(path, hint=SAVE)
    if COLUMN not in table.columns:
        what = f"no row has the column {COLUMN!r}; there are {', '.join(table.columns)}"
        raise RiyazError(what, str(path), f'write {{"{COLUMN}": "…"}} on each line')
    problems, found = Problems(path), []
    for line, row in table.rows:
        text = row.get(COLUMN)
        if not isinstance(text, str | None):
            problems.add(line, f"{COLUMN} is {json_kind(text)}, not text")
        elif text and text.strip():
            found.append(Document(_unix(text), f"{path}:{line}", str(path)))
    problems.check("write each document's text as a string")
    yield from found


def _unix(text: str) -> str:
    """The text with LF as its line ends, and U+FFFD for half a surrogate pair, which JSON can spell and UTF-8 not."""
    return whole(text.replace("\r\n", "\n").replace("\r", "\n"))


def whole(text: str) -> str:
    """The text with U+FFFD for each half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
