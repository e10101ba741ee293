"""Decode a file's bytes: gzip within size limits, UTF-8, or the encoding that the user names.

Bytes that are not UTF-8 are refused with the place of the first invalid one and the likely encoding; no encoding is
assumed silently.
"""

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from riyaz.data.bounds import BOMB_BYTES, BOMB_RATIO, MAX_BYTES
from riyaz.errors import RiyazError

SAVE = "save the file as UTF-8"
MARKS = (  # byte order marks; the longer first, since UTF-32's begins with UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
WESTERN = {"iso8859-1", "cp1252", "iso8859-15", "mac-roman"}  # decode any bytes, and UTF-8 to garbage
CHUNK = 2**20
SAMPLE = 1024


class NotUTF8(RiyazError):
    """A file without a named encoding that is not UTF-8."""


def gunzip(path: Path, content: bytes) -> bytes:
    """The decompressed bytes of a .gz file, at most 2 GiB. Raises RiyazError if it is not gzip, truncated or a bomb."""
    return b"".join(unpacked(path, io.BytesIO(content), len(content)))


def unpacked(path: Path, file: IO[bytes], stored: int) -> Iterator[bytes]:
    """`gunzip` of an open file of `stored` bytes, in pieces of at most CHUNK bytes."""
    size = 0
    try:
        with gzip.GzipFile(fileobj=file) as reader:
            while part := reader.read(CHUNK):
                size += len(part)
                if size > MAX_BYTES or (size > BOMB_BYTES and size > BOMB_RATIO * stored):
                    before = size - len(part)
                    what = f"{stored:,} bytes of gzip decompress to more than {before:,}; decompression stopped"
                    raise RiyazError(what, str(path), "decompress it yourself if you trust it, or split it")
                yield part
    except EOFError:
        raise RiyazError("the gzip data is cut short", str(path), "copy or download it again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        detail = str(error).rpartition(": ")[2]
        raise RiyazError(f"not gzip, or damaged ({detail})", str(path), "compress it again with gzip") from None


def decode(path: Path, content: bytes, encoding: str | None = None, hint: str = "", first: int = 1) -> str:
    """Bytes as text, without a byte order mark. Raises RiyazError with the line of the first byte that is not valid.

    Without `encoding` the bytes must be UTF-8; `hint` then replaces the advice to name an encoding. `first` is the
    number of their first line in the file.
    """
    if encoding is not None:
        return _decode_as(path, content, encoding)
    body = content.removeprefix(codecs.BOM_UTF8)
    wide = _wide(body)
    text, bad = "", []
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        bad.append(error.start)
    if wide and b"\0" in body:  # valid in UTF-8, but not in text
        bad.append(body.index(b"\0"))
    if not bad:
        return text
    start = min(bad)
    guess = wide or ("cp1252" if any(0x80 <= byte < 0xA0 for byte in body[start : start + 2**16]) else "latin-1")
    before = body[:start]
    line, place = before.count(b"\n") + first, start - before.rfind(b"\n")
    looks = "looks like" if wide else "may be"
    what = f"byte 0x{body[start]:02X} is not UTF-8 (byte {place} of the line; it {looks} {guess})"
    raise NotUTF8(what, f"{path}:{line}", hint or f"{SAVE}, or pass --encoding {guess}", {"encoding": guess})


def _wide(content: bytes) -> str:
    """The name of a UTF-16 or UTF-32 encoding if the first bytes look like one, otherwise ""."""
    for mark, name in MARKS:
        if content.startswith(mark):
            return name
    sample = content[:SAMPLE]
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    half = len(sample) // 2
    if half and max(even, odd) > half // 2 and min(even, odd) <= half // 8:
        return "utf-16-le" if odd > even else "utf-16-be"
    return ""


def _decode_as(path: Path, content: bytes, encoding: str) -> str:
    """Text in the encoding that the user named."""
    try:
        codec = codecs.lookup(encoding)
        "".encode(encoding)  # raises LookupError for a codec that does not decode to text, such as base64
    except (LookupError, ValueError):
        what = f"{encoding!r} is not a text encoding"
        raise RiyazError(what, "--encoding", "such as utf-8, latin-1, cp1252, utf-16, shift_jis or gb18030") from None
    if codec.name in WESTERN and not content.isascii():
        try:
            content.decode("utf-8")
        except UnicodeDecodeError:
            pass
        else:
            raise RiyazError(f"is UTF-8, and {encoding} would garble it", str(path), "leave --encoding out")
    try:
        return content.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content[: error.start].decode(encoding, "replace").count("\n") + 1
        what = f"byte 0x{content[error.start]:02X} at byte {error.start + 1} of the file is not {encoding}"
        raise RiyazError(what, f"{path}:{line}", "name the file's own encoding, or save it as UTF-8") from None
    except UnicodeError as error:  # such as UTF-16 without the byte order mark that its codec requires
        raise RiyazError(f"is not {encoding} ({error})", str(path), SAVE) from None
