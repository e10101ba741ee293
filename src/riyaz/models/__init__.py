"""The torch modules of the families: `load` and `load_embedder` fill them with a source's weights, `save_hf` writes a
language model as a Hugging Face folder."""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from riyaz.config import Precision
from riyaz.families import FAMILIES, Family, ModelConfig, describe, describe_embedder, transposed
from riyaz.families.ternary import KEY, SCALE, Scheme
from riyaz.json_files import read_json, write_json
from riyaz.layers.swaps import frozen, ternary
from riyaz.models import bert
from riyaz.sources import PRECISION, Source, safetensors
from riyaz.sources.ternary import pack
from riyaz.text.tokenizer import Tokenizer

# of an embedder's folder, beside its weights
EMBEDDER_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "sentence_bert_config.json")


def load(source: Source, dtype: torch.dtype = torch.bfloat16) -> Any:
    """The source's language model in `dtype`, frozen and in evaluation mode, with the checkpoint's parameter names.
    Its ternary linears are `layers.swaps.ternary`'s, with masters in `dtype` where the file has floats."""
    family = describe(source)
    model = empty(family.config)
    coded = [name for name in family.stored_names if family.is_ternary(name)]
    if coded and family.has_masters:
        ternary.apply(model, family.scheme.group if family.scheme else None)
        coded = []
    ternary.put_ternary(model, {name.removesuffix(".weight"): family.ternary(name) for name in coded})
    return fill_weights(model, _state(family, dtype, coded)).requires_grad_(False)


def load_frozen(source: Source, dtype: torch.dtype) -> Any:
    """As `load`, for training something beside the model: ternary linears hold codes, and the others too where
    `frozen.is_int8()`. Each is encoded as it is read, so that no more than one is in memory as floats."""
    family = describe(source)
    if not frozen.is_int8() or family.has_ternary:
        model = load(source, dtype)
        ternary.freeze(model)
        frozen.encode(model)
        return model
    model, state = empty(family.config), {}
    for name, kind, array in family.weights():
        path, _, part = name.rpartition(".")
        module, weight = model.get_submodule(path), to_torch(kind, array).to(dtype)
        if part == "weight" and frozen.is_plain(module):
            frozen.put_frozen(model, path, weight)
        else:
            state[name] = weight
        family.source.release()
    fill_weights(model, state).requires_grad_(False)
    frozen.encode(model)  # a head that shares the embedding's weight
    return model


def empty(config: ModelConfig) -> Any:
    """The language model of this configuration on the meta device, without weights."""
    with torch.device("meta"):
        return importlib.import_module(f"riyaz.models.{config.model_type}").Model(config)


def fill_weights(model: Any, state: dict[str, torch.Tensor]) -> Any:
    """A language model on the meta device, filled with these weights and in evaluation mode. `state` is in the order of
    the family's `layer_plan`."""
    embedding = next(iter(state))  # every plan begins with the token embedding
    if model.config.tie_word_embeddings:
        state["lm_head.weight"] = state[embedding]
    model.load_state_dict(state, assign=True, strict=True)
    if model.config.tie_word_embeddings:  # load_state_dict has made two parameters of one tensor
        model.lm_head.weight = model.get_parameter(embedding)
    return model.eval()


def load_embedder(source: Source, dtype: torch.dtype = torch.float32) -> bert.Model:
    """The source's embedder in `dtype`, frozen and in evaluation mode, with the checkpoint's parameter names."""
    family = describe_embedder(source)
    with torch.device("meta"):
        model = bert.Model(family.config)
    model.load_state_dict(_state(family, dtype), assign=True, strict=True)
    return model.eval().requires_grad_(False)


def _state(family: Family, dtype: torch.dtype, but: Sequence[str] = ()) -> dict[str, torch.Tensor]:
    """The weights in `dtype`, without those named in `but`. Raises RiyazError for NaN or an infinity, with which every
    answer would be wrong."""
    state = {}
    for name, kind, array in family.weights():
        if name not in but:
            state[name] = to_torch(kind, array).to(dtype)
            family.source.release()
    return state


