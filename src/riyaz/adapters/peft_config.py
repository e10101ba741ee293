"""PEFT's configuration of a LoRA: ranks and alphas, by pattern too, and which layers the file must hold.

Plain LoRA and rsLoRA with any targets, and modules trained whole (`modules_to_save`); everything that computes
something else is refused by name. Test oracle: the `peft` package.
"""

import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from riyaz.adapters import folder
from riyaz.errors import RiyazError

DEFAULT_RANK, DEFAULT_ALPHA = 8, 8  # PEFT's, for configurations that leave them out
# Options of PEFT that change what an adapter computes; ignoring one would answer wrongly and say nothing.
NOT_PLAIN = (
    "use_dora", "use_qalora", "use_bdlora", "lora_bias", "target_parameters", "trainable_token_indices",
    "layer_replication", "alora_invocation_tokens", "arrow_config", "kasa_config",
)  # fmt: skip
CHANGE_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")  # initialisations that take A·B off the base's weights
ALL_LINEAR = "all-linear"  # target_modules for every linear but the head
# a pattern comes with the file: one whose quantifiers stand on groups can take years to say no
LONG_PATTERN, MANY_QUANTIFIERS = 800, 5


def read_config(path: Path) -> dict[str, Any]:
    """A PEFT configuration of a plain LoRA or rsLoRA. Raises RiyazError for any other."""
    config = folder.read_config(path)
    refused = [key for key in NOT_PLAIN if config.get(key)]
    if config.get("bias", "none") != "none":
        refused.append(f"bias {config['bias']!r:.20}")
    start = str(config.get("init_lora_weights"))
    if start.startswith(CHANGE_BASE):
        refused.append(f"init_lora_weights {start:.60}")
    problems = _wrong_numbers(config) + _wrong_names(config)
    if config.get("peft_type") != "LORA":
        what = f"peft_type is {config.get('peft_type')!r:.60}, not 'LORA'"
    elif refused:
        what = f"this adapter uses {', '.join(refused)}"
    elif problems:
        what = "; ".join(problems)
    else:
        return config
    hint = "riyaz reads plain LoRA and rsLoRA; merge others into their base with the tool that made them"
    raise RiyazError(what, str(path), hint)


def _wrong_numbers(config: Mapping[str, Any]) -> list[str]:
    """One line for every entry that should hold numbers and does not."""
    alpha, problems = config.get("lora_alpha"), []
    if not _is_number(alpha):
        problems.append(f"lora_alpha is {alpha!r:.60}, not a number")
    for key in ("rank_pattern", "alpha_pattern"):
        table = config.get(key) or {}
        if not isinstance(table, dict) or not all(_is_number(value) for value in table.values()):
            problems.append(f"{key} is {table!r:.60}, not a table of numbers")
        else:
            wrong = [name for name in table if not _is_safe(rf".*(?:{name})")]  # as `_matching` begins
            problems += [f"{key} has {name!r:.60}, which riyaz does not match" for name in wrong]
    layers = config.get("layers_to_transform")
    if not all(isinstance(index, int) for index in _listed(layers)):
        problems.append(f"layers_to_transform is {layers!r:.60}, not a list of numbers")
    return problems


def _wrong_names(config: Mapping[str, Any]) -> list[str]:
    """One line for every module selector that is neither a list of names nor a pattern that riyaz matches."""
    saved, problems = config.get("modules_to_save") or [], []
    if not isinstance(saved, list) or not _are_names(saved):
        problems.append(f"modules_to_save is {saved!r:.60}, not a list of names")
    for key in ("target_modules", "exclude_modules", "layers_pattern"):
        value = config.get(key) or []
        if not _are_names(_listed(value)):
            problems.append(f"{key} is {value!r:.60}, neither names nor a pattern")
        elif (isinstance(value, str) or key == "layers_pattern") and not all(map(_is_safe, _listed(value))):
            problems.append(f"{key} is {value!r:.60}, which riyaz does not match")
    return problems


def _listed(value: Any) -> list[Any]:
    """A value that may stand alone, or be left out, as a list."""
    return value if isinstance(value, list) else [] if value is None else [value]


