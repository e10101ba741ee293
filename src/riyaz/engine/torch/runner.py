"""The Runner in torch: sequences are rows of blocks, and many runs go through the model in one flat stream of tokens.

Padding costs time only in attention. Sequences first run in the same pass with the same adapter and prefix and similar
lengths share a block. Other runs of a pass change a token's log-probability by at most TOLERANCE.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from riyaz.adapters import Adapter
from riyaz.engine.runner import (
    Best,
    Each,
    Every,
    Hidden,
    LayerWant,
    Named,
    TokenRun,
    Top,
    Trace,
    Whole,
    cache_limit,
    expect_loadable,
)
from riyaz.engine.torch.adapted import AdaptedLinear, AdaptedModule, AdaptedPackedLinear, Route, misfits
from riyaz.engine.torch.block import Attend, Block, Prefix
from riyaz.engine.torch.packed import PackedLinear
from riyaz.engine.torch.tracing import Tracing
from riyaz.errors import RiyazError
from riyaz.families import Family
from riyaz.layers.fast.threads import tune_waiting
from riyaz.layers.swaps.swap import swap

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.25}  # nats by which other runs may change a token's log p
HEAD_ROWS = 128  # rows of logits computed at a time: 25 MB for a vocabulary of 49,152 in float32
NOT_FINITE = "the model's scores of the next token are not finite"
DAMAGED = "the weights are damaged, or too large to compute with"
DROPPED = 0.75  # share of open rows at which a block is copied without its closed rows: cheaper than keeping them


@dataclass(eq=False)
class _Sequence:
    """A sequence: its beginning, and its row of a block once it has been run."""

    adapter: str | None
    prefix: Prefix | None
    room: int
    block: Block | None = None
    row: int = 0
    slots: list[int] = field(default_factory=list)  # the slots of its own tokens, in order
    vectors: int = 0  # vectors of a soft prompt still to be read before its first tokens
    # its parent and how many of the parent's own tokens it shares, until the parent has all of them
    forked: "tuple[_Sequence, int] | None" = None

    @property
    def length(self) -> int:
        """Number of its tokens, with the prefix and the soft prompt."""
        own = self.forked[1] if self.forked else len(self.slots)
        return (self.prefix.length if self.prefix else 0) + self.vectors + own


@dataclass(frozen=True, eq=False)
class _Piece:
    """A run of one pass: its index in the pass, its sequence, and how many soft prompt vectors precede its tokens."""

    place: int
    run: TokenRun
    sequence: _Sequence
    vectors: int

    @property
    def count(self) -> int:
        """Number of rows of the stream that it takes."""
        return self.vectors + len(self.run.tokens)


@dataclass(frozen=True, eq=False)
class _Part:
    """The pieces of one block, the positions (T,) of their rows of the stream, and the attention over the block."""

    pieces: list[_Piece]
    positions: Tensor
    attend: Attend

    @property
    def adapter(self) -> str | None:
        """The adapter of the block's rows, the same for all."""
        return self.pieces[0].sequence.adapter


