"""Documents to pretrain on, read from text files, folders and JSON Lines in a fixed order.

Text is UTF-8 with or without a byte order mark; line ends become LF. Anything else is refused, except that files of
other kinds and empty files inside a folder are skipped.
"""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from riyaz.data.encodings import SAVE, decode, gunzip
from riyaz.data.tables import GZIP, Problems, json_kind, kind_of, read_table
from riyaz.errors import NAMES, RiyazError, few, listed
from riyaz.files import refuse_device
from riyaz.text.tokenizer import replace_surrogates

TEXTS = (".txt", ".text", ".md", ".markdown", ".rst")
JSON_LINES = ".jsonl"  # one object per line, with its text under "text"
COLUMN = "text"
KINDS = "text and Markdown (.txt .md .rst), .jsonl with a text column, each also with .gz"
CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")  # bytes that no 8-bit encoding uses for text
SAMPLE = 8192  # bytes checked to recognise a binary file
# After a single line end, or before the space in front of a word
CUT = re.compile(r"(?<=\S\n)(?=\S)|(?<=\w)(?= [^\W\d_])")
PIECE = 2**16  # characters encoded at once


@dataclass(frozen=True)
class Document:
    """One text that is not blank; `where` is its file, with the line for a row of JSON Lines."""

    text: str
    where: str
    file: str = ""


def documents(paths: Sequence[str | Path], exclude: Path | None = None) -> Iterator[Document]:
    """The documents of the paths in order, those of a folder sorted by relative path. A file named twice is read once,
    and files inside `exclude` are skipped. Raises RiyazError for a missing path, non-UTF-8 text or no text."""
    empty, seen = True, set[Path]()
    exclude = exclude and exclude.resolve()
    for path in map(Path, paths):
        for file in _folder(path) if path.is_dir() else [path]:
            real = Path(os.path.realpath(file))  # resolve() would raise for a link to itself, which reading refuses
            if real in seen or (exclude and real.is_relative_to(exclude)):
                continue
            seen.add(real)
            for document in _rows(file) if kind_of(file) == JSON_LINES else _text(file, named=file is path):
                empty = False
                yield document
    if empty:
        where = few(map(str, paths), " ", NAMES)
        raise RiyazError("contains no text", where, f"give {KINDS}")


def pieces(text: str) -> Iterator[str]:
    """The text in pieces of about PIECE characters, cut where CUT matches. A tokenizer that splits text into words
    makes no token across such a cut; `blocks` checks that first."""
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
    """Every file of a known kind below a folder, except hidden ones."""

    def refuse(error: OSError) -> None:
        raise RiyazError(f"cannot be read ({error.strerror})", str(error.filename), "check the folder") from None

    paths: list[Path] = []
    for place, names, files in os.walk(folder, onerror=refuse):
        names[:] = [name for name in names if not name.startswith(".")]
        paths += [Path(place, name) for name in files if not name.startswith(".") and _is_known_kind(name)]
    return sorted((file for file in paths if file.is_file()), key=lambda file: file.relative_to(folder).as_posix())


def _is_known_kind(name: str) -> bool:
    return name.lower().removesuffix(GZIP).endswith((*TEXTS, JSON_LINES))


def _text(path: Path, named: bool) -> Iterator[Document]:
    """A file as one document; an empty one is an error only if the user `named` it."""
    if kind_of(path):
        hint = f"save its text as .txt, or as .jsonl with a {COLUMN} column"
        raise RiyazError(f"a table ({kind_of(path)}) is not text", str(path), hint)
    refuse_device(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise RiyazError("no such file or folder", str(path), "check the path") from None
    except OSError as error:
        raise RiyazError(f"cannot be read ({error.strerror})", str(path), "check the file") from None
    if path.name.lower().endswith(GZIP):
        content = gunzip(path, content)
    _check_text(path, content)
    text = _unix(decode(path, content, hint=SAVE))
    if text.strip():
        yield Document(text, str(path), str(path))
    elif named:
        raise RiyazError("the file is empty", str(path), "give a file with text")


def _check_text(path: Path, content: bytes) -> None:
    """Raises RiyazError for a binary file; text in another encoding passes, for `decode` to name it."""
    sample = content[:SAMPLE]
    wide = sample.startswith((b"\xff\xfe", b"\xfe\xff")) or sample[::2].count(0) * sample[1::2].count(0) == 0
    nul = b"\0" in sample
    if (nul and not wide) or len(CONTROL.findall(sample.replace(b"\0", b""))) > len(sample) // 100:
        raise RiyazError("is a binary file, not text", str(path), f"give {KINDS}")


def _rows(path: Path) -> Iterator[Document]:
    """The `text` of every row of a JSON Lines file, except blank ones."""
    table = read_table(path, hint=SAVE, longest=None)
    if COLUMN not in table.columns:
        what = f"no row has the column {COLUMN!r}, only {listed(table.columns)}"
        raise RiyazError(what, str(path), f'write {{"{COLUMN}": "…"}} on each line')
    problems, texts = Problems(path), []
    for line, row in table.rows:
        text = row.get(COLUMN)
        if not isinstance(text, str | None):
            problems.add(line, f"{COLUMN} is {json_kind(text)}, not text")
        elif text and text.strip():
            texts.append(Document(_unix(text), f"{path}:{line}", str(path)))
    problems.check("write each document's text as a string")
    yield from texts


def _unix(text: str) -> str:
    """The text with LF line ends, and U+FFFD for unpaired surrogates, which JSON can contain and UTF-8 cannot."""
    return replace_surrogates(text.replace("\r\n", "\n").replace("\r", "\n"))
