"""The embedder in C++ beside the one in torch, on every instruction set that this machine has."""

import math
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tiny_bert
import tiny_llama
import torch
from refusals import assert_refused

from riyaz import hardware, native
from riyaz.engine import embedder as shared_embedder
from riyaz.engine.native import embedder as native_embedder
from riyaz.engine.native.embedder import NativeEmbedder
from riyaz.engine.opening import open_embedder
from riyaz.engine.torch.embedder import TorchEmbedder
from riyaz.retrieval.collection import Collection, add
from riyaz.retrieval.documents import read_documents
from riyaz.retrieval.search import Retriever
from riyaz.sources import open_source, pull

ISAS = native.isas() if native.available() else ()
EXACT = 1e-5  # largest difference of a vector in float32 to torch's
BFLOAT16 = 0.9999  # smallest cosine of a vector in bf16 to torch's in float32
GELU = 1e-6
TEXTS = [
    "",
    "The card payment was declined!",
    "where is my refund",
    "bikes biked biking " * 200,  # cut at 256 tokens
    "naïve CAFÉ, 漢字 😀 नमस्ते",
    "the card " * 15,  # 32 tokens with its frame: fills a page of keys
    "where is my bike",
    "a",
]
each_isa = pytest.mark.parametrize("isa", ISAS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_bert.write_folder(tmp_path / "embedder", seed=3)


def wanted(folder: Path, texts: list[str]) -> np.ndarray:
    """Torch's vectors in float32."""
    return TorchEmbedder(open_source(folder)).embed(texts)


def mixed(count: int, seed: int) -> list[str]:
    """Texts of 0 to 59 words."""
    generator = random.Random(seed)
    return [" ".join(generator.choices(tiny_bert.WORDS[:10], k=generator.randrange(60))) for _ in range(count)]


@each_isa
def test_vectors_equal_torchs(folder: Path, isa: str) -> None:
    source, theirs = open_source(folder), wanted(folder, TEXTS)
    for precision in ("fp32", "bf16"):
        embedder, seen = NativeEmbedder(source, precision, isa), []
        ours = embedder.embed(TEXTS, lambda *progress, seen=seen: seen.append(progress))
        assert ours.dtype == np.float32 and ours.shape == (len(TEXTS), embedder.dim) == (len(TEXTS), 64)
        assert np.abs(np.linalg.norm(ours, axis=1) - 1).max() <= 1e-6
        assert (ours * theirs).sum(1).min() >= BFLOAT16
        difference = np.abs(ours - theirs).max()
        assert difference <= EXACT if precision == "fp32" else difference > EXACT
        assert seen[-1] == (len(TEXTS), len(TEXTS)) and embedder.embed([]).shape == (0, 64)


@pytest.mark.grid
@each_isa
@pytest.mark.parametrize(("width", "heads", "inner"), [(36, 3, 50), (16, 2, 16), (80, 1, 33)])
def test_widths_that_fill_no_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, isa: str, width: int, heads: int, inner: int
) -> None:
    sizes = {"hidden_size": width, "num_attention_heads": heads, "intermediate_size": inner}
    monkeypatch.setattr(tiny_bert, "CONFIG", tiny_bert.CONFIG | sizes)
    folder = tiny_bert.write_folder(tmp_path / "odd", seed=1)
    theirs = wanted(folder, TEXTS)
    assert np.abs(NativeEmbedder(open_source(folder), "fp32", isa).embed(TEXTS) - theirs).max() <= EXACT
    assert (NativeEmbedder(open_source(folder), "bf16", isa).embed(TEXTS) * theirs).sum(1).min() >= BFLOAT16


@pytest.mark.grid
@each_isa
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_vector_does_not_depend_on_its_neighbours(
    folder: Path, monkeypatch: pytest.MonkeyPatch, isa: str, precision: str
) -> None:
    texts = TEXTS + mixed(40, seed=5)
    monkeypatch.setattr(hardware, "threads", lambda: 3)
    embedder = NativeEmbedder(open_source(folder), precision, isa)
    alone = np.concatenate([embedder.embed([text]) for text in texts])
    for batch, slab in ((4096, 1024), (100, 7)):
        monkeypatch.setattr(shared_embedder, "BATCH_TOKENS", batch)
        monkeypatch.setattr(shared_embedder, "SLAB", slab)
        assert np.array_equal(embedder.embed(texts), alone)
        assert np.array_equal(embedder.embed(texts[::-1])[::-1], alone)
    monkeypatch.setattr(hardware, "threads", lambda: 1)
    assert np.array_equal(NativeEmbedder(open_source(folder), precision, isa).embed(texts), alone)


