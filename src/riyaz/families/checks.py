"""Checks of a configuration's values, shared by the families; problems are collected and raised as one RiyazError."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from riyaz.errors import RiyazError, few

LIMITS = {
    "vocab_size": 2**22,
    "hidden_size": 2**17,
    "intermediate_size": 2**20,
    "n_layers": 1024,
    "n_heads": 4096,
    "n_kv_heads": 4096,
    "head_dim": 1024,
    "context": 2**30,
}
Keys = Mapping[str, str]  # field -> key in the file


def fill_heads(values: dict[str, Any]) -> None:
    """Sets missing `n_kv_heads` to `n_heads`, and missing `head_dim` to hidden size / heads."""
    if values["n_kv_heads"] is None:
        values["n_kv_heads"] = values["n_heads"]
    hidden, heads = values["hidden_size"], values["n_heads"]
    if values["head_dim"] is None and type(hidden) is int and type(heads) is int and heads > 0:
        values["head_dim"] = hidden // heads


def check_fixed(metadata: Mapping[str, Any], fixed: Mapping[str, Any], problems: list[str]) -> None:
    """Adds a problem for every key whose value is neither missing nor the only supported one."""
    for key, value in fixed.items():
        if metadata.get(key) not in (None, value):
            problems.append(f"{key} is {metadata[key]!r:.60}, riyaz supports only {value}")


def booleans(metadata: Mapping[str, Any], defaults: Mapping[str, bool], problems: list[str]) -> dict[str, Any]:
    """The values of boolean keys, a missing one replaced by its default; adds a problem for any other type."""
    values = {key: default if metadata.get(key) is None else metadata[key] for key, default in defaults.items()}
    problems += [f"{k} is {value!r:.60}, not true or false" for k, value in values.items() if type(value) is not bool]
    return values


def table(metadata: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The object under this key, or {} if it is missing or not an object."""
    value = metadata.get(key)
    return value if isinstance(value, dict) else {}


def shortest_decimal(value: Any) -> Any:
    """A float that GGUF stored as float32, as the shortest decimal with the same float32; other values unchanged."""
    return float(str(np.float32(value))) if isinstance(value, float) else value


def check_sizes(values: Mapping[str, Any], keys: Keys, problems: list[str], limits: Mapping[str, int] = LIMITS) -> None:
    """Adds a problem for every field of `limits` that is missing or not a whole number from 1 to its limit."""
    for field, limit in limits.items():
        value = values[field]
        if value is None:
            problems.append(f"{keys[field]} is missing")
        elif type(value) is not int or not 1 <= value <= limit:
            problems.append(f"{keys[field]} is {value!r:.60}, not a whole number from 1 to {limit}")


def check_positive(values: dict[str, Any], fields: Iterable[str], keys: Keys, problems: list[str]) -> None:
    """Converts these fields to float; adds a problem for every one that is not a positive number."""
    for field in fields:
        value = values[field]
        if type(value) not in (int, float) or not 0 < value < 1e15:
            problems.append(f"{keys[field]} is {value!r:.60}, not a positive number below 1e15")
        else:
            values[field] = float(value)


def raise_problems(values: Mapping[str, Any], problems: list[str], where: str) -> None:
    """Checks the head counts and head size; raises RiyazError listing all problems, if there are any."""
    if not problems and values["n_heads"] % values["n_kv_heads"]:
        problems.append(f"{values['n_heads']} heads cannot share {values['n_kv_heads']} key/value heads evenly")
    if not problems and values["head_dim"] % 2:
        problems.append(f"the head size {values['head_dim']} is odd")
    if problems:
        raise RiyazError(few(problems), where, "riyaz cannot run this model")
