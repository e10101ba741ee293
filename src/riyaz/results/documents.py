"""Reading a result document of a known version as a dataclass."""

from pathlib import Path
from typing import TypeVar

from riyaz.errors import RiyazError
from riyaz.json_files import from_json, read_json, refuse_newer

SCHEMA = 1  # version of compare.json, result.json and run.json; a file without one is read as 1
ELSEWHERE = "choose another --out"  # hint for a folder whose files no command can continue from
T = TypeVar("T")


def read_document(cls: type[T], path: Path, hint: str) -> T:
    """The JSON document at `path` as `cls`. Raises RiyazError for another schema or an invalid field."""
    document = read_json(path, hint)
    number = document.get("schema", document.get("format", SCHEMA)) if isinstance(document, dict) else SCHEMA
    if number != SCHEMA:
        refuse_newer(number, SCHEMA, str(path))
        raise RiyazError("was written by another version of riyaz", str(path), hint)
    return from_json(cls, document, str(path), hint)
