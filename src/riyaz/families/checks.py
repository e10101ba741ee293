"""What the configurations of several families share: defaults, ranges, and one line that names all that is wrong."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from riyaz.errors import RiyazError

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
Keys = Mapping[str, str]  # field -> its name in the file


def fill(values: dict[str, Any]) -> None:
    """Sets the heads that a configuration may leave out."""
    if values["n_kv_heads"] is None:
        values["n_kv_heads"] = values["n_heads"]
    hidden, heads = values["hidden_size"], values["n_heads"]
    if values["head_dim"] is None and type(hidden) is int and type(heads) is int and heads > 0:
        values["head_dim"] = hidden // heads


def only(metadata: Mapping[str, Any], wanted: Mapping[str, Any], problems: list[str]) -> None:
    """Notes every key that says something else than the one thing that is run; it may be left out."""
    for key, value in wanted.items():
        if metadata.get(key) not in (None, value):
            problems.append(f"{key} is {metadata[key]!r:.60}, riyaz runs {value} only")


def flags(metadata: Mapping[str, Any], defaults: Mapping[str, bool], problems: list[str]) -> dict[str, Any]:
    """The keys that are true or false, with what stands for them where they are left out."""
    values = {key: default if metadata.get(key) is None else metadata[key] for key, default in defaults.items()}
    problems += [f"{k} is {value!r:.60}, not true or false" for k, value in values.items() if type(value) is not bool]
    return values


def table(metadata: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The table under this key; an empty one for anything else."""
    value = metadata.get(key)
    return value if isinstance(value, dict) else {}


def shortest(value: Any) -> Any:
    """The shortest decimal that gives a number which GGUF stored as float32; anything else as it is."""
    return float(str(np.float32(value))) if isinstance(value, float) else value


def sizes(values: Mapping[str, Any], keys: Keys, problems: list[str], limits: Mapping[str, int] = LIMITS) -> None:
    """Notes every size that is missing or no whole number in its range."""
    for field, limit in limits.items():
        value = values[field]
        if value is None:
            problems.append(f"{keys[field]} is missing")
        elif type(value) is not int or not 1 <= value <= limit:
            problems.append(f"{keys[field]} is {value!r:.60}, not a whole number from 1 to {limit}")


def positive(values: dict[str, Any], fields: Iterable[str], keys: Keys, problems: list[str]) -> None:
    """Makes floats of these fields, and notes what is no positive number."""
    for field in fields:
        value = values[field]
        if type(value) not in (int, float) or not 0 < value < 1e15:
            problems.append(f"{keys[field]} is {value!r:.60}, not a positive number below 1e15")
        else:
            values[field] = float(value)


def finish(values: Mapping[str, Any], problems: list[str], where: str) -> None:
    """RiyazError that lists all problems, those of sizes that do not go together included."""
    if not problems and values["n_heads"] % values["n_kv_heads"]:
        problems.append(f"{values['n_heads']} heads cannot share {values['n_kv_heads']} key/value heads evenly")
    if not problems and values["head_dim"] % 2:
        problems.append(f"the head size {values['head_dim']} is odd")
    if problems:
        raise RiyazError(", ".join(problems), where, "riyaz cannot run this model")
