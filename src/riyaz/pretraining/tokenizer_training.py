"""Training a tokenizer on text: byte-level BPE by `tokenizers`, or one token per byte or per character.

All three are written as byte-level BPE over all 256 bytes: "bytes" has no merges, "chars" only those that join the
bytes of each character in the text. So any text can be encoded and decoded; characters not in the training text are
encoded as bytes.

The only control token is `<|endoftext|>`, which ends documents and turns. A token that is absent from the pretraining
text could not be learned later by an adapter, which does not train the embeddings.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from riyaz import folders
from riyaz.data.corpus import pieces
from riyaz.errors import RiyazError
from riyaz.files import disk_error
from riyaz.text.tokenizer import Tokenizer, byte_letters, replace_surrogates
from riyaz.text.tokenizer_files import PLAIN_TEMPLATE, TokenizerFiles

KINDS = ("bpe", "bytes", "chars")
END = "<|endoftext|>"  # id 0
MIN_VOCABULARY = 256 + 1  # all bytes and END
MAX_VOCABULARY = 2**20
MIN_FREQUENCY = 2  # a pair that occurs fewer times is not merged
BATCH = 64  # pieces passed to the trainer at once
SAMPLED_PIECES = 32  # pieces of text that `bytes_per_token` encodes


class VocabularyTooLarge(RiyazError):
    """The text has too few repeated pairs for a vocabulary of the requested size."""


def train_tokenizer(texts: Iterable[str], kind: str, vocab: int, folder: Path) -> Tokenizer:
    """Trains a tokenizer on the texts, writes it to `folder` as transformers reads it, and returns it.

    `kind` is "bpe" (exactly `vocab` tokens), "bytes" (257 tokens) or "chars" (257 plus those of multi-byte characters);
    only "bpe" uses `vocab`. Raises RiyazError for empty texts and for `vocab` out of range, and VocabularyTooLarge,
    which names the largest possible size, when the text cannot fill it.
    """
    if kind not in KINDS:
        raise RiyazError(f"unknown kind of tokenizer {kind!r}", hint="choose one of " + ", ".join(KINDS))
    if kind == "bpe" and not MIN_VOCABULARY <= vocab <= MAX_VOCABULARY:
        what = f"a vocabulary of {vocab:,} tokens is {'too small' if vocab < MIN_VOCABULARY else 'too large'}"
        hint = f"give {MIN_VOCABULARY} (all bytes and the end of text) to {MAX_VOCABULARY:,}"
        raise RiyazError(what, "--vocab", hint)
    texts = _valid_texts(texts)
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
    _write(Tokenizer(TokenizerFiles(backend.to_str(pretty=True), settings, PLAIN_TEMPLATE, [0]), str(folder)), folder)
    return Tokenizer.from_folder(folder)


def bytes_per_token(tokenizer: Tokenizer, texts: Sequence[str]) -> float:
    """Average UTF-8 bytes per token, measured on pieces sampled evenly over the texts."""
    every = [piece for text in texts for piece in pieces(text)]
    sample = every[:: -(-len(every) // SAMPLED_PIECES)]
    tokens = sum(map(len, tokenizer.encode_all(sample)))
    return sum(len(piece.encode()) for piece in sample) / tokens


def _write(tokenizer: Tokenizer, folder: Path) -> None:
    """Writes all of the tokenizer's files or, if writing fails, none. Raises RiyazError."""
    folder = folder.resolve()  # gives "." a name
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with folders.temporary(folder.parent, folders.beside(folder)) as aside:
            tokenizer.save(aside)
            folder.mkdir(exist_ok=True)
            for file in sorted(aside.iterdir()):
                os.replace(file, folder / file.name)
    except OSError as error:
        raise disk_error(error, folder) from error


def _valid_texts(texts: Iterable[str]) -> Iterator[str]:
    """The non-empty texts, with lone surrogates replaced. Raises RiyazError when all texts are empty."""
    rest = (replace_surrogates(text) for text in texts if text)
    first = next(rest, None)
    if first is None:
        raise RiyazError("there is no text to train a tokenizer on", hint="give a text with characters in it")
    return chain([first], rest)


def _backend(vocab: dict[str, int], merges: list[tuple[str, str]]) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges))
    # splits text as SmolLM2 does: single digits, then words with the space before them ("smollm" in llama.cpp)
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    return backend


def _trained(texts: Iterable[str], vocab: int) -> tokenizers.Tokenizer:
    """Byte-level BPE with exactly `vocab` tokens; END has id 0. Raises VocabularyTooLarge."""
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        min_frequency=MIN_FREQUENCY,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend = _backend({}, [])
    backend.train_from_iterator(_batches(texts), trainer)
    supported = backend.get_vocab_size()
    if supported < vocab:
        what = f"the text supports a vocabulary of {supported:,} tokens, not {vocab:,}"
        raise VocabularyTooLarge(what, "--vocab", f"give at most {supported} or more text")
    return backend


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """The texts' pieces in lists of up to BATCH; the trainer processes one list on all cores."""
    parts = chain.from_iterable(map(pieces, texts))
    while batch := list(islice(parts, BATCH)):
        yield batch


def _characters(texts: Iterable[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """(vocabulary, merges): END, the texts' characters by code point, all bytes, and the partial characters.

    A merge joins the first bytes of a character to its next byte. No merge crosses two characters, since a character
    never begins with a UTF-8 continuation byte.
    """
    letters = byte_letters()
    characters = sorted(set[str]().union(*map(set, texts)))
    spellings = ["".join(letters[byte] for byte in character.encode()) for character in characters]
    merges = dict.fromkeys((word[:end], word[end]) for word in spellings for end in range(1, len(word)))
    order = dict.fromkeys([END, *spellings, *letters, *("".join(pair) for pair in merges)])
    return {token: number for number, token in enumerate(order)}, list(merges)
