"""The JSON schema that answers keep to, as a file of the user holds it, or the word TOOLS: calls of a row's tools keep
to the schemas of their arguments."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from riyaz.config import TOOLS
from riyaz.errors import RiyazError
from riyaz.files import refuse_device

MAX_SCHEMA = 64 * 2**10  # characters
MAX_DEPTH = 32  # schemas within each other; what follows a schema does so by recursion
OPTION = "--schema"
GUIDANCE = "x-guidance"  # a key of llguidance in a schema; other tools take no notice of it


def read_schema(path: str | Path) -> str:
    """The schema of a file as JSON on one line, its fields in their order; TOOLS for that word. Raises RiyazError
    naming the file."""
    if str(path) == TOOLS:
        return TOOLS
    refuse_device(Path(path))
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read(MAX_SCHEMA + 1)
    except FileNotFoundError:
        raise RiyazError("no such file", str(path), f"check the path that {OPTION} names") from None
    except OSError as error:
        raise RiyazError(f"cannot be read ({error.strerror})", str(path), f"name a file with {OPTION}") from None
    except UnicodeDecodeError:
        raise RiyazError("is not UTF-8", str(path), "save the file as UTF-8") from None
    return schema_text(text, str(path))


def schema_text(text: str, where: str) -> str:
    """A schema's text as ASCII JSON on one line. Raises RiyazError for what is no schema, or too large or deep."""
    if len(text) > MAX_SCHEMA:
        raise RiyazError(f"the schema has more than {MAX_SCHEMA:,} characters", where, "make it smaller")
    try:
        schema = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise RiyazError(f"is not JSON ({str(error)[:100]})", where, "give a JSON Schema") from None
    if not isinstance(schema, dict):
        raise RiyazError("is no JSON Schema, which is an object", where, 'write {"type": "object", "properties": …}')
    if is_deep(schema):
        raise RiyazError(f"the schema is nested more than {MAX_DEPTH} deep", where, "make it flatter")
    return json.dumps(schema)


def expect_tools(tools: object, where: str) -> None:
    """Raises RiyazError for a row without tools, by which TOOLS would hold its answer."""
    if not tools:
        what = f"no tools are defined here, and {OPTION} {TOOLS} holds answers to them"
        raise RiyazError(what, where, f"give each row a list `tools` beside its messages, or leave out {OPTION}")


def as_written(schema: str, answers: Iterable[str]) -> str:
    """The schema with the blanks that the answers have: where they stand on one line, so does what is generated, since
    a model that breaks lines takes more tokens than these answers. A schema that says it itself is unchanged."""
    if schema == TOOLS:
        return schema
    document = json.loads(schema)
    if GUIDANCE in document or any("\n" in answer.strip() for answer in answers):
        return schema
    return json.dumps({**document, GUIDANCE: {"whitespace_pattern": " "}})


def is_deep(value: Any) -> bool:
    """Whether a schema, or arguments of a call, have more than MAX_DEPTH objects within each other."""
    level = [value]
    for _ in range(2 * MAX_DEPTH):  # a schema within another is two objects: properties, and its own
        inner = (part for each in level for part in (each.values() if isinstance(each, dict) else each))
        level = [part for part in inner if isinstance(part, dict | list)]
        if not level:
            return False
    return True


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")
