"""Every format out and back: transformers, PEFT and the `gguf` package read what was written, and it says the same."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_llama
import torch
from gguf import GGUFReader
from refusals import assert_refused
from small_llama import attach, save_peft
from test_export import adapter_files, left, make, model_logits, oracle

from riyaz import export, models
from riyaz.adapters import Adapter
from riyaz.families import llama
from riyaz.layers.swaps import lora, soft_prompt
from riyaz.predictor import open_target
from riyaz.sources import open_source
from riyaz.text.tokenizer import Tokenizer

pytestmark = pytest.mark.usefixtures("own_store")
TOLERANCE = 2e-4  # of a logit: float32, two orders of summation
# largest difference of a logit (they have a spread of 1) after rounding every matrix of the tiny model
ROUNDING = {"float32": 0.0, "bfloat16": 0.1, "q8_0": 0.2, "q4_k_m": 1.5, "q4_0": 3.0}
TYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "q8_0": "Q8_0", "q4_0": "Q4_0", "q4_k_m": "Q5_0"}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """Untied, with biases in attention and a second end token."""
    folder = tiny_llama.write_hf_folder(tmp_path_factory.mktemp("base") / "tiny-base", tie=False, attention_bias=True)
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 0]}')
    return folder


def opened(target: Path) -> np.ndarray:
    return model_logits(models.load(open_source(target), torch.float32))


def adapted(base: Path, adapter: Path) -> np.ndarray:
    return model_logits(attach(models.load(open_source(base), torch.float32), adapter))


@pytest.mark.parametrize("dtype", ROUNDING)
def test_a_model_becomes_one_gguf_file_that_the_gguf_package_reads(base, tmp_path, dtype):
    written = export.export(str(base), "gguf", tmp_path / "out", dtype)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model.gguf", "Modelfile", "README.md"}
    assert written.dtype == dtype and written.difference <= ROUNDING[dtype]
    assert (written.difference > 0) == (dtype != "float32"), "rounding is said"
    reader = GGUFReader(str(tmp_path / "out" / "model.gguf"))
    kinds = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert kinds["blk.0.ffn_up.weight"] == TYPES[dtype] and kinds["blk.0.attn_norm.weight"] == "F32"
    assert kinds["output.weight"] == ("Q8_0" if dtype in ("q4_0", "q4_k_m") else TYPES[dtype])
    for tensor in reader.tensors:
        if tensor.name == "blk.1.attn_q.weight" and dtype == "float32":
            own = tiny_llama.weights(tiny_llama.Tiny(tie=False, attention_bias=True))[
                "model.layers.1.self_attn.q_proj.weight"
            ]
            np.testing.assert_array_equal(tensor.data, tiny_llama.permute(own, 4))
    fields = {name: field.contents() for name, field in reader.fields.items()}
    sizes = {"embedding_length": 64, "block_count": 2, "attention.head_count": 4, "attention.head_count_kv": 2}
    sizes |= {"rope.dimension_count": 16, "context_length": 1024, "feed_forward_length": 128, "vocab_size": 512}
    assert sizes.items() <= {key.removeprefix("llama."): value for key, value in fields.items()}.items()
    assert (fields["general.architecture"], fields["tokenizer.ggml.pre"]) == ("llama", "smollm")
    ids = {role: fields[f"tokenizer.ggml.{role}_token_id"] for role in ("bos", "eos", "eot", "unknown", "padding")}
    assert ids == {"bos": 1, "eos": 2, "eot": 0, "unknown": 0, "padding": 2}
    assert fields["tokenizer.ggml.add_bos_token"] is False and fields["tokenizer.ggml.token_type"][:4] == [3, 3, 3, 1]
    assert fields["tokenizer.chat_template"] == tiny_llama.CHAT_TEMPLATE
    again = open_source(tmp_path / "out").tokenizer()
    assert again.eos_ids == {0, 2} and again.encode("the fox, 2024!") == open_source(base).tokenizer().encode(
        "the fox, 2024!"
    )


@pytest.mark.slow
@pytest.mark.parametrize("tie", [True, False])
def test_q4_k_m_mixes_the_types_as_llama_cpp_does(tmp_path, tie):
    sizes = {"layers": 16, "hidden": 256, "heads": 4, "kv_heads": 2, "intermediate": 256, "tie": tie}
    folder = tiny_llama.write_hf_folder(tmp_path / "tiny-base", **sizes)
    written = export.export(str(folder), "gguf", tmp_path / "out", "q4_k_m")
    assert written.dtype == "q4_k_m" and 0 < written.divergence < 0.2 and not written.notes
    reader = GGUFReader(str(tmp_path / "out" / "model.gguf"))
    kinds = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert reader.fields["general.file_type"].contents() == 15, "LLAMA_FTYPE_MOSTLY_Q4_K_M"
    better = {name for name, kind in kinds.items() if kind == "Q6_K"}
    layers = [0, 1, 4, 7, 10, 13, 14, 15]  # the first and last eighth, and every third between them
    wanted = {f"blk.{layer}.{part}.weight" for layer in layers for part in ("attn_v", "ffn_down")}
    assert better == wanted | {"token_embd.weight" if tie else "output.weight"}
    assert set(kinds.values()) == {"F32", "Q4_K", "Q6_K"} and kinds["blk.2.attn_v.weight"] == "Q4_K"
    if tie:
        wider = export.export(str(folder), "gguf", tmp_path / "q4_0", "q4_0")
        assert written.divergence < wider.divergence


def test_narrow_rows_are_written_in_other_types_and_it_is_said(base, tmp_path):
    written = export.export(str(base), "gguf", tmp_path / "out", "q4_k_m")
    (note,) = written.notes
    assert note.startswith("16 of 16 matrices have rows that are not a multiple of 256 weights long")
    assert "Q5_0 and Q8_0" in note


def test_a_gguf_file_keeps_its_tokenizer_when_its_weights_change(tmp_path):
    file = tiny_llama.write_gguf(tmp_path / "model.gguf", dtype="Q4_1")
    written = export.export(str(file), "gguf", tmp_path / "out", "q8_0")
    found, own = open_source(tmp_path / "out"), open_source(file)
    kept = {key for key in own.metadata if key.startswith("tokenizer.")}
    assert {key: found.metadata[key] for key in kept} == {key: own.metadata[key] for key in kept}
    assert written.difference == pytest.approx(0, abs=ROUNDING["q8_0"]) and "output.weight" not in found.tensors


def test_a_tokenizer_that_gguf_has_no_name_for_is_refused(tmp_path):
    folder = tiny_llama.write_hf_folder(tmp_path / "tiny-base")
    definition = json.loads((folder / "tokenizer.json").read_text())
    for change, part in (
        ({"pre_tokenizer": {"type": "Whitespace"}}, "splits text in a way that GGUF cannot express"),
        ({"model": definition["model"] | {"byte_fallback": True}}, "with byte fallback cannot be written as GGUF"),
    ):
        (folder / "tokenizer.json").write_text(json.dumps(definition | change))
        with assert_refused(part, "--format hf"):
            export.export(str(folder), "gguf", tmp_path / "out")
    assert left(tmp_path) == ["tiny-base"]


BARE = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}  # as GPT-2's own file has it


@pytest.mark.parametrize(("name", "whole_words"), [("gpt-2", False), ("llama-bpe", True), ("qwen2", False)])
def test_the_cut_of_a_tokenizer_is_found_by_its_steps(tmp_path, name, whole_words):
    folder = tiny_llama.write_hf_folder(tmp_path / "tiny-base")
    stub = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": name, "tokenizer.ggml.tokens": ["a"]}
    known = json.loads(Tokenizer.from_gguf(stub).files.definition)
    definition = json.loads((folder / "tokenizer.json").read_text())
    definition["pre_tokenizer"] = BARE if name == "gpt-2" else known["pre_tokenizer"]
    definition["normalizer"] = {"type": "NFC"} if name == "qwen2" else None
    definition["model"]["ignore_merges"] = whole_words
    (folder / "tokenizer.json").write_text(json.dumps(definition))
    export.export(str(folder), "gguf", tmp_path / "out")
    assert open_source(tmp_path / "out").metadata["tokenizer.ggml.pre"] == name
    (folder / "tokenizer.json").write_text(json.dumps(definition | {"normalizer": {"type": "NFKC"}}))
    with assert_refused("GGUF cannot express"):
        export.export(str(folder), "gguf", tmp_path / "out2")


def test_rows_in_another_order_or_other_ids_are_not_kept(base, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(llama, "to_gguf_layout", lambda config, name, array: array)
        for dtype in ("float32", "q4_0"):
            with assert_refused("nats per token from the weights it was written from", "nothing was kept"):
                export.export(str(base), "gguf", tmp_path / "out", dtype)
        source = make(base, tmp_path / "artifact")
        with assert_refused("nats per token from its source", "nothing was kept"):
            export.export(str(source), "gguf-lora", tmp_path / "out")
    metadata = export.gguf.tokenizer_metadata

    def careless(*arguments):
        found = metadata(*arguments)
        return found | {"tokenizer.ggml.merges": found["tokenizer.ggml.merges"][:-40]}

    monkeypatch.setattr(export.gguf, "tokenizer_metadata", careless)
    with assert_refused("the tokenizer has other ids for", "nothing was kept"):
        export.export(str(base), "gguf", tmp_path / "out")
    assert left(tmp_path) == []


@pytest.mark.parametrize("format", ["peft", "mlx", "gguf-lora"])
def test_an_adapters_scale_survives_every_format(base, tmp_path, format):
    source = make(base, tmp_path / "artifact", rslora=True)
    wanted = adapted(base, source)
    written = export.export(str(source), format, tmp_path / "out")
    assert (written.format, written.dtype) == (format, "float32") and written.difference < TOLERANCE
    names = {path.name for path in (tmp_path / "out").iterdir()}
    if format == "gguf-lora":
        assert names == {"adapter.gguf", "base.gguf", "Modelfile", "README.md", "prompt.json"}
        fields = GGUFReader(str(tmp_path / "out" / "adapter.gguf")).fields
        assert fields["adapter.lora.alpha"].contents() == 8 * 2, "α·√r"
        return
    assert np.abs(adapted(base, tmp_path / "out") - wanted).max() < TOLERANCE
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    if format == "mlx":
        assert config["lora_parameters"]["scale"] == 8 / 2 and config["model"] == str(tmp_path / "out" / "base")
        predictor = open_target(tmp_path / "out", base=str(base))
        assert predictor.adapter == "adapter"


def test_what_an_adapter_format_cannot_hold_is_refused(base, tmp_path):
    model = models.load(open_source(base), torch.float32)
    head = torch.ones_like(model.lm_head.weight).numpy()
    lora.attach(model, Adapter(whole={"lm_head.weight": head}))
    (tmp_path / "parts").mkdir()
    save_peft(model, tmp_path / "parts", base=str(base))
    for format in ("mlx", "gguf-lora"):
        with assert_refused("trained lm_head whole", "--format hf or gguf"):
            export.export(str(tmp_path / "parts"), format, tmp_path / "out")
        with assert_refused("has no adapter to export"):
            export.export(str(base), format, tmp_path / "out")
    assert export.export(str(tmp_path / "parts"), "peft", tmp_path / "artifact").difference == 0
    prompt = soft_prompt.apply(models.load(open_source(base), torch.float32), [5, 6, 7])
    (tmp_path / "other").mkdir()
    save_peft(prompt, tmp_path / "other", base=str(base))
    for format in ("gguf", "gguf-lora", "mlx", "hf"):
        with assert_refused("a soft prompt", "export it with --format peft"):
            export.export(str(tmp_path / "other"), format, tmp_path / "out")
    for format, hint in (("mlx", "leave --dtype out"), ("hf", "hf is written in float32, float16, bfloat16")):
        with assert_refused(f"{format} has no type q8_0", hint):
            export.export(str(base), format, tmp_path / "out", "q8_0")
    assert left(tmp_path) == []


def test_a_head_that_came_loose_and_all_end_tokens_reach_transformers(tmp_path):
    base = tiny_llama.write_hf_folder(tmp_path / "tiny-base")
    (base / "generation_config.json").write_text('{"eos_token_id": [2, 0]}')
    model = models.load(open_source(base), torch.float32)
    lora.apply(model, r=3, alpha=6, seed=1, targets=("lm_head", "q_proj"))
    for _, layer in lora.lora_layers(model):
        torch.nn.init.normal_(layer.lora_B, std=0.2, generator=torch.Generator().manual_seed(3))
    (tmp_path / "parts").mkdir()
    save_peft(model, tmp_path / "parts", base=str(base), alpha=6)
    wanted = model_logits(model)
    for format in ("hf", "gguf"):
        assert export.export(str(tmp_path / "parts"), format, tmp_path / format).difference < TOLERANCE
        assert np.abs(opened(tmp_path / format) - wanted).max() < TOLERANCE
    assert np.abs(oracle(tmp_path / "hf") - wanted).max() < TOLERANCE
    assert json.loads((tmp_path / "hf" / "config.json").read_text())["tie_word_embeddings"] is False
    assert json.loads((tmp_path / "hf" / "generation_config.json").read_text())["eos_token_id"] == [0, 2]
    assert "output.weight" in open_source(tmp_path / "gguf").tensors


def test_lora_to_peft_and_back_to_hf_and_back_to_gguf_and_back(base, tmp_path):
    """The difference at every step, from the trained adapter to the merged GGUF file."""
    adapter_files(base, tmp_path / "parts", rslora=True)
    wanted = adapted(base, tmp_path / "parts")
    assert np.abs(wanted - opened(base)).max() > 0.1, "the adapter does something"
    steps = [("peft", "parts"), ("mlx", "peft"), ("peft", "mlx"), ("hf", "peft2"), ("gguf", "hf"), ("hf", "gguf")]
    for number, (format, source) in enumerate(steps):
        out = tmp_path / (format if format not in [done for done, _ in steps[:number]] else f"{format}2")
        written = export.export(str(tmp_path / source), format, out, base=str(base))
        found = adapted(base, out) if format in ("peft", "mlx") else opened(out)
        difference = np.abs(found - wanted).max()
        print(f"{source} -> {out.name}: {difference:.2g}, said {written.difference:.2g}")
        assert difference < TOLERANCE and written.difference < TOLERANCE
    assert np.abs(oracle(tmp_path / "hf2") - oracle(base, tmp_path / "peft2")).max() < TOLERANCE
    line = replace(written, path="out").line()
    assert line.startswith("out: hf, float32") and "largest logit difference" in line
