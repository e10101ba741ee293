"""Read files as text: .txt .md .html .htm .pdf .docx, within limits of size, pages and decompression."""

import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from riyaz.data.encodings import SAVE, decode
from riyaz.errors import RiyazError, install
from riyaz.retrieval.html_text import html_text

FILE_MB = 64
PAGES = 5000  # of a PDF
UNPACKED_MB, RATIO, MEMBERS = 200, 200, 5000  # of a DOCX, which is a zip
_MB = 2**20
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_HALVES = re.compile(r"[\ud800-\udfff]")  # unpaired surrogates, which UTF-8 cannot encode
_HEADING = re.compile(r"^#{1,6}[ \t]+(\S.*?)[ \t#]*$", re.MULTILINE)


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


def parse_text(path: Path) -> Parsed:
    """Plain text in UTF-8; without a title, so that the file's name is used."""
    return Parsed("", clean(_decoded(path)))


def parse_markdown(path: Path) -> Parsed:
    """Markdown, unchanged; its title is the first heading."""
    text = clean(_decoded(path))
    heading = _HEADING.search(text)
    return Parsed(heading[1] if heading else "", text)


def parse_html(path: Path) -> Parsed:
    """The visible text of a page; its title is <title>, else the first heading."""
    title, text = html_text(_decoded(path))
    text = clean(text)
    heading = _HEADING.search(text)
    return Parsed(title or (heading[1] if heading else ""), text)


def parse_pdf(path: Path) -> Parsed:
    """The text of a PDF's pages with a blank line between them; a note counts pages without text."""
    pdfium = _docs_package("pypdfium2", path)
    _read(path, limit_only=True)
    try:
        document = pdfium.PdfDocument(path)
    except pdfium.PdfiumError as error:
        locked = "password" in str(error).lower()
        what = "is locked with a password" if locked else "is not a PDF that can be read"
        hint = "save it without the password" if locked else "save it again as PDF, or leave it out"
        raise RiyazError(what, str(path), hint) from None
    try:
        count = len(document)
        if count > PAGES:
            raise RiyazError(f"{count:,} pages; at most {PAGES:,} are read", str(path), "split the file")
        title = document.get_metadata_dict().get("Title", "")
        texts = [_page_text(document, number, pdfium) for number in range(count)]
    finally:
        document.close()
    text, pages = "", []
    pieces, place = [], 0
    for page in texts:
        lead = "\n\n" if place and page else ""
        pages.append(place + len(lead))
        pieces += [lead, page]
        place += len(lead) + len(page)
    text = "".join(pieces)
    blank = sum(not page for page in texts)
    if blank == count:
        note = f"left out, none of its {count} pages holds text: scanned? riyaz has no character recognition"
        return Parsed(title, "", notes=(note,), without_text=True)
    notes = (f"{blank} of {count} pages hold no text: scanned?",) if blank else ()
    return Parsed(title, text, tuple(pages), notes)


def _page_text(document: Any, number: int, pdfium: Any) -> str:
    """The text of a page, with words hyphenated at a line end joined; "" for a page that cannot be read."""
    try:
        page = document[number]
        try:
            text = page.get_textpage().get_text_bounded()
        finally:
            page.close()
    except pdfium.PdfiumError:
        return ""
    return clean(re.sub(r"[\ufffe\u00ad\x02][\r\n]*", "", text)).strip()


def parse_docx(path: Path) -> Parsed:
    """Paragraphs and tables of a Word document in their order, headings as `# …`; hidden text is dropped."""
    docx = _docs_package("docx", path, "python-docx")
    _check_zip(path)
    try:
        document = docx.Document(str(path))
        lines = list(_docx_lines(document.element.body, _levels(document)))
        title = document.core_properties.title or ""
    except Exception as error:  # a malformed file makes python-docx and lxml raise any kind of error
        if isinstance(error, MemoryError):
            raise
        raise RiyazError("is not a Word document that can be read", str(path), "save it again as .docx") from error
    text = clean("\n\n".join(line for line in lines if line.strip()))
    heading = _HEADING.search(text)
    return Parsed(title or (heading[1] if heading else ""), text)


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


def _check_zip(path: Path) -> None:
    """Raises RiyazError for a zip bomb, by the sizes it declares and then by those it unpacks to, and for any DTD."""
    _read(path, limit_only=True)
    hint = "save it again as .docx, or leave it out"
    try:
        with zipfile.ZipFile(path) as archive:
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


def _read(path: Path, limit_only: bool = False) -> bytes:
    try:
        size = path.stat().st_size
        if size > FILE_MB * _MB:
            raise RiyazError(f"{size / _MB:,.0f} MB; at most {FILE_MB} MB are read", str(path), "split the file")
        return b"" if limit_only else path.read_bytes()
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
