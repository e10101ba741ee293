"""What the embedders in C++ and in torch have in common: texts to vectors of unit length, and the character ranges of
their tokens.

    embedder = open_embedder()                 # minilm, pulled with `riyaz pull minilm`; engine/opening.py
    embedder.embed(["how do I reset it?"])     # (1, 384) float32

A vector is the mean of the hidden states of all tokens of a text, [CLS] and [SEP] included, scaled to length one.
"""

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from riyaz.engine.word_pieces import WordPieces
from riyaz.errors import RiyazError
from riyaz.families import describe_embedder
from riyaz.sources import Source
from riyaz.sources.source import read_json

MAX_TOKENS = 256  # read per text, [CLS] and [SEP] included; fewer if the model says so
BATCH_TOKENS = 4096  # tokens per forward pass
SLAB = 1024  # texts sorted by length together

# Called with (number of texts embedded, number of all texts)
Progress = Callable[[int, int], None]


class ModelEmbedder(ABC):
    """A BERT that turns texts into vectors; `sha256` is the hash of its weights."""

    def __init__(self, source: Source) -> None:
        """Raises RiyazError for a model that is no embedder, and for a tokenizer that is not its own."""
        self.name, self.sha256 = source.name, source.sha256()
        self._pieces = WordPieces(source.path)
        config = describe_embedder(source).config
        self.dim: int = config.hidden_size
        self._limit = _max_tokens(source.path, config.context)
        self.window = self._limit - 2  # without [CLS] and [SEP]
        if self._pieces.vocab_size > config.vocab_size:
            what = f"the tokenizer has {self._pieces.vocab_size} tokens, the model {config.vocab_size}"
            raise RiyazError(what, str(source.path), "tokenizer.json belongs to another model")

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        """Character ranges of the text's tokens, [CLS] and [SEP] not counted; nothing is cut off."""
        return self._pieces.offsets(text)

    def embed(self, texts: Sequence[str], progress: Progress | None = None) -> np.ndarray:
        """Unit vectors (n, dim) float32 of the texts, each cut to the window; an empty text has a vector too."""
        vectors = np.empty((len(texts), self.dim), np.float32)
        done = 0
        for begin in range(0, len(texts), SLAB):
            ids = self.framed(texts[begin : begin + SLAB])
            for places in _batches([len(row) for row in ids]):
                vectors[[begin + place for place in places]] = self._vectors([ids[place] for place in places])
                done += len(places)
                if progress is not None:
                    progress(done, len(texts))
        return vectors

    def framed(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The tokens of each text between [CLS] and [SEP], cut to the window: what `embed` reads."""
        return self._pieces.rows(texts, self._limit)

    @property
    def vocab_size(self) -> int:
        """Number of its tokens."""
        return self._pieces.vocab_size

    def ids(self, text: str) -> list[int]:
        """The tokens of a text, [CLS] and [SEP] not counted; nothing is cut off."""
        return self._pieces.rows([text], sys.maxsize)[0][1:-1].tolist()

    def inner(self, ids: Sequence[int]) -> list[int]:
        """Tokens without the [CLS] and [SEP] around them, where these are there."""
        first, last = self._pieces.frame
        framed = len(ids) > 1 and ids[0] == first and ids[-1] == last
        return list(ids[1:-1] if framed else ids)

    def embed_ids(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        """As `embed`, of the tokens of texts that fit the window, without [CLS] and [SEP]."""
        first, last = self._pieces.frame
        return self._vectors([np.array([first, *row, last], np.int64) for row in rows])

    @abstractmethod
    def _vectors(self, ids: list[np.ndarray]) -> np.ndarray:
        """Unit vectors (n, dim) of one batch."""


def _max_tokens(folder: Path, context: int) -> int:
    """Number of tokens that are read per text. Raises RiyazError for pooling other than the mean."""
    pooling, sentence = folder / "1_Pooling/config.json", folder / "sentence_bert_config.json"
    modes = read_json(pooling) if pooling.is_file() else {"pooling_mode_mean_tokens": True}
    active = [name for name, value in modes.items() if name.startswith("pooling_mode_") and value is True]
    if active != ["pooling_mode_mean_tokens"]:
        raise RiyazError(f"only mean pooling is supported, not {', '.join(active)[:100] or 'no pooling'}", str(pooling))
    limit = read_json(sentence).get("max_seq_length", MAX_TOKENS) if sentence.is_file() else MAX_TOKENS
    if type(limit) is not int or limit < 3:
        raise RiyazError(f"max_seq_length is {limit!r:.60}, not a whole number from 3 up", str(sentence))
    return min(limit, context, MAX_TOKENS)


def _batches(lengths: list[int]) -> Iterator[list[int]]:
    """Batches of text indices, longest text first, with at most BATCH_TOKENS tokens each."""
    batch: list[int] = []
    total = 0
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        if batch and total + lengths[place] > BATCH_TOKENS:
            yield batch
            batch, total = [], 0
        batch.append(place)
        total += lengths[place]
    if batch:
        yield batch