def _are_names(values: list[Any]) -> bool:
    return all(isinstance(name, str) and name for name in values)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9


def _is_safe(pattern: str) -> bool:
    """Whether a pattern compiles and is simple enough to be matched against a module's path quickly."""
    if len(pattern) > LONG_PATTERN or re.search(r"\)\s*[*+?{]|\(\?(?!:|<?[=!])|\\[1-9]", pattern):
        return False
    if len(re.findall(r"(?<![\\(*+?}])[*+?{]", pattern)) > MANY_QUANTIFIERS:  # a lazy one has two signs
        return False
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True


def _matching(patterns: Mapping[str, Any] | None, name: str, default: Any) -> Any:
    """The value of the first pattern that is the end of a module's path, as PEFT matches them."""
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            return value
    return default


def scale(name: str, rank: int, config: Mapping[str, Any]) -> float:
    """The factor of one layer's product."""
    alpha = _matching(config.get("alpha_pattern"), name, config["lora_alpha"])
    rank = max(rank, 1)  # rank 0 is refused later, with everything else
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank


def wrong_rank(name: str, rank: int, config: Mapping[str, Any]) -> list[str]:
    """One line when a layer's tensors have another rank than the configuration says."""
    said = _matching(config.get("rank_pattern"), name, config.get("r", DEFAULT_RANK))
    return [] if rank == said else [f"{name} has rank {rank}, the configuration says {said!r:.60}"]


def missing(
    pairs: Collection[str],
    whole: Collection[str],
    linears: Collection[str],
    parameters: Collection[str],
    config: Mapping[str, Any],
) -> list[str]:
    """One line for everything that the configuration names and the file has no tensor for; there the bare base would
    answer. `pairs` and `whole` are the linears and parameters that the file holds, `linears` and `parameters` all
    those of the base."""
    if not pairs and not whole:
        return []  # one line says that
    if config.get("target_modules") is None:  # then the file's last names are meant in every layer
        config = {**config, "target_modules": [name.rpartition(".")[2] for name in pairs]}
    problems = []
    for name in config.get("modules_to_save") or []:
        lacking = [path for path in parameters if _ends(path, name) and path not in whole]
        if not any(_ends(path, name) for path in whole):
            problems.append(f"modules_to_save names {name!r:.60}, which the file lacks")
        else:
            problems += [f"{path}, which modules_to_save names, is not in the file" for path in lacking]
    bare = [name for name in linears if name not in pairs and _is_target(name, config)]
    saved = {path.rpartition(".")[0] for path in whole}
    return problems + [f"{name} has no adapter tensor" for name in bare if name not in saved]


def _is_target(name: str, config: Mapping[str, Any]) -> bool:
    """Whether the configuration says that this linear has an adapter, as PEFT matches them."""
    targets, layers = config.get("target_modules"), config.get("layers_to_transform")
    if _names(config.get("exclude_modules"), name):
        return False
    if isinstance(targets, str):
        return name != "lm_head" if targets.lower() == ALL_LINEAR else _names(targets, name)
    if not _names(targets, name) or layers in (None, []):
        return _names(targets, name)
    patterns = _listed(config.get("layers_pattern") or r"[^.]*")
    matches = [re.match(rf"(?:^|.*?\.){pattern}\.(\d+)\.", name) for pattern in patterns]
    index = next((int(match[1]) for match in matches if match), None)
    return index in _listed(layers)


def _names(modules: str | list[str] | None, name: str) -> bool:
    """Whether a pattern is a module's whole path, or a list has its path or the end of it."""
    if isinstance(modules, str):
        return bool(modules) and re.fullmatch(modules, name) is not None
    return any(f".{name}".endswith(f".{module}") for module in modules or [])


def is_saved(path: str, config: Mapping[str, Any]) -> bool:
    """Whether the configuration says that this parameter was trained whole."""
    return any(_ends(path, name) for name in config.get("modules_to_save") or [])


def _ends(path: str, name: str) -> bool:
    """Whether the parameter at `path` lies in a module whose path ends with `name`, be it in the middle of a word:
    so PEFT matches them, and "norm" names every norm."""
    return f"{name}." in path
