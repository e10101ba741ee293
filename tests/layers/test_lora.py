"""LoRA: its gradient, the bare base under it, merging, and PEFT as the oracle of its files in both directions."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_llama
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from refusals import assert_refused
from small_llama import attach, bits, random_rows, save_peft, small_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from riyaz import errors
from riyaz.adapters.peft import PREFIX
from riyaz.layers.attention import packed
from riyaz.layers.swaps import lora
from riyaz.layers.swaps.lora import LoRALinear
from riyaz.models import load
from riyaz.models.llama import Model
from riyaz.sources import open_source, safetensors
from riyaz.train import answer_loss

TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2e-2}  # in units of the largest element
LOGITS = 1e-4  # logits beside PEFT's, and merged beside unmerged, float32
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE, ids=["fp32", "bf16"])
TOKENS = torch.arange(5, 35)
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ODD = {"r": 5, "alpha": 7.0}


def logits_of(model: Model, tokens: Tensor = TOKENS) -> Tensor:
    """(T, V) of one row."""
    return model.head(model(tokens, torch.arange(len(tokens)), packed([len(tokens)])))


def filled(model: Model, **options: Any) -> Model:
    """The model with an adapter whose B is not zero."""
    lora.apply(model, **{**ODD, "seed": 1, **options})
    generator = torch.Generator().manual_seed(2)
    for _, layer in lora.lora_layers(model):
        nn.init.normal_(layer.lora_B, std=0.2, generator=generator)
    return model


@pytest.fixture(scope="module", params=[{}, {"tie": False, "attention_bias": True}], ids=["tied", "untied-bias"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama.write_hf_folder(tmp_path_factory.mktemp("lora") / "model", seed=3, **request.param)


def open_model(folder: Path) -> Model:
    return load(open_source(folder), torch.float32)


def open_oracle(folder: Path):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def oracle_logits(oracle: nn.Module) -> Tensor:
    """(T, V) of transformers or PEFT."""
    with torch.no_grad():
        return oracle.eval()(TOKENS[None]).logits[0]


def write_with_peft(folder: Path, out: Path, **options: Any) -> Tensor:
    """A PEFT adapter with random tensors; its logits."""
    settings = {"task_type": "CAUSAL_LM", "r": 5, "lora_alpha": 7, "target_modules": list(TARGETS)}
    model = get_peft_model(open_oracle(folder), LoraConfig(**{**settings, **options}))
    generator = torch.Generator().manual_seed(4)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            nn.init.normal_(weight, std=0.2, generator=generator)
        elif "modules_to_save" in name:
            weight.data += 0.3 * torch.randn(weight.shape, generator=generator)
    wanted = oracle_logits(model)
    model.save_pretrained(out)
    assert (wanted - oracle_logits(open_oracle(folder))).abs().max() > 0.1
    return wanted


@DTYPES
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("count", [1, 2, 17])
def test_gradients_equal_autograd_of_the_naive_form(count: int, bias: bool, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    base = nn.Linear(12, 7, bias=bias).to(dtype).requires_grad_(False)
    layer = LoRALinear(base, 3, 1.7)
    for weight in (*base.parameters(), layer.lora_A, layer.lora_B):
        nn.init.normal_(weight, generator=generator)
    x = torch.randn(count, 12, generator=generator).to(dtype).requires_grad_()
    grad = torch.randn(count, 7, generator=generator).to(dtype)
    layer(x).backward(grad)

    wide = x.detach().float().requires_grad_()
    a, b = (weight.detach().to(dtype).float().requires_grad_() for weight in (layer.lora_A, layer.lora_B))
    delta = 1.7 * (wide @ a.T) @ b.T
    wanted = nn.functional.linear(wide, base.weight.float(), base.bias.float() if bias else None) + delta
    wanted.backward(grad.float())
    pairs = [(layer(x), wanted), (x.grad, wide.grad), (layer.lora_A.grad, a.grad), (layer.lora_B.grad, b.grad)]
    for found, expected in pairs:
        assert (found - expected).abs().max() <= TOLERANCE[dtype] * expected.abs().max()
    assert base.weight.grad is None


@DTYPES
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no-bias"])
def test_a_fresh_adapter_is_the_base_to_the_bit(bias: bool, dtype: torch.dtype) -> None:
    model, rows = small_model(dtype, attention_bias=bias), random_rows(0, 9)
    base, logits = answer_loss(model, rows), logits_of(model)
    lora.apply(model, r=4, alpha=8, seed=0)
    assert answer_loss(model, rows) == base and torch.equal(logits_of(model), logits)


def test_a_fresh_adapter_is_seeded_and_sized_as_in_the_papers_code() -> None:
    models = [small_model() for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2)):
        lora.apply(model, r=4, alpha=8, seed=seed)
    first, same, other = (dict(lora.lora_layers(model)) for model in models)
    assert len(first) == 2 * len(TARGETS) and "lm_head" not in first
    for name, layer in first.items():
        assert torch.equal(layer.lora_A, same[name].lora_A) and not torch.equal(layer.lora_A, other[name].lora_A)
        bound = layer.base.in_features**-0.5
        assert 0.9 * bound < layer.lora_A.abs().max() <= bound and not layer.lora_B.any()
    trainable = {name for name, weight in models[0].named_parameters() if weight.requires_grad}
    assert trainable == {f"{name}.{part}" for name in first for part in ("lora_A", "lora_B")}


@DTYPES
def test_a_disabled_adapter_is_the_bare_base_to_the_bit_and_comes_back(dtype: torch.dtype) -> None:
    model = small_model(dtype, attention_bias=True)
    base = logits_of(model)
    adapted = logits_of(filled(model))
    assert not torch.equal(adapted, base)
    with lora.enabled(model, False):
        assert torch.equal(logits_of(model), base)
        with lora.enabled(model, True):
            assert torch.equal(logits_of(model), adapted)
        assert torch.equal(logits_of(model), base)
    with pytest.raises(KeyError), lora.enabled(model, False):
        raise KeyError
    assert torch.equal(logits_of(model), adapted)


def test_merged_equals_unmerged() -> None:
    model = filled(small_model(attention_bias=True))
    wanted = logits_of(model)
    lora.merge(model)
    assert not list(lora.lora_layers(model)) and not any(weight.requires_grad for weight in model.parameters())
    assert (logits_of(model) - wanted).abs().max() <= LOGITS
    assert bits(model.state_dict()).keys() == bits(small_model(attention_bias=True).state_dict()).keys()


def test_merging_in_bfloat16_rounds_once() -> None:
    layer = LoRALinear(nn.Linear(2, 1, bias=False).bfloat16(), 1, 1.0)
    with torch.no_grad():
        layer.base.weight.fill_(1.0)
        layer.lora_A.fill_(0.5)
        layer.lora_B.fill_(0.00781)  # the product is just under half a step of bfloat16 at 1
        assert torch.equal(layer.fuse().weight, torch.ones(1, 2, dtype=torch.bfloat16))
        layer.lora_B.fill_(0.00783)  # and just over it; rounded on its own it would be lost
        assert (layer.fuse().weight > 1).all() and layer.fuse().weight.dtype == torch.bfloat16


@pytest.mark.parametrize(
    "options",
    [{}, {"targets": ("q_proj", "down_proj"), "r": 3, "alpha": 2.5}],
    ids=["plain", "two-targets"],
)
def test_peft_reads_what_save_peft_writes(folder: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    model = filled(open_model(folder), **options)
    settings = {**ODD, **options}
    save_peft(model, tmp_path, base=str(folder), alpha=settings["alpha"])
    oracle = PeftModel.from_pretrained(open_oracle(folder), tmp_path)
    wanted, base = logits_of(model), logits_of(open_model(folder))
    assert (wanted - base).abs().max() > 0.1
    assert (oracle_logits(oracle) - wanted).abs().max() <= LOGITS
    again = open_model(folder)
    attach(again, tmp_path)
    assert torch.equal(logits_of(again), wanted)
    assert not any(weight.requires_grad for weight in again.parameters())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True},
        {"r": 3, "lora_alpha": 16, "target_modules": ["v_proj", "up_proj"]},
        {"layers_to_transform": [1]},
        {"target_modules": r".*\.(q|gate)_proj", "init_lora_weights": "gaussian"},
    ],
    ids=["plain", "rslora", "two-targets", "one-layer", "regex"],
)
def test_load_peft_reads_what_peft_writes(folder: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    wanted = write_with_peft(folder, tmp_path, **options)
    model = open_model(folder)
    attach(model, tmp_path)
    assert (logits_of(model) - wanted).abs().max() <= LOGITS


def test_an_adapter_in_bfloat16_is_read(tmp_path: Path) -> None:
    model = filled(small_model())
    save_peft(model, tmp_path, base="x", alpha=7.0)
    file = safetensors.read(tmp_path / "adapter_model.safetensors")
    rounded = {name: ("BF16", tiny_llama.bfloat16(file.array(name))) for name in file.tensors}
    safetensors.write(tmp_path / "adapter_model.safetensors", rounded)
    again = small_model()
    attach(again, tmp_path)
    for (_, layer), (_, wanted) in zip(lora.lora_layers(again), lora.lora_layers(model)):
        assert torch.equal(layer.lora_A, wanted.lora_A.bfloat16().float())


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A good adapter for `small_model()`, to spoil."""
    save_peft(filled(small_model()), tmp_path, base="x", alpha=7.0)
    return tmp_path


