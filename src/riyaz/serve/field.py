"""One field of a request, and the schemas that the tables of several routes share."""

from dataclasses import dataclass
from typing import Any, Literal

from riyaz.serve.schema import Schema

MAX_N, MAX_STOP, MAX_BIAS, MAX_TOP, MAX_PROMPTS, MAX_INPUTS = 8, 16, 1000, 20, 64, 256
MAX_MESSAGES, MAX_TOOLS, MAX_TOKENS = 1000, 64, 2**19
WHOLE = 2**63 - 1


@dataclass(frozen=True)
class Field:
    """A field's use and schema; `harmless` are the values of a refused field that ask for nothing."""

    schema: Schema
    use: Literal["supported", "neutral", "refused"] = "supported"
    harmless: tuple[Any, ...] = ()
    required: bool = False


def text(most: int | None = None, least: int = 0) -> Schema:
    """A string."""
    return {"type": "string", "minLength": least, **({"maxLength": most} if most else {})}


def number(least: float, most: float) -> Schema:
    """A number, null included as in OpenAI's own schemas."""
    return {"type": ["number", "null"], "minimum": least, "maximum": most}


def whole(least: int, most: int = WHOLE) -> Schema:
    """A whole number or null."""
    return {"type": ["integer", "null"], "minimum": least, "maximum": most}


def listed(items: Schema, most: int, least: int = 0) -> Schema:
    """A list."""
    return {"type": "array", "items": items, "minItems": least, "maxItems": most}


def texts_or_tokens(most: int) -> Schema:
    """A text, its tokens, or a list of either."""
    tokens = listed(TOKEN, MAX_TOKENS, 1)
    return {"anyOf": [{"type": "string"}, listed({"type": "string"}, most, 1), tokens, listed(tokens, most, 1)]}


def refused(*harmless: Any) -> Field:
    """A field that is not supported, and the values of it that ask for nothing."""
    return Field({}, "refused", harmless)


TOKEN: Schema = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
TEXT_OR_NULL: Schema = {"type": ["string", "null"]}
FLAG: Schema = {"type": ["boolean", "null"]}
OBJECT: Schema = {"type": ["object", "null"]}
MODEL = Field(text(96, 1), required=True)
