"""The dense embedder in torch: texts to vectors of unit length, and the character ranges of their tokens.

    embedder = open_embedder()                 # minilm, pulled with `riyaz pull minilm`
    embedder.embed(["how do I reset it?"])     # (1, 384) float32

A vector is the mean of the hidden states of all tokens of a text, [CLS] and [SEP] included, scaled to length one.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import tokenizers
import torch

from riyaz import hardware, tokenizer_files
from riyaz.engine.torch.packed import pack
from riyaz.errors import RiyazError
from riyaz.models import load_embedder
from riyaz.models.bert import Model, rows
from riyaz.sources import Source, open_source
from riyaz.sources.source import read_json
from riyaz.sources.tokenizer_check import expect_safe
from riyaz.tokenizer import refusing

MAX_TOKENS = 256  # read per text, [CLS] and [SEP] included; fewer if the model says so
BATCH_TOKENS = 4096  # tokens per forward pass
SLAB = 1024  # texts sorted by length together
PIECE = 20_000  # characters tokenised at once
SURROGATE = re.compile("[\ud800-\udfff]")

# Called with (number of texts embedded, number of all texts)
Progress = Callable[[int, int], None]


class WordPieces:
    """The tokenizer of an embedder: token ids and character ranges; a special token spelled in a text is plain text."""

    def __init__(self, folder: Path) -> None:
        definition, self._where = tokenizer_files.from_folder(folder).definition, str(folder / "tokenizer.json")
        tokenizer_files.refuse_growth(tokenizer_files.parse_json(definition, self._where), self._where)
        expect_safe(definition, folder)
        with refusing("is not a tokenizer", self._where):
            self._backend = tokenizers.Tokenizer.from_str(definition)
        self._backend.no_truncation()
        self._backend.no_padding()
        self._backend.encode_special_tokens = True
        self.frame = self._backend.encode("").ids  # [CLS] and [SEP]
        if len(self.frame) != 2:
            raise RiyazError("the tokenizer does not put two tokens around a text", str(folder / "tokenizer.json"))
        self.vocab_size = self._backend.get_vocab_size(with_added_tokens=True)

    def rows(self, texts: Sequence[str], limit: int) -> list[np.ndarray]:
        """The token ids of each text between [CLS] and [SEP], cut to `limit` in all."""
        with refusing("the tokenizer cannot encode a text", self._where):
            encodings = self._backend.encode_batch_fast([_utf8(text) for text in texts], add_special_tokens=False)
        first, last = self.frame
        return [np.array([first, *encoding.ids[: limit - 2], last], np.int64) for encoding in encodings]

    def offsets(self, text: str) -> list[tuple[int, int]]:
        """Start and end of each token of the uncut text, in characters."""
        pieces = list(_pieces(_utf8(text)))
        with refusing("the tokenizer cannot encode a text", self._where):
            encodings = self._backend.encode_batch(pieces, add_special_tokens=False)
        ranges, start = [], 0
        for piece, encoding in zip(pieces, encodings):
            ranges += [(start + left, start + right) for left, right in encoding.offsets]
            start += len(piece)
        return ranges


class TorchEmbedder:
    """A BERT that turns texts into vectors; `sha256` is the hash of its weights.

    In bf16 MiniLM is 1.9 times as fast as in float32, and the cosine of the two vectors of a text is at least 0.9999.
    """

    def __init__(self, source: Source, dtype: torch.dtype = torch.float32) -> None:
        self.name, self.sha256 = source.name, source.sha256()
        self._pieces = WordPieces(source.path)
        self._model: Model = load_embedder(source, dtype)
        pack(self._model)
        config = self._model.config
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
            ids = self._pieces.rows(texts[begin : begin + SLAB], self._limit)
            for places in _batches([len(row) for row in ids]):
                vectors[[begin + place for place in places]] = self._vectors([ids[place] for place in places])
                done += len(places)
                if progress is not None:
                    progress(done, len(texts))
        return vectors

    @torch.inference_mode()
    def _vectors(self, ids: list[np.ndarray]) -> np.ndarray:
        """Unit vectors (n, dim) of one batch."""
        lengths = [len(row) for row in ids]
        tokens = torch.from_numpy(np.concatenate(ids))
        positions = torch.cat([torch.arange(length) for length in lengths])
        hidden = self._model(tokens, positions, rows(lengths)).float()
        means = torch.stack([row.mean(0) for row in hidden.split(lengths)])
        return torch.nn.functional.normalize(means, dim=1).numpy()


def open_embedder(name: str = "minilm") -> TorchEmbedder:
    """The embedder of this name or path, in bf16 if the CPU computes it fast, else in float32, on all cores that the
    process may use. Raises RiyazError with the command that gets a missing one."""
    torch.set_num_threads(hardware.threads())
    return TorchEmbedder(open_source(name), torch.bfloat16 if hardware.bf16_is_fast() else torch.float32)


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


def _pieces(text: str) -> Iterator[str]:
    """The text in pieces that begin with a space or line end, so that no word is cut."""
    start = 0
    while len(text) - start > PIECE:
        end = max(text.rfind(space, start + 1, start + PIECE) for space in " \n")
        if end < 0:
            spaces = [place for space in " \n" if (place := text.find(space, start + PIECE)) >= 0]
            end = min(spaces, default=len(text))
        yield text[start:end]
        start = end
    yield text[start:]


def _utf8(text: str) -> str:
    """The text with U+FFFD for each unpaired surrogate, which UTF-8 cannot encode; offsets stay the same."""
    return SURROGATE.sub("\ufffd", text)
