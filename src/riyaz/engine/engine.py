"""The engine: Requests in, tokens and log-probabilities out, over any Runner.

    engine = open_engine(open_source("smollm2-135m"))
    engine.generate([Request(0, tokens, limit=16, stop=tokenizer.eos_ids)])

Requests with several adapters, prefixes and lengths run together; prefixes are read once and kept.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from riyaz.adapters import Adapter
from riyaz.engine.request import Request
from riyaz.engine.runner import Best, Named, Run, Runner, Top, Whole
from riyaz.engine.sampling import draw
from riyaz.engine.scheduler import ROWS, SLOTS, Answer, Scheduler
from riyaz.engine.search import MANY, Search
from riyaz.engine.trie import Trie
from riyaz.errors import RiyazError

PREFIX_TOKENS = 4096  # of the prefixes that are kept: 95 MB of keys and values for SmolLM2-135M in bf16
WINDOW = 32  # requests whose distributions are made at once

Progress = Callable[[int], None]  # how many more requests are done


@dataclass(frozen=True)
class Step:
    """What one step did for a request: its new token (None: it ended before a stop token), and whether it is done."""

    ticket: int
    token: int | None
    done: bool


class Engine:
    """Answers and log-probabilities of one model with any number of adapters."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.context = runner.context
        self._scheduler = Scheduler()
        self._tickets = 0
        self._prefixes: OrderedDict[tuple[str | None, tuple[int, ...]], int] = OrderedDict()

    def load(self, name: str, adapter: Adapter) -> None:
        """Make an adapter ready: requests ask for it by this name. Raises RiyazError when it does not fit, or when the
        name is taken."""
        self.runner.load(name, adapter)

    def unload(self, name: str) -> None:
        """Forget an adapter. Raises RiyazError when it is not loaded, or when a request that waits or runs uses it."""
        self.adapter_tokens(name)
        everything = [*self._scheduler.waiting, *self._scheduler.running]
        if any(answer.request.adapter == name for answer in everything):
            raise RiyazError(f"adapter {name!r} is in use by a request", hint="cancel it, or wait for its end")
        for key in [key for key in self._prefixes if key[0] == name]:
            self.runner.close(self._prefixes.pop(key))
        self.runner.unload(name)

    def adapter_tokens(self, adapter: str | None) -> int:
        """Places of the context that the adapter's soft prompt takes before every prompt."""
        return self.runner.adapter_tokens(adapter)

    def add(self, request: Request) -> int:
        """Let a request wait for its turn; the ticket under which `step` tells of it. Raises RiyazError when prompt and
        answer do not fit the context."""
        return self._begin(request).ticket

    def step(self) -> list[Step]:
        """One pass: reads the prompts of requests whose turn it is and makes one token for every running one. Empty
        when nothing runs or waits."""
        self._scheduler.admit()
        answers = self._scheduler.running
        try:
            results = self.runner.forward([self._run(answer) for answer in answers]) if answers else []
            return [self._take(answer, result) for answer, result in zip(answers, results)]
        except BaseException:  # a sequence may hold part of what was read: the next step reads all of it anew
            for answer in answers:
                self._close(answer)
            raise
        finally:
            self._end([answer for answer in answers if answer.done])

    def cancel(self, ticket: int) -> None:
        """Give up a request, waiting or running; one that is done already is left alone."""
        everything = [*self._scheduler.waiting, *self._scheduler.running]
        self._end([answer for answer in everything if answer.ticket == ticket])

    def stream(self, request: Request) -> Iterator[int]:
        """The answer to one request, token by token as they come."""
        answer, given = self._begin(request), 0
        try:
            while not answer.done or given < len(answer.tokens):
                if given == len(answer.tokens):
                    self.step()
                else:
                    given += 1
                    yield answer.tokens[given - 1]
        finally:
            self._end([answer])

    def generate(self, requests: Sequence[Request], progress: Progress | None = None) -> list[list[int]]:
        """The answer to each request, without its stop token. Raises RiyazError, before anything is read, when a prompt
        and its answer do not fit the context."""
        for request in requests:
            self._check(request)
        longest_first = sorted(range(len(requests)), key=lambda i: -(len(requests[i].tokens) + requests[i].limit))
        answers = {i: self._begin(requests[i]) for i in longest_first}
        left = set(answers)
        try:
            while left:
                self.step()
                done = {i for i in left if answers[i].done}
                left -= done
                if progress is not None and done:
                    progress(len(done))
        finally:
            self._end([answers[i] for i in left])
        return [answers[i].tokens for i in range(len(requests))]

    def logprobs(
        self, requests: Sequence[Request], continuations: Sequence[Sequence[int]], progress: Progress | None = None
    ) -> list[np.ndarray]:
        """Log-probability of every token of each continuation: one (n_i,) float32 array a request."""
        log_p: list[np.ndarray] = [np.zeros(0, np.float32)] * len(requests)
        for batch in _batches(requests, [len(more) for more in continuations]):
            wants = [Named(_rows(requests[i], continuations[i]), np.array(continuations[i])) for i in batch]
            rows = self._read([requests[i] for i in batch], [continuations[i] for i in batch], wants)
            for i, row in zip(batch, rows):
                log_p[i] = row
            if progress is not None:
                progress(len(batch))
        return log_p

    def distributions(
        self, requests: Sequence[Request], continuations: Sequence[Sequence[int]]
    ) -> Iterator[np.ndarray]:
        """Log-softmax over the vocabulary at every token of each continuation, in order of the requests:
        (n_i, V) float32 arrays, made a few at a time."""
        for start in range(0, len(requests), WINDOW):
            window, more = requests[start : start + WINDOW], continuations[start : start + WINDOW]
            log_p: dict[int, np.ndarray] = {}
            for batch in _batches(window, [len(c) for c in more]):
                wants = [Whole(_rows(window[i], more[i])) for i in batch]
                log_p |= zip(batch, self._read([window[i] for i in batch], [more[i] for i in batch], wants))
            yield from (log_p[i] for i in range(len(window)))

    def next_tokens(self, tokens: Sequence[int], count: int, adapter: str | None = None) -> list[tuple[int, float]]:
        """The `count` likeliest tokens after `tokens`, which begin where the context begins, and their
        log-probabilities, likeliest first."""
        request = Request(0, tuple(tokens), adapter=adapter)
        ((likeliest, log_probabilities),) = self._read([request], [(0,)], [Top(count)])
        return list(zip(likeliest.tolist(), log_probabilities.tolist()))

    def choose(self, requests: Sequence[Request], progress: Progress | None = None) -> np.ndarray:
        """Log-probability (R, L) of every answer of each request's closed set, which all share; exact."""
        return np.stack([scores for scores, _ in self._search(requests, None, progress)])

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
        answers = [best for _, best in self._search(requests, offsets, progress)]
        return [[best[m] for best in answers] for m in range(len(offsets))]

    def _check(self, request: Request) -> None:
        assert request.tokens, "a request has at least one token of its own"
        places = self.adapter_tokens(request.adapter) + request.length + request.limit
        if places > self.context:
            raise RiyazError(f"prompt and answer take {places} tokens of a context of {self.context}")

    def _begin(self, request: Request) -> Answer:
        self._check(request)
        self._tickets += 1
        answer = Answer(request, self._tickets, done=request.limit < 1)
        if not answer.done:
            self._scheduler.add(answer)
        return answer

    def _run(self, answer: Answer) -> Run:
        """What a running request reads in this step: its last token, or all of its tokens in a new sequence."""
        tokens: Sequence[int] = answer.tokens[-1:]
        if answer.sequence is None:
            answer.sequence = self._open(answer.request, answer.request.limit)
            tokens = (*answer.request.tokens, *answer.tokens)
        sampling = answer.request.sampling
        drawn_from = Top(sampling.top_k or self.runner.vocab_size)
        return Run(answer.sequence, tokens, drawn_from if sampling.temperature > 0 else Best())

    def _take(self, answer: Answer, result: Any) -> Step:
        """Draw the next token of a running request from what the runner found."""
        request = answer.request
        if request.sampling.temperature > 0:
            tokens, log_probabilities = result
            token = draw(tokens, log_probabilities, request.sampling, request.id, len(answer.tokens))
        else:
            token = result
        if token in request.stop:
            answer.done = True
            return Step(answer.ticket, None, True)
        answer.tokens.append(token)
        answer.done = len(answer.tokens) == request.limit
        return Step(answer.ticket, token, answer.done)

    def _end(self, answers: Sequence[Answer]) -> None:
        """Close the sequences of requests that are done or given up."""
        for answer in answers:
            answer.done = True
            self._close(answer)
        if answers:
            self._scheduler.drop(answers)

    def _close(self, answer: Answer) -> None:
        if answer.sequence is not None:
            self.runner.close(answer.sequence)
            answer.sequence = None

    def _open(self, request: Request, room: int = 0) -> int:
        """A sequence that begins with the request's adapter and prefix; its own tokens are yet to be read."""
        prefix = None
        if request.prefix or self.adapter_tokens(request.adapter):
            prefix = self._prefix(request.adapter, request.prefix)
        return self.runner.open(request.adapter, prefix, room)

    def _prefix(self, adapter: str | None, tokens: tuple[int, ...]) -> int:
        """The sequence of a prefix, kept from the last time if it is there."""
        key = adapter, tokens
        if key not in self._prefixes:
            sequence = self.runner.open(adapter)
            try:
                self.runner.forward([Run(sequence, tokens)])
            except BaseException:
                self.runner.close(sequence)
                raise
            self._prefixes[key] = sequence
        self._prefixes.move_to_end(key)
        while len(self._prefixes) > 1 and sum(map(self.runner.length, self._prefixes.values())) > PREFIX_TOKENS:
            self.runner.close(self._prefixes.popitem(last=False)[1])
        return self._prefixes[key]

    def _read(
        self, requests: Sequence[Request], continuations: Sequence[Sequence[int]], wants: Sequence[Named | Top | Whole]
    ) -> list[Any]:
        """What is wanted of prompts and the continuations behind them, read in one pass."""
        runs: list[Run] = []
        try:
            for request, more, want in zip(requests, continuations, wants):
                runs.append(Run(self._open(request), (*request.tokens, *more[:-1]), want, keep=False))
            return self.runner.forward(runs)
        finally:
            for run in runs:
                self.runner.close(run.sequence)

    def _search(
        self, requests: Sequence[Request], offsets: np.ndarray | None, progress: Progress | None
    ) -> list[tuple[np.ndarray, list[tuple[int, float]]]]:
        """Scores (L,) and best answers of every request, by `Search` over its trie."""
        answers: list[Any] = [None] * len(requests)
        tries = [request.constraint for request in requests]
        inner = [len(trie.inner) if trie and offsets is None else MANY for trie in tries]
        for batch in _batches(requests, inner):
            trie = tries[batch[0]]
            assert trie is not None, "a closed set is searched in requests with a constraint"
            search = Search(trie, len(batch), offsets)
            self._walk([requests[i] for i in batch], search)
            for i, scores, best in zip(batch, search.scores(), search.best()):
                answers[i] = (scores, best)
            if progress is not None:
                progress(len(batch))
        return answers

    def _walk(self, requests: Sequence[Request], search: Search) -> None:
        """Read the prompts, then the nodes that the search asks for, each in a fork of its parent's sequence."""
        trie = search.trie
        start = [self.adapter_tokens(request.adapter) + request.length for request in requests]
        at = {(row, 0): self._open(request) for row, request in enumerate(requests)}  # (row, node) -> its sequence
        try:
            work = [(row, 0, request.tokens) for row, request in enumerate(requests)]
            while work:
                runs = [Run(at[row, node], tokens, _children(trie, node, len(tokens))) for row, node, tokens in work]
                for (row, node, _), log_probabilities in zip(work, self.runner.forward(runs)):
                    search.learn(row, node, log_probabilities)
                work = [
                    (row, node, (int(trie.token[node]),)) for row, node in zip(*map(np.ndarray.tolist, search.next()))
                ]
                for row, node, _ in work:
                    parent = int(trie.parent[node])
                    at[row, node] = self.runner.fork(at[row, parent], start[row] + int(trie.depth[parent]))
        finally:
            for sequence in at.values():
                self.runner.close(sequence)


def _rows(request: Request, continuation: Sequence[int]) -> np.ndarray:
    """The places in prompt and continuation from which each token of the continuation is predicted."""
    first = len(request.tokens) - 1
    return np.arange(first, first + len(continuation))


def _children(trie: Trie, node: int, count: int) -> Named:
    """The children of a node, which is the last of a run of `count` tokens."""
    children = trie.below(node)
    return Named(np.full(len(children), count - 1), trie.token[children])


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
            full = len(batch) == ROWS or longest * (len(batch) + 1) > SLOTS
            if batch and (full or longest > 1.5 * length[i] + 16):
                yield batch
                batch = []
            batch.append(i)
        yield batch
