"""The family bitnet beside transformers' own, in every layout of its weights: logits, gradients, cached answers; and
its GGUF files beside gguf's dequantisation. Ternary weights make these models discontinuous: two implementations that
differ in the last bit of an activation may round it to different codes, so seeds are those where none lies so near.
"""

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_llama
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import dequantize, quantize
from refusals import assert_refused
from safetensors.numpy import load_file, save_file
from torch import Tensor, nn
from transformers import BitNetConfig, BitNetForCausalLM
from transformers.integrations.bitnet import pack_weights

from riyaz.engine import Request
from riyaz.engine.engine import Engine
from riyaz.engine.torch.load import load_runner
from riyaz.families import bitnet, describe
from riyaz.layers.attention import packed
from riyaz.layers.swaps.ternary import FrozenTernaryLinear, TernaryLinear, ternary_codes
from riyaz.models import load, save_hf
from riyaz.sources import TensorInfo, gguf_ternary
from riyaz.sources.source import open_path

TOKENS = torch.tensor([5, 7, 20, 13, 40, 9, 55, 31])
LOGITS = 2e-5  # largest difference in float32; logits have a spread of about one
HIDDEN, INNER = 256, 512  # rows of whole GGUF blocks
ONLINE = {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online"}
OFFLINE = ONLINE | {"quantization_mode": "offline"}
DIVIDING = OFFLINE | {"linear_class": "bitlinear"}


@pytest.fixture(autouse=True)
def eager() -> Iterator[None]:
    """transformers compiles its rounding, which takes a compiler and half a minute."""
    with torch.compiler.set_stance("force_eager"):
        yield


def theirs(seed: int = 0, **settings: Any) -> Any:
    """A BitNet of transformers with random weights, those of the norms too, in float32."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = BitNetConfig(
            vocab_size=tiny_llama.Tiny().vocab, hidden_size=HIDDEN, intermediate_size=INNER, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128, tie_word_embeddings=True,
            bos_token_id=1, eos_token_id=2, **settings,
        )  # fmt: skip
        model = BitNetForCausalLM(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                scale = 0.05 if parameter.ndim > 1 else 0.3
                parameter.copy_(scale * torch.randn(parameter.shape) + (parameter.ndim == 1))
    return model


def layers(model: Any) -> dict[str, nn.Linear]:
    """The linears that are made ternary, by name."""
    return {
        name: module for name, module in model.named_modules() if isinstance(module, nn.Linear) and "layers" in name
    }


def folder_of(model: Any, folder: Path, quantised: dict[str, Any] | None) -> Path:
    """The model as a checkpoint in one of the layouts: the floats, or packed codes and their scale."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().clone() for name, value in model.state_dict().items() if name != "lm_head.weight"}
    if quantised in (OFFLINE, DIVIDING):
        for name, linear in layers(model).items():
            codes, scale = ternary_codes(linear.weight.detach())
            state[f"{name}.weight"] = pack_weights(codes.float())
            state[f"{name}.weight_scale"] = (scale if quantised == OFFLINE else 1 / scale).view(1)
    save_file({name: value.contiguous().numpy() for name, value in state.items()}, folder / "model.safetensors")
    config = model.config.to_dict() | ({"quantization_config": quantised} if quantised else {})
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def rounding(folder: Path) -> Any:
    """A folder as transformers loads it, with its own ternary linears."""
    return BitNetForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def ours(model: Any, tokens: Tensor = TOKENS) -> Tensor:
    hidden = model(tokens, torch.arange(len(tokens)), packed([len(tokens)]))
    logits: Tensor = model.head(hidden)
    return logits


@pytest.mark.parametrize("activation", ["relu2", "silu"])
def test_without_rounding_it_is_transformers_bitnet(tmp_path: Path, activation: str) -> None:
    model = theirs(hidden_act=activation)
    loaded = load(open_path(folder_of(model, tmp_path, None)), torch.float32)
    with torch.no_grad():
        assert (ours(loaded) - model(TOKENS[None]).logits[0]).abs().max() < LOGITS


@pytest.mark.parametrize("quantised", [ONLINE, OFFLINE, DIVIDING], ids=["masters", "multiplied", "divided"])
def test_every_layout_gives_transformers_logits_and_answers(tmp_path: Path, quantised: dict[str, Any]) -> None:
    folder = folder_of(theirs(), tmp_path, quantised)
    model = rounding(folder)
    loaded = load(open_path(folder), torch.float32)
    kind = TernaryLinear if quantised == ONLINE else FrozenTernaryLinear
    assert {type(module) for name, module in loaded.named_modules() if name.endswith("_proj")} == {kind}
    with torch.no_grad():
        wanted = model(TOKENS[None]).logits[0]
        assert (ours(loaded) - wanted).abs().max() < LOGITS
        greedy = model.generate(TOKENS[None], max_new_tokens=12, do_sample=False, pad_token_id=2)[0, len(TOKENS) :]
    engine = Engine(load_runner(open_path(folder), "float32"))
    (answer,) = engine.generate([Request(0, tuple(TOKENS.tolist()), limit=12)])
    assert list(answer) == greedy.tolist()


def test_gradients_are_transformers(tmp_path: Path) -> None:
    folder = folder_of(theirs(), tmp_path, ONLINE)
    model = rounding(folder).requires_grad_(True)
    loaded = load(open_path(folder), torch.float32).requires_grad_(True)
    weights = torch.randn(len(TOKENS), model.config.vocab_size, generator=torch.Generator().manual_seed(0))
    (model(TOKENS[None]).logits[0] * weights).sum().backward()
    (ours(loaded) * weights).sum().backward()
    wanted = dict(model.named_parameters())
    for name, parameter in loaded.named_parameters():
        assert parameter.grad is not None, name
        scale = wanted[name].grad.abs().max()
        assert (parameter.grad - wanted[name].grad).abs().max() < 1e-4 * scale, name


def test_a_packed_folder_that_we_write_is_read_by_transformers(tmp_path: Path) -> None:
    """From masters to packed bytes: the codes of training are the codes that are served."""
    from riyaz.layers.swaps import ternary

    tiny_llama.write_tokenizer(tmp_path / "masters")
    source = open_path(folder_of(theirs(), tmp_path / "masters", ONLINE))
    loaded = load(source, torch.float32)
    with torch.no_grad():
        trained = ours(loaded)
        ternary.freeze(loaded)
        assert torch.equal(ours(loaded), trained)
    save_hf(loaded, source.tokenizer(), tmp_path / "packed")
    again = load(open_path(tmp_path / "packed"), torch.float32)
    model = rounding(tmp_path / "packed")
    with torch.no_grad():
        assert torch.equal(ours(again), trained)
        assert (trained - model(TOKENS[None]).logits[0]).abs().max() < LOGITS
    before, after = (describe(open_path(tmp_path / name)) for name in ("masters", "packed"))
    for name in layers(theirs()):
        assert np.array_equal(before.ternary(f"{name}.weight").codes, after.ternary(f"{name}.weight").codes)


# GGUF


def i2_s(codes: np.ndarray, scale: float) -> np.ndarray:
    """bitnet.cpp's bytes of a matrix: weight by weight the byte and the bits that it goes to."""
    place, packed_bytes = np.arange(codes.size), np.zeros(codes.size // 4 + 32, np.uint8)
    bits = (codes + 1).reshape(-1).astype(np.uint8) << (6 - 2 * (place % 128 // 32)).astype(np.uint8)
    np.bitwise_or.at(packed_bytes, 32 * (place // 128) + place % 32, bits)
    packed_bytes[codes.size // 4 :][:4] = np.frombuffer(np.float32(scale).tobytes(), np.uint8)
    return packed_bytes


def gguf_of(model: Any, path: Path, kind: str, architecture: str = "bitnet-b1.58") -> Path:
    """The model as a GGUF file whose linears have a ternary type, through the gguf package."""
    config = bitnet.from_hf(model.config.to_dict())
    names, state = bitnet.names(config), model.state_dict()
    writer = GGUFWriter(path, architecture)
    for key, value in bitnet.gguf_metadata(config).items():
        if key != "general.architecture":
            put = writer.add_uint32 if isinstance(value, int) else writer.add_float32
            put(key.replace("bitnet-b1.58", architecture), value)
    linears = {f"{name}.weight" for name in layers(model)}
    for name, stored in names.items():
        array = state[name].detach().numpy()
        if name not in linears:
            writer.add_tensor(stored, array)
            continue
        codes, scale = ternary_codes(state[name])
        if kind == "I2_S":
            raw = i2_s(codes.numpy(), float(scale))
            writer.add_tensor_info(stored, array.shape, np.dtype(np.float32), raw.nbytes, _Type(36))
            writer.tensors[-1][stored].tensor = raw
        else:
            dtype = GGMLQuantizationType[kind]
            writer.add_tensor(stored, quantize(codes.numpy() * scale.numpy(), dtype), raw_dtype=dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    ("kind", "architecture"), [("TQ1_0", "bitnet"), ("TQ2_0", "bitnet-25"), ("I2_S", "bitnet-b1.58")]
)
def test_gguf_files_give_the_codes_that_were_written(
    tmp_path: Path, kind: str, architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_ternary, "CHUNK", 100)
    model = theirs()
    source = open_path(gguf_of(model, tmp_path / "model.gguf", kind, architecture))
    family = describe(source)
    assert family.config.activation == ("silu" if architecture == "bitnet" else "relu2") and not family.has_masters
    for name, linear in layers(model).items():
        found, (codes, scale) = family.ternary(f"{name}.weight"), ternary_codes(linear.weight.detach())
        assert np.array_equal(found.codes, codes.numpy()) and found.group is None
        assert found.scales.item() == (scale.item() if kind == "I2_S" else np.float32(np.float16(scale.item())))
        stored = source.files[0].array(family.stored_names[f"{name}.weight"])
        assert np.array_equal(stored, found.floats())
        if kind != "I2_S":
            info = source.tensors[family.stored_names[f"{name}.weight"]]
            raw = np.frombuffer(source.files[0].data, np.uint8, info.nbytes, info.offset).reshape(len(codes), -1)
            assert np.array_equal(dequantize(raw, GGMLQuantizationType[kind]), stored)


def test_gguf_gives_the_logits_of_the_folder(tmp_path: Path) -> None:
    model = theirs()
    folder = load(open_path(folder_of(model, tmp_path / "hf", ONLINE)), torch.float32)
    file = load(open_path(gguf_of(model, tmp_path / "model.gguf", "I2_S")), torch.float32)
    with torch.no_grad():
        assert torch.equal(ours(file), ours(folder))


def test_a_key_of_newer_gguf_files_says_the_activation(tmp_path: Path) -> None:
    source = open_path(gguf_of(theirs(), tmp_path / "model.gguf", "TQ2_0", "bitnet"))
    key = "bitnet.hidden_activation"
    assert bitnet.from_gguf({**source.metadata, key: "relu2"}, source.tensors).activation == "relu2"
    with assert_refused(f"{key} is 'gelu'", "relu2 or silu"):
        bitnet.from_gguf({**source.metadata, key: "gelu"}, source.tensors)


def test_blocks_with_scales_of_their_own_keep_them(tmp_path: Path) -> None:
    """TriLM and others have a scale for a part of a matrix: it is that of its blocks of 256."""
    values = np.concatenate([np.full((2, 256), 0.5, np.float32), np.full((2, 256), -2.0, np.float32)], axis=1)
    raw = quantize(values, GGMLQuantizationType.TQ2_0).view(gguf_ternary.TQ2_0).reshape(-1)
    found = gguf_ternary.read(TensorInfo("w", "TQ2_0", values.shape, 0, 0), raw)
    assert found.group == 256 and np.array_equal(found.scales, [[0.5, 2.0]] * 2)
    assert np.array_equal(found.floats(), values)


# what is refused


def edited(
    folder: Path, change: Callable[[dict[str, Any]], None], tensors: Callable[[Any], None] | None = None
) -> Path:
    """The folder with another configuration, and other tensors."""
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    if tensors:
        state = load_file(folder / "model.safetensors")
        tensors(state)
        save_file(state, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("linear_class", "fusedbitlinear", "linear_class is 'fusedbitlinear'"),
        ("quantization_mode", "dynamic", "quantization_mode is 'dynamic'"),
        ("use_rms_norm", True, "no norm before every linear"),
        ("modules_to_not_convert", ["lm_head", "model.layers.0.mlp.up_proj"], "modules_to_not_convert is"),
        ("group_size", 100, "group_size is 100, not a multiple of 16"),
        ("activation_rotation", "hadamard", "no rotation of activations"),
    ],
)
def test_what_riyaz_lacks_is_refused_by_name(tmp_path: Path, key: str, value: object, what: str) -> None:
    folder = folder_of(theirs(), tmp_path, OFFLINE)
    with assert_refused("quantization_config", what):
        describe(open_path(edited(folder, lambda config: config["quantization_config"].update({key: value}))))


def test_other_rotations_methods_and_activations_are_refused(tmp_path: Path) -> None:
    folder = folder_of(theirs(), tmp_path, OFFLINE)
    with assert_refused("use_hadamard", "no rotation"):
        describe(open_path(edited(folder, lambda config: config.update(use_hadamard=True))))
    with assert_refused("hidden_act is 'gelu'", "relu2 and silu"):
        describe(open_path(edited(folder, lambda config: config.update(hidden_act="gelu", use_hadamard=None))))
    with assert_refused("quantization_config", "gptq"):
        describe(open_path(edited(folder, lambda config: config["quantization_config"].update(quant_method="gptq"))))


O_PROJ = "model.layers.1.self_attn.o_proj.weight"


def test_scales_that_are_missing_or_of_another_shape_are_refused(tmp_path: Path) -> None:
    folder = folder_of(theirs(), tmp_path, OFFLINE)
    same: Callable[[dict[str, Any]], None] = lambda config: None  # noqa: E731
    with assert_refused(f"{O_PROJ}_scale has the shape [{HIDDEN}] instead of [1]"):
        describe(open_path(edited(folder, same, lambda state: state.update({f"{O_PROJ}_scale": np.ones(HIDDEN)}))))
    with assert_refused(f"{O_PROJ}_scale is missing"):
        describe(open_path(edited(folder, same, lambda state: state.pop(f"{O_PROJ}_scale"))))
    with assert_refused(f"{O_PROJ}_scale' holds a scale that is no positive number"):
        scale = np.array([np.nan], np.float32)
        load(open_path(edited(folder, same, lambda state: state.update({f"{O_PROJ}_scale": scale}))))
    with assert_refused(f"{O_PROJ}' holds the bits 11 at [64, 0]"):
        good = {f"{O_PROJ}_scale": np.ones(1, np.float32)}
        load(open_path(edited(folder, same, lambda state: state.update(good | {O_PROJ: spoilt(state[O_PROJ])}))))


def spoilt(packed_codes: np.ndarray) -> np.ndarray:
    """With the bits 11 for row 64, the first of the second quarter."""
    changed = packed_codes.copy()
    changed[0, 0] |= 0b1100
    return changed


@pytest.mark.parametrize(("kind", "block"), [("TQ1_0", 256), ("TQ2_0", 256), ("I2_S", 128)])
def test_rows_that_are_no_multiple_of_a_block_are_refused(tmp_path: Path, kind: str, block: int) -> None:
    number = {"TQ1_0": 34, "TQ2_0": 35, "I2_S": 36}[kind]
    path = tmp_path / "model.gguf"
    name = b"blk.0.attn_q.weight"
    entry = struct.pack("<Q", len(name)) + name + struct.pack("<IQQIQ", 2, 192, 4, number, 0)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + entry + bytes(4096))
    with assert_refused(f"has rows of 192 weights, {kind} needs a multiple of {block}"):
        open_path(path)


class _Type(int):
    """A type number that the gguf package does not know."""
