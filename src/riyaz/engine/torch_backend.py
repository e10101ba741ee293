"""The engine in torch: batches of Requests through a model with cached keys and values.

    backend = Backend(model, tokenizer.eos_ids)
    backend.generate([Request(tokens)], max_new_tokens=16)

The model reads one flat stream of tokens, so rows of a batch cost what they hold and padding costs attention
only. Prefixes are read once and kept. Float32 answers do not depend on the batch beyond TOLERANCE.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from riyaz.engine import Request
from riyaz.engine.search import MANY, Search
from riyaz.engine.torch_cache import Cache, Prefix
from riyaz.errors import RiyazError
from riyaz.layers.soft_prompt import SoftPrompt

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.25}  # nats by which neighbours may move one token's log p
BATCH_TOKENS = 8192  # slots of one batch: 190 MB of keys and values for SmolLM2-135M in bf16
BATCH_ROWS = 64
HEAD_ROWS = 128  # rows of logits at a time: 25 MB for a vocabulary of 49,152 in float32
WINDOW = 32  # requests whose hidden states wait to be given out in order
KEPT_PREFIXES = 4

Progress = Callable[[int], None]  # how many more requests are done


class Backend:
    """Log-probabilities and greedy answers of one model, with at most one adapter in it.

    `adapter` is the name under which requests ask for the adapter in `model`; others run the base alone. A soft
    prompt is an adapter that changes no layer: requests with it stand behind its keys and values, a prefix that is
    kept like others.
    """

    def __init__(self, model: Any, eos_ids: frozenset[int] | set[int], adapter: str | None = None) -> None:
        self._soft_prompt: Tensor | None = None  # (P, C)
        if isinstance(model, SoftPrompt):
            model, self._soft_prompt = model.base, model.prompt.detach()
        self.model, self.eos_ids, self.adapter = model, frozenset(eos_ids), adapter
        self.context: int = model.config.context
        self._layers: int = model.config.n_layers
        self._prefixes: OrderedDict[tuple[str | None, tuple[int, ...]], Prefix] = OrderedDict()

    def adapter_tokens(self, adapter: str | None) -> int:
        """Places of the context that the adapter takes before a prompt."""
        return 0 if adapter is None or self._soft_prompt is None else len(self._soft_prompt)

    def forget(self) -> None:
        """Drop the kept prefixes: the model's weights have changed."""
        self._prefixes.clear()

    @torch.inference_mode()
    def generate(
        self, requests: Sequence[Request], max_new_tokens: int, progress: Progress | None = None
    ) -> list[list[int]]:
        """The greedy answer of each request, without its end token; at most `max_new_tokens` tokens."""
        answers: list[list[int]] = [[] for _ in requests]
        for batch in _batches(requests, [max_new_tokens] * len(requests)):
            with self._running(requests[batch[0]].adapter):
                for rows, tokens in self._decode([requests[i] for i in batch], max_new_tokens):
                    for row, token in zip(rows, tokens):
                        answers[batch[row]].append(token)
            _tell(progress, batch)
        return answers

    def stream(self, request: Request, max_new_tokens: int) -> Iterator[int]:
        """The greedy answer of one request, token by token as they come."""
        steps = self._decode([request], max_new_tokens)
        while True:
            with torch.inference_mode(), self._running(request.adapter):  # left again before each yield
                step = next(steps, None)
            if step is None:
                return
            yield from step[1]

    @torch.inference_mode()
    def logprobs(
        self,
        requests: Sequence[Request],
        continuations: Sequence[Sequence[int]],
        progress: Progress | None = None,
    ) -> list[np.ndarray]:
        """Log-probability of every token of each continuation: one (n_i,) float32 array a request."""
        found: list[np.ndarray] = [np.zeros(0, np.float32)] * len(requests)
        for batch in _batches(requests, [len(c) for c in continuations]):
            with self._running(requests[batch[0]].adapter):
                hidden = self._read_through([requests[i] for i in batch], [continuations[i] for i in batch])
                targets = torch.tensor([token for i in batch for token in continuations[i]])
                parts = [
                    logits.log_softmax(1).gather(1, target[:, None])[:, 0]
                    for logits, target in zip(self._logits(hidden), targets.split(HEAD_ROWS))
                ]
            rows = torch.cat(parts).split([len(continuations[i]) for i in batch])
            for i, row in zip(batch, rows):
                found[i] = row.numpy()
            _tell(progress, batch)
        return found

    def distributions(
        self, requests: Sequence[Request], continuations: Sequence[Sequence[int]]
    ) -> Iterator[np.ndarray]:
        """Log-softmax over the vocabulary at every token of each continuation, in order of the requests:
        (n_i, V) float32 arrays, made a few at a time."""
        for start in range(0, len(requests), WINDOW):
            window, more = requests[start : start + WINDOW], continuations[start : start + WINDOW]
            hidden: list[Tensor] = [torch.empty(0)] * len(window)
            for batch in _batches(window, [len(c) for c in more]):
                with torch.inference_mode(), self._running(window[batch[0]].adapter):
                    rows = self._read_through([window[i] for i in batch], [more[i] for i in batch])
                for i, row in zip(batch, rows.split([len(more[i]) for i in batch])):
                    hidden[i] = row
            for row in hidden:
                with torch.inference_mode():
                    parts = [logits.log_softmax(1) for logits in self._logits(row)]
                yield torch.cat(parts).numpy()

    @torch.inference_mode()
    def next_token(self, tokens: Sequence[int], adapter: str | None = None) -> np.ndarray:
        """Log-probabilities (V,) of the token after `tokens`, which begin where the context begins."""
        with self._running(adapter):
            _, hidden = self._prefill([Request(tuple(tokens), adapter)])
            return next(self._logits(hidden)).log_softmax(1)[0].numpy()

    def choose(self, requests: Sequence[Request], progress: Progress | None = None) -> np.ndarray:
        """Log-probability (R, L) of every answer of each request's closed set, which all share; exact."""
        searches = self._search(requests, None, progress)
        return np.stack([scores for scores, _ in searches])

    def best(
        self, requests: Sequence[Request], offsets: np.ndarray, progress: Progress | None = None
    ) -> list[tuple[int, float]]:
        """Index of the answer with the highest log-probability + `offsets` (L,), and its log-probability:
        what `choose` gives, from as few nodes of the trie as make it certain."""
        return self.best_each(requests, offsets[None], progress)[0]

    def best_each(
        self, requests: Sequence[Request], offsets: np.ndarray, progress: Progress | None = None
    ) -> list[list[tuple[int, float]]]:
        """`best` under each row of `offsets` (M, L), from one pass: M lists, one entry a request."""
        found = [best for _, best in self._search(requests, offsets, progress)]
        return [[best[m] for best in found] for m in range(len(offsets))]

    @torch.inference_mode()
    def _search(
        self, requests: Sequence[Request], offsets: np.ndarray | None, progress: Progress | None
    ) -> list[tuple[np.ndarray, list[tuple[int, float]]]]:
        """Scores (L,) and best answers of every request, by `Search` over its trie."""
        found: list[Any] = [None] * len(requests)
        tries = [request.constraint for request in requests]
        inner = [len(trie.inner) if trie and offsets is None else MANY for trie in tries]
        for batch in _batches(requests, inner):
            trie = tries[batch[0]]
            assert trie is not None, "a closed set is searched in requests with a constraint"
            search = Search(trie, len(batch), offsets)
            with self._running(requests[batch[0]].adapter):
                self._walk([requests[i] for i in batch], search)
            for i, scores, best in zip(batch, search.scores(), search.best()):
                found[i] = (scores, best)
            _tell(progress, batch)
        return found

    def _walk(self, requests: Sequence[Request], search: Search) -> None:
        """Read the prompts, then the nodes the search asks for, each seeing its prompt and its ancestors."""
        cache, hidden = self._prefill(requests)
        base = self._lengths(requests)
        slots = np.full(search.edges.shape, -1)  # where in its row's slots a node was written
        used = np.full(len(requests), cache.width)
        trie, seen = search.trie, torch.arange(cache.width) < cache.lengths[:, None]  # (B, width)
        self._learn(search, hidden, np.arange(len(requests)), np.zeros(len(requests), np.int64))
        while len((work := search.next())[0]):
            rows, nodes = work
            count = np.bincount(rows, minlength=len(used))
            inside = np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count)
            slots[rows, nodes] = used[rows] + inside
            used += count
            cache.grow(int(used.max()))
            mask = np.zeros((len(used), count.max(), used.max()), bool)
            mask[:, :, : cache.width] = seen.numpy()[:, None]
            ancestor = nodes
            while ancestor.any():  # walk all up together; the root stands for the prompt
                up = ancestor > 0
                mask[rows[up], inside[up], slots[rows[up], ancestor[up]]] = True
                ancestor = trie.parent[ancestor]
            row, place = torch.from_numpy(rows), torch.from_numpy(rows * count.max() + inside)
            positions = base[row] - 1 + torch.from_numpy(trie.depth[nodes])
            attend = cache.extend(row, place, torch.from_numpy(slots[rows, nodes]), positions, _additive(mask))
            hidden = self.model(torch.from_numpy(trie.token[nodes]), positions, attend)
            self._learn(search, hidden, rows, nodes)

    def _learn(self, search: Search, hidden: Tensor, rows: np.ndarray, nodes: np.ndarray) -> None:
        """Give the search the log-probabilities of the children of nodes (T,), read as hidden (T, C)."""
        trie, start = search.trie, 0
        for logits in self._logits(hidden):
            log_p = logits.log_softmax(1).numpy()
            row, node = rows[start : start + len(log_p)], nodes[start : start + len(log_p)]
            start += len(log_p)
            count = trie.children[node]
            which = np.repeat(np.arange(len(node)), count)
            child = np.arange(len(which)) + np.repeat(trie.first[node] - np.cumsum(count) + count, count)
            search.edges[row[which], child] = log_p[which, trie.token[child]]

    def _decode(self, requests: Sequence[Request], max_new_tokens: int) -> Iterator[tuple[list[int], list[int]]]:
        """Greedy decoding of one batch: at each step the rows that go on and their new tokens."""
        cache, hidden = self._prefill(requests, reserve=max_new_tokens)
        position = self._lengths(requests)
        slot = torch.arange(cache.width + max_new_tokens)
        mask = _additive((slot < cache.lengths[:, None]) | (slot >= cache.width))
        row = torch.arange(len(requests))  # of each slot row its request
        going = torch.ones(len(requests), dtype=torch.bool)
        ends = torch.tensor(sorted(self.eos_ids))
        for step in range(max_new_tokens):
            tokens = self.model.head(hidden).argmax(1)
            going &= ~torch.isin(tokens, ends)
            if not going.any():
                return
            yield row[going].tolist(), tokens[going].tolist()
            if step + 1 == max_new_tokens:
                return
            if going.sum() <= 0.75 * len(going):  # a copy of the cache costs less than the rows it drops
                cache.select(going)
                row, tokens, position, mask, going = (x[going] for x in (row, tokens, position, mask, going))
            at = cache.width + step
            places, seen = position + step, mask[:, None, : at + 1]
            attend = cache.extend(torch.arange(len(row)), None, torch.tensor(at), places, seen)
            hidden = self.model(tokens, places, attend)

    def _prefill(self, requests: Sequence[Request], reserve: int = 0) -> tuple[Cache, Tensor]:
        """The cache of these prompts and the hidden state of each last token (B, C)."""
        rows = [request.tokens for request in requests]
        cache = Cache(self._layers, [len(row) for row in rows], self._prefix(requests[0]))
        hidden = self._read(cache, rows, reserve)
        return cache, hidden[cache.lengths.cumsum(0) - 1]

    def _read_through(self, requests: Sequence[Request], continuations: Sequence[Sequence[int]]) -> Tensor:
        """Hidden states (N, C) from which each token of each continuation is predicted, end to end."""
        rows = [(*request.tokens, *more[:-1]) for request, more in zip(requests, continuations)]
        cache = Cache(self._layers, [len(row) for row in rows], self._prefix(requests[0]), keep=False)
        hidden = self._read(cache, rows)
        wanted, start = [], 0
        for row, more in zip(rows, continuations):
            start += len(row)
            wanted.append(torch.arange(start - len(more), start))
        return hidden[torch.cat(wanted)]

    def _read(self, cache: Cache, rows: Sequence[Sequence[int]], reserve: int = 0) -> Tensor:
        """Hidden states (T, C) of these rows behind the cache's prefix."""
        tokens = torch.tensor([token for row in rows for token in row])
        before = 0 if cache.prefix is None else cache.prefix.length
        positions = torch.cat([torch.arange(before, before + len(row)) for row in rows])
        return self.model(tokens, positions, cache.prefill(reserve))

    def _lengths(self, requests: Sequence[Request]) -> Tensor:
        """Places that each prompt takes (B,), an adapter's before it counted."""
        return torch.tensor([self.adapter_tokens(request.adapter) + request.length for request in requests])

    def _prefix(self, request: Request) -> Prefix | None:
        """The keys and values of what stands before the request's own tokens, kept from the last time if they are
        there: the adapter's vectors, then its prefix."""
        before = self.adapter_tokens(request.adapter)
        length = before + len(request.prefix)
        if not length:
            return None
        key = (request.adapter, request.prefix)
        if key not in self._prefixes:
            cache = Cache(self._layers, [length])
            stream = self.model.embed(torch.tensor(request.prefix, dtype=torch.long))
            if before:
                assert self._soft_prompt is not None
                stream = torch.cat((self._soft_prompt.to(stream.dtype), stream))
            self.model(None, torch.arange(length), cache.prefill(), embeddings=stream)
            self._prefixes[key] = cache.as_prefix()
        self._prefixes.move_to_end(key)
        while len(self._prefixes) > KEPT_PREFIXES:
            self._prefixes.popitem(last=False)
        return self._prefixes[key]

    def _logits(self, hidden: Tensor) -> Iterator[Tensor]:
        """Float32 logits of hidden (N, C), HEAD_ROWS rows at a time."""
        for part in hidden.split(HEAD_ROWS):
            yield self.model.head(part).float()

    def _running(self, adapter: str | None) -> AbstractContextManager[Any]:
        """The model as a request asks for it: with its adapter, or with the adapter truly off."""
        if adapter == self.adapter:
            return nullcontext()
        if adapter is not None:
            raise RiyazError(f"adapter {adapter!r} is not loaded", hint=f"loaded: {self.adapter or 'none'}")
        from riyaz.layers.lora import enabled

        return enabled(self.model, False)


