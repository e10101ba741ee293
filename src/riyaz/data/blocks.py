"""Text as one memory-mapped stream of tokens, cut into blocks that are trained on or held out, and into windows.

`prepare` tokenises once: `tokens.bin` holds the ids of all documents, each followed by the end-of-text id, and
`tokens.json` says what they were made of. T: tokens of the stream, V: size of the vocabulary.
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
from riyaz.errors import RiyazError
from riyaz.events import Listen, Progress, quiet
from riyaz.files import atomic_file, write_json
from riyaz.tokenizer import Tokenizer

TOKENS, FACTS = "tokens.bin", "tokens.json"
FORMAT = 1
LITTLE = {"uint16": "<u2", "uint32": "<u4"}  # types of the ids, as they lie in tokens.bin
BLOCK_WINDOWS = 16  # windows of a block: neighbouring text stays on one side
BLOCKS_LEAST = 20  # of a short text, so that one block is about a twentieth
BATCH = 32  # pieces encoded at once
PROBES = ("a\nb", ".\nThe", "1\n2", "é\n日本", "a b", "1 word", "é Word")  # each with a place to cut


@dataclass(frozen=True, eq=False)
class Windows(Sequence[Row]):
    """Rows that are read from the stream when they are asked for: window i starts at `starts[i]` and has `context`
    inputs and as many labels, which are the inputs' next tokens."""

    tokens: np.ndarray  # (T,) uint16 or uint32, usually a memory map
    starts: np.ndarray  # (windows,) int64
    context: int
    bytes_per_token: float = 1.0  # UTF-8 bytes of text that a label stands for, for bits per byte
    tokens_sha256: str = ""  # of the stream, if it is known

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
        """Names the contents: equal for equal tokens, starts and context."""
        stream = self.tokens_sha256 or hashlib.sha256(self.tokens.tobytes()).hexdigest()
        starts = np.ascontiguousarray(self.starts, dtype="<i8").tobytes()
        return hashlib.sha256(f"{stream}\x1f{self.context}\x1f".encode() + starts).hexdigest()


@dataclass(frozen=True, eq=False)
class Corpus:
    """Windows to learn from and to judge by; `facts` are the plain values of tokens.json, see `prepare`."""

    train: Windows
    valid: Windows
    facts: dict[str, Any] = field(default_factory=dict)


def prepare(
    paths: Sequence[str | Path],
    tokenizer: Tokenizer,
    folder: Path,
    context: int,
    *,
    valid_share: float = 0.05,
    besides: Path | None = None,
    listen: Listen = quiet,
) -> Corpus:
    """Tokenise the texts under `paths` into `folder`, or take what lies there when text and tokenizer are the same.

    What lies in the folder `besides` is no text. About `valid_share` of the blocks, at least one, are held out by
    the hashes of their tokens. `facts` holds files, documents, characters, bytes, sha256 (of the text), tokens,
    dtype, tokens_sha256, tokenizer_sha256, context, blocks, valid_blocks, train_tokens, valid_tokens,
    near_duplicates (held-out blocks of which most stands in the others too) and reused. RiyazError for what
    `documents` refuses, and for a text that is shorter than two windows or one repetition.
    """
    where = " ".join(map(str, paths))
    text = _text_facts(documents(paths, besides))
    folder.mkdir(parents=True, exist_ok=True)
    stream = _known(folder, text, tokenizer)
    reused = stream is not None
    if stream is None:
        stream = text | _tokenise(lambda: documents(paths, besides), tokenizer, text, folder, listen, where)
    tokens = np.memmap(folder / TOKENS, dtype=LITTLE[stream["dtype"]], mode="r")
    blocks = cut(len(tokens), context, where)
    held = hold_out(tokens, blocks, valid_share, where)
    facts = stream | {"context": context, "blocks": len(blocks), "valid_blocks": int(held.sum()), "reused": reused}
    facts["near_duplicates"] = repeated_blocks(tokens, blocks, held, facts["bytes"] / facts["tokens"])
    corpus = _corpus(tokens, blocks, held, tokenizer, facts)
    write_json(folder / FACTS, corpus.facts, ascii=True)
    return corpus


