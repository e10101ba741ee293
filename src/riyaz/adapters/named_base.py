"""Opening the base model of an adapter, and checking that a base given by the user has the weights of the named one."""

from pathlib import Path

from riyaz.adapters import mlx, peft_config, peft_prompt
from riyaz.adapters.folder import BASE, kind_of
from riyaz.errors import RiyazError, shown
from riyaz.sources import Source, catalogue_name, hub_name, open_source


def base_for(config: Path, base: str | None) -> tuple[Source, str]:
    """The base of an adapter (`base`, or the one that the configuration file `config` names) and a note if the two
    could not be compared, else "". Raises RiyazError if no base can be opened or the two have different weights."""
    if base is None:
        return _open_named(config)
    source = open_source(base)
    try:
        name = base_of(config)
    except RiyazError:  # no base is named, so there is nothing to compare with
        return source, ""
    beside = config.parent / BASE
    try:
        named = open_source(beside if beside.is_dir() else hub_name(name))
    except RiyazError:
        note = f"the adapter was made for {shown(name)}, which is not available to compare with {shown(base)}"
        return source, f"{note}: its answers are right if the two are the same model"
    if named.path.resolve() != source.path.resolve() and named.sha256() != source.sha256():
        what = f"the adapter was made for {shown(name)} ({named.sha256()[:12]}), and {shown(base)} has other weights"
        hint = "leave --model out, or correct the name in this file"
        raise RiyazError(f"{what} ({source.sha256()[:12]})", str(config), hint)
    return source, ""


def base_of(config: Path) -> str:
    """The name of the base model in an adapter's configuration file. Raises RiyazError if there is none."""
    kind = kind_of(config)
    if kind == "mlx":
        name = mlx.read_config(config).get("model")
    else:
        read_config = peft_config.read_config if kind == "lora" else peft_prompt.read_config
        name = read_config(config).get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise RiyazError("names no base model", str(config), "name it with --model")
    return name


def _open_named(config: Path) -> tuple[Source, str]:
    """The base model that lies beside an adapter's configuration file or that the file names, and a note if that is one
    with rounded weights. Raises RiyazError."""
    beside = config.parent / BASE
    if beside.is_dir():
        return open_source(beside), ""
    name = base_of(config)
    try:
        return open_source(hub_name(name)), ""
    except RiyazError as error:
        known = catalogue_name(name)
        if known is not None:
            return open_source(known), f"the base that the adapter names, {name}, is {known} here, with rounded weights"
        what = f"the base that it names, {shown(name)}, cannot be opened ({error.what})"
        pull = f"run `riyaz pull {hub_name(name)}`" if hub_name(name) != name else "pull it"
        hint = f"{pull}, or write the path of its folder in this file; `riyaz export` also takes it as --model"
        raise RiyazError(what, str(config), hint) from error