def save_hf(model: Any, tokenizer: Tokenizer, folder: Path, precision: Precision = "auto") -> None:
    """Write a Hugging Face folder: weights in the model's type, configuration with all end tokens, the source's
    generation settings, tokenizer, chat template. `precision` is how they are held when it answers."""
    folder.mkdir(parents=True, exist_ok=True)
    state, packed, scheme = model.state_dict(), *_packed(model)
    for name in state:
        if transposed(model.config.model_type, name):
            state[name] = state[name].T
    if model.config.tie_word_embeddings:  # the head shares the embedding's weight, which is written once
        del state["lm_head.weight"]
    dtype = str(next(iter(state.values())).dtype).removeprefix("torch.")
    ends = sorted(tokenizer.eos_ids)
    ids = {"bos_token_id": tokenizer.bos_id, "eos_token_id": ends if len(ends) > 1 else ends[0]}
    config = FAMILIES[model.config.model_type].to_hf(model.config) | {"dtype": dtype} | ids
    if precision != "auto":
        config[PRECISION] = precision
    if scheme is not None:
        config[KEY] = scheme.to_hf()
    write_json(folder / "config.json", config, ascii=True)
    generation = {**tokenizer.files.generation, **ids}
    write_json(folder / "generation_config.json", generation, ascii=True)
    tokenizer.save(folder)
    safetensors.write(folder / "model.safetensors", to_arrays(state) | packed, {"format": "pt"})


def name_precision(folder: Path, precision: Precision) -> None:
    """Let the config.json of a folder that `save_hf` wrote name how weights are held when the model answers; with auto
    none, so they are as the file has them."""
    path = folder / "config.json"
    config = read_json(path, "write the model again")
    config.pop(PRECISION, None)
    write_json(path, config if precision == "auto" else config | {PRECISION: precision}, ascii=True)


def save_embedder(model: bert.Model, source: Source, folder: Path) -> None:
    """Write an embedder as its source's folder, with the weights of `model` in their type; tensors that are not read,
    such as the pooler, stay as they are."""
    for name in EMBEDDER_FILES:
        if (source.path / name).is_file():
            (folder / name).write_bytes((source.path / name).read_bytes())
    unread = source.tensors.keys() - describe_embedder(source).stored_names.values()
    rest: dict[str, Any] = {name: (source.tensors[name].dtype, source.array(name)) for name in unread}
    safetensors.write(folder / "model.safetensors", rest | to_arrays(model.state_dict()), {"format": "pt"})


def _packed(model: Any) -> tuple[dict[str, np.ndarray], Scheme | None]:
    """The packed codes and the scales of the model's frozen ternary linears, by name, and how the folder stores ternary
    linears; None for a model without."""
    arrays, scheme = {}, None
    for name, module in model.named_modules():
        if isinstance(module, ternary.TernaryLinear):
            scheme = Scheme(group=module.group)
        elif isinstance(module, ternary.FrozenTernaryLinear):
            scheme, scales = Scheme(packed=True, group=module.group), module.scales.numpy()
            arrays[f"{name}.weight"] = pack(module.codes.numpy())
            arrays[f"{name}.weight{SCALE}"] = scales if module.group else scales.reshape(1)
    return arrays, scheme


def to_arrays(tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Tensors as the arrays that `sources.safetensors.write` takes; the inverse of `to_torch`."""
    arrays: dict[str, Any] = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().contiguous()
        if tensor.dtype == torch.bfloat16:
            arrays[name] = ("BF16", tensor.view(torch.uint16).numpy())
        else:
            arrays[name] = tensor.numpy()
    return arrays


def to_torch(kind: str, array: np.ndarray) -> torch.Tensor:
    """The array as a tensor; a BF16 array holds the 16 bits of each number as uint16."""
    array = np.ascontiguousarray(array)
    if not array.flags.writeable:  # a memory map, which torch must not share
        array = array.copy()
    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if kind == "BF16" else tensor
