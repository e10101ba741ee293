"""From files to a Backend: the one place where a model is opened to answer."""

from pathlib import Path
from typing import Any

import torch

from riyaz import hardware, models
from riyaz.engine.torch_backend import Backend
from riyaz.engine.torch_packed import pack
from riyaz.errors import RiyazError, shown
from riyaz.layers import lora, lora_mlx, peft, peft_lora, soft_prompt
from riyaz.sources import Source, hub_name, open_source

ADAPTER = "adapter"  # the name under which requests ask for it


def load(source: Source, eos_ids: frozenset[int], adapter: Path | None = None, *, merged: bool = False) -> Backend:
    """The source's model with an adapter's folder on it, in bf16 where the CPU is quick at it, else in float32, on
    all cores this process may use; `merged` adds the adapter to the weights, where it cannot be turned off."""
    torch.set_num_threads(hardware.cores())
    model = models.load(source, torch.bfloat16 if hardware.bf16_is_fast() else torch.float32)
    if adapter is not None:
        model = attach(model, adapter)
    if merged:
        assert not isinstance(model, soft_prompt.SoftPrompt), "a soft prompt has no place in the weights"
        lora.merge(model)
    pack(model)
    return Backend(model, eos_ids, ADAPTER if adapter is not None and not merged else None)


def attach(model: Any, folder: Path) -> Any:
    """The model with the folder's adapter, of whichever kind it is. Raises RiyazError."""
    kind = _kind(folder / peft.CONFIG)
    if kind is soft_prompt:
        return soft_prompt.load_peft(model, folder)
    if kind is lora_mlx:
        lora_mlx.load(model, folder)
    else:
        lora.load_peft(model, folder)
    return model


def _kind(config: Path) -> Any:
    """The module of layers that reads its configuration."""
    read = peft.read_config(config)
    if lora_mlx.is_mlx(read):
        return lora_mlx
    kind = read.get("peft_type")
    known = {"LORA": peft_lora, "PROMPT_TUNING": soft_prompt}
    if not isinstance(kind, str) or kind not in known:
        raise RiyazError(f"peft_type is {kind!r:.60}", str(config), f"riyaz reads {' and '.join(known)}")
    return known[kind]


def base_for(config: Path, given: str | None) -> tuple[Source, str]:
    """The base of an adapter, `given` or else the one that its configuration names, and one line, or none, on what
    could not be compared. Raises RiyazError, also when the two are here and have other weights."""
    if given is None:
        return _named_base(config), ""
    source = open_source(given)
    try:
        name = base_of(config)
    except RiyazError:  # there is nothing to compare with
        return source, ""
    try:
        named = open_source(hub_name(name))
    except RiyazError:
        made = f"the adapter was made for {shown(name)}, which is not here to compare with {shown(given)}"
        return source, f"{made}: its answers are right if the two are one model"
    if named.path.resolve() != source.path.resolve() and named.sha256() != source.sha256():
        what = f"the adapter was made for {shown(name)} ({named.sha256()[:12]}), and {shown(given)} has other weights"
        hint = "leave --model out, or correct the name in that file"
        raise RiyazError(f"{what} ({source.sha256()[:12]})", str(config), hint)
    return source, ""


def _named_base(config: Path) -> Source:
    """The base model that an adapter's configuration names, opened. Raises RiyazError."""
    name = base_of(config)
    try:
        return open_source(hub_name(name))
    except RiyazError as error:
        what = f"the base that it names, {shown(name)}, cannot be opened ({error.what})"
        pull = f"run `riyaz pull {hub_name(name)}`" if hub_name(name) != name else "pull it"
        hint = f"{pull}, or write the path of its folder there; `riyaz export` takes it as --model too"
        raise RiyazError(what, str(config), hint) from error


def base_of(config: Path) -> str:
    """The base model that an adapter's configuration names. Raises RiyazError when it names none."""
    kind = _kind(config)
    name = kind.read_config(config).get("model" if kind is lora_mlx else "base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise RiyazError("names no base model", str(config), "name it with --model")
    return name