def test_callers_in_several_threads_get_their_own_vectors(folder: Path) -> None:
    embedder, texts = NativeEmbedder(open_source(folder)), [mixed(20, seed) for seed in range(8)]
    alone = [embedder.embed(each) for each in texts]
    with ThreadPoolExecutor(4) as pool:
        for found, expected in zip(pool.map(embedder.embed, texts * 4), alone * 4, strict=True):
            assert np.array_equal(found, expected)


@each_isa
def test_the_exact_gelu(isa: str) -> None:
    x = np.linspace(-12, 12, 4003, dtype=np.float32).reshape(1, -1)  # no multiple of 16
    bias = np.linspace(0.1, -0.2, x.shape[1], dtype=np.float32)
    exact = [each / 2 * math.erfc(-each / math.sqrt(2)) for each in (x.astype(float) + bias)[0]]
    assert np.abs(native.extension().gelu_erf(isa, x, bias)[0] - exact).max() <= GELU


def test_the_choice_of_an_embedder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = open_embedder(str(folder))
    assert isinstance(chosen, NativeEmbedder) and chosen.sha256 == TorchEmbedder(open_source(folder)).sha256
    for isa, quick, precision in (("amx", True, "bf16"), ("avx512bf16", False, "fp32"), ("avx2", True, "fp32")):
        monkeypatch.setattr(native_embedder.native, "isa", lambda isa=isa: isa)
        monkeypatch.setattr(hardware, "bf16_is_fast", lambda quick=quick: quick)
        expected = NativeEmbedder(open_source(folder), precision).embed(TEXTS)
        assert np.array_equal(open_embedder(str(folder)).embed(TEXTS), expected)
    monkeypatch.setenv("RIYAZ_ENGINE", "torch")
    assert isinstance(open_embedder(str(folder)), TorchEmbedder)
    monkeypatch.setenv("RIYAZ_ENGINE", "")
    monkeypatch.setattr(native, "available", lambda: False)
    assert isinstance(open_embedder(str(folder)), TorchEmbedder)


def test_vectors_that_torch_has_made_are_searched(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text(tiny_llama.CORPUS)
    theirs, ours = TorchEmbedder(open_source(folder)), NativeEmbedder(open_source(folder))
    documents, _ = read_documents(tmp_path / "notes.txt")
    add(tmp_path / "held", documents, theirs)
    collection = Collection.open(tmp_path / "held")
    question = ["where is the card payment"]
    found, expected = (Retriever(collection, each).search(question, 5)[0] for each in (ours, theirs))
    assert [(hit.doc_id, hit.start) for hit in found] == [(hit.doc_id, hit.start) for hit in expected] and found


def test_damaged_weights_and_vectors_are_refused(folder: Path) -> None:
    weights = tiny_bert.weights(3)
    norm = "encoder.layer.1.output.LayerNorm.weight"
    for value, said in ((np.nan, norm), (3e38, "the vector of a text holds a number that is none")):
        tiny_llama.write_safetensors(folder / "model.safetensors", weights | {norm: np.full(64, value, np.float32)})
        with assert_refused(said):
            NativeEmbedder(open_source(folder)).embed(TEXTS)


def test_the_extension_checks_what_it_is_given(folder: Path) -> None:
    encoder = NativeEmbedder(open_source(folder))._encoder
    for tokens, lengths in (([5, 111], [2]), ([5, -1], [2]), ([5, 6], [2, 0]), ([5, 6], [1]), ([5] * 321, [321])):
        with pytest.raises(ValueError, match=r"vocabulary|length|sizes"):
            encoder.embed(np.array(tokens, np.int32), np.array(lengths, np.int32))
    sizes = {"layers": 1, "hidden": 32, "heads": 2, "inner": 32, "vocabulary": 9, "context": 9}
    settings = sizes | {"fp32": True, "eps": 1e-12}
    fresh = native.extension().Encoder(settings, 1)
    with pytest.raises(ValueError, match="words is missing"):
        fresh.embed(np.array([1], np.int32), np.array([1], np.int32))
    with pytest.raises(ValueError, match="qkv does not fit"):
        fresh.set(0, "qkv", native.extension().Matrix("fp32", 32, 32))
    with pytest.raises(ValueError, match="heads do not divide"):
        native.extension().Encoder(settings | {"heads": 3}, 1)


@pytest.mark.slow
def test_the_real_model_equals_torchs() -> None:
    source = open_source(pull("minilm").path)
    texts = [
        *TEXTS,
        tiny_llama.CORPUS,
        "The central bank raised interest rates.",
        "def f(x):\n    return x ** 2  # 12345",
    ]
    theirs = TorchEmbedder(source, torch.float32).embed(texts)
    assert np.abs(NativeEmbedder(source).embed(texts) - theirs).max() <= EXACT
    assert (NativeEmbedder(source, "bf16").embed(texts) * theirs).sum(1).min() >= BFLOAT16
