"""Checks a JSON value against a schema: the part of JSON Schema in which the fields of requests are written."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from riyaz.errors import brief
from riyaz.serve.problems import Problem

Schema = dict[str, Any]
TYPES = {
    "string": "text", "number": "a number", "integer": "a whole number", "boolean": "true or false",
    "array": "a list", "object": "an object", "null": "null",
}  # fmt: skip


def check(value: Any, schema: Schema, param: str) -> None:
    """Raises Problem 400, which names the field, where the value is not as the schema says."""
    options = schema.get("anyOf")
    if options:
        kinds = [option for option in options if _is_one(value, option.get("type"))]
        if not kinds:
            raise wrong(f"is not {_names(option['type'] for option in options)}", value, param)
        return _check_any(value, kinds, param)
    if "type" in schema and not _is_one(value, schema["type"]):
        raise wrong(f"is not {_names(_listed(schema['type']))}", value, param)
    if "enum" in schema and not any(
        value is known or (value == known and type(value) is type(known)) for known in schema["enum"]
    ):
        raise wrong(f"is none of {', '.join(map(brief, schema['enum']))}", value, param)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        _check_range(value, schema, param)
    elif isinstance(value, str):
        _check_count(len(value), "characters", schema.get("minLength"), schema.get("maxLength"), param)
    elif isinstance(value, list):
        _check_count(len(value), "entries", schema.get("minItems"), schema.get("maxItems"), param)
        if "items" in schema and not _are_whole(value, schema["items"]):
            for place, item in enumerate(value):
                check(item, schema["items"], f"{param}.{place}")
    elif isinstance(value, dict):
        _check_object(value, schema, param)
    return None


def allows(kind: str, schema: Schema) -> bool:
    """Whether values of a kind, such as "null", are among those of a schema."""
    return kind in _listed(schema.get("type", ())) or any(allows(kind, option) for option in schema.get("anyOf", ()))


def unknown(value: Any, schema: Schema, name: str) -> Iterator[str]:
    """The members of objects within a checked value that the schema does not list, such as `stream_options.x`."""
    for option in schema.get("anyOf", ()):
        if _is_one(value, option.get("type")):
            yield from unknown(value, option, name)
    if isinstance(value, list):
        for item in value if schema.get("items", {}).keys() & {"items", "properties", "anyOf"} else ():
            yield from unknown(item, schema["items"], name)
    elif isinstance(value, dict) and "properties" in schema:
        for member, inner in value.items():
            if member in schema["properties"]:
                yield from unknown(inner, schema["properties"][member], f"{name}.{member}")
            elif inner is not None:
                yield f"{name}.{member}"


def wrong(what: str, value: Any, param: str) -> Problem:
    """The problem of a value: `temperature: 3 is larger than 2`."""
    return Problem(400, f"{param}: {brief(value)} {what}", param)


def _check_any(value: Any, options: list[Schema], param: str) -> None:
    """The value fits one of several schemas; else that one says what is wrong which fits most of it."""
    problems = []
    for option in options:
        try:
            return check(value, option, param)
        except Problem as problem:
            problems.append(problem)
    raise max(problems, key=lambda problem: (problem.param == param, problem.param))


def _check_range(value: float, schema: Schema, param: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise wrong("is not a finite number", value, param)
    if value < schema.get("minimum", value):
        raise wrong(f"is smaller than {schema['minimum']}", value, param)
    if value > schema.get("maximum", value):
        raise wrong(f"is larger than {schema['maximum']}", value, param)


def _check_count(count: int, what: str, least: int | None, most: int | None, param: str) -> None:
    if least is not None and count < least:
        raise Problem(400, f"{param}: has {count:,} {what}, and at least {least:,} are needed", param)
    if most is not None and count > most:
        raise Problem(400, f"{param}: has {count:,} {what}, and at most {most:,} are read", param)


def _are_whole(values: list[Any], schema: Schema) -> bool:
    """Whether all are whole numbers as a schema of nothing else wants them: a million tokens one by one take 2 s."""
    if (
        schema.keys() != {"type", "minimum", "maximum"}
        or schema["type"] != "integer"
        or set(map(type, values)) != {int}
    ):
        return False
    return bool(schema["minimum"] <= min(values) and max(values) <= schema["maximum"])


def _check_object(value: dict[str, Any], schema: Schema, param: str) -> None:
    _check_count(len(value), "members", None, schema.get("maxProperties"), param)
    for name in schema.get("required", ()):
        if name not in value:
            raise Problem(400, f"{param}.{name}: is missing", f"{param}.{name}", "missing_required_parameter")
    other = schema.get("additionalProperties", {})
    for name, item in value.items():
        inner = schema.get("properties", {}).get(name, other)
        if inner:
            check(item, inner, f"{param}.{name}" if name.isprintable() and len(name) <= 60 else param)


def _is_one(value: Any, types: str | list[str] | None) -> bool:
    return types is None or any(_is(value, kind) for kind in _listed(types))


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool) or value is None:
        return kind == {True: "boolean", False: "boolean", None: "null"}[value]
    if kind == "integer":
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    known = {"string": str, "number": (int, float), "array": list, "object": dict}
    return kind in known and isinstance(value, known[kind])  # type: ignore[arg-type]


def _listed(types: str | Sequence[str]) -> Sequence[str]:
    return [types] if isinstance(types, str) else types


def _names(types: Iterable[str | list[str]]) -> str:
    names = dict.fromkeys(TYPES[kind] for each in types for kind in _listed(each) if kind != "null")
    return " or ".join(names)
