"""Every family as a GGUF file and as a folder: the `gguf` package finds in it what transformers holds, transformers and
riyaz say the same of it; what GGUF has no place for is one line."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_families
import tiny_window_families
import torch
from gguf import MODEL_ARCH, GGUFReader, get_tensor_name_map
from refusals import assert_refused
from small_llama import save_peft
from test_export import left
from test_tokenizer_gguf import GEMMA_TEMPLATE, MORE_TEXTS, plain, sentencepiece
from tiny_families import FAMILIES, as_it_is, interleaved, oracle_logits
from tokenizers import Tokenizer as Backend
from torch import Tensor
from transformers import AutoModelForCausalLM

from riyaz import export, models
from riyaz.families import gemma3, rope
from riyaz.layers.attention import packed
from riyaz.layers.swaps import lora
from riyaz.sources import open_source
from riyaz.sources.gguf_vocabulary import UNUSED, USER_DEFINED
from riyaz.text.tokenizer import Tokenizer

pytestmark = pytest.mark.usefixtures("own_store")
SAME = 0.0  # of a logit: the same float32 weights in the same sums
LAST_BIT = 2e-5  # of a logit: Gemma's norms hold 1 + w, which loses a last bit of w
ORACLE = 1e-4  # of a logit: two orders of summation
PIECES = 900  # rows of a model with a SentencePiece tokenizer, more than it has tokens
WINDOWED = {
    # as the real ones: of six layers the last sees everything, and a head's size is the scale
    "gemma3": {"vocab_size": PIECES, "num_hidden_layers": 7, "layer_types": None, "head_dim": 256},
    "gemma3-scaled": {
        "vocab_size": PIECES, "query_pre_attn_scalar": 16, "rope_scaling": None,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
        "rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e6},
                            "sliding_attention": {"rope_type": "default", "rope_theta": 5000.0}},
    },
    "mistral": {"vocab_size": PIECES, "sliding_window": None},
}  # fmt: skip
CASES = [*(name for name in FAMILIES if name != "qwen3-biases"), *WINDOWED]
# what transformers does not take from the file, so that it is told the whole configuration
UNREAD = {
    "llama-biases": "biases",
    "llama-linear": "RoPE scaling",
    "llama-llama3": "RoPE scaling",
    "gpt2": "positions",
    "gpt2-untied": "positions",
    "qwen2-untied": "RoPE scaling",
    "qwen3": "the head size",
    "gemma3-scaled": "which layers are local, RoPE scaling, the scale of queries, the cap of logits",
}


def write_sentencepiece(folder: Path, prefix: bool, **changes: Any) -> str:
    """A SentencePiece tokenizer as a Hugging Face folder has it; its definition."""
    definition = json.loads(sentencepiece(prefix)[0])
    if not prefix:  # as in Gemma's own file
        definition["pre_tokenizer"] = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious",
                                       "invert": False}  # fmt: skip
    text = json.dumps(definition | changes)
    named = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>"}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(text)
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    (folder / "chat_template.jinja").write_text(GEMMA_TEMPLATE)
    (folder / "generation_config.json").write_text('{"eos_token_id": [1, 5]}')
    return text


def make(name: str, folder: Path, **changes: Any) -> Any:
    """The tiny model of a case in transformers, saved with a tokenizer of its kind."""
    if name in FAMILIES:
        return tiny_families.make(FAMILIES[name], folder)
    model = tiny_window_families.theirs(name, **{**WINDOWED[name], **changes})
    if name == "gemma3-scaled":  # norms of which 1 + w loses a bit
        for own, weight in model.named_parameters():
            if "norm" in own:
                weight += 1e-3 * torch.sin(torch.arange(len(weight)))
    model.save_pretrained(folder)
    write_sentencepiece(folder, prefix=name == "mistral")
    return model


def stored(name: str, model: Any) -> dict[str, np.ndarray]:
    """GGUF name -> values, by the `gguf` package's names and llama.cpp's order of rows."""
    family = name.partition("-")[0]
    layout = FAMILIES[name].layout if name in FAMILIES else interleaved if family == "mistral" else as_it_is
    architecture = "llama" if family == "mistral" else family
    names = get_tensor_name_map(MODEL_ARCH[architecture.upper()], model.config.num_hidden_layers)
    found = {}
    for own, weight in model.named_parameters():
        values = weight.detach().numpy() + (1 if family == "gemma3" and "norm" in own else 0)
        found[names.get_name(own, try_suffixes=(".weight", ".bias"))] = layout(model.config, own, values)
    return found


def ours(path: Path, tokens: Tensor) -> Tensor:
    """(T, V) of riyaz' reading of a folder or a file."""
    model = models.load(open_source(path), torch.float32)
    with torch.no_grad():
        return model.head(model(tokens, torch.arange(len(tokens)), packed([len(tokens)])))


