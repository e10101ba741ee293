"""An adapter is served whole or refused: what PEFT trained whole in its own layout and under its own names, layers
that a configuration names and a file lacks."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_families
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.tuners_utils import check_target_module_exists
from refusals import assert_refused
from small_llama import attach, family_of, save_peft, small_model
from test_lora import change_config, change_tensors
from test_lora_files import even, pairs_of, uneven
from tiny_families import FAMILIES, oracle_logits
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from riyaz import adapters, errors
from riyaz.adapters import Adapter
from riyaz.adapters.peft import PREFIX
from riyaz.engine import Request
from riyaz.engine.engine import Engine
from riyaz.engine.torch.runner import TorchRunner
from riyaz.layers.attention import packed
from riyaz.layers.swaps import lora
from riyaz.models import load
from riyaz.sources import open_source, safetensors

LOGITS = 1e-4  # largest difference of a logit, float32
TOKENS = torch.arange(5, 25)
LAYER = "model.layers.{}.{}"
# as a tool writes it that adapts vision and language models alike
LONG_PATTERN = (
    r"(?:.*?(?:language|text).*?(?:self_attn|attention|mlp).*?(?:q_proj|v_proj|up_proj).*?)"
    r"|(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|attention|attn|mlp)\.(?:(?:q_proj|k_proj|v_proj|o_proj|up_proj)))"
)


def logits_of(model: Any) -> Tensor:
    """(T, V) of one row."""
    with torch.no_grad():
        return model.head(model(TOKENS, torch.arange(len(TOKENS)), packed([len(TOKENS)])))


@pytest.mark.parametrize(
    ("family", "target", "saved", "tensors"),
    [
        ("gpt2", "c_attn", ["attn.c_proj", "c_fc"], 2 * 4),  # Conv1D, one of them square
        ("llama-biases", "q_proj", ["norm"], 2 * 2 + 1),
        ("llama-biases", "q_proj", ["layernorm"], 2 * 2),
    ],
)
def test_modules_trained_whole_equal_peft_both_ways(
    tmp_path: Path, family: str, target: str, saved: list[str], tensors: int
) -> None:
    tiny_families.make(FAMILIES[family], tmp_path / "model")

    def oracle() -> Any:
        return AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)

    settings = {"task_type": "CAUSAL_LM", "r": 3, "target_modules": [target], "modules_to_save": saved}
    theirs = get_peft_model(oracle(), LoraConfig(**settings))
    generator = torch.Generator().manual_seed(4)
    for name, weight in theirs.named_parameters():
        if "lora_" in name:
            nn.init.normal_(weight, std=0.2, generator=generator)
        elif "modules_to_save" in name:
            weight.data += 0.3 * torch.randn(weight.shape, generator=generator)
    theirs.save_pretrained(tmp_path / "peft")
    wanted = oracle_logits(theirs, TOKENS)
    model = load(open_source(tmp_path / "model"), torch.float32)
    attach(model, tmp_path / "peft")
    assert sum(len(module.trained.state_dict()) for _, module in lora.replaced_modules(model)) == tensors
    assert (logits_of(model) - wanted).abs().max() <= LOGITS
    (tmp_path / "again").mkdir()
    save_peft(model, tmp_path / "again", base="x")
    again = PeftModel.from_pretrained(oracle(), tmp_path / "again")
    assert (oracle_logits(again, TOKENS) - wanted).abs().max() <= LOGITS
    lora.merge(model)
    assert (logits_of(model) - wanted).abs().max() <= LOGITS


def test_norms_of_heads_trained_whole_are_served_to_their_own_requests_only(tmp_path: Path) -> None:
    tiny_families.make(FAMILIES["qwen3"], tmp_path)
    model, beside = (load(open_source(tmp_path), torch.float32) for _ in range(2))
    generator = np.random.default_rng(0)
    norms = [LAYER.format(n, f"self_attn.{part}_norm.weight") for n in range(2) for part in "qk"]
    adapter = Adapter(whole={name: generator.normal(1, 0.5, 24).astype(np.float32) for name in norms})
    requests = [Request(0, tuple(TOKENS.tolist()[:n]), adapter=name) for n in (20, 7) for name in (None, "mine")]
    bare = Engine(TorchRunner(beside)).logprobs([replace(each, adapter=None) for each in requests], [(9, 8)] * 4)
    engine = Engine(TorchRunner(model))
    engine.load("mine", adapter)
    mixed = engine.logprobs(requests, [(9, 8)] * 4)
    lora.attach(beside, adapter)
    trained = Engine(TorchRunner(beside)).logprobs([replace(each, adapter=None) for each in requests], [(9, 8)] * 4)
    for row, request in enumerate(requests):
        assert np.abs(mixed[row] - (trained if request.adapter else bare)[row]).max() <= LOGITS
        assert np.abs(trained[row] - bare[row]).max() > 0.01


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """An adapter for `small_model()` on layer 1 alone, whose configuration names both layers."""
    save_peft(uneven(small_model()), tmp_path, base="x")
    change_tensors(tmp_path, lambda arrays: {name: array for name, array in arrays.items() if ".1." in name})
    return tmp_path


def load_into_small(folder: Path) -> list[str]:
    """The paths of the layers that have an adapter now."""
    return [name for name, _ in lora.lora_layers(attach(small_model(), folder))]


NAMED = {
    "list": ["q_proj", "up_proj"],
    "pattern": r".*\.(q|up)_proj",
    "long-pattern": LONG_PATTERN,
    "lookahead": r"(?!lm_head).*",
    "all-linear": "all-linear",
    "nothing": None,
}


@pytest.mark.parametrize("targets", NAMED.values(), ids=NAMED)
def test_layers_that_the_configuration_names_and_the_file_lacks_are_listed(
    saved: Path, targets: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errors, "FEW", 99)
    change_config(saved, target_modules=targets)
    with assert_refused(
        str(saved),
        "model.layers.0.self_attn.q_proj has no adapter tensor",
        "model.layers.0.mlp.up_proj has no adapter tensor",
    ):
        load_into_small(saved)


@pytest.mark.parametrize(
    "entries",
    [
        {"target_modules": r".*\.1\..*_proj"},
        {"target_modules": r"(?!.*\.0\.)model\..*"},
        {"layers_to_transform": [1, 7]},
        {"layers_to_transform": 1, "layers_pattern": "layers"},
        {"target_modules": "all-linear", "exclude_modules": r".*\.0\..*"},
        {"exclude_modules": [f"0.{part}" for part in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
         "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")]},
    ],
    ids=["pattern", "lookahead", "layers", "layers-pattern", "exclude-pattern", "exclude"],
)  # fmt: skip
def test_layers_that_the_configuration_leaves_out_are_not_missed(saved: Path, entries: dict[str, Any]) -> None:
    change_config(saved, **entries)
    assert len(load_into_small(saved)) == 7
    read = json.loads((saved / "adapter_config.json").read_text())
    if read["target_modules"] != "all-linear":  # which PEFT replaces by a list first
        for name, _ in lora.linears(small_model(), None):
            wanted = bool(check_target_module_exists(LoraConfig(**read), name))
            assert adapters.peft_config._is_target(name, read) == wanted, name


@pytest.mark.parametrize(
    ("entries", "part"),
    [
        ({"target_modules": "(a+)+b"}, "target_modules is '(a+)+b', which riyaz does not match"),
        ({"target_modules": ".?" * 40 + "x"}, "which riyaz does not match"),
        ({"target_modules": ".*" * 6 + "x"}, "which riyaz does not match"),
        ({"alpha_pattern": {".*" * 5 + "x": 3}}, "which riyaz does not match"),
        ({"alpha_pattern": {"+a": 3}}, "alpha_pattern has '+a', which riyaz does not match"),
        ({"target_modules": 5}, "target_modules is 5, neither names nor a pattern"),
        ({"exclude_modules": ["q_proj", 5]}, "exclude_modules is ['q_proj', 5], neither names nor a pattern"),
        ({"layers_pattern": ["(h|layers)+"]}, "layers_pattern is ['(h|layers)+'], which riyaz does not match"),
        ({"layers_to_transform": ["1"]}, "layers_to_transform is ['1'], not a list of numbers"),
    ],
    ids=lambda value: f"{value}"[:30],
)
def test_what_names_no_layers_is_refused(saved: Path, entries: dict[str, Any], part: str) -> None:
    change_config(saved, **entries)
    with assert_refused(str(saved / "adapter_config.json"), part):
        load_into_small(saved)


def test_a_module_trained_whole_that_is_there_in_part_is_refused(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(errors, "FEW", 99)
    norm = np.ones(32, np.float32)
    change_config(saved, modules_to_save=["norm"], layers_to_transform=[1])
    names = [LAYER.format(0, "input_layernorm"), *(LAYER.format(1, f"{part}_layernorm") for part in
             ("input", "post_attention"))]  # fmt: skip
    change_tensors(saved, lambda arrays: arrays | {f"{PREFIX}{name}.weight": norm for name in names})
    line = "{}.weight, which modules_to_save names, is not in the file"
    with assert_refused(line.format(LAYER.format(0, "post_attention_layernorm")), line.format("model.norm")):
        load_into_small(saved)
    change_tensors(
        saved, lambda arrays: {name: array for name, array in arrays.items() if "norm" in name and ".1." in name}
    )
    with assert_refused("model.layers.1.self_attn.q_proj has no adapter tensor"):  # whole tensors alone are a part too
        load_into_small(saved)


def test_lora_on_an_embedding_is_refused_by_name(saved: Path, mlx: Path) -> None:
    line = "model.embed_tokens is an embedding, and LoRA on embeddings is not supported"
    halves = {"A": np.zeros((5, 40), np.float32), "B": np.zeros((32, 5), np.float32)}
    embedding = {f"{PREFIX}model.embed_tokens.lora_embedding_{half}": array for half, array in halves.items()}
    change_config(saved, layers_to_transform=[1])
    change_tensors(saved, lambda arrays: arrays | embedding)
    with assert_refused(f"does not fit the base: {line}"):
        load_into_small(saved)
    change_mlx(mlx, lambda arrays: arrays | {"model.embed_tokens.lora_a": np.zeros((40, 4), np.float32)})
    with assert_refused(f"does not fit the base: {line}"):
        load_into_small(mlx)


@pytest.fixture
def mlx(tmp_path: Path) -> Path:
    """A good folder of mlx-lm for `small_model()` on q and v of both layers, to spoil."""
    (tmp_path / "mlx").mkdir()
    model = uneven(small_model(), ("q_proj", "v_proj"))
    adapters.mlx.write(pairs_of(model), tmp_path / "mlx", family_of(model), base="base")
    return tmp_path / "mlx"


def change_mlx(folder: Path, change: Any) -> None:
    """Rewrite the tensors as `change` of the table of arrays."""
    file = safetensors.read(folder / "adapters.safetensors")
    arrays = {name: file.array(name).copy() for name in file.tensors}
    safetensors.write(folder / "adapters.safetensors", change(arrays))


@pytest.mark.parametrize(
    ("entries", "kept", "missing"),
    [
        ({}, "layers.1", ["0.self_attn.q_proj", "0.self_attn.v_proj"]),
        ({"num_layers": -1}, "layers.1", ["0.self_attn.q_proj", "0.self_attn.v_proj"]),
        ({"num_layers": 1}, "layers.1", []),
        ({"num_layers": 16}, "layers.1", ["0.self_attn.q_proj"]),
        ({"num_layers": None}, "layers.1", []),
        ({"num_layers": None}, "layers.1.self_attn.q", ["1.self_attn.v_proj"]),
        ({}, "layers.1.self_attn.q", ["0.self_attn.q_proj", "1.self_attn.v_proj"]),
        ({"lora_parameters": {"scale": 2.0}}, "layers.0", ["1.self_attn.q_proj", "1.self_attn.v_proj"]),
        ({"lora_parameters": {"scale": 2.0}}, "q_proj", []),
        ({"lora_parameters": {"scale": 2.0, "keys": ["self_attn.q_proj", "lm_head"]}}, "q_proj", ["lm_head"]),
    ],
)
def test_what_mlx_names_and_the_file_lacks_is_listed(
    mlx: Path, entries: dict[str, Any], kept: str, missing: list[str]
) -> None:
    change_config(mlx, **entries)
    change_mlx(mlx, lambda arrays: {name: array for name, array in arrays.items() if kept in name})
    if not missing:
        assert all(kept in name for name in load_into_small(mlx))
        return
    with assert_refused(*(f"{name} has no adapter tensor" for name in missing)):
        load_into_small(mlx)


def test_mlx_gets_zeros_where_only_other_layers_have_an_adapter(tmp_path: Path) -> None:
    model = small_model(layers=3)
    pairs = pairs_of(uneven(small_model(layers=3)))
    some = {name: pair for name, pair in pairs.items() if re.search(r"1\..*q_proj|2\..*up_proj", name)}
    lora.attach(model, Adapter(some))
    adapters.mlx.write(pairs_of(model), tmp_path, family_of(model), base="base")
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["num_layers"] == 2
    again = attach(small_model(layers=3), tmp_path)
    assert sorted(name for name, _ in lora.lora_layers(again)) == [
        LAYER.format(layer, part) for layer in (1, 2) for part in ("mlp.up_proj", "self_attn.q_proj")
    ]
    assert (logits_of(again) - logits_of(model)).abs().max() <= LOGITS
    assert adapters.mlx._filled(pairs_of(even(small_model(), 1.0)), 2)[1] == 1
