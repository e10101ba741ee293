"""Read files as text: .txt .md .html .htm .pdf .docx, within limits of size, pages, text and decompression."""

import io
import json
import re
import subprocess
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from riyaz.confined import module_command
from riyaz.data.encodings import SAVE, decode
from riyaz.errors import RiyazError
from riyaz.extras import install
from riyaz.files import refuse_device
from riyaz.retrieval import pdf_worker
from riyaz.retrieval.html_text import html_text
from riyaz.retrieval.running_lines import without_running_lines

FILE_MB = 64
PAGES, TEXT_CHARACTERS = 5000, 16_000_000  # of a PDF
UNPACKED_MB, RATIO, MEMBERS = 200, 200, 5000  # of a DOCX, which is a zip
_MB = 2**20
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_UNNAMED = re.compile(  # what programs write where a document has no title
    r"\W*(?:anonymous|untitled|unspecified|unnamed|unknown|none|null|title|no title|new document|word document|"
    r"document|unbenannt|ohne titel|sans titre|sin título|senza titolo)\W*\d{0,4}\W*(?:\.\w{1,5})?",
    re.IGNORECASE,
)
_WRITTEN_BY = re.compile(r"^Microsoft (?:Word|PowerPoint|Excel) - (.+?)(?:\.\w{2,5})?$")
_HALVES = re.compile(r"[\ud800-\udfff]")  # unpaired surrogates, which UTF-8 cannot encode
_HEADING = re.compile(r"^(#{1,6})[ \t]+(\S.*)", re.MULTILINE)


@dataclass(frozen=True)
class Parsed:
    """Contents of a file; `without_text` if it has no text at all, such as a scanned PDF; then the notes say so."""

    title: str
    text: str
    pages: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    without_text: bool = False


def clean(text: str) -> str:
    """The text with LF line ends and without control characters, and so without terminal escapes."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n")
    return _HALVES.sub("\ufffd", _CONTROLS.sub("", text))


def one_line(text: str) -> str:
    """The text on one line, cleaned."""
    return " ".join(clean(text).split())


def heading_of(line: str) -> tuple[int, str] | None:
    """(level, name) of a line that is a Markdown heading; None for another line."""
    match = _HEADING.match(line)
    return (len(match[1]), _name(match)) if match else None


def _name(match: re.Match[str]) -> str:
    """The name of a heading without closing #; a regex for both would search the end from every space again."""
    return match[2][0] + match[2][1:].rstrip(" \t#")


def _first_heading(text: str) -> str:
    match = _HEADING.search(text)
    return _name(match) if match else ""


def _title(*candidates: str) -> str:
    """The first candidate that names its document, without the words that Word puts around it; "" if none."""
    for candidate in candidates:
        named = _WRITTEN_BY.sub(r"\1", one_line(candidate))
        if named and not _UNNAMED.fullmatch(named):
            return named
    return ""


def parse_text(path: Path) -> Parsed:
    """Plain text in UTF-8; without a title, so that the file's name is used."""
    return Parsed("", clean(_decoded(path)))


def parse_markdown(path: Path) -> Parsed:
    """Markdown, unchanged; its title is the first heading."""
    text = clean(_decoded(path))
    return Parsed(_title(_first_heading(text)), text)


def parse_html(path: Path) -> Parsed:
    """The visible text of a page; its title is <title>, else the first heading."""
    title, text = html_text(_decoded(path))
    text = clean(text)
    return Parsed(_title(title, _first_heading(text)), text)


def parse_pdf(path: Path) -> Parsed:
    """The text of a PDF's pages without headers and footers, with a blank line between them; notes count the lines left
    out and the pages without text."""
    _docs_package("pypdfium2", path)
    title, printed = _pdf_pages(path)
    texts, left_out, such = without_running_lines(printed)
    pages: list[int] = []
    pieces: list[str] = []
    place = 0
    for page in texts:
        lead = "\n\n" if place and page else ""
        pages.append(place + len(lead))
        pieces += [lead, page]
        place += len(lead) + len(page)
    blank = sum(not page for page in texts)
    if blank == len(texts):
        note = f"left out, none of its {blank} pages holds text: scanned? riyaz has no character recognition"
        return Parsed("", "", notes=(note,), without_text=True)
    notes = [f"{blank} of {len(texts)} pages hold no text: scanned?"] if blank else []
    if left_out:
        lines = f"{left_out:,} line{'s' if left_out > 1 else ''} of headers and footers left out of {len(texts)} pages"
        notes.insert(0, f"{lines}, such as {' and '.join(map(repr, such))}")
    return Parsed(_title(title), "".join(pieces), tuple(pages), tuple(notes))


def _pdf_pages(path: Path) -> tuple[str, list[str]]:
    """The title and the text of every page, from a process with limits of its own. Raises RiyazError."""
    command, environment = module_command("riyaz.retrieval.pdf_worker", str(PAGES), str(TEXT_CHARACTERS))
    try:
        done = subprocess.run(
            command, input=_read(path), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
            timeout=5 * pdf_worker.SECONDS,
        )  # fmt: skip
        answer = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, ValueError):  # killed at a limit, before it could answer
        limits = f"{pdf_worker.MEMORY_MIB:,} MiB of memory or {pdf_worker.SECONDS} s"
        raise RiyazError(f"needs more than {limits} to read: a bomb?", str(path), "leave it out") from None
    error = answer.get("error")
    if error in (pdf_worker.LOCKED, pdf_worker.BROKEN):
        locked = error == pdf_worker.LOCKED
        what = "is locked with a password" if locked else "is not a PDF that can be read"
        hint = "save it without the password" if locked else "save it again as PDF, or leave it out"
        raise RiyazError(what, str(path), hint)
    if error:
        raise RiyazError(error, str(path), "split the file")
    return answer["title"], [clean(text).strip() for text in answer["pages"]]