@pytest.mark.parametrize("name", CASES)
def test_every_family_becomes_a_gguf_file_and_a_folder_that_say_the_same(tmp_path, name):
    model = make(name, tmp_path / "tiny")
    near, tokens = LAST_BIT if name.startswith("gemma3") else SAME, torch.arange(3, 90)
    wanted, own = oracle_logits(model, tokens), ours(tmp_path / "tiny", tokens)
    assert wanted.std() > 0.1 and (own - wanted).abs().max() <= ORACLE
    written = export.export(str(tmp_path / "tiny"), "gguf", tmp_path / "gguf", "float32")
    found = ours(tmp_path / "gguf", tokens)
    assert written.difference <= near and (found - own).abs().max() <= near

    reader, expected = GGUFReader(str(tmp_path / "gguf" / "model.gguf")), stored(name, model)
    if name == "llama-llama3":
        expected["rope_freqs.weight"] = np.array(tiny_families.FREQUENCIES, np.float32)
    tensors = {tensor.name: tensor.data for tensor in reader.tensors}
    assert tensors.keys() == expected.keys()
    for key, values in expected.items():
        np.testing.assert_allclose(tensors[key], values, rtol=1e-6, err_msg=key)

    read = partial(AutoModelForCausalLM.from_pretrained, tmp_path / "gguf", gguf_file="model.gguf", dtype=torch.float32)
    theirs = read(config=model.config) if name in UNREAD else read()
    from_file = (oracle_logits(theirs, tokens) - wanted).abs().max()
    print(f"{name}: riyaz {(found - own).abs().max():.2g}, transformers reading the file {from_file:.2g}")
    assert from_file <= ORACLE

    again = export.export(str(tmp_path / "tiny"), "hf", tmp_path / "hf", "float32")
    back = export.export(str(tmp_path / "gguf"), "hf", tmp_path / "back", "float32")
    assert again.difference == 0 and back.difference == 0
    for folder in ("hf", "back"):
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path / folder, dtype=torch.float32)
        assert (oracle_logits(loaded, tokens) - wanted).abs().max() <= ORACLE


def test_the_pieces_that_were_written_give_the_ids_of_the_source(tmp_path):
    for name, prefix in (("mistral", True), ("gemma3", False)):
        make(name, tmp_path / name)
        export.export(str(tmp_path / name), "gguf", tmp_path / f"{name}-gguf", "float32")
        source, found = Backend.from_str(sentencepiece(prefix)[0]), open_source(tmp_path / f"{name}-gguf")
        again = found.tokenizer()
        for text in map(plain, MORE_TEXTS):
            expected = source.encode(text, add_special_tokens=False).ids
            assert again.encode(text) == expected and again.decode(expected) == source.decode(expected), text
        by_score = Tokenizer.from_gguf(found.metadata | {"general.architecture": "llama"})  # as llama.cpp does
        assert all(by_score.encode(text) == again.encode(text) for text in map(plain, MORE_TEXTS))
        assert (again.bos_id, again.end_of_turn, again.eos_ids) == (2, 5, {1, 5})

        fields = {key: value.contents() for key, value in GGUFReader(str(found.path)).fields.items()}
        wanted = sentencepiece(prefix)[1]
        keys = ("model", "pre", "bos_token_id", "eos_token_id", "eot_token_id", "unknown_token_id", "padding_token_id")
        for key in (f"tokenizer.ggml.{key}" for key in (*keys, "add_space_prefix")):
            assert fields[key] == wanted[key], key
        kinds, expected = fields["tokenizer.ggml.token_type"], wanted["tokenizer.ggml.token_type"]
        assert len(kinds) == len(fields["tokenizer.ggml.scores"]) == PIECES
        assert set(kinds[len(expected) :]) == {UNUSED}
        if prefix:  # the definition lists fewer of them than the metadata
            kinds, expected = ([n for n in row if n != USER_DEFINED] for row in (kinds, expected))
        assert kinds[: len(expected)] == expected
        tokens = fields["tokenizer.ggml.tokens"]
        assert prefix or tokens[6:9] == ["  ", "   ", "    "], "spaces are cut out of a text before they become ▁"