class TorchRunner:
    """A torch model as an `engine.runner.Runner`; loading an adapter replaces modules of the model."""

    def __init__(self, model: Any, family: Family | None = None) -> None:
        self.model, self.family = model, family
        self.context: int = model.config.context
        self.vocab_size: int = model.config.vocab_size
        self.width: int = model.config.hidden_size
        self.cache_limit = cache_limit()
        self.page, self.forks_ahead, self.drafts_pay = 0, False, False
        self._layers: int = model.config.n_layers
        self._adapters: dict[str, Tensor | None] = {}  # name -> soft prompt (P, C)
        self._dtype = next(model.parameters()).dtype
        self._route = Route()
        self._sequences: dict[int, _Sequence] = {}
        self._next = 0
        self._tracing: Tracing | None = None

    def bytes_of(self, tokens: int) -> int:
        """Bytes of keys and values of so many tokens; those of padded rows are not counted."""
        config = self.model.config
        return int(2 * self._layers * config.n_kv_heads * config.head_dim * self._dtype.itemsize * tokens)

    def load(self, name: str, adapter: Adapter) -> None:
        """Load an adapter under this name. Raises RiyazError, and changes nothing, if it does not fit."""
        self.prepared(name, adapter)()

    def prepared(self, name: str, adapter: Adapter) -> Callable[[], None]:
        """What loads an adapter that fits; its weights are copied when it is called. Raises RiyazError."""
        expect_loadable(name, self._adapters, misfits(self.model, adapter, self.context))
        return partial(self._enter, name, adapter)

    def _enter(self, name: str, adapter: Adapter) -> None:
        for path, pair in adapter.pairs.items():
            self._adapted(path).put(name, pair)
        modules: dict[str, dict[str, np.ndarray]] = {}
        for path, array in adapter.whole.items():
            module, _, part = path.rpartition(".")
            modules.setdefault(module, {})[part] = array
        for path, tensors in modules.items():
            adapted = self.model.get_submodule(path)
            if not isinstance(adapted, AdaptedModule):
                adapted = AdaptedModule(adapted, self._route)
                swap(self.model, path, adapted)
            adapted.put(name, tensors)
        self._adapters[name] = None if adapter.soft_prompt is None else torch.tensor(adapter.soft_prompt)

    def _adapted(self, path: str) -> AdaptedLinear | AdaptedPackedLinear:
        """The linear at a path, replaced by one that takes adapters if it is not one already."""
        module = self.model.get_submodule(path)
        if isinstance(module, AdaptedModule):
            path, module = f"{path}.base", module.base
        if not isinstance(module, AdaptedLinear | AdaptedPackedLinear):
            if isinstance(module, PackedLinear):
                module = AdaptedPackedLinear(module, self._route)
            else:
                module = AdaptedLinear(module, self._route, self._dtype)
            swap(self.model, path, module)
        return module

    def unload(self, name: str) -> None:
        """Unload an adapter; no open sequence may use it."""
        assert all(sequence.adapter != name for sequence in self._sequences.values()), name
        del self._adapters[name]
        for module in self.model.modules():
            if isinstance(module, AdaptedLinear | AdaptedPackedLinear | AdaptedModule):
                module.drop(name)

    def adapter_tokens(self, adapter: str | None) -> int:
        """Number of positions that the adapter's soft prompt takes. Raises RiyazError for a name that is not loaded."""
        if adapter is None:
            return 0
        if adapter not in self._adapters:
            raise RiyazError(
                f"adapter {adapter!r} is not loaded", hint=f"loaded: {', '.join(self._adapters) or 'none'}"
            )
        vectors = self._adapters[adapter]
        return 0 if vectors is None else len(vectors)

    def open(self, adapter: str | None = None, prefix: int | None = None, room: int = 0) -> int:
        """A new sequence after the sequence `prefix`, which gets no more tokens, or after the adapter's soft prompt."""
        vectors = self.adapter_tokens(adapter)
        if prefix is None:
            return self._keep(_Sequence(adapter, None, room, vectors=vectors))
        before = self._sequences[prefix]
        assert before.adapter == adapter, "a sequence has the same adapter as its prefix"
        return self._keep(_Sequence(adapter, self._shared(before), room))

    def fork(self, sequence: int, length: int) -> int:
        """A new sequence that shares the first `length` tokens of another."""
        parent = self._sequences[sequence]
        before = parent.prefix.length if parent.prefix else 0
        if length <= before:
            prefix = parent.prefix.first(length) if parent.prefix and length else None
            return self._keep(_Sequence(parent.adapter, prefix, 0))
        assert parent.block is not None, "a sequence is forked after it was run"
        own = length - before
        if own <= len(parent.slots):
            child = replace(parent, slots=parent.slots[:own], forked=None)
        else:  # the parent's last tokens come in the pass that also runs the child
            child = replace(parent, slots=[], forked=(parent, own))
        parent.block.members.add(child)
        return self._keep(child)

    def behind(self, sequence: int, length: int) -> int:
        """A new sequence with the first `length` tokens of another as its prefix."""
        beginning = self.fork(sequence, length)
        try:
            return self.open(self._sequences[beginning].adapter, beginning)
        finally:
            self.close(beginning)

    def close(self, sequence: int) -> None:
        """Close a sequence."""
        closed = self._sequences.pop(sequence)
        if closed.block is not None:
            closed.block.members.discard(closed)

    def length(self, sequence: int) -> int:
        """Number of tokens in the sequence, the soft prompt's positions included."""
        return self._sequences[sequence].length

    def truncate(self, sequence: int, length: int) -> None:
        """Keep the first `length` tokens of a sequence, the soft prompt's positions included."""
        kept = self._sequences[sequence]
        block = kept.block
        assert block is not None and not kept.forked, "a sequence is truncated after it was run"
        kept.slots = kept.slots[: length - (kept.prefix.length if kept.prefix else 0)]
        taken = [slot for member in block.members if member.row == kept.row for slot in member.slots]
        block.used[kept.row] = max(block.width, max(taken, default=-1) + 1)

    def forward(self, runs: Sequence[TokenRun]) -> list[Any]:
        """Run the model over all runs; returns each run's wanted result, None where none is wanted. It is one pass, but
        for the runs whose tokens are computed one by one."""
        singly = [run.want.wants if isinstance(run.want, Each) else None for run in runs]
        if not any(singly):
            return self._forward(runs)
        results: list[Any] = [[] if wants else None for wants in singly]
        for i in range(max(len(wants) for wants in singly if wants)):
            now = [place for place, wants in enumerate(singly) if (i < len(wants) if wants else i == 0)]
            part = [_single(runs[place], i) if singly[place] else runs[place] for place in now]
            try:
                computed = self._forward(part)
            except RiyazError:
                if i == 0:
                    raise
                break  # of tokens that may be in no answer: the results before them stand
            for place, result in zip(now, computed):
                if singly[place]:
                    results[place].append(result)
                else:
                    results[place] = result
        return results

    @torch.inference_mode()
    def traced(self, run: TokenRun) -> tuple[Any, Trace]:
        """As `forward` of one run, and what was computed inside."""
        want = run.want
        try:
            with Tracing(self.model) as read:
                self._tracing = read
                (result,) = self.forward([replace(run, want=want.last) if isinstance(want, LayerWant) else run])
        finally:
            self._tracing = None
        if isinstance(want, LayerWant):
            self._route.take([self._sequences[run.sequence].adapter], [len(read.residual) // 2])
            result = read.behind_layers(want, len(run.tokens), result)
        return result, read.trace

    @torch.inference_mode()
    def _forward(self, runs: Sequence[TokenRun]) -> list[Any]:
        tune_waiting()
        pieces = []
        for place, run in enumerate(runs):
            sequence = self._sequences[run.sequence]
            pieces.append(_Piece(place, run, sequence, sequence.vectors))
        new, going = [], dict[Block, list[_Piece]]()
        for piece in pieces:
            block = piece.sequence.block
            new.append(piece) if block is None else going.setdefault(block, []).append(piece)
        parts = [*map(self._begun, _alike(new)), *map(self._extended, going.values())]
        parts.sort(key=lambda part: part.adapter or "")
        hidden = self._hidden(parts)
        results: list[Any] = [None] * len(runs)
        self._answer([piece for part in parts for piece in part.pieces], hidden, results)
        return results

    def _keep(self, sequence: _Sequence) -> int:
        self._next += 1
        self._sequences[self._next] = sequence
        return self._next

    def _shared(self, sequence: _Sequence) -> Prefix | None:
        """All keys and values of a sequence as a prefix, which the sequence itself then uses too."""
        if sequence.block is not None:
            assert not sequence.forked, "a sequence is shared after its parent was run"
            sequence.prefix = sequence.block.row_as_prefix(sequence.row, sequence.slots)
            sequence.block.members.discard(sequence)
            sequence.block, sequence.slots = None, []
        return sequence.prefix

    def _begun(self, pieces: list[_Piece]) -> _Part:
        """A new block for sequences that are run for the first time, with one prefix."""
        first, counts = pieces[0].sequence, [piece.count for piece in pieces]
        block = Block(self._layers, counts, first.prefix, keep=any(piece.run.keep for piece in pieces))
        before = first.prefix.length if first.prefix else 0
        for row, piece in enumerate(pieces):
            sequence = piece.sequence
            sequence.block, sequence.row, sequence.slots, sequence.vectors = block, row, list(range(piece.count)), 0
            block.members.add(sequence)
        positions = torch.cat([torch.arange(before, before + count) for count in counts])
        return _Part(pieces, positions, block.begin(max(piece.sequence.room for piece in pieces)))

    def _extended(self, pieces: list[_Piece]) -> _Part:
        """Further tokens for sequences of one block: each goes to the next slot of its row, and attends to the tokens
        of its own sequence."""
        block = pieces[0].sequence.block
        assert block is not None
        if len({sequence.row for sequence in block.members}) <= DROPPED * len(block.lengths):
            _drop_closed(block)
        rows, places, positions, slots, seen = [], [], [], [], []
        taken = np.zeros(len(block.lengths), np.int64)  # new tokens of each row in this pass
        for piece in pieces:
            sequence = piece.sequence
            if sequence.forked:
                parent, length = sequence.forked
                assert length <= len(parent.slots), "a fork is run after its parent"
                sequence.slots, sequence.forked = parent.slots[:length], None
            for _ in range(piece.count):
                rows.append(sequence.row)
                places.append(int(taken[sequence.row]))
                positions.append(sequence.length)
                slots.append(int(block.used[sequence.row]))
                sequence.slots.append(slots[-1])
                seen.append(list(sequence.slots))
                block.used[sequence.row] += 1
                taken[sequence.row] += 1
        open_ = np.zeros((len(taken), int(taken.max()), int(block.used.max())), bool)
        for row, place, visible in zip(rows, places, seen):
            open_[row, place, visible] = True
        open_[:, :, 0] |= ~open_.any(2)  # a query without a token: softmax needs at least one key
        mask = torch.zeros(open_.shape).masked_fill_(torch.from_numpy(~open_), -torch.inf)
        row_of = torch.tensor(rows)
        query = row_of * mask.shape[1] + torch.tensor(places)  # index of each token among the queries
        whole = len(rows) == mask.shape[0] * mask.shape[1] and torch.equal(query, torch.arange(len(rows)))
        where = torch.tensor(positions)
        attend = block.extend(row_of, None if whole else query, torch.tensor(slots), where, mask)
        return _Part(pieces, where, attend)

    def _hidden(self, parts: Sequence[_Part]) -> Tensor:
        """Hidden states (T, C) of the rows of all parts."""
        counts = [len(part.positions) for part in parts]
        pieces = [piece for part in parts for piece in part.pieces]
        self._route.take([part.adapter for part in parts], counts)
        tokens = torch.tensor([token for piece in pieces for token in piece.run.tokens], dtype=torch.long)
        positions = torch.cat([part.positions for part in parts])

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor, window: int | None = None) -> Tensor:
            if self._tracing:
                self._tracing.turned(q, k)
            if len(parts) == 1:
                return parts[0].attend(layer, q, k, v, window)
            split = zip(parts, q.split(counts), k.split(counts), v.split(counts))
            return torch.cat([part.attend(layer, *qkv, window) for part, *qkv in split])

        if not any(piece.vectors for piece in pieces):
            return self.model(tokens, positions, attend)
        ends = [len(piece.run.tokens) for piece in pieces]
        self._route.take([piece.sequence.adapter for piece in pieces], ends)
        embedded = self.model.embed(tokens).split(ends)
        stream = [torch.cat((self._soft_prompt(piece, rows.dtype), rows)) for piece, rows in zip(pieces, embedded)]
        self._route.take([part.adapter for part in parts], counts)
        return self.model(None, positions, attend, embeddings=torch.cat(stream))

    def _soft_prompt(self, piece: _Piece, dtype: torch.dtype) -> Tensor:
        """The soft prompt's vectors (P, C) before a piece's tokens; (0, C) without one."""
        vectors = self._adapters.get(piece.sequence.adapter or "") if piece.vectors else None
        return torch.empty(0, self.model.config.hidden_size, dtype=dtype) if vectors is None else vectors.to(dtype)

    def _answer(self, pieces: Sequence[_Piece], hidden: Tensor, results: list[Any]) -> None:
        """Fill `results` with the wanted results of the pieces, from logits of HEAD_ROWS rows at a time."""
        answers: list[_Answer] = []
        index: list[np.ndarray] = []  # rows of `hidden` whose logits are needed
        start, first = 0, 0
        for piece in pieces:
            if isinstance(piece.run.want, Hidden):
                state = hidden[start + piece.count - 1].float().numpy().copy()  # (C,), not all rows' memory
                if not np.isfinite(state).all():
                    raise RiyazError(NOT_FINITE, hint=DAMAGED)
                results[piece.place] = state
            elif piece.run.want is not None:
                answers.append(_Answer(piece, first, self.vocab_size))
                index.append(start + piece.vectors + answers[-1].rows)
                first += len(answers[-1].rows)
            start += piece.count
        adapters = [answer.piece.sequence.adapter for answer in answers for _ in answer.rows]
        only_best = all(isinstance(answer.piece.run.want, Best) for answer in answers)
        for begin in range(0, first, HEAD_ROWS):
            part = slice(begin, begin + HEAD_ROWS)
            self._route.take(adapters[part], [1] * len(adapters[part]))
            logits = self.model.head(hidden[torch.from_numpy(np.concatenate(index)[part])])  # (HEAD_ROWS, V)
            highest = logits.argmax(1, keepdim=True)
            if not logits.gather(1, highest).isfinite().all():  # argmax takes NaN for the highest number
                raise RiyazError(NOT_FINITE, hint=DAMAGED)
            best = highest.flatten().tolist()
            log_p = np.empty(0) if only_best else _log_p(logits.float(), answers, begin)
            for answer in answers:
                answer.take(best, log_p, begin)
        for answer in answers:
            results[answer.piece.place] = answer.result


class _Answer:
    """The wanted result of one run, collected from the logits chunk by chunk."""

    def __init__(self, piece: _Piece, first: int, vocab_size: int) -> None:
        want = piece.run.want
        self.piece, self.first = piece, first  # index of its first row among all wanted rows
        self.rows = np.array([len(piece.run.tokens) - 1])  # the run's tokens whose logits it needs, each once
        self.result: Any = None
        if isinstance(want, Named):
            self.rows, self._at = np.unique(want.rows, return_inverse=True)
            self.result = np.empty(len(want.rows), np.float32)
        elif isinstance(want, Whole):
            self.rows, self.result = want.rows, np.empty((len(want.rows), vocab_size), np.float32)

    def penalise(self, logits: Tensor, begin: int) -> None:
        """Apply the penalty of a `Top` or `Every` to its row of the logits (n, V) of a chunk, in place."""
        want, row = self.piece.run.want, self.first - begin
        if isinstance(want, Top | Every) and want.penalty != 1 and want.seen and 0 <= row < len(logits):
            seen = torch.tensor(want.seen)
            scores = logits[row, seen]
            logits[row, seen] = torch.where(scores > 0, scores / want.penalty, scores * want.penalty)

    def take(self, best: list[int], log_p: np.ndarray, begin: int) -> None:
        """Collect the part of the result that is in a chunk, which starts at row `begin` of all wanted rows."""
        low, high = max(begin, self.first), min(begin + len(best), self.first + len(self.rows))
        want = self.piece.run.want
        if low >= high:
            return
        if isinstance(want, Best):
            self.result = best[low - begin]
        elif isinstance(want, Top):
            tokens = np.argsort(-log_p[low - begin], kind="stable")[: want.count]
            self.result = tokens, log_p[low - begin, tokens]
        elif isinstance(want, Every):
            self.result = log_p[low - begin].copy()
        elif isinstance(want, Named):
            here = (self._at >= low - self.first) & (self._at < high - self.first)
            self.result[here] = log_p[self._at[here] + self.first - begin, want.tokens[here]]
        else:
            self.result[low - self.first : high - self.first] = log_p[low - begin : high - begin]


def _single(run: TokenRun, place: int) -> TokenRun:
    """One token of a run, with what is wanted after it."""
    assert isinstance(run.want, Each) and len(run.want.wants) == len(run.tokens)
    return TokenRun(run.sequence, run.tokens[place : place + 1], run.want.wants[place], run.keep)


def _log_p(logits: Tensor, answers: Sequence[_Answer], begin: int) -> np.ndarray:
    """Log-probabilities (n, V) from the float32 logits of a chunk, which are changed by the penalties."""
    for answer in answers:
        answer.penalise(logits, begin)
    return logits.log_softmax(1).numpy()


def _drop_closed(block: Block) -> None:
    """Remove the rows of a block that have no open sequence."""
    left = sorted({sequence.row for sequence in block.members})
    block.select(torch.tensor(left))
    for sequence in block.members:
        sequence.row = left.index(sequence.row)


def _alike(pieces: Sequence[_Piece]) -> list[list[_Piece]]:
    """Groups of pieces that share a block: same adapter and prefix, similar lengths, longest first."""
    groups: dict[Any, list[_Piece]] = {}
    for piece in pieces:
        groups.setdefault((piece.sequence.adapter, id(piece.sequence.prefix)), []).append(piece)
    blocks: list[list[_Piece]] = []
    for group in groups.values():
        group.sort(key=lambda piece: -piece.count)
        blocks.append([])
        for piece in group:
            if blocks[-1] and blocks[-1][0].count > 1.5 * piece.count + 16:
                blocks.append([])
            blocks[-1].append(piece)
    return blocks