def change_config(folder: Path, **entries: Any) -> None:
    """Replace entries of the adapter's configuration; None takes one out."""
    config = json.loads((folder / "adapter_config.json").read_text()) | entries
    kept = {key: value for key, value in config.items() if value is not None}
    (folder / "adapter_config.json").write_text(json.dumps(kept))


def change_tensors(folder: Path, change) -> None:
    """Rewrite the tensors as `change` of the table of arrays."""
    file = safetensors.read(folder / "adapter_model.safetensors")
    arrays = {name: file.array(name).copy() for name in file.tensors}
    safetensors.write(folder / "adapter_model.safetensors", change(arrays), {"format": "pt"})


def refused(folder: Path, *parts: str) -> None:
    """Loading names every part in one line and leaves the model as it was."""
    model = small_model()
    before = list(model.state_dict())
    with assert_refused(str(folder), *parts):
        attach(model, folder)
    assert list(model.state_dict()) == before


def test_an_adapter_for_another_base_is_refused_with_every_mismatch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errors, "FEW", 99)
    other = filled(small_model(hidden=64, intermediate=96, layers=3), targets=("q_proj", "up_proj"))
    save_peft(other, tmp_path, base="x", alpha=7.0)
    refused(
        tmp_path, "does not fit the base",
        "model.layers.0.self_attn.q_proj has A (5, 64) and B (64, 5), the layer is (32, 32)",
        "model.layers.1.mlp.up_proj has A (5, 64) and B (96, 5), the layer is (64, 32)",
        "model.layers.2.mlp.up_proj.lora_A.weight matches no layer",
    )  # fmt: skip


