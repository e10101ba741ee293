"""A tokenizer from a text: byte-level BPE by `tokenizers`, or one token for each byte or each character.

All three are the same kind of file, a byte-level BPE over all 256 bytes: "bytes" has no merges, "chars" only those
that put together the bytes of a character of the text. So any text can be encoded, a character that the text lacks
as its bytes, and decoding gives it back.

There is one control token, `<|endoftext|>`, which ends documents and turns: a token that stands nowhere in the text
that a model is pretrained on could not be learned later by an adapter, which leaves the embeddings as they are.
"""

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from riyaz.data.corpus import pieces, replace_surrogates
from riyaz.errors import RiyazError
from riyaz.files import disk_error
from riyaz.tokenizer import Tokenizer
from riyaz.tokenizer_files import PLAIN_TEMPLATE, Files

KINDS = ("bpe", "bytes", "chars")
END = "<|endoftext|>"  # id 0
SMALLEST = 256 + 1  # all bytes and END
LARGEST = 2**20
RARE = 2  # a pair that stands once in the text is no token
BATCH = 64  # pieces handed over at once
MEASURED = 32  # pieces of text that `bytes_per_token` encodes


class Unsupported(RiyazError):
    """The vocabulary is larger than the text supports."""


def train_tokenizer(texts: Iterable[str], kind: str, vocab: int, folder: Path) -> Tokenizer:
    """Make a tokenizer of the texts, write it to `folder` as transformers reads it, and return it.

    `kind` is "bpe" (exactly `vocab` tokens), "bytes" (257) or "chars" (257, and more for characters of several bytes);
    only bpe looks at `vocab`. RiyazError for texts without a character, and for a vocabulary smaller than the bytes or
    larger than the text supports (Unsupported), which is said in tokens.
    """
    if kind not in KINDS:
        raise RiyazError(f"unknown kind of tokenizer {kind!r}", hint="choose one of " + ", ".join(KINDS))
    if kind == "bpe" and not SMALLEST <= vocab <= LARGEST:
        what = f"a vocabulary of {vocab:,} tokens is {'too small' if vocab < SMALLEST else 'too large'}"
        raise RiyazError(what, "--vocab", f"give {SMALLEST} (all bytes and the end of text) to {LARGEST:,}")
    texts = _some(texts)
    if kind == "bpe":
        backend = _trained(texts, vocab)
    else:
        backend = _backend(*_characters(texts if kind == "chars" else ()))
    backend.add_special_tokens([tokenizers.AddedToken(END, special=True, normalized=False)])
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END,
        "pad_token": END,
        "clean_up_tokenization_spaces": False,
    }
    _write(Tokenizer(Files(backend.to_str(pretty=True), settings, PLAIN_TEMPLATE, [0]), str(folder)), folder)
    return Tokenizer.from_folder(folder)


def bytes_per_token(tokenizer: Tokenizer, texts: Sequence[str]) -> float:
    """UTF-8 bytes of text that one token stands for, measured on pieces spread over the texts."""
    every = [piece for text in texts for piece in pieces(text)]
    measured = every[:: -(-len(every) // MEASURED)]
    tokens = sum(map(len, tokenizer.encode_all(measured)))
    return sum(len(piece.encode()) for piece in measured) / tokens


def _write(tokenizer: Tokenizer, folder: Path) -> None:
    """All files of the tokenizer or, where the disk is full, none."""
    folder = folder.resolve()  # "." has no name
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        tokenizer.save(aside)
        folder.mkdir(exist_ok=True)
        for file in sorted(aside.iterdir()):
            os.replace(file, folder / file.name)
    except OSError as error:
        raise disk_error(error, folder) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _some(texts: Iterable[str]) -> Iterator[str]:
    """The same texts as UTF-8 can hold them; RiyazError when there is no character in them."""
    rest = (replace_surrogates(text) for text in texts if text)
    first = next(rest, None)
    if first is None:
        raise RiyazError("there is no text to make a tokenizer of", hint="give a text with characters in it")
    return chain([first], rest)


def _backend(vocab: dict[str, int], merges: list[tuple[str, str]]) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges))
    # As SmolLM2 splits text: digits alone, then words with the space before them; llama.cpp knows it as "smollm".
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    return backend


def _trained(texts: Iterable[str], vocab: int) -> tokenizers.Tokenizer:
    """Byte-level BPE with exactly `vocab` tokens, END the first."""
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        min_frequency=RARE,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend = _backend({}, [])
    backend.train_from_iterator(_batches(texts), trainer)
    supported = backend.get_vocab_size()
    if supported < vocab:
        what = f"the text supports a vocabulary of {supported:,} tokens, not {vocab:,}"
        raise Unsupported(what, "--vocab", f"give at most {supported} or more text")
    return backend


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Pieces of the texts in lists: the pieces of one list are counted by all cores."""
    parts = chain.from_iterable(map(pieces, texts))
    while batch := list(islice(parts, BATCH)):
        yield batch


def _characters(texts: Iterable[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges: END, the characters of the texts by their code points, then all other bytes.

    A merge joins the beginning of a character to its next byte. No merge can cross two characters, since none
    begins with a byte that continues one.
    """
    letters = _byte_letters()
    found = sorted(set[str]().union(*map(set, texts)))
    spelt = ["".join(letters[byte] for byte in character.encode()) for character in found]
    merges = dict.fromkeys((word[:end], word[end]) for word in spelt for end in range(1, len(word)))
    order = dict.fromkeys([END, *spelt, *letters, *("".join(pair) for pair in merges)])
    return {token: number for number, token in enumerate(order)}, list(merges)


def _byte_letters() -> list[str]:
    """The printable character that stands for each byte in a byte-level vocabulary (GPT-2's table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]
