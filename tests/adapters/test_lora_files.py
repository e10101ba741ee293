"""Adapters as other tools write them: PEFT with patterns and whole modules (the oracle is PEFT, both ways), mlx-lm's
folders, llama.cpp's files; scales are right, and what does not fit is refused with every mismatch."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import tiny_llama
import torch
from gguf import GGUFReader
from peft import PeftModel
from refusals import assert_refused
from small_llama import attach, family_of, save_peft, small_model
from test_lora import LOGITS, TARGETS, logits_of, open_model, open_oracle, oracle_logits, write_with_peft

from riyaz import adapters, predictor
from riyaz.adapters import Adapter, Pair
from riyaz.export import targets
from riyaz.families import llama
from riyaz.layers.swaps import lora
from riyaz.models.llama import Model
from riyaz.sources import safetensors

EVERY = [*TARGETS, "lm_head"]
RANKS = {"r": 5, "rank_pattern": {"q_proj": 3, "layers.1.mlp.up_proj": 7}}
ALPHAS = {"lora_alpha": 7, "alpha_pattern": {"layers.0.*_proj": 21, "o_proj": 2.5}}
WHOLE = {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "embed_tokens", "input_layernorm"]}


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama.write_hf_folder(tmp_path_factory.mktemp("lora") / "model", seed=3, tie=request.param)


@pytest.mark.parametrize(
    "options",
    [
        {**RANKS, **ALPHAS},
        {**RANKS, **ALPHAS, "use_rslora": True},
        {"target_modules": EVERY},
        WHOLE,
        {**WHOLE, "modules_to_save": ["lm_head"]},
        {**WHOLE, "modules_to_save": ["embed_tokens"]},
        {**WHOLE, "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    ],
    ids=["patterns", "rslora-patterns", "head", "whole", "whole-head", "whole-embedding", "tied-embedding"],
)
def test_what_peft_writes_is_read_merged_and_written_again(folder: Path, tmp_path: Path, options: dict) -> None:
    wanted = write_with_peft(folder, tmp_path / "peft", **options)
    bare = logits_of(open_model(folder))
    model = open_model(folder)
    attach(model, tmp_path / "peft")
    assert (logits_of(model) - wanted).abs().max() <= LOGITS
    with lora.enabled(model, False):
        assert torch.equal(logits_of(model), bare), "turned off, the base answers"
    (tmp_path / "again").mkdir()
    save_peft(model, tmp_path / "again", base=str(folder))
    config = json.loads((tmp_path / "again" / "adapter_config.json").read_text())
    assert "use_rslora" not in config and ("rank_pattern" in config) == ("rank_pattern" in options)
    again = open_model(folder)
    attach(again, tmp_path / "again")
    assert (logits_of(again) - wanted).abs().max() <= LOGITS
    theirs = PeftModel.from_pretrained(open_oracle(folder), tmp_path / "again")
    assert (oracle_logits(theirs) - wanted).abs().max() <= LOGITS
    lora.merge(model)
    assert (logits_of(model) - wanted).abs().max() <= LOGITS
    tied = open_model(folder).config.tie_word_embeddings
    loose = "head" in str(options) or "modules_to_save" in options
    own_head = tied and loose and "ensure_weight_tying" not in options
    assert model.config.tie_word_embeddings == (tied and not own_head)
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == model.config.tie_word_embeddings


def pairs_of(model: Model) -> Mapping[str, Pair]:
    return lora.adapter_of(model).pairs


def uneven(model: Model, targets: tuple[str, ...] = TARGETS) -> Model:
    """The model with ranks and scales of its own on every layer."""
    generator = torch.Generator().manual_seed(5)
    pairs = {}
    for i, (name, linear) in enumerate(lora.linears(model, targets)):
        r = 2 + i % 4
        a = torch.randn(r, linear.in_features, generator=generator) * 0.2
        b = torch.randn(linear.out_features, r, generator=generator) * 0.2
        pairs[name] = Pair(a.numpy(), b.numpy(), (7 / math.sqrt(r), 7 / r, 0.5)[i % 3])
    lora.attach(model, Adapter(pairs))
    return model


def even(model: Model, scale: float) -> Model:
    """The model with one rank and one scale on q and v of layer 1 alone."""
    generator = torch.Generator().manual_seed(6)
    pairs = {
        name: Pair(
            torch.randn(4, linear.in_features, generator=generator).numpy(),
            torch.randn(linear.out_features, 4, generator=generator).numpy(),
            scale,
        )
        for name, linear in lora.linears(model, ("q_proj", "v_proj"))
        if ".1." in name
    }
    lora.attach(model, Adapter(pairs))
    return model


def test_mlx_folders_hold_the_transposes_and_the_final_factor(tmp_path: Path) -> None:
    model = even(small_model(), 8 / math.sqrt(4))  # rsLoRA's scale
    adapters.mlx.write(pairs_of(model), tmp_path, family_of(model), base="base")
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    keys = ["self_attn.q_proj", "self_attn.v_proj"]
    assert config["lora_parameters"] == {"rank": 4, "scale": 4.0, "dropout": 0.0, "keys": keys}
    assert (config["fine_tune_type"], config["num_layers"], config["model"]) == ("lora", 1, "base")
    file = safetensors.read(tmp_path / "adapters.safetensors")
    layer = dict(lora.lora_layers(model))["model.layers.1.self_attn.q_proj"]
    a, b = (file.array(f"model.layers.1.self_attn.q_proj.lora_{half}") for half in "ab")
    assert a.shape == (32, 4) and b.shape == (4, 32) and len(file.tensors) == 4
    x = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    theirs = x @ layer.base.weight.T + 4.0 * ((x @ torch.tensor(a)) @ torch.tensor(b))  # mlx-lm's forward
    assert (theirs - layer(x)).abs().max() <= LOGITS
    again = attach(small_model(), tmp_path)
    assert torch.equal(logits_of(again), logits_of(model))
    assert adapters.base_of(tmp_path / "adapter_config.json") == "base"


def test_mlx_has_one_rank_and_one_scale_so_the_rest_goes_into_lora_b(tmp_path: Path) -> None:
    model = uneven(small_model(tie=False), (*TARGETS, "lm_head"))
    adapters.mlx.write(pairs_of(model), tmp_path, family_of(model), base="base")
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["lora_parameters"]["rank"] == 5 and "lm_head" in config["lora_parameters"]["keys"]
    file = safetensors.read(tmp_path / "adapters.safetensors")
    assert {info.shape[1] for name, info in file.tensors.items() if name.endswith("lora_a")} == {5}
    again = attach(small_model(tie=False), tmp_path)
    assert (logits_of(again) - logits_of(model)).abs().max() <= LOGITS
    assert (logits_of(again) - logits_of(small_model(tie=False))).abs().max() > 0.1


@pytest.fixture
def mlx(tmp_path: Path) -> Path:
    """A good folder of mlx-lm for `small_model()`, to spoil."""
    adapters.mlx.write(pairs_of(even(small_model(), 2.0)), tmp_path, family_of(small_model()), base="base")
    return tmp_path


@pytest.mark.parametrize(
    ("entries", "part"),
    [
        ({"fine_tune_type": "dora"}, "fine_tune_type is 'dora'"),
        ({"fine_tune_type": "full"}, "fine_tune_type is 'full'"),
        ({"lora_parameters": {"rank": 4}}, "no number called scale"),
        ({"lora_parameters": {"rank": 4, "scale": 2.0, "alpha": 16}}, "lora_parameters has alpha"),
        ({"lora_parameters": {"rank": 8, "scale": 2.0}}, "has rank 4, the configuration says 8"),
        ({"lora_parameters": {"scale": math.nan}}, "scale nan"),
    ],
    ids=["dora", "full", "no-scale", "alpha", "rank", "nan"],
)
def test_mlx_configurations_that_say_something_else_are_refused(mlx: Path, entries: dict, part: str) -> None:
    config = json.loads((mlx / "adapter_config.json").read_text()) | entries
    (mlx / "adapter_config.json").write_text(json.dumps(config))
    with assert_refused(str(mlx), part):
        attach(small_model(), mlx)


def test_an_mlx_adapter_for_another_base_is_refused_with_the_first_mismatches(mlx: Path) -> None:
    with assert_refused("q_proj has A (4, 32) and B (32, 4), the layer is (48, 48); "):
        attach(small_model(hidden=48), mlx)
    file = safetensors.read(mlx / "adapters.safetensors")
    arrays = {name: file.array(name).copy() for name in file.tensors}
    arrays["model.layers.7.self_attn.q_proj.lora_a"] = np.zeros((32, 4), np.float32)
    arrays["model.layers.0.mlp.up_proj.lora_b"] = np.zeros((4, 64), np.float32)
    arrays["model.layers.0.mlp.up_proj.m"] = np.zeros(64, np.float32)
    safetensors.write(mlx / "adapters.safetensors", arrays)
    with assert_refused(
        "does not fit the base", "model.layers.7.self_attn.q_proj.lora_a matches no layer",
        "model.layers.0.mlp.up_proj has only lora_b", "model.layers.0.mlp.up_proj.m matches no layer",
    ):  # fmt: skip
        attach(small_model(), mlx)


def test_an_adapter_without_its_file_of_tensors_is_refused_by_name(mlx: Path) -> None:
    weights = mlx / "adapters.safetensors"
    weights.rename(mlx / "adapters.npz")
    with assert_refused(f"{mlx}: the adapter's folder holds no adapters.safetensors", "does not read adapters.npz"):
        attach(small_model(), mlx)
    (mlx / "adapters.npz").unlink()
    with assert_refused("holds no adapters.safetensors; copy or download all files"):
        attach(small_model(), mlx)


def test_an_adapter_whose_base_is_elsewhere_is_refused_with_the_flag_that_names_it(mlx: Path) -> None:
    config = json.loads((mlx / "adapter_config.json").read_text())
    (mlx / "adapter_config.json").write_text(json.dumps(config | {"model": "someone/else-7b"}))
    for open_it in (targets.open_target, predictor.open_target):
        with assert_refused(
            "adapter_config.json: the base that it names, 'someone/else-7b', cannot be opened", "--model"
        ):
            open_it(str(mlx))


def write_gguf_lora(model: Model, path: Path) -> Path:
    adapters.gguf.write(pairs_of(model), path, family_of(model), name="tiny")
    return path


def read_gguf_lora(model: Model, path: Path) -> Model:
    lora.attach(model, adapters.gguf.read(path, family_of(model)))
    return model


def as_llama_cpp(path: Path, config: llama.LlamaConfig) -> dict[str, np.ndarray]:
    """GGUF name -> the product llama.cpp adds to the weight, read with the `gguf` package: alpha / rank · B A."""
    reader = GGUFReader(str(path))
    (alpha,) = reader.fields["adapter.lora.alpha"].parts[-1]
    tensors = {tensor.name: tensor.data for tensor in reader.tensors}
    found = {}
    for name in {name.rpartition(".")[0] for name in tensors}:
        a, b = tensors[f"{name}.lora_a"], tensors[f"{name}.lora_b"]
        found[name] = float(alpha) / b.shape[1] * (b @ a)
    return found


@pytest.mark.parametrize("make", [uneven, lambda model: even(model, 8 / math.sqrt(4))], ids=["uneven", "rslora"])
def test_llama_cpps_product_is_ours_with_the_rows_in_its_order(tmp_path: Path, make) -> None:
    model = make(small_model())
    path = write_gguf_lora(model, tmp_path / "adapter.gguf")
    found, names = as_llama_cpp(path, model.config), llama.names(model.config)
    for name, layer in lora.lora_layers(model):
        product = (layer.scale * layer.lora_B @ layer.lora_A).detach().numpy()
        if name.endswith(("q_proj", "k_proj")):
            product = tiny_llama.permute(product, model.config.n_heads if "q_proj" in name else model.config.n_kv_heads)
        np.testing.assert_allclose(found.pop(names[f"{name}.weight"]), product, atol=1e-5)
    assert not found
    assert (logits_of(read_gguf_lora(small_model(), path)) - logits_of(model)).abs().max() <= LOGITS


def test_rslora_and_the_header_of_llama_cpps_file(tmp_path: Path) -> None:
    path = write_gguf_lora(even(small_model(), 8 / math.sqrt(4)), tmp_path / "adapter.gguf")
    fields = {name: field.contents() for name, field in GGUFReader(str(path)).fields.items()}
    assert fields["adapter.lora.alpha"] == 8 * math.sqrt(4), "α·√r, as llama.cpp divides by the rank"
    assert (fields["general.type"], fields["adapter.type"], fields["general.architecture"]) == (
        "adapter", "lora", "llama",
    )  # fmt: skip


def test_a_tied_head_has_no_tensor_of_its_own_in_llama_cpps_file(tmp_path: Path) -> None:
    model = uneven(small_model(), ("lm_head", "q_proj"))
    with assert_refused("the adapter changes lm_head", "--format gguf"):
        write_gguf_lora(model, tmp_path / "adapter.gguf")
    assert not list(tmp_path.iterdir())


def test_llama_cpps_file_for_another_base_is_refused_with_the_first_mismatches(tmp_path: Path) -> None:
    for sizes, what in (
        ({"layers": 3}, "blk.2.attn_q.weight.lora_a matches no layer"),
        ({"hidden": 64}, "is (32, 32)"),
    ):
        path = write_gguf_lora(uneven(small_model(**sizes)), tmp_path / "adapter.gguf")
        with assert_refused("does not fit the base", what, "more"):
            read_gguf_lora(small_model(), path)
    whole = tiny_llama.write_gguf(tmp_path / "model.gguf")
    with assert_refused("general.type is None", "give a LoRA for a model of the architecture llama"):
        read_gguf_lora(small_model(), whole)