def test_keys_that_match_nothing_are_refused_by_name(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "FEW", 99)

    def rename(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name.replace("layers.0.mlp", "layers.0.ffn"): array for name, array in arrays.items()}

    change_tensors(saved, rename)
    refused(saved, "layers.0.ffn.up_proj.lora_A.weight matches no layer", "layers.0.ffn.down_proj.lora_B.weight")


@pytest.mark.parametrize(
    "key",
    [
        "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector",
        "base_model.model.model.layers.0.self_attn.q_proj.lora_B.bias",
        "model.layers.0.self_attn.q_proj.lora_A.weight",
        "base_model.model.lora_A.weight",
    ],
)
def test_tensors_of_other_kinds_are_refused(saved: Path, key: str) -> None:
    change_tensors(saved, lambda arrays: arrays | {key: np.zeros((5, 32), np.float32)})
    refused(saved, f"{key} matches no layer")


def test_half_an_adapter_is_refused(saved: Path) -> None:
    gone = PREFIX + "model.layers.1.mlp.up_proj.lora_B.weight"
    change_tensors(saved, lambda arrays: {name: array for name, array in arrays.items() if name != gone})
    refused(saved, "model.layers.1.mlp.up_proj has only lora_A")
    change_tensors(saved, lambda arrays: {})
    refused(saved, "no adapter tensor fits this model")


