"""What training rehearses, so that a model does not forget: texts, and what the base predicts at every place of them.

The base writes the texts itself (self-synthesized rehearsal: Huang et al. 2024, arXiv 2403.01244), or they are the
user's. They are made once for a base and kept in the store.
"""

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from riyaz.config import SELF, Precision
from riyaz.data.rows import Row, Wanted, likeliest
from riyaz.engine.engine import Engine
from riyaz.engine.opening import open_engine
from riyaz.engine.request import Request, Sampling
from riyaz.errors import RiyazError
from riyaz.files import new_sha256, refuse_device
from riyaz.sources import Source, safetensors, store
from riyaz.text.tokenizer import Tokenizer

TEXTS, LENGTH = 96, 128  # texts, at most, and tokens of each
LEAST_TEXTS = 8
LARGEST = 2**20  # bytes of a user's file that are read: a hundred times those of the texts, and 160 MB as tokens
LIKELIEST = 32  # tokens whose probabilities are kept at each place
WRITING = Sampling(temperature=1.0)
FOLDER = "rehearsal"  # in the store
UTF_8 = f"give a UTF-8 text file, or the word {SELF}"


@dataclass(frozen=True, eq=False)
class Rehearsal:
    """Token ids of texts (R, T), and behind each token but the last the base's likeliest tokens (R, T − 1, K) with
    their log-probabilities in nats (R, T − 1, K)."""

    tokens: np.ndarray
    likeliest: np.ndarray
    log_p: np.ndarray

    @classmethod
    def read(cls, path: Path) -> Self:
        """What `write` has written. Raises RiyazError for a damaged file."""
        file = safetensors.read(path)
        try:
            return cls(*(file.array(name) for name in ("tokens", "likeliest", "log_p")))
        except KeyError as error:
            raise RiyazError(f"lacks {error}", str(path), "remove it, and it is made again") from None

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        safetensors.write(path, {"tokens": self.tokens, "likeliest": self.likeliest, "log_p": self.log_p})

    @property
    def length(self) -> int:
        """Tokens of a text."""
        return int(self.tokens.shape[1])

    def rows(self, count: int, weight: float) -> list[Row]:
        """So many rows, each text in turn, of which every token but the first weighs `weight`."""
        rows = []
        for place in range(count):
            text = place % len(self.tokens)
            first, *rest = self.tokens[text].tolist()
            wanted = Wanted(self.likeliest[text].astype(np.int64), np.array(self.log_p[text]), weight)
            rows.append(Row((first,), tuple(rest), wanted=wanted, general=True))
        return rows


def rehearsal_of(source: Source, tokenizer: Tokenizer, precision: Precision, path: Path | None) -> Rehearsal:
    """The texts that a base of this precision rehearses, from the store if they were made before: its own, or those of
    a file. Raises RiyazError for a file that holds too little text."""
    text = None if path is None or str(path) == SELF else user_text(path)
    name = new_sha256(repr((source.sha256(), precision, text, TEXTS, LENGTH, LIKELIEST)).encode()).hexdigest()
    kept = store.home() / FOLDER / f"{name}.safetensors"
    if kept.exists():
        return Rehearsal.read(kept)
    lm = open_engine(source, precision)
    made = predicted(lm, own_texts(lm, tokenizer) if text is None else cut_texts(text, tokenizer, lm.context, path))
    made.write(kept)
    return made


def user_text(path: Path) -> str:
    """The text of a file, of one of more than LARGEST bytes evenly spaced pieces. Raises RiyazError where it cannot be
    read."""
    refuse_device(path)
    try:
        text = _pieces(path) if path.stat().st_size > LARGEST else path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise RiyazError(f"cannot be read as text ({error})", str(path), UTF_8) from None
    if "\0" in text:
        raise RiyazError("holds a byte that is 0 and so is no text", str(path), UTF_8)
    if not text.strip():
        raise RiyazError("holds no text", str(path), UTF_8)
    return text


def _pieces(path: Path) -> str:
    """TEXTS pieces of a large file, LARGEST bytes together, without characters that a piece cuts."""
    size, room, pieces = path.stat().st_size, LARGEST // TEXTS, []
    with path.open("rb") as file:
        for place in range(TEXTS):
            file.seek(place * (size - room) // (TEXTS - 1))
            piece = file.read(room)
            begin = next((at for at in range(min(4, len(piece))) if not 0x80 <= piece[at] < 0xC0), 0)
            pieces.append(codecs.getincrementaldecoder("utf-8")().decode(piece[begin if place else 0 :]))
    return "\n".join(pieces).removeprefix("\ufeff")


def own_texts(lm: Engine, tokenizer: Tokenizer) -> list[tuple[int, ...]]:
    """Texts that a base writes from nothing, by a fixed seed."""
    first = tokenizer.beginning or (tokenizer.end_of_text,)
    length = min(LENGTH, lm.context // 2)
    requests = [Request(place, first, limit=length - len(first), sampling=WRITING) for place in range(TEXTS)]
    return [(*first, *answer) for answer in lm.generate(requests)]


def cut_texts(text: str, tokenizer: Tokenizer, context: int, path: Path | None) -> list[tuple[int, ...]]:
    """Parts of a text of one length, evenly spaced. Raises RiyazError for one that holds fewer than LEAST_TEXTS."""
    stream, first = tokenizer.encode(text), tokenizer.beginning
    length = min(LENGTH, context // 2) - len(first)
    parts = len(stream) // length
    if parts < LEAST_TEXTS:
        what = f"{len(stream):,} tokens are too few to rehearse"
        raise RiyazError(what, str(path), f"give at least {LEAST_TEXTS * length:,}, or the word {SELF}")
    count = min(TEXTS, parts)
    starts = [place * parts // count * length for place in range(count)]
    return [(*first, *stream[start : start + length]) for start in starts]


def predicted(lm: Engine, texts: Sequence[Sequence[int]]) -> Rehearsal:
    """Texts of one length, with what the model predicts in them."""
    tokens, values = [], []
    for text in texts:  # one at a time: its distributions take 25 MB
        (log_p,) = lm.distributions([Request(0, tuple(text[:1]))], [text[1:]])  # (T − 1, V)
        top = likeliest(log_p, LIKELIEST)
        tokens.append(top.tokens.astype(np.int32))
        values.append(top.log_p)
    return Rehearsal(np.array(texts, np.int32), np.stack(tokens), np.stack(values))
