"""Read a folder, a file or rows as documents: plain texts with an id, and notes on everything that was left out.

Nothing is fetched, no link is followed out of the folder, and control characters are removed. Hidden files and those
that a program keeps while it has a document open are left out, and so is what riyaz wrote: a report in the collection
would answer the test's questions.
"""

import bisect
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from riyaz.data.bounds import DOCUMENT
from riyaz.data.encodings import SAVE
from riyaz.data.tables import SUFFIXES as TABLES
from riyaz.data.tables import Problems, json_kind, kind_of, read_table
from riyaz.errors import RiyazError
from riyaz.retrieval.copies import Saying, saying
from riyaz.retrieval.database import is_collection
from riyaz.retrieval.parsers import PARSERS, Parsed, clean, one_line

TEXT_COLUMNS = ("text", "content", "body", "passage", "answer", "completion")  # the first one that a file has is read


@dataclass(frozen=True)
class Document:
    """A text and its origin `where`; `pages` are the character offsets at which its pages begin, if it has pages."""

    doc_id: str
    title: str
    text: str
    where: str
    pages: tuple[int, ...] = ()

    @property
    def untitled(self) -> bool:
        """Whether its title is only the name of its file."""
        return self.title == Path(self.where).stem

    def pages_of(self, start: int, end: int) -> tuple[int, int] | None:
        """The numbers of the first and last page of a range of characters, from 1; None in a text without pages."""
        if not self.pages:
            return None
        return bisect.bisect_right(self.pages, start), bisect.bisect_right(self.pages, max(start, end - 1))


TEMPORARY = ("~$", ".~", "~WRL")  # beginnings of the names of Word's and LibreOffice's locks and copies

# names in a folder that riyaz wrote: an artifact, a comparison, one that has only begun, a pretraining run
RESULTS = ({"riyaz.json"}, {"compare.json", "arms"}, {"settings.json", "split"}, {"run.json", "plan.json"})


def read_documents(path: Path) -> tuple[list[Document], list[str]]:
    """The documents under a path, and notes: one line for each kind of thing left out, and why. Raises RiyazError if
    something cannot be read or there are no documents."""
    path = Path(path)
    notes: list[str] = []
    if path.is_dir():
        documents = _folder(path, notes)
    elif kind_of(path):
        documents = _rows(path)
    elif path.name.startswith(TEMPORARY) and path.suffix.lower() in PARSERS:
        what, hint = "is what a program keeps while a document is open", "name the document itself"
        raise RiyazError(what, str(path), hint)
    elif not path.exists():
        raise RiyazError("no such file or folder", str(path), "check the path")
    elif path.suffix.lower() in PARSERS:
        documents = _files([(path, path.name)], notes)
    else:
        what = f"{path.suffix or 'a file without suffix'} is not supported"
        raise RiyazError(what, str(path), f"documents are {' '.join(PARSERS)}, or rows in {' '.join(TABLES)}")
    distinct = _distinct(documents, notes)
    if not distinct:
        kinds = " ".join(PARSERS)
        detail = f" ({'; '.join(notes)})" if notes else ""
        raise RiyazError(f"no documents here{detail}", str(path), f"put files there ({kinds}) or name a file of rows")
    return distinct, notes


def _folder(folder: Path, notes: list[str]) -> Iterator[Document]:
    """The documents of the files below a folder, sorted by path, except hidden and temporary ones."""
    root, inside, other, outside = folder.resolve(), [], Counter[str](), 0
    closed: list[OSError] = []
    unseen: list[str] = []
    ours: list[str] = []
    for place, names, files in os.walk(folder, onerror=closed.append):
        if any(marks <= {*names, *files} for marks in RESULTS):
            ours.append(os.path.relpath(place, folder))
            names.clear()
            continue
        unseen += (os.path.relpath(os.path.join(place, name), folder) for name in [*names, *files] if _unseen(name))
        names[:] = sorted(name for name in names if not _unseen(name))
        outside += sum(os.path.islink(os.path.join(place, name)) for name in names)
        for name in files:
            file = Path(place, name)
            if _unseen(name):
                continue
            if not _inside(file, root):
                outside += 1
            elif is_collection(file):
                ours.append(os.path.relpath(file, folder))
            elif file.suffix.lower() not in PARSERS or not file.is_file():
                other[file.suffix.lower() or "no ending"] += 1
            else:
                inside.append((file, file.relative_to(folder).as_posix()))
    if other:
        kinds = ", ".join(f"{ending} ({count})" for ending, count in sorted(other.items()))
        notes.append(one_line(f"{_count(other.total(), 'file')} of other kinds left out: {kinds}"))
    for left_out, why in ((unseen, "hidden or temporary"), (ours, "results of riyaz")):
        if left_out:
            rest = f" and {len(left_out) - 1:,} more" if len(left_out) > 1 else ""
            notes.append(f"left out, {why}: {one_line(min(left_out))}{rest}")
    if outside:
        notes.append(f"{_count(outside, 'link')} to other folders not followed")
    if closed:
        first = one_line(os.path.relpath(closed[0].filename, folder))
        rest = f" and {len(closed) - 1} more" if len(closed) > 1 else ""
        notes.append(f"{_count(len(closed), 'folder')} cannot be read: {first} ({closed[0].strerror}){rest}")
    yield from _files(sorted(inside, key=lambda pair: pair[1]), notes)


