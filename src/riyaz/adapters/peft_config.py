"""PEFT's configuration of a LoRA: the rank and alpha of each layer, and which layers the weights file must hold.

Supported are plain LoRA and rsLoRA with any targets, and modules trained whole (`modules_to_save`). Options that
compute something else are refused by name. Test oracle: the `peft` package.
"""

import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from riyaz.adapters import folder
from riyaz.errors import RiyazError, few

DEFAULT_RANK, DEFAULT_ALPHA = 8, 8  # PEFT's defaults
LARGEST = 1e9  # above any α, rank and other number of a configuration
# Options of PEFT that change what an adapter computes; ignoring one would give wrong answers without an error.
NOT_PLAIN = (
    "use_dora", "use_qalora", "use_bdlora", "lora_bias", "target_parameters", "trainable_token_indices",
    "layer_replication", "alora_invocation_tokens", "arrow_config", "kasa_config",
)  # fmt: skip
# Initialisations that subtract B·A from the base's weights.
CHANGE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
ALL_LINEAR = "all-linear"  # value of target_modules for every linear but the head
# Limits of a regular expression from a file, in characters and quantifiers: matching a malicious one can take years.
LONG_PATTERN, MANY_QUANTIFIERS = 800, 5


def read_config(path: Path) -> dict[str, Any]:
    """The configuration of a PEFT LoRA or rsLoRA. Raises RiyazError for any other kind of adapter."""
    config = folder.read_config(path)
    refused = [key for key in NOT_PLAIN if config.get(key)]
    if config.get("bias", "none") != "none":
        refused.append(f"bias {config['bias']!r:.20}")
    initialisation = str(config.get("init_lora_weights"))
    if initialisation.startswith(CHANGE_BASE):
        refused.append(f"init_lora_weights {initialisation:.60}")
    problems = _wrong_numbers(config) + _wrong_names(config)
    if config.get("peft_type") != "LORA":
        what = f"peft_type is {config.get('peft_type')!r:.60}, not 'LORA'"
    elif refused:
        what = f"the adapter uses {few(refused)}"
    elif problems:
        what = few(problems, "; ")
    else:
        return config
    hint = "riyaz reads plain LoRA and rsLoRA; merge others into their base with the tool that made them"
    raise RiyazError(what, str(path), hint)


def _wrong_numbers(config: Mapping[str, Any]) -> list[str]:
    """An error text for every entry that should hold numbers and does not."""
    alpha, problems = config.get("lora_alpha"), []
    if not _is_number(alpha):
        problems.append(f"lora_alpha is {alpha!r:.60}, not a number")
    for key in ("rank_pattern", "alpha_pattern"):
        table = config.get(key) or {}
        if not isinstance(table, dict) or not all(_is_number(value) for value in table.values()):
            problems.append(f"{key} is {table!r:.60}, not a table of numbers")
        else:
            wrong = [name for name in table if not _is_safe(rf".*(?:{name})")]  # the form that `_matching` uses
            problems += [f"{key} has {name!r:.60}, which riyaz does not match" for name in wrong]
    layers = config.get("layers_to_transform")
    if not all(isinstance(index, int) for index in _as_list(layers)):
        problems.append(f"layers_to_transform is {layers!r:.60}, not a list of numbers")
    return problems


def _wrong_names(config: Mapping[str, Any]) -> list[str]:
    """Module selectors that are neither names nor patterns that riyaz matches, as error texts."""
    saved, problems = config.get("modules_to_save") or [], []
    if not isinstance(saved, list) or not _are_names(saved):
        problems.append(f"modules_to_save is {saved!r:.60}, not a list of names")
    for key in ("target_modules", "exclude_modules", "layers_pattern"):
        value = config.get(key) or []
        if not _are_names(_as_list(value)):
            problems.append(f"{key} is {value!r:.60}, neither names nor a pattern")
        elif (isinstance(value, str) or key == "layers_pattern") and not all(map(_is_safe, _as_list(value))):
            problems.append(f"{key} is {value!r:.60}, which riyaz does not match")
    return problems


def _as_list(value: Any) -> list[Any]:
    """A list as it is, None as an empty list, another value as a list of one."""
    return value if isinstance(value, list) else [] if value is None else [value]


def _are_names(values: list[Any]) -> bool:
    return all(isinstance(name, str) and name for name in values)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST


