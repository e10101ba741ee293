"""A pretraining corpus: one memory-mapped token stream, split into training and held-out blocks, read in windows.

`prepare` tokenises once: `tokens.bin` holds the ids of all documents, each followed by the end-of-text id, and
`tokens.json` records the text, the tokenizer and the counts. T: tokens of the stream.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np

from riyaz.data.corpus import CUT, Document, documents, pieces
from riyaz.data.repeats import repeated_blocks
from riyaz.data.rows import Row
from riyaz.errors import NAMES, RiyazError, few
from riyaz.events import Listen, Progress, quiet
from riyaz.files import atomic_file, file_sha256
from riyaz.json_files import write_json
from riyaz.text.tokenizer import Tokenizer

TOKENS, FACTS = "tokens.bin", "tokens.json"
FORMAT = 1
LITTLE_ENDIAN = {"uint16": "<u2", "uint32": "<u4"}  # dtype of the ids -> NumPy type code in tokens.bin
BLOCK_WINDOWS = 16  # windows per block: neighbouring text is trained on or held out together
VALID_SHARE = 0.05  # of the blocks, about
MIN_BLOCKS = 20  # of a short text, so that one block is about 5 % of it
BATCH = 32  # pieces per call of the tokenizer
PROBES = ("a\nb", ".\nThe", "1\n2", "é\n日本", "a b", "1 word", "é Word")  # texts in which CUT matches, see `_cuttable`


@dataclass(frozen=True, eq=False)
class Windows(Sequence[Row]):
    """Rows read from the token stream on access: window i starts at `starts[i]` and has `context` input tokens, whose
    next tokens are its labels."""

    tokens: np.ndarray  # (T,) uint16 or uint32, usually a memory map
    starts: np.ndarray  # (windows,) int64
    context: int
    bytes_per_token: float = 1.0  # mean UTF-8 bytes of text per label, for bits per byte
    tokens_sha256: str = ""  # of the stream; computed if empty

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | Sequence[Row]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        start = int(self.starts[index])
        first, *rest = self.tokens[start : start + self.context + 1].tolist()
        return Row((first,), tuple(rest))

    @cached_property
    def sha256(self) -> str:
        """Hash of the contents: equal for equal tokens, starts and context."""
        stream = self.tokens_sha256 or hashlib.sha256(self.tokens.tobytes()).hexdigest()
        starts = np.ascontiguousarray(self.starts, dtype="<i8").tobytes()
        return hashlib.sha256(f"{stream}\x1f{self.context}\x1f".encode() + starts).hexdigest()


@dataclass(frozen=True, eq=False)
class Corpus:
    """Training and held-out windows; `facts` are the values of tokens.json, see `prepare`."""

    train: Windows
    valid: Windows
    facts: dict[str, Any] = field(default_factory=dict)


def prepare(
    paths: Sequence[str | Path],
    tokenizer: Tokenizer,
    folder: Path,
    context: int,
    *,
    valid_share: float = VALID_SHARE,
    exclude: Path | None = None,
    listen: Listen = quiet,
) -> Corpus:
    """Tokenise the texts under `paths` into `folder`, or reuse its tokens.bin if text and tokenizer are unchanged.

    Files inside the folder `exclude` are skipped. About `valid_share` of the blocks, at least one, are held out by
    the hashes of their tokens. `facts` holds files, documents, characters, bytes, sha256 (of the text), tokens,
    dtype, tokens_sha256, tokenizer_sha256, context, blocks, valid_blocks, train_tokens, valid_tokens,
    near_duplicates (held-out blocks, most of whose text is in training blocks too) and reused. Raises RiyazError for
    what `documents` refuses, for a text shorter than two windows, and for one that mostly repeats itself.
    """
    where = few(map(str, paths), " ", NAMES)
    text = _text_facts(documents(paths, exclude))
    folder.mkdir(parents=True, exist_ok=True)
    stream = _reusable_stream(folder, text, tokenizer)
    reused = stream is not None
    if stream is None:
        stream = text | _tokenise(lambda: documents(paths, exclude), tokenizer, text, folder, listen, where)
    tokens = np.memmap(folder / TOKENS, dtype=LITTLE_ENDIAN[stream["dtype"]], mode="r")
    blocks = block_ranges(len(tokens), context, where)
    held = held_out(tokens, blocks, valid_share, where)
    facts = stream | {"context": context, "blocks": len(blocks), "valid_blocks": int(held.sum()), "reused": reused}
    facts["near_duplicates"] = repeated_blocks(tokens, blocks, held, facts["bytes"] / facts["tokens"])
    corpus = _corpus(tokens, blocks, held, tokenizer, facts)
    write_json(folder / FACTS, corpus.facts, ascii=True)
    return corpus


def reopened(folder: Path, tokenizer: Tokenizer) -> Corpus:
    """The corpus that `prepare` has put into a folder, read again by another process; its name is the hash of the
    tokens that it finds. Raises RiyazError where there is none."""
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        facts["tokens_sha256"] = file_sha256(folder / TOKENS)
        tokens = np.memmap(folder / TOKENS, dtype=LITTLE_ENDIAN[facts["dtype"]], mode="r")
    except (OSError, ValueError, KeyError) as error:
        raise RiyazError("the tokens of the text are not there", str(folder), "start the run again") from error
    blocks = block_ranges(len(tokens), facts["context"])
    return _corpus(tokens, blocks, held_out(tokens, blocks, VALID_SHARE), tokenizer, facts)


def _label_bytes(windows: Windows, tokenizer: Tokenizer) -> int:
    """UTF-8 bytes of the text that the labels of all windows encode."""
    labels = [windows.tokens[start + 1 : start + windows.context + 1] for start in windows.starts.tolist()]
    numbers, counts = np.unique(np.concatenate(labels), return_counts=True)
    return sum(
        count * tokenizer.token_bytes(number) for number, count in zip(numbers.tolist(), counts.tolist(), strict=True)
    )


def evenly_spaced(windows: Windows, count: int, tokenizer: Tokenizer) -> Windows:
    """`count` evenly spaced windows, or all if there are fewer, with their own bytes per token."""
    count = min(count, len(windows))
    chosen = replace(windows, starts=windows.starts[[place * len(windows) // count for place in range(count)]])
    return replace(chosen, bytes_per_token=_label_bytes(chosen, tokenizer) / (count * windows.context))


def tokenizer_sha256(tokenizer: Tokenizer) -> str:
    """Hash of all that determines the ids of a text: tokenizer.json and the ids put around it."""
    ends = json.dumps([tokenizer.beginning, tokenizer.end_of_text])
    return hashlib.sha256((ends + tokenizer.files.definition).encode()).hexdigest()


def block_ranges(count: int, context: int, where: str = "") -> np.ndarray:
    """Start and end of each block of a stream of `count` tokens, (blocks, 2) int64. Tokens after the last whole
    window are in no block. Raises RiyazError if there are fewer than two windows."""
    windows = count // (context + 1)
    if windows < 2:
        what = f"{count:,} tokens of text are fewer than two windows of {context + 1:,} tokens"
        raise RiyazError(what, where, "give more text or a smaller --context")
    size = min(BLOCK_WINDOWS, max(1, windows // MIN_BLOCKS)) * context + 1
    starts = np.arange(0, count - context, size, dtype=np.int64)
    if len(starts) > 2 and count - starts[-1] < size / 2:  # too short for a block of its own
        starts = starts[:-1]
    ends = np.append(starts[1:], count)
    ends = starts + (ends - starts - 1) // context * context + 1  # whole windows
    return np.stack([starts, ends], axis=1)


def held_out(tokens: np.ndarray, blocks: np.ndarray, share: float, where: str = "") -> np.ndarray:
    """Mask of the held-out blocks, (blocks,) bool: those with the smallest hashes of their tokens. Equal blocks stay
    together, and adding text moves few blocks. Raises RiyazError if at least half of the blocks are copies."""
    digests = (hashlib.sha256(tokens[start:end].astype("<u4").tobytes()).digest()[:8] for start, end in blocks)
    hashes = np.array([int.from_bytes(digest, "big") for digest in digests], dtype=np.uint64)
    distinct = np.unique(hashes)
    if 2 * len(distinct) <= len(blocks):
        hint = "give a text with more distinct passages"
        raise RiyazError("the text repeats one passage over and over", where, hint)
    count = min(max(1, round(share * len(blocks))), len(blocks) - 1)
    limit = min(np.sort(hashes)[count - 1], distinct[-2])
    return hashes <= limit


def _reusable_stream(folder: Path, text: dict[str, Any], tokenizer: Tokenizer) -> dict[str, Any] | None:
    """The stream's part of tokens.json if text and tokenizer are unchanged and tokens.bin has its hash, else None."""
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        digest = file_sha256(folder / TOKENS)
        expected = text | {"format": FORMAT, "tokenizer_sha256": tokenizer_sha256(tokenizer), "tokens_sha256": digest}
        same = all(facts[name] == value for name, value in expected.items()) and facts["dtype"] in LITTLE_ENDIAN
        return expected | {name: facts[name] for name in ("tokens", "dtype")} if same else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _text_facts(texts: Iterable[Document]) -> dict[str, Any]:
    """Numbers of files, documents, characters and UTF-8 bytes, and a hash of the text."""
    digest, files = hashlib.sha256(), set[str]()
    facts = {"documents": 0, "characters": 0, "bytes": 0}
    for document in texts:
        content = document.text.encode()
        digest.update(len(content).to_bytes(8, "little") + content)
        files.add(document.file)
        for name, amount in zip(facts, (1, len(document.text), len(content)), strict=True):
            facts[name] += amount
    return {"files": len(files), **facts, "sha256": digest.hexdigest()}


