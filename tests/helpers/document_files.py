"""PDF and Word files for tests."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def pdf(pages: list[str], title: str = "") -> bytes:
    """A PDF with the lines of a text on each page, none where it is ``."""
    bodies = ["<< /Type /Catalog /Pages 2 0 R >>", "", "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    kids = []
    for text in pages:
        kids.append(f"{len(bodies) + 1} 0 R")
        drawn = text.replace("\n", ") Tj T* (")
        stream = f"BT /F1 12 Tf 14 TL 72 700 Td ({drawn}) Tj ET" if text else ""
        bodies.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {len(bodies) + 2} 0 R "
            "/Resources << /Font << /F1 3 0 R >> >> >>"
        )
        bodies.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    bodies[1] = f"<< /Type /Pages /Kids [{' '.join(kids)}] /Count {len(kids)} >>"
    bodies.append(f"<< /Title ({title}) >>")
    return _pdf_file(bodies)


def nested_forms(levels: int) -> bytes:
    """A PDF of one page that draws a form ten times, which draws the next ten times, …, which draws two words."""
    draw = "/F Do " * 10
    bodies = [
        "<< /Type /Catalog /Pages 2 0 R >>", "<< /Type /Pages /Kids [4 0 R] /Count 1 >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents 5 0 R /Resources << /XObject << /F 6 0 R >> >> "
        ">>", f"<< /Length {len(draw)} >>\nstream\n{draw}\nendstream",
    ]  # fmt: skip
    for level in range(levels):
        content = draw if level < levels - 1 else "BT /F1 12 Tf 72 700 Td (Hello world) Tj ET"
        following = f"/XObject << /F {len(bodies) + 2} 0 R >>" if level < levels - 1 else ""
        bodies.append(
            "<< /Type /XObject /Subtype /Form /BBox [0 0 612 792] /Resources << /Font << /F1 3 0 R >> "
            f"{following} >> /Length {len(content)} >>\nstream\n{content}\nendstream"
        )
    return _pdf_file([*bodies, "<< >>"])


def _pdf_file(bodies: list[str]) -> bytes:
    """The objects, of which the last is the document's information, as a file."""
    out, places = b"%PDF-1.4\n", []
    for number, body in enumerate(bodies, 1):
        places.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n".encode()
    table = "".join(f"{place:010} 00000 n \n" for place in places)
    tail = f"xref\n0 {len(bodies) + 1}\n0000000000 65535 f \n{table}trailer\n"
    tail += f"<< /Size {len(bodies) + 1} /Root 1 0 R /Info {len(bodies)} 0 R >>\nstartxref\n{len(out)}\n%%EOF\n"
    return out + tail.encode()


def docx(path: Path, build: Callable[[Any], object] = lambda document: None) -> Path:
    """A Word document written by python-docx."""
    import docx as package

    document = package.Document()
    build(document)
    document.save(str(path))
    return path


def rewritten(path: Path, change: Callable[[str, bytes], bytes]) -> Path:
    """The same zip with `change(name, content)` in place of each part."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, change(name, content))
    return path
