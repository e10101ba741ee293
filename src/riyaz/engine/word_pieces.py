"""The tokenizer of an embedder: token ids of texts, and the character ranges of their tokens."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import tokenizers

from riyaz.errors import RiyazError
from riyaz.sources.tokenizer_check import expect_safe
from riyaz.text import tokenizer_files
from riyaz.text.tokenizer import refusing

PIECE = 20_000  # characters tokenised at once
SURROGATE = re.compile("[\ud800-\udfff]")


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
