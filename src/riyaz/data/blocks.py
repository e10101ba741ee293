"""Text as one memory-mapped stream of tokens, cut into blocks that are trained on or held out, and into windows.

`prepare` tokenises once: `tokens.bin` holds the ids of all documents, each followed by the end-of-text id, and
`tokens.json` says what they were made of. T: tokens of the stream, V: size of the vocabulary.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np

from riyaz.data.corpus import Document, documents, pieces
from riyaz.data.repeats import repeated_blocks
from riyaz.data.rows import Row
from riyaz.errors import RiyazError
from riyaz.sources.files import atomic_file
from riyaz.tokenizer import Tokenizer

TOKENS, FACTS = "tokens.bin", "tokens.json"
FORMAT = 1
BLOCK_WINDOWS = 16  # windows of a block: neighbouring text stays on one side
BLOCKS_LEAST = 20  # of a short text, so that one block is about a twentieth
BATCH = 32  # pieces encoded at once
PROBES = ("a\nb", "e\nT", ".\n1", "word.\nWord", "é\n日本")  # texts a tokenizer must not see across the cut

Listen = Callable[[dict], None]


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
        stream = self.tokens_sha256 or hashlib.sha256(np.ascontiguousarray(self.tokens)).hexdigest()
        starts = np.ascontiguousarray(self.starts, dtype="<i8").tobytes()
        return hashlib.sha256(f"{stream}\x1f{self.context}\x1f".encode() + starts).hexdigest()


@dataclass(frozen=True, eq=False)
class Corpus:
    """Windows to learn from and to judge by; `facts` are the plain values of tokens.json (`_facts` lists them)."""

    train: Windows
    valid: Windows
    facts: dict[str, Any] = field(default_factory=dict)


def quiet(event: dict) -> None:
    """The listener of who does not want to hear."""


def prepare(
    paths: Sequence[str | Path],
    tokenizer: Tokenizer,
    folder: Path,
    context: int,
    *,
    valid_share: float = 0.05,
    listen: Listen = quiet,
) -> Corpus:
    """Tokenise the texts under `paths` into `folder`, or take what lies there when text and tokenizer are the same.

    About `valid_share` of the blocks, at least one, are held out by the hashes of their tokens. `facts` holds files,
    documents, bytes, sha256 (of the text), tokens, tokens_sha256, tokenizer_sha256, context, blocks, valid_blocks,
    train_tokens, valid_tokens, near_duplicates (held-out blocks most of which stands in the others too) and reused.
    RiyazError for what `documents` refuses, and for a text that is shorter than two windows or one repetition.
    """
    folder.mkdir(parents=True, exist_ok=True)
    known = _known(folder, tokenizer_sha256(tokenizer))
    reused = known is not None and known["sha256"] == _read(documents(paths), listen)["sha256"]
    stream = known if known is not None and reused else _tokenise(documents(paths), tokenizer, folder, listen)
    tokens = np.memmap(folder / TOKENS, dtype=stream["dtype"], mode="r")
    blocks = cut(len(tokens), context, " ".join(map(str, paths)))
    held = hold_out(tokens, blocks, valid_share, " ".join(map(str, paths)))
    facts = stream | {
        "context": context,
        "blocks": len(blocks),
        "valid_blocks": int(held.sum()),
        "near_duplicates": repeated_blocks(tokens, blocks, held, stream["bytes"] / stream["tokens"]),
        "reused": reused,
    }
    return _corpus(tokens, blocks, held, tokenizer, facts, folder)


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
    ends = np.minimum(starts + size, count)
    ends = starts + (ends - starts - 1) // context * context + 1  # whole windows
    return np.stack([starts, ends], axis=1)


def hold_out(tokens: np.ndarray, blocks: np.ndarray, share: float, where: str = "") -> np.ndarray:
    """Which blocks are held out, (blocks,) bool: those with the smallest hashes of their tokens, so that equal blocks
    stay together and a text that grows moves few. RiyazError when all blocks are equal."""
    wide = (hashlib.sha256(tokens[start:end].astype("<u4").tobytes()).digest()[:8] for start, end in blocks)
    hashes = np.array([int.from_bytes(digest, "big") for digest in wide], dtype=np.uint64)
    distinct = np.unique(hashes)
    if len(distinct) < 2:
        hint = "give a text in which something stands that can be held out"
        raise RiyazError("the text repeats one passage over and over", where, hint)
    count = min(max(1, round(share * len(blocks))), len(blocks) - 1)
    limit = min(np.sort(hashes)[count - 1], distinct[-2])
    return hashes <= limit


def _known(folder: Path, tokenizer: str) -> dict[str, Any] | None:
    """What tokens.json says, when it was made by this tokenizer and tokens.bin is what it says."""
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        if facts["format"] != FORMAT or facts["tokenizer_sha256"] != tokenizer:
            return None
        with open(folder / TOKENS, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        return {name: facts[name] for name in STREAM} if found == facts["tokens_sha256"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


STREAM = (
    *("format", "files", "documents", "bytes", "sha256"),
    *("tokens", "dtype", "tokens_sha256", "tokenizer_sha256"),
)


class _Reading:
    """Counts and hashes documents as they pass."""

    def __init__(self, listen: Listen, phase: str) -> None:
        self.listen, self.phase = listen, phase
        self.files: set[str] = set()
        self.documents = self.bytes = 0
        self.hash = hashlib.sha256()

    def add(self, document: Document) -> None:
        """Take one document in."""
        content = document.text.encode()
        self.hash.update(len(content).to_bytes(8, "little"))
        self.hash.update(content)
        self.files.add(document.file)
        self.documents += 1
        self.bytes += len(content)

    def facts(self) -> dict[str, Any]:
        """What has been read."""
        return {
            "files": len(self.files),
            "documents": self.documents,
            "bytes": self.bytes,
            "sha256": self.hash.hexdigest(),
        }


def _read(found: Iterator[Document], listen: Listen) -> dict[str, Any]:
    reading = _Reading(listen, "read")
    for document in found:
        reading.add(document)
    return reading.facts()


def _tokenise(found: Iterator[Document], tokenizer: Tokenizer, folder: Path, listen: Listen) -> dict[str, Any]:
    """Write tokens.bin; the facts of STREAM."""
    dtype = "uint16" if tokenizer.vocab_size <= 2**16 - 1 else "uint32"
    reading, digest, count = _Reading(listen, "tokenise"), hashlib.sha256(), 0
    cuttable = _cuttable(tokenizer)
    (folder / FACTS).unlink(missing_ok=True)  # from here on it would name another file
    with atomic_file(folder / TOKENS) as file:
        for document in found:
            reading.add(document)
            for ids in _ids(document.text, tokenizer, cuttable):
                part = np.asarray(ids, dtype=dtype).astype(f"<{dtype[0]}{np.dtype(dtype).itemsize}").tobytes()
                digest.update(part)
                file.write(part)
                count += len(ids)
                listen({"event": "progress", "phase": "tokenise", "done": count, "total": 0})
    return reading.facts() | {
        "format": FORMAT,
        "tokens": count,
        "dtype": dtype,
        "tokens_sha256": digest.hexdigest(),
        "tokenizer_sha256": tokenizer_sha256(tokenizer),
    }


def _ids(text: str, tokenizer: Tokenizer, cuttable: bool) -> Iterator[Sequence[int]]:
    """The ids of one document, part after part, with what begins and ends a text."""
    yield tokenizer.beginning
    batch: list[str] = []
    for piece in pieces(text) if cuttable else [text]:
        batch.append(piece)
        if len(batch) == BATCH:
            yield from tokenizer.encode_all(batch)
            batch = []
    if batch:
        yield from tokenizer.encode_all(batch)
    yield [tokenizer.end_of_text]


def _cuttable(tokenizer: Tokenizer) -> bool:
    """Whether a text cut as `pieces` cuts has the same ids; not so where each text gets a space in front."""
    return all(
        tokenizer.encode(text) == [number for piece in text.partition("\n")[:2:2] for number in tokenizer.encode(piece)]
        for text in PROBES
    )


def _corpus(
    tokens: np.ndarray, blocks: np.ndarray, held: np.ndarray, tokenizer: Tokenizer, facts: dict[str, Any], folder: Path
) -> Corpus:
    """Windows of both parts, with the bytes their labels stand for; writes tokens.json."""
    context = facts["context"]
    starts = [np.concatenate([np.arange(a, b - 1, context) for a, b in blocks[side]]) for side in (~held, held)]
    facts |= {"train_tokens": len(starts[0]) * context, "valid_tokens": len(starts[1]) * context}
    # Bits per byte need the bytes of just the held-out text, which has its own share of long words.
    valid_bytes = sum(len(tokenizer.decode(tokens[a + 1 : b].tolist()).encode()) for a, b in blocks[held])
    rest = (facts["bytes"] - valid_bytes) / (facts["tokens"] - facts["valid_tokens"])
    ratios = rest, valid_bytes / facts["valid_tokens"]
    with atomic_file(folder / FACTS) as file:
        file.write(json.dumps(facts, indent=2).encode() + b"\n")
    parts = (Windows(tokens, s, context, ratio, facts["tokens_sha256"]) for s, ratio in zip(starts, ratios))
    return Corpus(*parts, facts)
