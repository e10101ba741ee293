"""Checkpoints that say a thing twice, or not at all: riyaz makes of them what transformers makes of them."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_families
import tiny_window_families
import torch
from refusals import assert_refused
from safetensors.torch import load_file, save_file
from tiny_families import FAMILIES, Case
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from riyaz.families import describe
from riyaz.layers.attention import packed
from riyaz.models import load
from riyaz.sources import open_source

LOGITS = 1e-4  # largest difference to transformers in float32; logits have a spread of about one
TOKENS = torch.tensor([5, 7, 20, 13, 40, 9, 55, 31])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each family with rotary embeddings, as transformers saves it; the llama's head is its own."""
    cases = {"llama": Case("llama"), "qwen2": FAMILIES["qwen2"], "qwen3": FAMILIES["qwen3"], "gpt2": FAMILIES["gpt2"]}
    folders = {name: tmp_path_factory.mktemp(name) for name in (*cases, "mistral", "gemma3")}
    for name, folder in folders.items():
        if name in cases:
            tiny_families.make(cases[name], folder)
        else:
            tiny_window_families.theirs(name).save_pretrained(folder)
    return folders


def changed(
    made: Path, folder: Path, settings: dict[str, Any], drop: tuple[str, ...] = (), tensors: Any = None
) -> Path:
    """A copy of a model's folder with other settings and, through `tensors`, other weights."""
    folder.mkdir(parents=True)
    config = {**json.loads((made / "config.json").read_text()), **settings}
    (folder / "config.json").write_text(json.dumps({key: config[key] for key in config if key not in drop}))
    state = load_file(made / "model.safetensors")
    save_file(tensors(state) if tensors else state, folder / "model.safetensors", {"format": "pt"})
    return folder


@torch.no_grad()
def apart(folder: Path) -> float:
    """Largest difference of a logit between transformers and riyaz, both in float32."""
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()(TOKENS[None]).logits[0]
    model = load(open_source(folder), torch.float32)
    ours = model.head(model(TOKENS, torch.arange(len(TOKENS)), packed([len(TOKENS)])))
    return float((ours - theirs).abs().max())


TABLE = {"rope_type": "default", "rope_theta": 500.0}
LINEAR = {"rope_type": "linear", "factor": 4.0}
ROPES: dict[str, dict[str, Any]] = {
    "outside and in the table": {"rope_theta": 9e5, "rope_parameters": TABLE},
    "outside alone": {"rope_theta": 9e5, "rope_parameters": None},
    "the older table first": {
        "rope_theta": 9e5,
        "rope_parameters": TABLE,
        "rope_scaling": {**TABLE, "rope_theta": 7e3},
    },
    "an older table without a base": {"rope_parameters": TABLE, "rope_scaling": {"rope_type": "default"}},
    "an empty older table": {"rope_parameters": TABLE, "rope_scaling": {}},
    "nowhere": {"rope_parameters": None},
}
SCALED: dict[str, dict[str, Any]] = {
    "scaled in the table": {"rope_theta": 9e5, "rope_parameters": {**TABLE, **LINEAR}},
    "scaled in the older one": {"rope_theta": 9e5, "rope_parameters": TABLE, "rope_scaling": LINEAR},
}
GEMMA: dict[str, dict[str, Any]] = {
    "outside and in the tables": {
        "rope_theta": 9e5, "rope_local_base_freq": 7e3,
        "rope_parameters": {"full_attention": TABLE, "sliding_attention": {**TABLE, "rope_theta": 300.0}},
    },
    "one table": {"rope_theta": 9e5, "rope_local_base_freq": 7e3, "rope_parameters": {"full_attention": TABLE}},
    "outside alone": {"rope_theta": 9e5, "rope_local_base_freq": 7e3, "rope_parameters": None},
    "the older table over the newer": {
        "rope_parameters": {"full_attention": {**TABLE, **LINEAR}}, "rope_scaling": {**LINEAR, "factor": 8.0},
    },
}  # fmt: skip


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral"])
@pytest.mark.parametrize("case", [*ROPES, *SCALED])
def test_the_base_of_rope_is_found_where_transformers_finds_it(made, tmp_path, family, case) -> None:
    if family == "mistral" and case in SCALED:
        with assert_refused("RoPE scaling 'linear' is not supported"):
            describe(open_source(changed(made[family], tmp_path / "it", SCALED[case])))
        return
    folder = changed(made[family], tmp_path / "it", {**ROPES, **SCALED}[case])
    theirs, ours = AutoConfig.from_pretrained(folder).rope_parameters, describe(open_source(folder)).config
    assert ours.rope_theta == theirs["rope_theta"]
    scaling = getattr(ours, "rope_scaling", None)
    assert (scaling.kind if scaling else "default") == theirs["rope_type"]
    assert scaling is None or scaling.factor == theirs["factor"]


