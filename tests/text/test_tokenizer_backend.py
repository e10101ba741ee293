"""The quick way from a parsed tokenizer.json to the package's tokenizer: the same as by its own reader."""

import json
from pathlib import Path

import pytest
import tiny_llama
import tokenizers

from riyaz.sources import open_source
from riyaz.text import tokenizer_backend
from riyaz.text.tokenizer import MARK
from riyaz.text.tokenizer_files import NO_FLAGS

PIECES = {"<unk>": 0, "▁": 1, "a": 2, "b": 3, "ab": 4, "▁ab": 5, "<0x41>": 6, "[X]": 7}
ADDED = [
    {"id": 7, "content": "[X]", "special": True, **NO_FLAGS},
    {"id": 8, "content": "new", "special": False, **NO_FLAGS, "normalized": True, "lstrip": True},
]
SPACES = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}


def definition(**model: object) -> dict:
    """A small SentencePiece-like tokenizer.json, with these settings of its model."""
    bpe = {"type": "BPE", "vocab": PIECES, "merges": [["a", "b"], ["▁", "ab"]], **model}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": ADDED, "normalizer": SPACES,
        "pre_tokenizer": None, "post_processor": None, "decoder": {"type": "ByteFallback"}, "model": bpe,
    }  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True},
        {"ignore_merges": True, "dropout": None, "continuing_subword_prefix": None, "end_of_word_suffix": ""},
        {"merges": [("a", "b")]},
    ],
)
def test_it_is_the_tokenizer_that_the_packages_reader_makes(settings: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    known = definition(**settings)
    slow = tokenizer_backend.from_text(known)
    with monkeypatch.context() as patch:
        read = []
        patch.setattr(json, "dumps", lambda value, dumps=json.dumps: read.append(value) or dumps(value))
        quick = tokenizer_backend.build(known)
        assert [each["model"]["vocab"] for each in read] == [{}], "the tables are not written as text"
    assert quick.to_str() == slow.to_str()
    for text in ("ab ab", "[X] a new b", "Ab", ""):
        assert quick.encode(text).ids == slow.encode(text).ids


@pytest.mark.parametrize("kind", ["folder", "gguf"])
def test_a_models_tokenizer_is_the_same_both_ways(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = tiny_llama.write_hf_folder if kind == "folder" else tiny_llama.write_gguf
    source = open_source(write(tmp_path / "model.gguf"))
    quick = source.tokenizer()
    monkeypatch.setattr(tokenizer_backend, "build", tokenizer_backend.from_text)
    slow = source.tokenizer()
    assert quick._backends[MARK].to_str() == slow._backends[MARK].to_str()
    assert quick.id_limit == slow.id_limit and quick.added == slow.added


@pytest.mark.parametrize(
    "changed",
    [
        {"added_tokens": [{"id": 7, "content": "[X]", "special": True}]},
        {"model": {"type": "WordLevel", "vocab": PIECES, "unk_token": "<unk>"}},
        {"model": {"type": "BPE", "vocab": PIECES, "merges": [], "cache": 3}},
    ],
)
def test_what_it_does_not_know_is_left_to_the_packages_reader(changed: dict) -> None:
    known = definition() | changed
    try:
        slow = tokenizer_backend.from_text(known).to_str()
    except Exception as error:
        with pytest.raises(type(error), match=str(error).split(" at line")[0][:20]):
            tokenizer_backend.build(known)
    else:
        assert tokenizer_backend.build(known).to_str() == slow


@pytest.mark.parametrize("merges", [[["a", "nowhere"]], [["a"]], [["a", "b", "ab"]], [3], 3])
def test_merges_that_are_none_are_refused_both_ways(merges: object) -> None:
    for make in (tokenizer_backend.build, tokenizer_backend.from_text):
        with pytest.raises(Exception):  # noqa: B017 (the package raises bare ones)
            make(definition(merges=merges))


def test_the_definition_of_a_gguf_file_is_written_when_it_is_asked_for(tmp_path: Path, monkeypatch) -> None:
    source = open_source(tiny_llama.write_gguf(tmp_path / "model.gguf"))
    tokenizer = source.tokenizer()
    assert "definition" not in vars(tokenizer.files)
    text = tokenizer.files.definition
    assert json.loads(text)["model"]["vocab"] == tokenizer.files.parsed("")["model"]["vocab"]
    assert tokenizers.Tokenizer.from_str(text).get_vocab_size() == tokenizer.vocab_size
