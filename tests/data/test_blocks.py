"""Text as tokens, blocks and windows: against plain loops, deterministic, reused only when nothing changed."""

import json
import random
import types

import numpy as np
import pytest
from refusals import assert_refused
from tokenizer_kinds import sentencepiece, smollm

from riyaz.data import blocks
from riyaz.data.blocks import Windows, block_ranges, evenly_spaced, held_out, prepare
from riyaz.data.packing import pack
from riyaz.data.repeats import repeated_blocks
from riyaz.data.rows import Row
from riyaz.events import Event, Progress
from riyaz.pretraining.tokenizer_training import train_tokenizer
from riyaz.text.tokenizer import Tokenizer

WORDS = [
    "the",
    "of",
    "card",
    "payment",
    "transfer",
    "refund",
    "order",
    "address",
    "music",
    "naïve",
    "日本",
    "café",
    "🙂",
]


def prose(words: int, seed: int = 0) -> str:
    """Lines of words without repetition."""
    chosen = random.Random(seed)
    return (
        "\n".join(" ".join(chosen.choices(WORDS, k=9)) + f" {chosen.random():.9f}." for _ in range(words // 10)) + "\n"
    )


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return train_tokenizer([prose(2000)], "bpe", 320, tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture
def texts(tmp_path):
    """A folder with two files of text, about 9,000 tokens."""
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text(prose(1000, 1))
    (tmp_path / "texts" / "b.md").write_text(prose(600, 2))
    return tmp_path / "texts"


def test_the_stream_is_every_document_with_its_end(tokenizer, texts, tmp_path, monkeypatch):
    monkeypatch.setattr("riyaz.data.corpus.PIECE", 500)
    events: list[Event] = []
    corpus = prepare([texts], tokenizer, tmp_path / "data", 16, listen=events.append)
    expected = [n for seed, size in ((1, 1000), (2, 600)) for n in [*tokenizer.encode(prose(size, seed)), 0]]
    assert corpus.train.tokens.tolist() == expected
    assert corpus.train.tokens.dtype == np.uint16 and isinstance(corpus.train.tokens, np.memmap)
    text, facts = prose(1000, 1) + prose(600, 2), corpus.facts
    sizes = {"files": 2, "documents": 2, "characters": len(text), "bytes": len(text.encode()), "tokens": len(expected)}
    assert {name: facts[name] for name in sizes} == sizes
    assert json.loads((tmp_path / "data" / "tokens.json").read_text()) == facts
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["tokens.bin", "tokens.json"]
    assert events[-1] == Progress("tokenise", 100, 100) and len(events) > 20


def test_windows_are_rows_of_inputs_and_next_tokens(tokenizer, texts, tmp_path):
    corpus = prepare([texts], tokenizer, tmp_path / "data", 16)
    stream = corpus.train.tokens.tolist()
    for part in (corpus.train, corpus.valid):
        for i, start in enumerate(part.starts.tolist()):
            row = part[i]
            assert (*row.prompt, *row.answer) == tuple(stream[start : start + 17]) and len(row.prompt) == 1
        assert part[-1] == part[len(part) - 1] and part[1:3] == [part[1], part[2]] and len(list(part)) == len(part)
        with pytest.raises(IndexError):
            part[len(part)]
    packed = pack(corpus.train[:3])  # what the loop makes of them
    assert packed.lengths == [16] * 3 and packed.labels.tolist() == [n for row in corpus.train[:3] for n in row.answer]
    assert packed.tokens.tolist() == [n for row in corpus.train[:3] for n in (*row.prompt, *row.answer[:-1])]
    assert isinstance(corpus.train[0], Row) and type(corpus.train[0].answer[0]) is int


def test_no_label_is_learned_and_judged_on(tokenizer, texts, tmp_path):
    corpus = prepare([texts], tokenizer, tmp_path / "data", 16)
    sides = [{s + n for s in part.starts.tolist() for n in range(17)} for part in (corpus.train, corpus.valid)]
    assert not sides[0] & sides[1]  # not even as an input
    labels = [s + n for part in (corpus.train, corpus.valid) for s in part.starts.tolist() for n in range(1, 17)]
    assert len(set(labels)) == len(labels)
    facts = corpus.facts
    assert (facts["train_tokens"], facts["valid_tokens"]) == (16 * len(corpus.train), 16 * len(corpus.valid))
    assert facts["tokens"] - len(labels) <= facts["blocks"] + 16  # one token of a block and the rest are no labels
    assert 0.03 < facts["valid_tokens"] / facts["train_tokens"] < 0.08


def test_bytes_per_token_are_those_of_the_labels(tokenizer, texts, tmp_path):
    corpus = prepare([texts], tokenizer, tmp_path / "data", 16)
    for part, tolerance in (
        (corpus.valid, 0.01),
        (corpus.train, 0.03),
    ):  # characters block_ranges at the ends of blocks
        size = sum(len(tokenizer.decode(row.answer).encode()) for row in part)
        assert part.bytes_per_token == pytest.approx(size / (16 * len(part)), rel=tolerance)


def test_bytes_of_hindi_are_counted_exactly(tmp_path):
    """A window may begin and end within a character, of which each byte is a token."""
    draw = random.Random(0)
    text = " ".join(draw.choice(["नमस्ते", "भाषा", "किताब", "पानी", "लड़का", "घर"]) for _ in range(300))
    (tmp_path / "a.txt").write_text(text)
    bytes_only = train_tokenizer([text], "bytes", 0, tmp_path / "tokenizer")
    corpus = prepare([tmp_path / "a.txt"], bytes_only, tmp_path / "data", 32)
    assert corpus.valid.bytes_per_token == 1.0


def test_some_windows_have_their_own_bytes(tokenizer, texts, tmp_path):
    valid = prepare([texts], tokenizer, tmp_path / "data", 16).valid
    some = evenly_spaced(valid, 3, tokenizer)
    assert [some[i] for i in range(3)] == [valid[i * len(valid) // 3] for i in range(3)]
    size = sum(tokenizer.token_bytes(number) for row in some for number in row.answer)
    assert some.bytes_per_token == size / 48 != valid.bytes_per_token
    assert evenly_spaced(valid, 10**6, tokenizer).sha256 == valid.sha256


@pytest.mark.parametrize("context", [1, 7, 64])
def test_blocks_against_a_plain_loop(context):
    for count in [2 * context + 2, 5 * context + 7, 400 * context + 3, 1000 * context + 999]:
        windows = count // (context + 1)
        size = min(16, max(1, windows // 20)) * context + 1
        expected, at = [], 0
        while count - at > context:
            left = count - at
            taken = left if size + size / 2 > left and len(expected) > 0 and left - size < size / 2 else size
            whole = (min(taken, left) - 1) // context
            expected.append([at, at + whole * context + 1])
            at += taken
        assert block_ranges(count, context).tolist() == expected and len(expected) > 1
        assert all((end - start - 1) % context == 0 for start, end in expected)


def test_blocks_are_held_out_by_their_tokens_alone():
    random_tokens = np.random.default_rng(0).integers(0, 999, 40_000).astype(np.uint16)
    parts = block_ranges(len(random_tokens), 64)
    held = held_out(random_tokens, parts, 0.05)
    assert held.sum() == round(0.05 * len(parts))
    assert (held_out(random_tokens.astype(np.uint32), parts, 0.05) == held).all()
    order = np.random.default_rng(1).permutation(len(parts))  # the same blocks in another order
    assert (held_out(random_tokens, parts[order], 0.05) == held[order]).all()
    grown = np.concatenate([random_tokens, random_tokens[:1025]])  # a copy of a block goes where the block is
    twice = np.vstack([parts, [[len(random_tokens), len(grown)]]])
    again = held_out(grown, twice, 0.05)
    assert again[0] == again[-1] and (again[:-1] != held).sum() <= 1
    assert held_out(random_tokens, parts, 0.0).sum() == 1 and not held_out(random_tokens, parts, 1.0).all()


def test_what_lies_there_is_taken_when_nothing_changed(tokenizer, texts, tmp_path, monkeypatch):
    folder = tmp_path / "data"
    first = prepare([texts], tokenizer, folder, 16)
    written = (folder / "tokens.bin").stat().st_mtime_ns
    again = prepare([texts], tokenizer, folder, 16)
    assert again.facts == first.facts | {"reused": True} and not first.facts["reused"]
    assert (again.train.sha256, again.valid.sha256) == (first.train.sha256, first.valid.sha256)
    assert again.train.bytes_per_token == first.train.bytes_per_token
    other = prepare([texts], tokenizer, folder, 32)  # the same tokens in other windows
    assert other.facts["reused"] and other.train.sha256 != first.train.sha256
    assert (folder / "tokens.bin").stat().st_mtime_ns == written

    (folder / "tokens.bin").write_bytes((folder / "tokens.bin").read_bytes()[:-2])  # damaged
    assert not prepare([texts], tokenizer, folder, 16).facts["reused"]
    for damaged in ("{}", "[" * 100_000):
        (folder / "tokens.json").write_text(damaged)
        assert not prepare([texts], tokenizer, folder, 16).facts["reused"]
    another = train_tokenizer([prose(2000)], "bytes", 0, tmp_path / "bytes")
    assert not prepare([texts], another, folder, 16).facts["reused"]
    with open(texts / "a.txt", "a") as file:
        file.write("one line more\n")
    changed = prepare([texts], another, folder, 16)
    assert not changed.facts["reused"] and changed.train.sha256 != first.train.sha256


def test_names_of_windows():
    tokens, starts = np.arange(50, dtype=np.uint16), np.array([0, 10, 20])
    name = Windows(tokens, starts, 8).sha256
    assert Windows(tokens.copy(), starts.astype(np.int32), 8, 2.0).sha256 == name
    changed = [Windows(tokens[::-1], starts, 8), Windows(tokens, starts + 1, 8), Windows(tokens, starts, 9)]
    assert len({name, *(windows.sha256 for windows in changed)}) == 4


@pytest.mark.parametrize("kind", [smollm, sentencepiece])
def test_any_tokenizer_gives_the_ids_of_whole_texts(kind, tmp_path, texts, monkeypatch):
    """Also one that puts a space before every text it is given, where pieces would each get one."""
    monkeypatch.setattr("riyaz.data.corpus.PIECE", 300)
    made = Tokenizer.from_folder(kind(tmp_path / "tokenizer"))
    assert blocks._cuttable(made) == (kind is smollm)
    stream = prepare([texts / "b.md"], made, tmp_path / "data", 16).train.tokens.tolist()
    assert stream == [*made.beginning, *made.encode(prose(600, 2)), made.end_of_text]


def test_ids_beyond_16_bits(tokenizer, texts, tmp_path):
    large = types.SimpleNamespace(
        vocab_size=70_000,
        beginning=(),
        end_of_text=69_999,
        files=tokenizer.files,
        encode=lambda text: [n + 65_500 for n in tokenizer.encode(text)],
        encode_all=lambda texts: [[n + 65_500 for n in tokenizer.encode(text)] for text in texts],
        token_bytes=lambda n: 0 if n == 69_999 else tokenizer.token_bytes(n - 65_500),
    )
    corpus = prepare([texts / "b.md"], large, tmp_path / "data", 16)
    assert corpus.train.tokens.dtype == np.uint32 and corpus.facts["dtype"] == "uint32"
    assert corpus.train.tokens.tolist() == [n + 65_500 for n in tokenizer.encode(prose(600, 2))] + [69_999]


def test_copies_of_held_out_text_are_counted_wherever_they_stand():
    tokens = np.random.default_rng(0).integers(0, 400, 60_000).astype(np.uint16)
    parts = block_ranges(len(tokens), 64)
    held = held_out(tokens, parts, 0.1)
    assert repeated_blocks(tokens, parts, held, 3.0) == 0
    (first, second, third), learned = parts[held][:3], parts[~held]
    for (start, end), share, place in ((first, 1.0, 0), (second, 0.8, 4), (third, 0.2, 8)):
        length = int(share * (end - start))
        at = learned[place][0] + 137  # not where a block begins
        tokens[at : at + length] = tokens[start : start + length]
    assert repeated_blocks(tokens, parts, held, 3.0) == 2
    assert repeated_blocks(tokens, parts, held, 1.0) == 2  # a byte a token: longer runs


def test_refusals(tokenizer, tmp_path):
    few, same = tmp_path / "few.txt", tmp_path / "same.txt"
    few.write_text(prose(20))
    with assert_refused("few.txt", "fewer than two windows of 257", "smaller --context"):
        prepare([few], tokenizer, tmp_path / "data", 256)
    same.write_text("a\n" * 4000)
    with assert_refused("same.txt", "repeats one passage"):
        prepare([same], tokenizer, tmp_path / "data", 16)
    with assert_refused("gone.txt", "no such file"):
        prepare([tmp_path / "gone.txt"], tokenizer, tmp_path / "other", 16)
    assert not (tmp_path / "other").exists()


def test_a_text_that_changes_while_it_is_read_leaves_nothing(tokenizer, texts, tmp_path, monkeypatch):
    encode_all = Tokenizer.encode_all

    def meddle(self, batch):
        (texts / "b.md").write_text(prose(50))
        return encode_all(self, batch)

    monkeypatch.setattr(Tokenizer, "encode_all", meddle)
    with assert_refused("the text changed while it was read"):
        prepare([texts], tokenizer, tmp_path / "data", 16)
    assert list((tmp_path / "data").iterdir()) == []