def _is_safe(pattern: str) -> bool:
    """Whether a regular expression compiles and is simple enough to match a module's path quickly."""
    if len(pattern) > LONG_PATTERN or re.search(r"\)\s*[*+?{]|\(\?(?!:|<?[=!])|\\[1-9]", pattern):
        return False
    if len(re.findall(r"(?<![\\(*+?}])[*+?{]", pattern)) > MANY_QUANTIFIERS:  # `+?` counts once
        return False
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True


def _matching(patterns: Mapping[str, Any] | None, name: str, default: Any) -> Any:
    """The value of the first pattern that matches the end of a module's path, as in PEFT, else `default`."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            return value
    return default


def scale(name: str, rank: int, config: Mapping[str, Any]) -> float:
    """The scale of a layer's product: α/r, or α/√r for rsLoRA."""
    alpha = _matching(config.get("alpha_pattern"), name, config["lora_alpha"])
    rank = max(rank, 1)  # rank 0 is refused later, by `base_shapes.checked_adapter`
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def wrong_rank(name: str, rank: int, config: Mapping[str, Any]) -> list[str]:
    """An error text if the rank of a layer's tensors is not the configuration's, else an empty list."""
    configured = _matching(config.get("rank_pattern"), name, config.get("r", DEFAULT_RANK))
    return [] if rank == configured else [f"{name} has rank {rank}, the configuration says {configured!r:.60}"]


def missing_tensors(
    pairs: Collection[str],
    whole: Collection[str],
    linears: Collection[str],
    parameters: Collection[str],
    config: Mapping[str, Any],
) -> list[str]:
    """An error text for every module that the configuration names and the file has no tensor for: it would silently
    stay the base's. `pairs` and `whole` are the linears and parameters in the file, `linears` and `parameters` those of
    the base."""
    if not pairs and not whole:
        return []  # `base_shapes.checked_adapter` reports one problem for the whole file
    if config.get("target_modules") is None:  # infer them: the last parts of the paths in the file, in every layer
        config = {**config, "target_modules": [name.rpartition(".")[2] for name in pairs]}
    problems = []
    for name in config.get("modules_to_save") or []:
        lacking = [path for path in parameters if _is_inside(path, name) and path not in whole]
        if not any(_is_inside(path, name) for path in whole):
            problems.append(f"modules_to_save names {name!r:.60}, which the file lacks")
        else:
            problems += [f"{path}, which modules_to_save names, is not in the file" for path in lacking]
    bare = [name for name in linears if name not in pairs and _is_target(name, config)]
    saved = {path.rpartition(".")[0] for path in whole}
    return problems + [f"{name} has no adapter tensor" for name in bare if name not in saved]


def _is_target(name: str, config: Mapping[str, Any]) -> bool:
    """Whether the configuration puts a LoRA on this linear, by PEFT's matching rules."""
    targets, layers = config.get("target_modules"), config.get("layers_to_transform")
    if _selects(config.get("exclude_modules"), name):
        return False
    if isinstance(targets, str):
        return name != "lm_head" if targets.lower() == ALL_LINEAR else _selects(targets, name)
    if not _selects(targets, name) or layers in (None, []):
        return _selects(targets, name)
    patterns = _as_list(config.get("layers_pattern") or r"[^.]*")
    matches = [re.match(rf"(?:^|.*?\.){pattern}\.(\d+)\.", name) for pattern in patterns]
    index = next((int(match[1]) for match in matches if match), None)
    return index in _as_list(layers)


def _selects(modules: str | list[str] | None, name: str) -> bool:
    """Whether a selector matches a module's path: a pattern matches all of it, a name in a list its end."""
    if isinstance(modules, str):
        return bool(modules) and re.fullmatch(modules, name) is not None
    return any(f".{name}".endswith(f".{module}") for module in modules or [])


def is_saved(path: str, config: Mapping[str, Any]) -> bool:
    """Whether `modules_to_save` of the configuration covers this parameter."""
    return any(_is_inside(path, name) for name in config.get("modules_to_save") or [])


def _is_inside(path: str, name: str) -> bool:
    """Whether the parameter at `path` is in a module whose path ends with `name`. As in PEFT the end need not be a
    whole word: "norm" also selects "input_layernorm"."""
    return f"{name}." in path
