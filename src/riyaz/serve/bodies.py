"""The JSON of a request's body: what it says, and which of its fields are supported.

One call of `json.loads` keeps the event loop waiting, in whatever thread it is made, and takes many times the memory of
what it reads: 300 ms for two megabytes of empty lists, 64 bytes for a text of two letters, 4 bytes for each letter of a
body with one emoji. So the values of a large body are counted before it is called, and texts with escapes or other
letters than ASCII's are read by themselves. Large bodies are read one after the other in a thread of their own, and
that thread rests after each for as long as it read.
"""

import json
import re
import time
from collections.abc import Iterator
from typing import Any

from riyaz.data.bounds import ROW
from riyaz.errors import brief
from riyaz.serve.field import MAX_TOKENS
from riyaz.serve.fields import Table, sort_out
from riyaz.serve.problems import Problem
from riyaz.serve.state import State

INLINE = 32_768  # bytes of a body that the event loop reads by itself, in at most 5 ms
MOST_VALUES = 100_000  # lists, objects, their names and texts of a body, read in about 40 ms
MOST_NUMBERS = MAX_TOKENS  # other values: numbers, true, false and null
LONG = 2**20  # bytes of a text that is read in one piece
TEXT = re.compile(rb'"([^"\\]*+(?:\\.[^"\\]*+)*+)("?)', re.DOTALL)  # group 2 is empty where a text has no end
ODD = re.compile(rb"[^ -\[\]-~]")  # what json does not copy as it stands: escapes, letters beyond ASCII
# 16,384 letters of a text; what is no UTF-8 is left to its decoder
PIECE = re.compile(
    rb"(?:[ -\[\]-~]|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\."
    rb"|[\xc0-\xff][\x80-\xbf]*+|.){1,16384}+",
    re.DOTALL,
)
HALVES = dict.fromkeys(range(0xD800, 0xE000), "\ufffd")  # halves of a letter that two escapes write; no answer has one
PLACE = "\0"  # begins what stands for a text that is read by itself, as any other text with this letter is


async def fields_of(sent: bytes | bytearray, table: Table, state: State) -> tuple[dict[str, Any], list[str]]:
    """The supported fields of a body, and the names of those left out; a bytearray is emptied. Raises Problem 400."""
    if len(sent) <= INLINE:
        return sort_out(parse(sent), table)
    return await state.read(lambda: _resting(sent, table))


def _resting(sent: bytes | bytearray, table: Table) -> tuple[dict[str, Any], list[str]]:
    began = time.perf_counter()
    try:
        return sort_out(parse(sent), table)
    finally:
        time.sleep(time.perf_counter() - began)


def parse(sent: bytes | bytearray) -> dict[str, Any]:
    """The JSON object of a body; a bytearray is emptied while it is read. Raises Problem 400."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    small = len(sent) <= INLINE and not (b"\\ud" in sent or b"\\uD" in sent)
    try:
        text, texts = (sent.decode("utf-8"), []) if small else _apart(sent)
        body = _put(texts, json.loads(text, parse_constant=refuse))
    except UnicodeDecodeError:
        raise Problem(400, "the body is not UTF-8", code="invalid_json") from None
    except RecursionError:
        raise Problem(400, "the body is nested too deeply", code="invalid_json") from None
    except ValueError as error:
        what = str(error)[:100] if small else getattr(error, "msg", str(error)[:100])  # without places in what is apart
        raise Problem(400, f"the body is not JSON: {what}", code="invalid_json") from None
    if not isinstance(body, dict):
        raise Problem(400, f"the body is {brief(body)}, not an object", code="invalid_json")
    return body


def _apart(sent: bytes | bytearray) -> tuple[str, list[str]]:
    """The body with a place for each text that is read by itself, and these texts. Raises ValueError, and Problem 400
    for a body of too many values."""
    frame, texts, done, values, numbers = bytearray(), list[str](), 0, 0, 0
    with memoryview(sent) as view:
        for start, end, whole in _texts(sent):
            values += 1 + sent.count(b"[", done, start) + sent.count(b"{", done, start)
            numbers += sent.count(b",", done, start)
            _expect_few(values, numbers - values)
            frame += view[done:start]
            if whole and ODD.search(sent, start + 1, end - 1):
                frame += b'"\\u0000%d"' % len(texts)
                texts.append(_text(sent, start + 1, end - 1))
            else:
                frame += view[start:end]
            done = end
        _expect_few(values + sent.count(b"[", done) + sent.count(b"{", done), numbers + sent.count(b",", done) - values)
        frame += view[done:]
    if isinstance(sent, bytearray):
        sent.clear()
    return frame.decode("latin-1"), texts  # all that is not ASCII stands in texts, or is refused as no JSON


def _texts(sent: bytes | bytearray) -> Iterator[tuple[int, int, bool]]:
    """(start, end, whether it has an end) of every text of a body."""
    for match in TEXT.finditer(sent):
        yield *match.span(), match.start(2) < match.end(2)


def _expect_few(values: int, numbers: int) -> None:
    if values > MOST_VALUES:
        raise Problem(400, f"the body has more than {MOST_VALUES:,} lists, objects, names and texts; send less at once")
    if numbers > MOST_NUMBERS:
        raise Problem(400, f"the body has more than {MOST_NUMBERS:,} numbers; send less at once")


def _text(sent: bytes | bytearray, start: int, end: int) -> str:
    """The text between two quotes; a long one in pieces. Raises ValueError, Problem 400 for one of more than ROW
    characters."""
    pieces = (match.span() for match in PIECE.finditer(sent, start, end)) if end - start > LONG else [(start, end)]
    parts, length = [], 0
    for begins, ends in pieces:
        written = sent[begins:ends].decode("utf-8")
        part = json.loads(f'"{written}"')
        parts.append(part.translate(HALVES) if "\\ud" in written or "\\uD" in written else part)
        length += len(part)
        if length > ROW:
            raise Problem(400, f"a text of the body has more than {ROW:,} characters; send a shorter one")
    return "".join(parts)


def _put(texts: list[str], body: Any) -> Any:
    """A body with the texts in their places."""

    def put(value: Any) -> Any:
        if isinstance(value, str) and value[:1] == PLACE:
            return texts[int(value[1:])]
        if isinstance(value, (dict, list)):
            left.append(value)
        return value

    left: list[Any] = []
    body = put(body)
    while texts and left:
        each = left.pop()
        if isinstance(each, list):
            each[:] = map(put, each)
        else:
            members = [(put(name), put(value)) for name, value in each.items()]
            each.clear()
            each.update(members)
    return body