def _batches(requests: Sequence[Request], extra: Sequence[int]) -> Iterator[list[int]]:
    """Indices of requests that run together: same adapter, prefix and closed set, similar lengths, longest
    first; `extra` are the slots each needs beyond its prompt."""
    groups: dict[Any, list[int]] = {}
    for i, request in enumerate(requests):
        assert request.tokens, "a request has at least one token of its own"
        groups.setdefault((request.adapter, request.prefix, id(request.constraint)), []).append(i)
    for group in groups.values():
        length = {i: len(requests[i].tokens) + extra[i] for i in group}
        batch: list[int] = []
        for i in sorted(group, key=length.__getitem__, reverse=True):
            longest = length[batch[0]] if batch else 0
            full = len(batch) == BATCH_ROWS or longest * (len(batch) + 1) > BATCH_TOKENS
            if batch and (full or longest > 1.5 * length[i] + 16):
                yield batch
                batch = []
            batch.append(i)
        yield batch


def _additive(mask: np.ndarray | Tensor) -> Tensor:
    """0 where the mask is true, -inf elsewhere."""
    mask = torch.as_tensor(mask)
    return torch.zeros(mask.shape).masked_fill_(~mask, -torch.inf)


def _tell(progress: Progress | None, batch: Sequence[int]) -> None:
    if progress is not None:
        progress(len(batch))
