"""Values of options: durations, conversion to a field's type, ranges. A mistake is a RiyazError naming its place."""

import dataclasses
import math
import os
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from riyaz.config.option import flag_of
from riyaz.errors import RiyazError, brief


class Seconds(float):
    """A duration in seconds, written with units ("90s", "20m", "1h30m") or given as a number of seconds."""

    def __new__(cls, value: str | float) -> "Seconds":
        """From text such as "20m", or a number of seconds. Raises RiyazError for text that is not a duration."""
        return super().__new__(cls, parse_budget(value) if isinstance(value, str) else value)

    def __str__(self) -> str:
        """The shortest text that parses to this duration, such as "1h30m"; where none does, the number."""
        if not 0 <= self < math.inf:
            return f"{float(self):g}"
        hours, rest = divmod(float(self), 3600)
        minutes, seconds = divmod(rest, 60)
        parts = ((hours, "h"), (minutes, "m"), (seconds, "s"))
        return "".join(f"{number:g}{unit}" for number, unit in parts if number) or "0s"


def parse_budget(text: str, where: str = "") -> float:
    """The seconds of a duration such as "90s", "20m" or "1h30m". Raises RiyazError when the text is not one."""
    number = r"(\d+(?:\.\d+)?)"
    match = re.fullmatch(rf"(?:{number}h)?(?:{number}m)?(?:{number}s)?", re.sub(r"\s+", "", text.lower()))
    hint = "write it with its unit, such as 90s, 20m or 1h30m"
    if match is None or not any(match.groups()):
        raise RiyazError(f"{brief(text)} is not a duration", where, hint)
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    total = 3600 * hours + 60 * minutes + seconds
    if not 0 < total < math.inf:
        raise RiyazError(f"{brief(text)} is {'too long' if total else 'zero'}", where, hint)
    return total


RATES_HINT = "write one for all methods, such as 1e-3, or one for some, such as lora=1e-3,full=5e-5"
TYPE_NAMES: dict[type, str] = {
    Seconds: "a duration",
    float: "a number",
    int: "a whole number",
    Path: "a path",
    bool: "true or false",
}


def typed_fields(config: type[Any]) -> list[tuple[dataclasses.Field, type]]:
    """Each field with its type, without `| None`."""
    hints = typing.get_type_hints(config)
    return [(f, _without_none(hints[f.name])) for f in dataclasses.fields(config)]


def _without_none(hint: type) -> type:
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return next(part for part in typing.get_args(hint) if part is not type(None))
    return hint


def check_fields(config: Any) -> None:
    """Converts and checks every field of a frozen dataclass of options. Raises RiyazError naming the flag."""
    for option, hint in typed_fields(type(config)):
        value = getattr(config, option.name)
        if value is not None or option.default is not None:
            object.__setattr__(config, option.name, checked(option, hint, value, flag_of(option.name)))


def explicit_options(config: Any) -> dict[str, Any]:
    """The options of a configuration that are not None."""
    return {f.name: value for f in dataclasses.fields(config) if (value := getattr(config, f.name)) is not None}


def checked(option: dataclasses.Field, hint: type, value: object, where: str) -> object:
    """The value converted to the field's type and checked against its range. Raises RiyazError naming `where`."""
    if typing.get_origin(hint) is Literal:
        if value not in typing.get_args(hint):
            raise RiyazError(
                f"unknown {option.name} {brief(value)}", where, "choose one of " + ", ".join(typing.get_args(hint))
            )
        return value
    if option.metadata.get("tables") and isinstance(value, list):
        return value  # tables of a riyaz.toml, which whoever uses them checks
    if option.metadata.get("by_method"):
        return _by_method(option, value, where)
    if option.metadata.get("paths") and isinstance(value, str) and os.path.exists(os.path.expanduser(value)):
        return (value,)  # whatever commas are in it
    return _within(option, _converted(hint, value, where), where)


def _by_method(option: dataclasses.Field, value: object, where: str) -> object:
    """A float for all methods, or a dictionary of them by method: from these themselves, or from their text."""
    value = _rates(value, where) if isinstance(value, str) else value
    if not isinstance(value, Mapping):
        return _within(option, _converted(float, value, where), where)
    if not value:
        raise RiyazError("names no method", where, RATES_HINT)
    named = {name: (rate, f"{where}: {brief(name)}") for name, rate in value.items()}
    return {name: _within(option, _converted(float, rate, place), place) for name, (rate, place) in named.items()}


def _rates(text: str, where: str) -> float | dict[str, float]:
    """The number in a text, or the numbers by method in one such as "lora=1e-3,full=5e-5"."""
    if "=" not in text:
        try:
            return float(text)
        except ValueError:
            raise RiyazError(f"{brief(text)} is not a number", where, RATES_HINT) from None
    values: dict[str, float] = {}
    for piece in text.split(","):
        name, _, number = (part.strip() for part in piece.partition("="))
        try:
            value = float(number)
        except ValueError:
            name = ""
        if not name:
            raise RiyazError(f"{brief(piece.strip())} is not METHOD=RATE", where, RATES_HINT)
        if name in values:
            raise RiyazError(f"names {brief(name)} twice", where, "give one rate for each method")
        values[name] = value
    return values


def _within(option: dataclasses.Field, value: object, where: str) -> object:
    """The value, if it is within the field's range. Raises RiyazError naming `where`."""
    minimum, maximum, above, below = map(option.metadata.get, ("minimum", "maximum", "above", "below"))
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if isinstance(value, float) and not math.isfinite(value):
            raise RiyazError(f"{value} is not a finite number", where, "give a finite number")
        if minimum is not None and value < minimum:
            raise RiyazError(f"{brief(value)} is too small", where, f"give at least {minimum}")
        if maximum is not None and value > maximum:
            raise RiyazError(f"{brief(value)} is too large", where, f"give at most {maximum}")
        if above is not None and value <= above:
            raise RiyazError(f"{brief(value)} is too small", where, f"give more than {above}")
        if below is not None and value >= below:
            raise RiyazError(f"{brief(value)} is too large", where, f"give less than {below}")
    return value


def _converted(hint: type, value: object, where: str) -> object:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is Seconds and isinstance(value, str):
        return Seconds(parse_budget(value, where))
    if hint is Seconds and number:
        return Seconds(value)  # type: ignore[arg-type]
    if hint is float and number:
        try:
            return float(value)  # type: ignore[arg-type]
        except OverflowError:  # a whole number of hundreds of digits
            raise RiyazError(f"{brief(value)} is too large", where, "correct the value") from None
    if hint is int and number and isinstance(value, int):
        return value
    if hint is Path and isinstance(value, (str, Path)) and str(value):
        if "\0" in str(value):
            raise RiyazError("the path holds a NUL character", where, "no file can have that name")
        return Path(value)
    if (hint is bool and isinstance(value, bool)) or (hint is str and isinstance(value, str)):
        return value
    if typing.get_origin(hint) is tuple and isinstance(value, (str, list, tuple)):
        parts = [value] if isinstance(value, str) else list(value)
        if all(isinstance(part, str) for part in parts):
            return tuple(name.strip() for part in parts for name in part.split(",") if name.strip())
    raise RiyazError(f"{brief(value)} is not {TYPE_NAMES.get(hint, 'text')}", where, "correct the value")