def _unseen(name: str) -> bool:
    """Whether a file or folder is hidden or temporary by its name."""
    return name.startswith((".", *TEMPORARY))


def _inside(file: Path, root: Path) -> bool:
    try:
        return file.resolve().is_relative_to(root)
    except RuntimeError:  # a link to itself
        return False


def _files(files: Sequence[tuple[Path, str]], notes: list[str]) -> Iterator[Document]:
    for file, name in files:
        parsed = _parsed(file)
        notes += [one_line(f"{name}: {note}") for note in parsed.notes]
        title = one_line(parsed.title) or one_line(file.stem)
        if not parsed.without_text:
            yield Document(one_line(name), title, parsed.text, one_line(str(file)), parsed.pages)


def _parsed(file: Path) -> Parsed:
    """The contents of a file. Raises RiyazError that names it, whatever fails."""
    try:
        return PARSERS[file.suffix.lower()](file)
    except (RiyazError, MemoryError):
        raise
    except Exception as error:
        what = f"cannot be read: {type(error).__name__}: {error}"
        raise RiyazError(one_line(what)[:200], str(file), "leave it out, or save it again") from error


def _rows(path: Path) -> Iterator[Document]:
    table = read_table(path, hint=SAVE, longest=DOCUMENT)
    column = next((name for name in TEXT_COLUMNS if name in table.columns), None)
    if column is None:
        what = f"no column holds the documents' text; the columns are {', '.join(table.columns)}"
        raise RiyazError(what, str(path), "name it text, and optionally title and doc_id")
    problems, documents = Problems(path), []
    for line, row in table.rows:
        text = row.get(column)
        if not isinstance(text, str | None):
            problems.add(line, f"{column} is {json_kind(text)}, not text")
        elif any(isinstance(row.get(name), dict | list | bool) for name in ("title", "doc_id", "id")):
            problems.add(line, "title, doc_id or id is neither text nor a number")
        else:
            title, doc_id, other = (row.get(name) for name in ("title", "doc_id", "id"))
            name_of = next((str(name) for name in (doc_id, other) if name not in (None, "")), f"{path.name}:{line}")
            title = "" if title is None else one_line(str(title))
            documents.append(Document(one_line(name_of), title, clean(text or ""), f"{path.name}:{line}"))
    problems.check("write each document's text as a string")
    yield from documents


def _distinct(documents: Iterator[Document], notes: list[str]) -> list[Document]:
    """The documents without empty ones and exact copies. Raises RiyazError for two texts with the same doc_id."""
    distinct: dict[str, Document] = {}
    empty: list[str] = []
    repeated = 0
    for document in documents:
        if not document.text.strip():
            empty.append(document.doc_id)
            continue
        first = distinct.setdefault(document.doc_id, document)
        if first.text != document.text:
            what = f"two documents have the doc_id {document.doc_id!r}: {first.where} and {document.where}"
            raise RiyazError(what, hint="give each its own doc_id")
        repeated += first is not document
    if empty:
        rest = f" and {len(empty) - 1} more" if len(empty) > 1 else ""
        notes.append(f"{_count(len(empty), 'empty document')} left out: {empty[0]}{rest}")
    if repeated:
        notes.append(f"{_count(repeated, 'repetition')} of a document left out")
    notes += _copies(distinct.values())
    return list(distinct.values())


def _copies(documents: Iterable[Document]) -> list[str]:
    """A note on documents that say the same as an earlier one, if there are any."""
    first: dict[Saying, str] = {}
    copies = []
    for each in documents:
        said = saying("" if each.untitled else each.title, each.text)
        if first.setdefault(said, each.doc_id) != each.doc_id:
            copies.append(f"{each.doc_id} and {first[said]}")
    if not copies:
        return []
    rest = f" and {len(copies) - 1:,} more" if len(copies) > 1 else ""
    says = "says the same as another" if len(copies) == 1 else "say the same as others"
    return [f"{_count(len(copies), 'document')} {says}, so a search shows their text once: {copies[0]}{rest}"]


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
