"""The llama family beside transformers, both formats beside each other, and configurations that lie."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import tiny_llama
from grids import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_llama import Tiny, weights, write_gguf, write_hf_folder, write_safetensors

from riyaz.errors import RiyazError
from riyaz.families import decoder, describe, llama, rope
from riyaz.families.rope import LLAMA3_KEYS, Scaling
from riyaz.sources import open_source

SIZES = (
    {},
    {"tie": False, "attention_bias": True, "kv_heads": 4, "rope_theta": 500000.0},
    {"kv_heads": 1, "heads": 2, "layers": 3, "intermediate": 96},
)


def values(family):
    """All weights as float32."""
    arrays = {}
    for name, dtype, array in family.weights():
        assert array.dtype == {"F32": np.float32, "F16": np.float16, "BF16": np.uint16}[dtype]
        bits = (array.astype(np.uint32) << 16).view(np.float32) if dtype == "BF16" else array
        arrays[name] = bits.astype(np.float32)
    return arrays


@pytest.mark.parametrize("sizes", SIZES)
def test_both_formats_give_the_same_family_and_weights(tmp_path, sizes):
    expected = weights(Tiny(seed=5, **{**sizes}))
    folder = describe(open_source(write_hf_folder(tmp_path / "hf", seed=5, **sizes)))
    file = describe(open_source(write_gguf(tmp_path / "m.gguf", seed=5, **sizes)))
    assert folder.config == file.config and folder.model_type == file.model_type == "llama"
    assert folder.parameters == file.parameters == sum(array.size for array in expected.values())
    for family in (folder, file):
        arrays = values(family)
        assert arrays.keys() == expected.keys()
        for name, array in expected.items():
            np.testing.assert_array_equal(arrays[name], array, err_msg=name)


@pytest.mark.parametrize("dtype,tolerance", [("F16", 1e-3), ("BF16", 4e-3), ("Q8_0", 5e-3), ("Q4_1", 0.08)])
def test_rounded_weights_are_close(tmp_path, dtype, tolerance):
    arrays = values(describe(open_source(write_gguf(tmp_path / "m.gguf", dtype=dtype))))
    for name, array in weights(Tiny()).items():
        assert np.abs(arrays[name] - array).max() <= tolerance * np.abs(array).max(), name


@pytest.mark.parametrize("sizes", SIZES)
def test_names_and_shapes_are_those_of_transformers(tmp_path, sizes):
    import torch
    from transformers import AutoConfig, LlamaForCausalLM

    config = describe(open_source(write_hf_folder(tmp_path / "hf", **sizes))).config
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "config.json").write_text(json.dumps(llama.to_hf(config)))
    theirs = AutoConfig.from_pretrained(tmp_path / "made")
    assert llama.from_hf(theirs.to_dict()) == llama.from_hf(llama.to_hf(config)) == config
    assert theirs.rope_parameters == {"rope_type": "default", "rope_theta": config.rope_theta}
    with torch.device("meta"):
        state = LlamaForCausalLM(theirs).state_dict()
    if config.tie_word_embeddings:
        del state["lm_head.weight"]
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == llama.layer_plan(config)


def test_gguf_weights_are_those_transformers_makes_of_the_file(tmp_path):
    from transformers import AutoModelForCausalLM

    path = write_gguf(tmp_path / "m.gguf", dtype="Q8_0", kv_heads=1)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf", dtype="float32").state_dict()
    for name, array in values(describe(open_source(path))).items():
        np.testing.assert_array_equal(array, theirs[name].numpy(), err_msg=name)


def test_gguf_names_are_those_of_the_gguf_package():
    from gguf import MODEL_ARCH, get_tensor_name_map

    config = replace(llama.from_hf(tiny_llama.config(Tiny(tie=False))), attention_bias=True)
    theirs = get_tensor_name_map(MODEL_ARCH.LLAMA, config.n_layers)
    for name, stored in llama.names(config).items():
        assert theirs.get_name(name, try_suffixes=(".weight", ".bias")) == stored


@pytest.mark.parametrize("factor,head_dim", [(8.0, 128), (32.0, 64)], ids=["3.1-8B", "3.2-1B"])
def test_the_scaling_of_llama_3_is_that_of_transformers_and_found_again_in_its_divisors(factor, head_dim):
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaling, problems = Scaling("llama3", factor, 1.0, 4.0, 8192), []
    settings = {"head_dim": head_dim, "max_position_embeddings": 131072, **rope.to_hf(500000.0, scaling)}
    assert rope.from_hf(settings, problems) == (500000.0, scaling) and not problems
    theirs, _ = ROPE_INIT_FUNCTIONS["llama3"](LlamaConfig(**settings), "cpu")
    plain = 500000.0 ** -(np.arange(0, head_dim, 2) / head_dim)
    found = np.array(rope.divisors(scaling, head_dim, 500000.0))
    np.testing.assert_allclose(plain / found, theirs.numpy(), rtol=1e-5)
    assert len(set(found.tolist())) > 4, "some frequencies lie between both ends"
    metadata = {rope.FREQUENCIES: found.astype(np.float32).tolist()}
    values = {"head_dim": head_dim, "rope_theta": 500000.0}
    assert rope.from_gguf(metadata, "llama", values, problems) == scaling and not problems


def test_importing_and_describing_needs_no_torch(tmp_path):
    path = write_gguf(tmp_path / "m.gguf")
    code = "import sys; from riyaz.families import describe; from riyaz.sources import open_source;"
    code += f"describe(open_source({str(path)!r})); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def rewrite(folder, change=None, **settings_):
    """Changes config.json and, through `change`, the weights of a folder."""
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **settings_}))
    if change:
        arrays = weights(Tiny())
        change(arrays)
        write_safetensors(folder / "model.safetensors", arrays)


def refusal(path):
    """The one line that describes why the model is refused."""
    with pytest.raises(RiyazError) as caught:
        describe(open_source(path))
    line = str(caught.value)
    assert line.startswith(str(path)) and line.isprintable(), line
    return line


def test_every_mismatch_stands_in_one_line(tmp_path):
    def change(arrays):
        del arrays["model.norm.weight"]
        arrays["model.layers.1.mlp.up_proj.weight"] = np.zeros((3, 64), np.float32)
        arrays["model.layers.0.adapter\n"] = np.zeros(1, np.float32)

    folder = write_hf_folder(tmp_path / "hf")
    rewrite(folder, change)
    line = refusal(folder)
    assert "model.norm.weight is missing" in line
    assert "model.layers.1.mlp.up_proj.weight has the shape [3, 64] instead of [128, 64]" in line
    assert r"'model.layers.0.adapter\n' is unknown" in line
    rewrite(folder, None, num_hidden_layers=40)
    assert "and 342 more" in refusal(folder)


def test_gguf_mismatches_carry_the_names_of_the_file(tmp_path):
    path = write_gguf(tmp_path / "m.gguf")
    data = path.read_bytes().replace(b"blk.1.ffn_up.weight", b"blk.7.ffn_up.weight")
    path.write_bytes(data)
    line = refusal(path)
    assert "blk.1.ffn_up.weight is missing" in line and "'blk.7.ffn_up.weight' is unknown" in line


def test_tables_of_old_checkpoints_and_a_repeated_tied_head_are_accepted(tmp_path):
    folder = write_hf_folder(tmp_path / "hf")

    def change(arrays):
        arrays["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.zeros(8, np.float32)
        arrays["lm_head.weight"] = arrays["model.embed_tokens.weight"]

    rewrite(folder, change)
    assert describe(open_source(folder)).parameters == sum(array.size for array in weights(Tiny()).values())
    rewrite(folder, lambda arrays: arrays.update({"lm_head.weight": np.zeros((512, 64), np.float32)}))
    assert not describe(open_source(folder)).config.tie_word_embeddings, "another head is a head of its own"


def test_weights_of_another_type_are_refused(tmp_path):
    folder = write_hf_folder(tmp_path / "hf")
    data = (folder / "model.safetensors").read_bytes().replace(b'"dtype": "F32"', b'"dtype": "I32"', 1)
    (folder / "model.safetensors").write_bytes(data)
    assert "has the type I32 instead of F32" in refusal(folder)


REFUSED = {
    "architecture": ({"model_type": "mamba"}, "'mamba' (model_type) is not supported; supported: "),
    "no architecture": ({"model_type": None}, "is not supported"),
    "a list for one": ({"model_type": ["llama"]}, "is not supported"),
    "dynamic RoPE": ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "RoPE scaling 'dynamic' is not supported"),
    "yarn RoPE": ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "RoPE scaling 'yarn' is not supported"),
    "linear RoPE, faster": ({"rope_scaling": {"type": "linear", "factor": 0.5}}, "an invalid factor 0.5"),
    "half of llama3 RoPE": (
        {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0}},
        "RoPE scaling 'llama3' has an invalid high_freq_factor None, original_max_position_embeddings None",
    ),
    "half of a head": ({"partial_rotary_factor": 0.5}, "partial_rotary_factor: riyaz supports only 1"),
    "activation": ({"hidden_act": "gelu"}, "hidden_act is 'gelu', riyaz supports only silu"),
    "bias a text": ({"mlp_bias": "yes"}, "mlp_bias is 'yes'"),
    "quantised": ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
    "missing": ({"hidden_size": None}, "hidden_size is missing"),
    "negative": ({"num_hidden_layers": -1}, "num_hidden_layers is -1"),
    "a billion layers": ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000"),
    "a fraction": ({"num_attention_heads": 4.0}, "num_attention_heads is 4.0"),
    "true": ({"vocab_size": True}, "vocab_size is True"),
    "a text": ({"intermediate_size": "128"}, "intermediate_size is '128'"),
    "three heads": ({"num_key_value_heads": 3}, "4 heads cannot share 3"),
    "odd head": ({"head_dim": 15}, "the head size 15 is odd"),
    "eps 0": ({"rms_norm_eps": 0.0}, "rms_norm_eps is 0.0"),
    "eps NaN": ({"rms_norm_eps": float("nan")}, "rms_norm_eps is nan"),
    "theta 0": ({"rope_theta": 0}, "rope_theta is 0"),
    "theta huge": ({"rope_theta": 10**400}, "rope_theta is 1000"),
    "tying a text": ({"tie_word_embeddings": "no"}, "tie_word_embeddings is 'no'"),
    "two at once": (
        {"hidden_act": "relu", "vocab_size": 0},
        "hidden_act is 'relu', riyaz supports only silu, vocab_size",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_configurations_that_lie_or_ask_for_more_are_refused(tmp_path, case):
    changes, expected = REFUSED[case]
    folder = write_hf_folder(tmp_path / "hf")
    rewrite(folder, None, **changes)
    line = refusal(folder)
    assert expected in line and len(line) < 600, line


def test_gguf_configurations_that_ask_for_more_are_refused(tmp_path):
    source = open_source(write_gguf(tmp_path / "m.gguf"))
    for key, value, expected in (
        ("general.architecture", "mamba", "'mamba' (general.architecture) is not supported"),
        ("llama.rope.scaling.type", "yarn", "RoPE scaling (llama.rope.scaling.type 'yarn')"),
        ("llama.rope.scaling.factor", 0.5, "RoPE scaling (llama.rope.scaling.factor) has an invalid factor 0.5"),
        ("llama.expert_count", 8, "mixtures of experts"),
        ("llama.rope.dimension_count", 8, "llama.rope.dimension_count is 8, the head size is 16"),
        ("llama.attention.head_count_kv", [2, 2], "llama.attention.head_count_kv is [2, 2]"),
        ("llama.attention.key_length", float("nan"), "llama.attention.key_length is nan"),
        ("llama.block_count", 2**31, "llama.block_count is 2147483648"),
    ):
        with pytest.raises(RiyazError) as caught:
            describe(replace(source, metadata={**source.metadata, key: value}))
        assert expected in str(caught.value) and str(source.path) in str(caught.value)


KEYS = st.sampled_from([*tiny_llama.config(Tiny()), "rope_parameters", "quantization_config"])
NUMBER = st.integers(-(2**70), 2**70) | st.integers(0, 70) | st.floats() | st.booleans()
VALUE = NUMBER | st.none() | st.text(max_size=8) | st.lists(NUMBER, max_size=2)
ROPE = st.sampled_from(["type", "rope_type", "rope_theta", *LLAMA3_KEYS])
VALUE |= st.dictionaries(ROPE, NUMBER | st.sampled_from(["linear", "llama3"]) | st.text(max_size=4))


@settings(max_examples=examples(300), deadline=None, derandomize=True, database=None)
@given(changes=st.dictionaries(KEYS, VALUE, min_size=1, max_size=3), gguf=st.booleans())
def test_any_configuration_opens_or_is_a_riyaz_error(tmp_path_factory, changes, gguf):
    base = tmp_path_factory.getbasetemp() / "fuzz"
    path = base / "m.gguf" if gguf else base / "hf"
    if not path.exists():
        (write_gguf if gguf else write_hf_folder)(path)
    source = open_source(path)
    if gguf:
        names = {hf: f"llama.{key}" for hf, key in decoder.KEYS.values()}
        changes = {names.get(key, key): value for key, value in changes.items()}
    try:
        family = describe(replace(source, metadata={**source.metadata, **changes}))
    except RiyazError as error:
        assert "\n" not in str(error)
        return
    assert family.parameters == sum(array.size for _, _, array in family.weights())