def label_bytes(windows: Windows, tokenizer: Tokenizer) -> int:
    """UTF-8 bytes of text that the labels of all windows stand for."""
    labels = [windows.tokens[start + 1 : start + windows.context + 1] for start in windows.starts.tolist()]
    numbers, counts = np.unique(np.concatenate(labels), return_counts=True)
    return sum(
        count * tokenizer.token_bytes(number) for number, count in zip(numbers.tolist(), counts.tolist(), strict=True)
    )


def evenly(windows: Windows, count: int, tokenizer: Tokenizer) -> Windows:
    """`count` of the windows, or all when there are fewer, evenly spread, with the bytes of just those."""
    count = min(count, len(windows))
    some = replace(windows, starts=windows.starts[[place * len(windows) // count for place in range(count)]])
    return replace(some, bytes_per_token=label_bytes(some, tokenizer) / (count * windows.context))


def tokenizer_sha256(tokenizer: Tokenizer) -> str:
    """A hash of what decides the ids of a text: tokenizer.json, and the ids that begin and end it."""
    ends = json.dumps([tokenizer.beginning, tokenizer.end_of_text])
    return hashlib.sha256((ends + tokenizer.files.definition).encode()).hexdigest()


def cut(count: int, context: int, where: str = "") -> np.ndarray:
    """Start and end of each block of a stream of `count` tokens, (blocks, 2) int64; what is left over behind the last
    whole window, less than a context, belongs to none. RiyazError when there are not two windows."""
    windows = count // (context + 1)
    if windows < 2:
        what = f"{count:,} tokens of text are less than two windows of {context:,} and a token"
        raise RiyazError(what, where, "give more text or a smaller --context")
    size = min(BLOCK_WINDOWS, max(1, windows // BLOCKS_LEAST)) * context + 1
    starts = np.arange(0, count - context, size, dtype=np.int64)
    if len(starts) > 2 and count - starts[-1] < size / 2:  # too short to judge by alone
        starts = starts[:-1]
    ends = np.append(starts[1:], count)
    ends = starts + (ends - starts - 1) // context * context + 1  # whole windows
    return np.stack([starts, ends], axis=1)


def hold_out(tokens: np.ndarray, blocks: np.ndarray, share: float, where: str = "") -> np.ndarray:
    """Which blocks are held out, (blocks,) bool: those with the smallest hashes of their tokens, so that equal blocks
    stay together and a text that grows moves few. RiyazError when half of the blocks are copies."""
    wide = (hashlib.sha256(tokens[start:end].astype("<u4").tobytes()).digest()[:8] for start, end in blocks)
    hashes = np.array([int.from_bytes(digest, "big") for digest in wide], dtype=np.uint64)
    distinct = np.unique(hashes)
    if 2 * len(distinct) <= len(blocks):
        hint = "give a text in which something stands that can be held out"
        raise RiyazError("the text repeats one passage over and over", where, hint)
    count = min(max(1, round(share * len(blocks))), len(blocks) - 1)
    limit = min(np.sort(hashes)[count - 1], distinct[-2])
    return hashes <= limit


def _known(folder: Path, text: dict[str, Any], tokenizer: Tokenizer) -> dict[str, Any] | None:
    """The part of tokens.json about the stream, when text and tokenizer are the same and tokens.bin is what it says."""
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        with open(folder / TOKENS, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        expected = text | {"format": FORMAT, "tokenizer_sha256": tokenizer_sha256(tokenizer), "tokens_sha256": found}
        same = all(facts[name] == value for name, value in expected.items()) and facts["dtype"] in LITTLE
        return expected | {name: facts[name] for name in ("tokens", "dtype")} if same else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _text_facts(found: Iterable[Document]) -> dict[str, Any]:
    """How many files, documents, characters and bytes of UTF-8 there are, and their hash."""
    digest, files = hashlib.sha256(), set[str]()
    facts = {"documents": 0, "characters": 0, "bytes": 0}
    for document in found:
        content = document.text.encode()
        digest.update(len(content).to_bytes(8, "little") + content)
        files.add(document.file)
        for name, more in zip(facts, (1, len(document.text), len(content)), strict=True):
            facts[name] += more
    return {"files": len(files), **facts, "sha256": digest.hexdigest()}


def _tokenise(
    again: Callable[[], Iterator[Document]],
    tokenizer: Tokenizer,
    text: dict[str, Any],
    folder: Path,
    listen: Listen,
    where: str,
) -> dict[str, Any]:
    """Write tokens.bin; what it holds. RiyazError when the text is not the one that was read before."""
    dtype = "uint16" if tokenizer.vocab_size <= 2**16 - 1 else "uint32"
    digest, count, done = hashlib.sha256(), 0, 0
    cuttable = _cuttable(tokenizer)
    with atomic_file(folder / TOKENS) as file:

        def passing() -> Iterator[Document]:
            nonlocal count, done
            for document in again():
                for ids, characters in _parts(document.text, tokenizer, cuttable):
                    part = np.array(ids, dtype=LITTLE[dtype]).tobytes()
                    digest.update(part)
                    file.write(part)
                    count, done = count + len(ids), done + characters
                    percent = 100 * done // text["characters"]
                    listen(Progress("tokenise", percent, 100))
                yield document

        if _text_facts(passing()) != text:
            raise RiyazError("the text changed while it was read", where, "run it again")
    return {
        "format": FORMAT,
        "tokens": count,
        "dtype": dtype,
        "tokens_sha256": digest.hexdigest(),
        "tokenizer_sha256": tokenizer_sha256(tokenizer),
    }


def _parts(text: str, tokenizer: Tokenizer, cuttable: bool) -> Iterator[tuple[Sequence[int], int]]:
    """The ids of one document, part after part with its characters, and what begins and ends a text."""
    yield tokenizer.beginning, 0
    rest = pieces(text) if cuttable else iter([text])
    while batch := list(islice(rest, BATCH)):
        for piece, ids in zip(batch, tokenizer.encode_all(batch), strict=True):
            yield ids, len(piece)
    yield [tokenizer.end_of_text], 0


def _cuttable(tokenizer: Tokenizer) -> bool:
    """Whether a text cut as `pieces` cuts has the same ids; not so where each text gets a space in front."""
    for probe in PROBES:
        place = next(CUT.finditer(probe)).end()
        if tokenizer.encode(probe) != tokenizer.encode(probe[:place]) + tokenizer.encode(probe[place:]):
            return False
    return True


def _corpus(
    tokens: np.ndarray, blocks: np.ndarray, held: np.ndarray, tokenizer: Tokenizer, facts: dict[str, Any]
) -> Corpus:
    """Windows of both parts, with the bytes their labels stand for, and the facts with their sizes."""
    context = facts["context"]
    train, valid = (
        np.concatenate([np.arange(start, end - 1, context) for start, end in blocks[side]]) for side in (~held, held)
    )
    facts = facts | {"train_tokens": len(train) * context, "valid_tokens": len(valid) * context}
    # Bits per byte need the bytes of just the held-out text, whose words may be longer than the others.
    name = facts["tokens_sha256"]
    judged = Windows(tokens, valid, context, tokens_sha256=name)
    valid_bytes = label_bytes(judged, tokenizer)
    ratio = (facts["bytes"] - valid_bytes) / (facts["tokens"] - facts["valid_tokens"])
    return Corpus(
        Windows(tokens, train, context, ratio, name),
        replace(judged, bytes_per_token=valid_bytes / facts["valid_tokens"]),
        facts,
    )