@pytest.mark.parametrize("case", GEMMA)
def test_both_bases_of_gemma_are_found_where_transformers_finds_them(made, tmp_path, case) -> None:
    folder = changed(
        made["gemma3"], tmp_path / "it", GEMMA[case], ("rope_scaling",) * ("rope_scaling" not in GEMMA[case])
    )
    theirs, ours = AutoConfig.from_pretrained(folder).rope_parameters, describe(open_source(folder)).config
    assert ours.rope_theta == theirs["full_attention"]["rope_theta"]
    assert ours.rope_local == theirs["sliding_attention"]["rope_theta"]
    assert ours.rope_factor == theirs["full_attention"].get("factor", 1.0)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral", "gemma3"])
def test_a_base_that_stands_outside_too_does_not_change_what_a_model_says(made, tmp_path, family) -> None:
    folder = changed(made[family], tmp_path / "it", {"rope_theta": 9e5, "rope_local_base_freq": 9e5})
    assert apart(folder) <= LOGITS
    bare = ("rope_parameters",)
    assert apart(changed(made[family], tmp_path / "bare", {"rope_theta": 500.0}, bare)) <= LOGITS


EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
State = dict[str, Tensor]


def with_another_head(state: State) -> State:
    return {**state, HEAD: state[EMBEDDING].flip(0).clone()}


def with_the_head_alone(state: State) -> State:
    return {HEAD if name == EMBEDDING else name: tensor for name, tensor in state.items()}


def without_the_trunks_name(state: State) -> State:
    return {name.removeprefix("model."): tensor for name, tensor in state.items()}


def in_double(state: State) -> State:
    return {name: tensor.double() for name, tensor in state.items()}


READ: dict[str, tuple[str, dict[str, Any], tuple[str, ...], Any]] = {
    "tied, another head": ("qwen2", {}, (), with_another_head),
    "tied, the same head": ("qwen2", {}, (), lambda state: {**state, HEAD: state[EMBEDDING].clone()}),
    "tied, the head alone": ("qwen2", {}, (), with_the_head_alone),
    "gpt2, another head": ("gpt2", {}, (), lambda s: {**s, HEAD: s["transformer.wte.weight"].flip(0).clone()}),
    "llama without model.": ("llama", {}, (), without_the_trunks_name),
    "tied qwen3 without model.": ("qwen3", {}, (), without_the_trunks_name),
    "mistral without model.": ("mistral", {}, (), without_the_trunks_name),
    "gemma3 without model.": ("gemma3", {}, (), without_the_trunks_name),
    "F64": ("llama", {}, (), in_double),
    "gpt2 in F64": ("gpt2", {}, (), in_double),
    **{
        f"{family} without eps and context": (family, {}, ("rms_norm_eps", "max_position_embeddings"), None)
        for family in ("llama", "qwen2", "qwen3")
    },
}


@pytest.mark.parametrize("case", READ)
def test_a_checkpoint_says_what_it_says_in_transformers(made, tmp_path, case) -> None:
    family, settings, drop, tensors = READ[case]
    folder = changed(made[family], tmp_path / "it", settings, drop, tensors)
    assert apart(folder) <= LOGITS
    theirs, ours = AutoConfig.from_pretrained(folder), describe(open_source(folder))
    if drop:
        assert (ours.config.rms_norm_eps, ours.config.context) == (theirs.rms_norm_eps, theirs.max_position_embeddings)


def test_a_head_of_its_own_is_told_and_a_copy_of_the_embedding_is_not(made, tmp_path) -> None:
    plain = describe(open_source(made["qwen2"]))
    own = describe(open_source(changed(made["qwen2"], tmp_path / "own", {}, (), with_another_head)))
    assert own.notes == ("own: tie_word_embeddings is true, but the file holds a different head, which is used",)
    assert not own.config.tie_word_embeddings and own.parameters == plain.parameters + 512 * 64
    for number, tensors in enumerate((with_the_head_alone, READ["tied, the same head"][3])):
        family = describe(open_source(changed(made["qwen2"], tmp_path / f"{number}", {}, (), tensors)))
        assert family.notes == () and family.config == plain.config and family.parameters == plain.parameters


def test_a_head_that_fits_nothing_and_a_head_that_is_missing_are_named(made, tmp_path) -> None:
    short = changed(made["qwen2"], tmp_path / "short", {}, (), lambda s: {**s, HEAD: s[EMBEDDING][:9].clone()})
    with assert_refused("lm_head.weight has the shape [9, 64] instead of [512, 64]"):
        describe(open_source(short))
    untied = changed(made["llama"], tmp_path / "untied", {}, (HEAD,), lambda s: {k: s[k] for k in s if k != HEAD})
    with assert_refused("lm_head.weight is missing"):
        describe(open_source(untied))
    with assert_refused("max_position_embeddings is missing"):
        describe(open_source(changed(made["llama"], tmp_path / "null", {"max_position_embeddings": None})))


def test_a_qwen2_with_a_window_is_refused_for_its_window(made, tmp_path) -> None:
    folder = changed(made["qwen2"], tmp_path / "it", {"use_sliding_window": True})
    with assert_refused("use_sliding_window is True, riyaz supports only False"):
        describe(open_source(folder))