@pytest.mark.parametrize("name", ["gpt2", "qwen2", "qwen3", "gemma3", "mistral"])
def test_an_adapter_of_every_family_becomes_a_gguf_adapter(tmp_path, name):
    make(name, tmp_path / "tiny")
    model = models.load(open_source(tmp_path / "tiny"), torch.float32)
    lora.apply(model, r=2, alpha=4, seed=1)
    for _, layer in lora.lora_layers(model):
        torch.nn.init.normal_(layer.lora_B, std=0.2, generator=torch.Generator().manual_seed(2))
    (tmp_path / "adapter").mkdir()
    save_peft(model, tmp_path / "adapter", base=str(tmp_path / "tiny"), alpha=4)
    assert export.export(str(tmp_path / "adapter"), "gguf-lora", tmp_path / "lora").difference == 0
    reader = GGUFReader(str(tmp_path / "lora" / "adapter.gguf"))
    assert reader.fields["general.architecture"].contents() == {"mistral": "llama"}.get(name, name)
    assert export.export(str(tmp_path / "adapter"), "gguf", tmp_path / "merged", "float32").difference <= ORACLE


METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}


def test_sentencepieces_that_gguf_cannot_say_are_one_line(tmp_path):
    make("mistral", tmp_path / "tiny")
    definition = json.loads(sentencepiece(True)[0])
    merges = definition["model"]["merges"]
    for changes, part in (
        ({"normalizer": None, "pre_tokenizer": METASPACE}, "splits text in a way that GGUF cannot express"),
        ({"normalizer": {"type": "NFKC"}}, "splits text in a way that GGUF cannot express"),
        ({"decoder": {"type": "Fuse"}}, "splits text in a way that GGUF cannot express"),
        ({"model": definition["model"] | {"merges": merges[:60]}}, "do not follow from one score per piece"),
    ):
        write_sentencepiece(tmp_path / "tiny", True, **changes)
        with assert_refused(part, "export it with --format hf"):
            export.export(str(tmp_path / "tiny"), "gguf", tmp_path / "out")
    write_sentencepiece(tmp_path / "tiny", True)
    model = tiny_window_families.theirs("mistral", vocab_size=300, sliding_window=None)
    model.save_pretrained(tmp_path / "tiny")
    with assert_refused("the model has 300 embedding rows, its tokenizer "):
        export.export(str(tmp_path / "tiny"), "gguf", tmp_path / "out")
    assert left(tmp_path) == ["tiny"]


def test_what_gguf_has_no_place_for_is_one_line(tmp_path):
    first = {"layer_types": ["full_attention", "sliding_attention", "sliding_attention"]}
    for name, changes, part in (
        ("mistral", {"sliding_window": 6}, "this model's is 6 of 256 tokens"),
        ("gemma3-scaled", first, "cannot express this pattern of layers: global, local, local"),
        ("gemma3-scaled", {"query_pre_attn_scalar": 24}, "cannot express query_pre_attn_scalar 24, only 16"),
        ("qwen3-biases", {}, "does not support attention biases in qwen3"),
    ):
        make(name, tmp_path / name, **changes)
        with assert_refused(f"{name}: ", part, "export it with --format hf"):
            export.export(str(tmp_path / name), "gguf", tmp_path / "out")
    with assert_refused("GGUF cannot express RoPE scaling 'llama3' of a qwen3"):
        rope.to_gguf("qwen3", rope.Scaling("llama3", 8.0), 64, 1e4)
    assert "out" not in left(tmp_path)


@pytest.mark.parametrize("local", [(True,), (False,), (True, False), (True, True, False, True), (False, False)])
def test_gemmas_local_layers_come_back(local):
    sizes = {**tiny_window_families.SIZES, "model_type": gemma3.TEXT, "head_dim": 256, "num_hidden_layers": len(local)}
    config = replace(gemma3.from_hf(sizes), local=local, tie_word_embeddings=True)
    assert gemma3.from_gguf(gemma3.gguf_metadata(config), {}).local == config.local
