"""Tokenizers made of text: the ids that transformers gives for the same folder, and every text back from its ids."""

import json
import os
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny_llama
import transformers
from grids import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import assert_refused
from tokenizer_kinds import TEXTS

from riyaz.data.corpus import PIECE, pieces
from riyaz.pretraining.tokenizer_training import END, KINDS, MIN_VOCABULARY, _batches, bytes_per_token, train_tokenizer
from riyaz.sources.gguf_vocabulary import tokenizer_metadata
from riyaz.text.tokenizer import Tokenizer

CORPUS = [tiny_llama.CORPUS, "日本語のテキスト हिन्दी में पाठ, naïve café 🙂 in 2026\n" * 3]
HF = SimpleNamespace(format="hf")
UNSEEN = ["Ωμέγα Ж 中文 ไทย 👩‍👩‍👧", "\x00\x7f\r\n\t  \n", f"a {END} b"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The three kinds of the same texts, each made once."""

    @cache
    def make(kind: str) -> tuple[Tokenizer, Path]:
        folder = tmp_path_factory.mktemp("made") / kind
        return train_tokenizer(iter(CORPUS), kind, 560, folder), folder

    return make


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_those_of_transformers(made, kind):
    ours, folder = made(kind)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    for text in [*TEXTS, *CORPUS, *UNSEEN[:2]]:
        assert ours.encode(text) == theirs(text)["input_ids"], text
        assert theirs.decode(theirs(text)["input_ids"]) == text
    assert len(theirs) == ours.vocab_size
    assert theirs.eos_token_id == theirs.pad_token_id == ours.end_of_text == ours.end_of_turn == 0
    turns = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "I."}]
    expected = theirs.apply_chat_template(turns, tokenize=True, return_dict=False)
    assert ours.render([turns], add_generation_prompt=False) == [expected]
    assert ours.render_texts([turns[:1]]) == ["User:\nWho?\n\nAssistant:\n"] and ours.template_name == "model"


@pytest.mark.parametrize("kind", KINDS)
def test_every_text_comes_back(made, kind):
    tokenizer, _ = made(kind)

    @settings(max_examples=examples(60), deadline=None)
    @given(st.text(st.characters(codec="utf-8", exclude_categories=())))
    def check(text: str) -> None:
        assert tokenizer.decode(tokenizer.encode(text)) == text

    check()
    for text in [*TEXTS, *CORPUS, *UNSEEN]:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert 0 not in tokenizer.encode(f"a {END} b")  # the name of a control token in a text is text


def test_bpe_has_exactly_the_tokens_asked_for_and_words_of_the_text(made):
    tokenizer, folder = made("bpe")
    assert tokenizer.vocab_size == 560
    assert [tokenizer.token_text(n) for n in tokenizer.encode("the quick fox in 2026")][-4:] == list("2026")
    assert len(tokenizer.encode("language models read")) < 12
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    assert settings["eos_token"] == END and (folder / "chat_template.jinja").exists()
    assert sorted(path.name for path in folder.parent.iterdir()) == ["bpe"]  # nothing beside it


def test_bytes_and_chars_are_one_token_each(made):
    tokenizer, _ = made("bytes")
    assert tokenizer.vocab_size == MIN_VOCABULARY
    assert len(tokenizer.encode("naïve 日")) == len("naïve 日".encode())
    tokenizer, _ = made("chars")
    ordered = sorted(set("".join(CORPUS)))
    for text in CORPUS:
        assert tokenizer.encode(text) == [1 + ordered.index(character) for character in text]
    assert [tokenizer.token_text(n) for n in tokenizer.encode("日本 aé")] == ["日", "本", " ", "a", "é"]
    assert len(tokenizer.encode("中")) == 3  # not in the text: its bytes


def test_the_same_texts_make_the_same_files(made, tmp_path):
    _, folder = made("bpe")
    train_tokenizer(CORPUS, "bpe", 560, tmp_path / "again")
    for file in folder.iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()


def test_a_long_text_in_pieces_makes_the_same_tokenizer_as_whole(made, tmp_path, monkeypatch):
    text = "\n".join(f"{line} {n}" for n in range(90) for line in tiny_llama.CORPUS.splitlines() if line)
    assert len(list(pieces(text))) > 3 and "".join(pieces(text)) == text
    assert all(len(piece) < 2 * PIECE for piece in pieces(text))
    cut = train_tokenizer([text], "bpe", 500, tmp_path / "cut")
    monkeypatch.setattr("riyaz.pretraining.tokenizer_training.pieces", lambda text: iter([text]))
    whole = train_tokenizer([text], "bpe", 500, tmp_path / "whole")
    assert cut.files.definition == whole.files.definition
    assert list(_batches(["a", "b"])) == [["a", "b"]]


@pytest.mark.parametrize("kind", KINDS)
def test_the_tokenizer_goes_into_gguf_and_back(made, kind):
    tokenizer, _ = made(kind)
    back = Tokenizer.from_gguf(
        {"general.architecture": "llama", **tokenizer_metadata(HF, tokenizer, tokenizer.vocab_size)}
    )
    for text in [*TEXTS, *CORPUS]:
        assert back.encode(text) == tokenizer.encode(text)


def test_bytes_per_token(made):
    assert bytes_per_token(made("bytes")[0], CORPUS) == 1.0
    assert bytes_per_token(made("bpe")[0], [tiny_llama.CORPUS] * 40) > 2.0


def test_what_cannot_be_made_is_refused_and_leaves_nothing(tmp_path):
    with assert_refused("supports a vocabulary of", "not 5,000", "--vocab", "give at most"):
        train_tokenizer(CORPUS, "bpe", 5000, tmp_path / "out")
    with assert_refused("256 tokens is too small", "257"):
        train_tokenizer(CORPUS, "bpe", 256, tmp_path / "out")
    with assert_refused("no text"):
        train_tokenizer(["", ""], "chars", 0, tmp_path / "out")
    with assert_refused("unknown kind", "words", "bpe, bytes, chars"):
        train_tokenizer(CORPUS, "words", 0, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_number_of_tokens_a_text_supports_is_the_number_it_can_have(tmp_path):
    with assert_refused("supports a vocabulary of 260 tokens"):
        train_tokenizer(["abcd abcd"], "bpe", 300, tmp_path / "out")  # ab, cd and abcd: a pair that stands twice
    assert train_tokenizer(["abcd abcd"], "bpe", 260, tmp_path / "out").vocab_size == 260


def test_a_full_disk_keeps_the_tokenizer_that_was_there(made, tmp_path, monkeypatch):
    train_tokenizer(CORPUS, "bytes", 0, tmp_path / "out")
    before = (tmp_path / "out" / "tokenizer.json").read_bytes()
    save = Tokenizer.save

    def full(self, folder):
        save(self, folder)
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Tokenizer, "save", full)
    with assert_refused("the disk is full"):
        train_tokenizer(CORPUS, "bpe", 300, tmp_path / "out")
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_half_a_surrogate_pair_does_not_stop_training(tmp_path):
    assert "�" in train_tokenizer(["a\ud800b"], "chars", 0, tmp_path / "out").token_text(3)