def _tokenise(
    read: Callable[[], Iterator[Document]],
    tokenizer: Tokenizer,
    text: dict[str, Any],
    folder: Path,
    listen: Listen,
    where: str,
) -> dict[str, Any]:
    """Write tokens.bin and return its facts. Raises RiyazError if the text is no longer as `text` describes it."""
    dtype = "uint16" if tokenizer.vocab_size <= 2**16 - 1 else "uint32"
    digest, count, done = hashlib.sha256(), 0, 0
    cuttable = _cuttable(tokenizer)
    with atomic_file(folder / TOKENS) as file:

        def write_ids() -> Iterator[Document]:
            nonlocal count, done
            for document in read():
                for ids, characters in _parts(document.text, tokenizer, cuttable):
                    part = np.array(ids, dtype=LITTLE_ENDIAN[dtype]).tobytes()
                    digest.update(part)
                    file.write(part)
                    count, done = count + len(ids), done + characters
                    percent = 100 * done // text["characters"]
                    listen(Progress("tokenise", percent, 100))
                yield document

        if _text_facts(write_ids()) != text:
            raise RiyazError("the text changed while it was read", where, "run it again")
    return {
        "format": FORMAT,
        "tokens": count,
        "dtype": dtype,
        "tokens_sha256": digest.hexdigest(),
        "tokenizer_sha256": tokenizer_sha256(tokenizer),
    }


