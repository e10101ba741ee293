"""The JSON of a request's body: what it says, and which of its fields are supported.

One call of `json.loads` keeps the event loop waiting, in whatever thread it is made: 300 ms for two megabytes of empty
lists. So the number of lists, objects and members is bounded before it is called, large bodies are read one after the
other in a thread of their own, and that thread rests after each for as long as it read.
"""

import json
import re
import time
from typing import Any

from riyaz.errors import brief
from riyaz.serve.fields import Table, sort_out
from riyaz.serve.problems import Problem
from riyaz.serve.state import State

INLINE = 32_768  # bytes of a body that the event loop reads by itself, in at most 5 ms
MOST_VALUES = 100_000  # lists, objects and their members with names of a body, read in about 40 ms
COSTLY = (b"[", b"{", b":")
TEXT = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
# A letter that two escapes write, or one half of it, which no answer can hold; before it, backslashes that are escaped
PAIR = re.compile(
    r"(?<!\\)((?:\\\\)*+)(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})?+(?(2)|\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
)


async def fields_of(sent: bytes, table: Table, state: State) -> tuple[dict[str, Any], list[str]]:
    """The supported fields of a body, and the names of those left out. Raises Problem 400."""
    if len(sent) <= INLINE:
        return sort_out(parse(sent), table)
    return await state.read(lambda: _resting(sent, table))


def _resting(sent: bytes, table: Table) -> tuple[dict[str, Any], list[str]]:
    began = time.perf_counter()
    try:
        return sort_out(parse(sent), table)
    finally:
        time.sleep(time.perf_counter() - began)


def parse(sent: bytes) -> dict[str, Any]:
    """The JSON object of a body. Raises Problem 400."""

    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    try:
        text = sent.decode("utf-8")
        _expect_few_values(sent)
        if "\\ud" in text or "\\uD" in text:
            text = PAIR.sub(lambda match: match[0] if match[2] else match[1] + r"\ufffd", text)
        body = json.loads(text, parse_constant=refuse)
    except UnicodeDecodeError:
        raise Problem(400, "the body is not UTF-8", code="invalid_json") from None
    except RecursionError:
        raise Problem(400, "the body is nested too deeply", code="invalid_json") from None
    except ValueError as error:
        raise Problem(400, f"the body is not JSON: {str(error)[:100]}", code="invalid_json") from None
    if not isinstance(body, dict):
        raise Problem(400, f"the body is {brief(body)}, not an object", code="invalid_json")
    return body


def _expect_few_values(sent: bytes) -> None:
    """Raises Problem 400 for a body of too many lists, objects and members; brackets and colons in texts are none."""
    if sum(map(sent.count, COSTLY)) > MOST_VALUES:
        bare = TEXT.sub(b"", sent)
        if sum(map(bare.count, COSTLY)) > MOST_VALUES:
            raise Problem(400, f"the body has more than {MOST_VALUES:,} lists, objects and members; send less at once")
