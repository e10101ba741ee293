"""Answers of megabytes, such as the log-probabilities of long prompts: made beside the event loop, so that others do
not wait for them.

A thread is not enough: one call of `json.dumps` keeps all other threads waiting until it returns, and so does one round
of Python's garbage collector over millions of objects. So long lists are written a part at a time, and an iterator may
stand for a list whose entries are made when they are written.
"""

import json
from collections.abc import Iterator
from typing import Any

from starlette.responses import Response

INLINE = 2000  # numbers of an answer that the event loop writes by itself, in about 2 ms
PART = 128  # entries of a list that one call writes: with 20 likeliest tokens each about 2 ms


def dumped_in_parts(document: Any, ascii: bool = True) -> str:
    """A document as compact JSON, as `http.dumped` writes it, of which no call writes a long part."""
    return "".join(_parts(document, ascii))


def json_response(document: Any, headers: dict[str, str]) -> Response:
    """The response of a large document: the bytes of a JSONResponse."""
    return Response(dumped_in_parts(document, False).encode(), headers=headers, media_type="application/json")


def _parts(value: Any, ascii: bool) -> Iterator[str]:
    if isinstance(value, dict) and _is_large(value):
        for place, (name, member) in enumerate(value.items()):
            yield f"{',' if place else '{'}{_dumped(name, ascii)}:"
            yield from _parts(member, ascii)
        yield "}"
    elif isinstance(value, Iterator) or (isinstance(value, list) and any(map(_is_large, value))):
        yield "["
        for place, entry in enumerate(value):
            yield "," if place else ""
            yield from _parts(entry, ascii)
        yield "]"
    elif isinstance(value, list) and len(value) > PART:
        for begin in range(0, len(value), PART):
            yield f"{',' if begin else '['}{_dumped(value[begin : begin + PART], ascii)[1:-1]}"
        yield "]"
    else:
        yield _dumped(value, ascii)


def _is_large(value: Any) -> bool:
    """Whether it is an object that may hold a long list."""
    if not isinstance(value, dict):
        return False
    lists = [member for member in value.values() if isinstance(member, list)]
    return any(isinstance(member, dict | Iterator) for member in value.values()) or any(
        len(each) > PART or any(map(_is_large, each)) for each in lists
    )


def _dumped(value: Any, ascii: bool) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=ascii)