def _parts(text: str, tokenizer: Tokenizer, cuttable: bool) -> Iterator[tuple[Sequence[int], int]]:
    """(ids, number of characters) for each part of a document; the ids put around a text come first and last."""
    yield tokenizer.beginning, 0
    rest = pieces(text) if cuttable else iter([text])
    while batch := list(islice(rest, BATCH)):
        for piece, ids in zip(batch, tokenizer.encode_all(batch), strict=True):
            yield ids, len(piece)
    yield [tokenizer.end_of_text], 0


def _cuttable(tokenizer: Tokenizer) -> bool:
    """Whether encoding the pieces of a text gives the ids of the whole; false if each text gets a leading space."""
    for probe in PROBES:
        place = next(CUT.finditer(probe)).end()
        if tokenizer.encode(probe) != tokenizer.encode(probe[:place]) + tokenizer.encode(probe[place:]):
            return False
    return True


def _corpus(
    tokens: np.ndarray, blocks: np.ndarray, held: np.ndarray, tokenizer: Tokenizer, facts: dict[str, Any]
) -> Corpus:
    """Windows of both parts with their bytes per label, and the facts with their sizes in tokens."""
    context = facts["context"]
    train, valid = (
        np.concatenate([np.arange(start, end - 1, context) for start, end in blocks[side]]) for side in (~held, held)
    )
    facts = facts | {"train_tokens": len(train) * context, "valid_tokens": len(valid) * context}
    # Bits per byte divide by the bytes of the held-out text alone, whose tokens may be longer.
    name = facts["tokens_sha256"]
    valid_windows = Windows(tokens, valid, context, tokens_sha256=name)
    valid_bytes = _label_bytes(valid_windows, tokenizer)
    ratio = (facts["bytes"] - valid_bytes) / (facts["tokens"] - facts["valid_tokens"])
    return Corpus(
        Windows(tokens, train, context, ratio, name),
        replace(valid_windows, bytes_per_token=valid_bytes / facts["valid_tokens"]),
        facts,
    )