def parse_docx(path: Path) -> Parsed:
    """Paragraphs and tables of a Word document in their order, headings as `# …`; hidden text is dropped."""
    docx = _docs_package("docx", path, "python-docx")
    content = _read(path)
    _check_zip(path, content)
    try:
        document = docx.Document(io.BytesIO(content))
        lines = list(_docx_lines(document.element.body, _levels(document)))
        title = document.core_properties.title or ""
    except Exception as error:  # a malformed file makes python-docx and lxml raise any kind of error
        if isinstance(error, MemoryError):
            raise
        raise RiyazError("is not a Word document that can be read", str(path), "save it again as .docx") from error
    text = clean("\n\n".join(line for line in lines if line.strip()))
    return Parsed(_title(title, _first_heading(text)), text)


def _levels(document: Any) -> dict[str, int]:
    """Style id -> heading level, by the style names, which are English in every language of Word."""
    levels = {}
    for style in document.styles.element.style_lst:
        name = (style.name_val or "").lower()
        match = re.fullmatch(r"heading ([1-9])", name)
        if match or name == "title":
            levels[style.styleId] = min(6, int(match[1])) if match else 1
    return levels


def _docx_lines(body: Any, levels: dict[str, int]) -> Any:
    for element in body.iterchildren():
        kind = element.tag.rpartition("}")[2]
        if kind == "p":
            text = _paragraph(element)
            level = levels.get(element.style or "")
            yield "#" * level + " " + " ".join(text.split()) if level and text.strip() else text
        elif kind == "tbl":
            rows = [
                [" ".join(_paragraph(p) for p in cell.xpath(".//w:p")) for cell in row.tc_lst] for row in element.tr_lst
            ]
            yield "\n".join(" | ".join(" ".join(cell.split()) for cell in row) for row in rows)
        elif kind == "sdt":
            yield from (
                _docx_lines(element.xpath("./w:sdtContent")[0], levels) if element.xpath("./w:sdtContent") else ()
            )


def _paragraph(element: Any) -> str:
    """The text of a paragraph's runs, with links and insertions, without hidden, moved-away or deleted text."""
    current = "[not(ancestor::w:moveFrom or ancestor::w:del)][not(ancestor::*[local-name()='Fallback'])]"
    visible = "[not(w:rPr/w:vanish[not(@w:val='0' or @w:val='false' or @w:val='off')])]"
    return "".join(run.text for run in element.xpath(f".//w:r{current}{visible}"))


def _check_zip(path: Path, content: bytes) -> None:
    """Raises RiyazError for a zip bomb, by the sizes it declares and then by those it unpacks to, and for any DTD."""
    hint = "save it again as .docx, or leave it out"
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            unpacked = sum(member.file_size for member in members)
            packed = max(1, sum(member.compress_size for member in members))
            if len(members) > MEMBERS or unpacked > UNPACKED_MB * _MB or (unpacked > _MB and unpacked / packed > RATIO):
                size = f"{len(members):,} parts and {unpacked / _MB:,.0f} MB from {packed / _MB:.1f} MB"
                raise RiyazError(f"unpacks to {size}: a zip bomb?", str(path), hint)
            for member in members:
                _check_member(archive, member, path, hint)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise RiyazError("is not a Word document that can be read", str(path), hint) from error
    except Exception as error:
        if isinstance(error, RiyazError) or type(error).__module__ not in ("zlib", "lzma"):
            raise
        raise RiyazError("is not a Word document that can be read", str(path), hint) from error


def _check_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path, hint: str) -> None:
    with archive.open(member) as file:
        content = file.read(member.file_size + 1)
    if len(content) > member.file_size:
        raise RiyazError("a part is larger than the zip says: a zip bomb?", str(path), hint)
    if member.filename.endswith((".xml", ".rels")) and b"<!DOCTYPE" in content[:_MB].replace(b"\0", b""):
        raise RiyazError(f"{member.filename[:80]} defines XML entities", str(path), hint)


def _docs_package(module: str, path: Path, package: str = "") -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        raise RiyazError(f"needs {package or module}", str(path), install("docs")) from None


def _read(path: Path) -> bytes:
    refuse_device(path)
    try:
        size = path.stat().st_size
        if size > FILE_MB * _MB:
            raise RiyazError(f"{size / _MB:,.0f} MB; at most {FILE_MB} MB are read", str(path), "split the file")
        return path.read_bytes()
    except OSError as error:
        raise RiyazError(f"cannot be read ({error.strerror})", str(path), "check the file") from None


def _decoded(path: Path) -> str:
    content = _read(path)
    if b"\0" in content:
        raise RiyazError("is not text: it holds NUL bytes", str(path), "save it as text in UTF-8, or leave it out")
    return decode(path, content, hint=SAVE)


PARSERS: dict[str, Callable[[Path], Parsed]] = {
    ".txt": parse_text, ".md": parse_markdown, ".html": parse_html, ".htm": parse_html, ".pdf": parse_pdf,
    ".docx": parse_docx,
}  # fmt: skip
