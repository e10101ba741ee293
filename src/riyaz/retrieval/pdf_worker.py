"""The process that reads one PDF: `python -m riyaz.retrieval.pdf_worker PAGES CHARACTERS`, started by parsers.py.

A PDF is a program that draws: 2 KB of nested forms become gigabytes of text while pdfium reads one page, before any
length can be checked. So this process limits its own memory and CPU time. It takes the file on stdin and writes one
JSON object to stdout: {"title": …, "pages": [text, …]}, or {"error": …} with what is wrong.
"""

import codecs
import json
import re
import sys
from typing import Any

from riyaz.confined import confine, limit_cpu

MEMORY_MIB, SECONDS = 1024, 120  # of address space and of CPU time
LOCKED, BROKEN = "locked", "broken"


def read(content: bytes, most_pages: int, most_characters: int) -> dict[str, Any]:
    """The title and the text of every page, or {"error": …} for a file with more than these or that cannot be read."""
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(content)
    except pypdfium2.PdfiumError as error:
        return {"error": LOCKED if "password" in str(error).lower() else BROKEN}
    if len(document) > most_pages:
        return {"error": f"{len(document):,} pages; at most {most_pages:,} are read"}
    texts: list[str] = []
    left = most_characters
    for number in range(len(document)):
        text = _page_text(document, number, left, pypdfium2.PdfiumError)
        left -= len(text)
        if left < 0:
            what = f"page {number + 1} of {len(document):,} goes beyond {most_characters:,} characters of text"
            return {"error": f"{what}; no more are read"}
        texts.append(text)
    return {"title": document.get_metadata_dict().get("Title", ""), "pages": texts}


def _page_text(document: Any, number: int, most: int, failed: type[Exception]) -> str:
    """The text of a page, with words hyphenated at a line end joined; "" for a page that cannot be read, and one
    character over `most`, unread, for a page that has more."""
    try:
        page = document[number]
        try:
            text_page = page.get_textpage()
            if text_page.count_chars() > 2 * most + 1000:  # counts what joining and trimming remove
                return " " * (most + 1)
            text = text_page.get_text_bounded()
        finally:
            page.close()
    except failed:
        return ""
    return re.sub(r"[\ufffe\u00ad\x02][\r\n]*", "", text).strip()


def main() -> None:
    """Reads the file on stdin."""
    most_pages, most_characters = map(int, sys.argv[1:3])
    content = sys.stdin.buffer.read()
    import pypdfium2  # noqa: F401 (while files can still be opened, as its codec is)

    codecs.lookup("utf-16-le")
    confine(MEMORY_MIB)
    limit_cpu(SECONDS)
    try:
        answer = read(content, most_pages, most_characters)
    except MemoryError:
        answer = {"error": f"needs more than {MEMORY_MIB:,} MiB of memory to read"}
    sys.stdout.write(json.dumps(answer))


if __name__ == "__main__":
    main()