def test_an_adapter_of_rank_zero_is_refused(saved: Path) -> None:
    change_config(saved, r=0)
    change_tensors(saved, lambda arrays: {n: a[:0] if "lora_A" in n else a[:, :0] for n, a in arrays.items()})
    refused(saved, str(saved))


def test_tensors_that_are_no_floats_are_refused(saved: Path) -> None:
    change_tensors(saved, lambda arrays: {name: array.astype(np.int32) for name, array in arrays.items()})
    refused(saved, "I32")


@pytest.mark.parametrize(
    ("entries", "part"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"rank_pattern": {"q_proj": 3}}, "q_proj has rank 5, the configuration says 3"),
        ({"rank_pattern": ["q_proj"]}, "rank_pattern is ['q_proj'], not a table of numbers"),
        ({"alpha_pattern": {"q_proj": "3"}}, "alpha_pattern is {'q_proj': '3'}"),
        ({"alpha_pattern": {"(a+)+b": 3}}, "alpha_pattern has '(a+)+b', which riyaz does not match"),
        ({"alpha_pattern": {"q_proj[": 3}}, "alpha_pattern has 'q_proj['"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save names 'lm_head', which the file lacks"),
        ({"modules_to_save": "lm_head"}, "modules_to_save is 'lm_head', not a list"),
        ({"target_modules": ["q_proj", "lm_head"]}, "lm_head has no adapter tensor"),
        ({"lora_bias": True}, "lora_bias"),
        ({"bias": "all"}, "bias 'all'"),
        ({"bias": "lora_only"}, "bias 'lora_only'"),
        ({"trainable_token_indices": [3]}, "trainable_token_indices"),
        ({"alora_invocation_tokens": [3]}, "alora_invocation_tokens"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4"),
        ({"init_lora_weights": "olora"}, "olora"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"peft_type": None}, "peft_type"),
        ({"lora_alpha": None}, "lora_alpha"),
        ({"lora_alpha": "16"}, "lora_alpha"),
        ({"lora_alpha": float("nan")}, "lora_alpha"),
        ({"lora_alpha": 10**400}, "lora_alpha"),
        ({"r": 8}, "has rank 5, the configuration says 8"),
        ({"r": 0}, "the configuration says 0"),
    ],
    ids=lambda value: f"{value}"[:40],
)
def test_what_riyaz_would_compute_wrongly_is_refused(saved: Path, entries: dict[str, Any], part: str) -> None:
    change_config(saved, **entries)
    refused(saved, part)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '{"r": 5', b"\xff\xfe{}"], ids=range(7))
def test_a_broken_configuration_is_refused(saved: Path, text: str | bytes) -> None:
    (saved / "adapter_config.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    refused(saved, "adapter_config.json")


def test_missing_files_are_refused(saved: Path) -> None:
    (saved / "adapter_model.safetensors").write_bytes(b"\x00" * 20)
    refused(saved, "adapter_model.safetensors")
    (saved / "adapter_model.safetensors").unlink()
    refused(saved, "adapter_model.safetensors")
    (saved / "adapter_config.json").unlink()
    refused(saved, "adapter_config.json")


@pytest.mark.parametrize("kind", ["olora", "pissa"])
def test_peft_adapters_that_changed_the_base_are_refused(tmp_path: Path, kind: str) -> None:
    folder = tiny_llama.write_hf_folder(tmp_path / "model")
    write_with_peft(folder, tmp_path / "adapter", init_lora_weights=kind)
    with assert_refused(kind, "adapter_config.json"):
        attach(open_model(folder), tmp_path / "adapter")


def test_peft_dora_is_refused(tmp_path: Path) -> None:
    folder = tiny_llama.write_hf_folder(tmp_path / "model")
    write_with_peft(folder, tmp_path / "adapter", use_dora=True)
    with assert_refused("use_dora"):
        attach(open_model(folder), tmp_path / "adapter")
