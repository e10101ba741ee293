"""The engine over any Runner: Requests in, tokens and log-probabilities out.

    engine = open_engine(open_source("smollm2-135m"))
    engine.generate([Request(0, tokens, limit=16, stop=tokenizer.eos_ids)])

Requests with different adapters, prefixes and lengths run in one batch; a prefix is computed once and kept.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np

from riyaz.adapters import Adapter
from riyaz.engine.choice import choose, prompt_scores, prompt_want, want
from riyaz.engine.prefixes import Prefixes
from riyaz.engine.request import Request, Scored
from riyaz.engine.runner import Best, CacheFull, Named, Run, Runner, Top, Whole
from riyaz.engine.sampling import likeliest
from riyaz.engine.scheduler import ROWS, SLOTS, Answer, Scheduler
from riyaz.engine.search import MANY, Search
from riyaz.engine.trie import Trie
from riyaz.errors import RiyazError
from riyaz.hardware import MB

WINDOW = 32  # requests whose distributions are computed together
ECHOED = 256  # tokens of a prompt whose distributions are computed together

T = TypeVar("T")
Progress = Callable[[int], None]  # called with the number of requests that were just finished


@dataclass(frozen=True)
class Step:
    """The result of one step for a request: its new token (None at a stop token, and where none was asked for), and
    whether it is done; where they are asked for, the token Scored, a stop token too, and with it the prompt's."""

    ticket: int
    token: int | None
    done: bool
    scored: Scored | None = None
    prompt: tuple[Scored, ...] = ()


class Engine:
    """Answers and log-probabilities from one model with any number of adapters."""

    def __init__(self, runner: Runner, served: str = "") -> None:
        self.runner, self.served = runner, served  # how its weights are served, in words
        self.context = runner.context
        self._scheduler = Scheduler()
        self._tickets = 0
        self._prefixes = Prefixes(runner)
        self._piece = 0  # most tokens of prompts that a step reads; 0: whole prompts

    def read_in_pieces(self, tokens: int) -> None:
        """From now on a step reads at most so many tokens of prompts, or one piece, so that running answers do not wait
        for a long prompt; and as many requests run together as fit the memory. Where a prompt is cut depends on its
        length alone."""
        self._piece, self._scheduler.slots = tokens, np.inf

    def load(self, name: str, adapter: Adapter) -> None:
        """Load an adapter; requests use it by this name. Raises RiyazError when it does not fit the model, or when the
        name is taken."""
        self.runner.load(name, adapter)

    def unload(self, name: str) -> None:
        """Unload an adapter. Raises RiyazError when it is not loaded, or when a waiting or running request uses it."""
        self.adapter_tokens(name)
        everything = [*self._scheduler.waiting, *self._scheduler.running]
        if any(answer.request.adapter == name for answer in everything):
            raise RiyazError(f"adapter {name!r} is in use by a request", hint="cancel it, or wait for its end")
        self._prefixes.drop(name)
        self.runner.unload(name)

    def adapter_tokens(self, adapter: str | None) -> int:
        """Number of positions of the context that the adapter's soft prompt takes before every prompt."""
        return self.runner.adapter_tokens(adapter)

    def add(self, request: Request) -> int:
        """Queue a request and return its ticket, by which `step` reports on it. Raises RiyazError when prompt and
        answer do not fit the context, or their keys and values the memory."""
        return self._begin(request).ticket

    def step(self) -> list[Step]:
        """One pass of the model: starts waiting requests and generates one token for every running one. Returns an
        empty list when no request runs or waits."""
        self._scheduler.admit(self._fit)
        answers = self._scheduler.running
        try:
            runs = self._runs(answers)
            results = self._prefixes.forward([run for _, run in runs]) if runs else []
            steps = [self._take(answer, run, result) for (answer, run), result in zip(runs, results)]
            return [step for step in steps if step is not None]
        except BaseException:  # the sequences may be incomplete: the next step computes them from the start
            for answer in answers:
                self._close(answer)
            raise
        finally:
            self._end([answer for answer in answers if answer.done])

    def keeps(self, request: Request) -> bool:
        """Whether the request's prefix has been read already, by an earlier request."""
        return bool(request.prefix) and self._prefixes.keeps(request)

    @property
    def running(self) -> list[int]:
        """The tickets of the requests that run; the others wait."""
        return [answer.ticket for answer in self._scheduler.running]

    @property
    def cached_bytes(self) -> int:
        """Most bytes of keys and values of the requests that run and of their prefixes."""
        return self._prefixes.bytes_of([answer.request for answer in self._scheduler.running])

    def cancel(self, ticket: int) -> None:
        """Cancel a waiting or running request; no effect on a finished one."""
        everything = [*self._scheduler.waiting, *self._scheduler.running]
        self._end([answer for answer in everything if answer.ticket == ticket])

    def stream(self, request: Request) -> Iterator[int]:
        """The tokens of the answer to one request, while they are generated."""
        answer, yielded = self._begin(request), 0
        try:
            while not answer.done or yielded < len(answer.tokens):
                if yielded == len(answer.tokens):
                    self.step()
                else:
                    yielded += 1
                    yield answer.tokens[yielded - 1]
        finally:
            self._end([answer])

    def generate(self, requests: Sequence[Request], progress: Progress | None = None) -> list[list[int]]:
        """The tokens of the answer to each request, without the stop token. Raises RiyazError before the first step
        when a prompt and its answer do not fit the context or the memory."""
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
        """Log-probability of every token of each continuation: one (n_i,) float32 array per request."""
        log_p: list[np.ndarray] = [np.zeros(0, np.float32)] * len(requests)
        for batch in _batches(requests, [len(tokens) for tokens in continuations]):
            wants = {i: Named(_rows(requests[i], continuations[i]), np.array(continuations[i])) for i in batch}
            for i, row in zip(batch, self._read(batch, requests, continuations, wants)):
                log_p[i] = row
            if progress is not None:
                progress(len(batch))
        return log_p

    def distributions(
        self, requests: Sequence[Request], continuations: Sequence[Sequence[int]]
    ) -> Iterator[np.ndarray]:
        """Log-softmax over the vocabulary at every token of each continuation, in order of the requests: (n_i, V)
        float32 arrays, computed WINDOW requests at a time."""
        for start in range(0, len(requests), WINDOW):
            window, answers = requests[start : start + WINDOW], continuations[start : start + WINDOW]
            log_p: dict[int, np.ndarray] = {}
            for batch in _batches(window, [len(tokens) for tokens in answers]):
                wants = {i: Whole(_rows(window[i], answers[i])) for i in batch}
                log_p |= zip(batch, self._read(batch, window, answers, wants))
            yield from (log_p[i] for i in range(len(window)))

    def scored(self, request: Request, continuation: Sequence[int], top: int) -> list[Scored]:
        """Every token of a continuation with its log-probability, and the `top` likeliest in its place."""
        (rows,) = self._read([0], [request], [continuation], {0: Whole(_rows(request, continuation))})
        return list(prompt_scores(rows, continuation, top))

    def next_tokens(self, tokens: Sequence[int], count: int, adapter: str | None = None) -> list[tuple[int, float]]:
        """The `count` likeliest tokens after the prompt `tokens`, with their log-probabilities, likeliest first."""
        request = Request(0, tuple(tokens), adapter=adapter)
        ((likeliest, log_probabilities),) = self._read([0], [request], [(0,)], {0: Top(count)})
        return list(zip(likeliest.tolist(), log_probabilities.tolist()))

    def choose(self, requests: Sequence[Request], progress: Progress | None = None) -> np.ndarray:
        """Exact log-probability (R, L) of every answer of the closed set, which all requests must share."""
        return np.stack([scores for scores, _ in self._search(requests, None, progress)])

    def best(
        self, requests: Sequence[Request], offsets: np.ndarray, progress: Progress | None = None
    ) -> list[tuple[int, float]]:
        """Per request (index, log-probability) of the answer with the highest log-probability + `offsets` (L,): exact
        as in `choose`, but reading fewer nodes of the trie."""
        return self.best_each(requests, offsets[None], progress)[0]

    def best_each(
        self, requests: Sequence[Request], offsets: np.ndarray, progress: Progress | None = None
    ) -> list[list[tuple[int, float]]]:
        """`best` for each row of `offsets` (M, L), from one search: M lists with one entry per request."""
        answers = [best for _, best in self._search(requests, offsets, progress)]
        return [[best[m] for best in answers] for m in range(len(offsets))]

    def _check(self, request: Request) -> None:
        assert request.tokens, "a request has at least one token of its own"
        assert request.echo is None or not request.prefix, "a prompt whose tokens are wanted is read whole"
        places = self.adapter_tokens(request.adapter) + request.length + request.limit
        if places > self.context:
            raise RiyazError(f"prompt and answer take {places} tokens of a context of {self.context}")
        need, limit = self._prefixes.bytes_of([request]), self.runner.cache_limit
        if need > limit:
            figures = f"{need / MB:,.1f} MB of keys and values, and {limit / MB:,.1f} MB of memory may hold them"
            raise CacheFull(f"a prompt and answer of {places:,} tokens need {figures}")

    def _fit(self, requests: Sequence[Request]) -> bool:
        """Whether keys and values of these requests, up to their limits, fit the memory together."""
        return self._prefixes.bytes_of(requests) <= self.runner.cache_limit

    def _begin(self, request: Request) -> Answer:
        self._check(request)
        self._tickets += 1
        answer = Answer(request, self._tickets, done=request.limit < 1 and request.echo is None)
        if not answer.done:
            self._scheduler.add(answer)
        return answer

    def _runs(self, answers: Sequence[Answer]) -> list[tuple[Answer, Run]]:
        """The runs of a step: the last token of each answer, and pieces of prompts as many as there is room for."""
        runs, read = [], 0
        for answer in answers:
            if answer.sequence is None:
                answer.sequence = self._prefixes.open(answer.request, answer.request.limit)
                answer.prompt.clear()
                answer.unread = self._pieces(answer.request, (*answer.request.tokens, *answer.tokens))
            if not answer.unread:
                runs.append((answer, Run(answer.sequence, answer.tokens[-1:], self._want(answer))))
            elif not (read and self._piece and read + len(answer.unread[0]) > self._piece):
                piece = answer.unread.pop(0)
                read += len(piece)
                runs.append((answer, self._reading(answer, piece)))
        return runs

    def _pieces(self, request: Request, tokens: tuple[int, ...]) -> list[tuple[int, ...]]:
        """A prompt in pieces of nearly equal lengths, so that none is short and computed otherwise than the others."""
        longest = self._piece or (ECHOED if request.echo is not None else 0) or len(tokens)
        count = -(-len(tokens) // longest)
        cuts = [len(tokens) * i // count for i in range(count + 1)]
        return [tokens[start:end] for start, end in pairwise(cuts)]

    def _reading(self, answer: Answer, piece: tuple[int, ...]) -> Run:
        """The run of a piece of a prompt; after the last one the answer begins."""
        assert answer.sequence is not None
        if answer.request.echo is not None:
            return Run(answer.sequence, piece, prompt_want(len(piece)))
        return Run(answer.sequence, piece, None if answer.unread else self._want(answer))

    def _want(self, answer: Answer) -> Best | Top:
        return want(answer.request, answer.tokens, self.runner.vocab_size)

    def _take(self, answer: Answer, run: Run, result: Any) -> Step | None:
        """Append the next token to a running request; None while its prompt is read."""
        request = answer.request
        if isinstance(run.want, Whole):
            result = self._echoed(answer, run, result)
        if answer.unread:
            return None
        prompt = tuple(answer.prompt)
        answer.prompt.clear()
        if not request.limit:
            answer.done = True
            return Step(answer.ticket, None, True, prompt=prompt)
        token, scored = choose(request, answer.tokens, result)
        if token in request.stop:
            answer.done = True
            return Step(answer.ticket, None, True, scored, prompt)
        answer.tokens.append(token)
        answer.done = len(answer.tokens) == request.limit
        return Step(answer.ticket, token, answer.done, scored, prompt)

    def _echoed(self, answer: Answer, run: Run, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Keep the prompt's tokens that a piece predicts, and return the distribution after it as `Top` gives it."""
        assert answer.request.echo is not None
        following = (*run.tokens[1:], *(answer.unread[0][:1] if answer.unread else ()))
        answer.prompt += prompt_scores(rows, following, answer.request.echo)
        return likeliest(rows[-1], self.runner.vocab_size)

    def _end(self, answers: Sequence[Answer]) -> None:
        """Close the sequences of finished or cancelled requests and remove these from the scheduler."""
        for answer in answers:
            answer.done = True
            self._close(answer)
        if answers:
            self._scheduler.drop(answers)

    def _close(self, answer: Answer) -> None:
        if answer.sequence is not None:
            self._prefixes.close(answer.sequence)
            answer.sequence = None
            answer.unread.clear()

    def _read(
        self, batch: list[int], requests: Sequence[Request], continuations: Sequence[Sequence[int]],
        wants: Mapping[int, Named | Top | Whole],
    ) -> list[Any]:  # fmt: skip
        """The wanted results of the prompts of a batch, followed by their continuations, from one pass."""

        def read(batch: list[int]) -> list[Any]:
            runs: list[Run] = []
            try:
                for i in batch:
                    tokens = (*requests[i].tokens, *continuations[i][:-1])
                    runs.append(Run(self._prefixes.open(requests[i]), tokens, wants[i], keep=False))
                return self._prefixes.forward(runs)
            finally:
                for run in runs:
                    self._prefixes.close(run.sequence)

        return _in_parts(batch, read)

    def _search(
        self, requests: Sequence[Request], offsets: np.ndarray | None, progress: Progress | None
    ) -> list[tuple[np.ndarray, list[tuple[int, float]]]]:
        """Scores (L,) and best answers of every request, from `Search` over its trie."""
        answers: list[Any] = [None] * len(requests)
        tries = [request.constraint for request in requests]
        inner = [len(trie.inner) if trie and offsets is None else MANY for trie in tries]
        for batch in _batches(requests, inner):
            trie = tries[batch[0]]
            assert trie is not None, "a request without a constraint has no closed set to search"

            def read(batch: list[int], trie: Trie = trie) -> list[Any]:
                search = Search(trie, len(batch), offsets)
                self._walk([requests[i] for i in batch], search)
                return list(zip(search.scores(), search.best()))

            for i, answer in zip(batch, _in_parts(batch, read)):
                answers[i] = answer
            if progress is not None:
                progress(len(batch))
        return answers

    def _walk(self, requests: Sequence[Request], search: Search) -> None:
        """Read the prompts, then the nodes that the search picks, each in a fork of its parent's sequence."""
        trie = search.trie
        start = [self.adapter_tokens(request.adapter) + request.length for request in requests]
        at: dict[tuple[int, int], int] = {}  # (row, node) -> its sequence
        try:
            for row, request in enumerate(requests):
                at[row, 0] = self._prefixes.open(request)
            work = [(row, 0, request.tokens) for row, request in enumerate(requests)]
            while work:
                runs = [Run(at[row, node], tokens, _children(trie, node, len(tokens))) for row, node, tokens in work]
                for (row, node, _), log_probabilities in zip(work, self._prefixes.forward(runs)):
                    search.learn(row, node, log_probabilities)
                work = [
                    (row, node, (int(trie.token[node]),)) for row, node in zip(*map(np.ndarray.tolist, search.next()))
                ]
                for row, node, _ in work:
                    parent = int(trie.parent[node])
                    at[row, node] = self.runner.fork(at[row, parent], start[row] + int(trie.depth[parent]))
        finally:
            for sequence in at.values():
                self._prefixes.close(sequence)


def _in_parts(batch: list[int], read: Callable[[list[int]], list[T]]) -> list[T]:
    """What `read` gives of a batch; of its halves, one after the other, where the whole does not fit the cache."""
    try:
        return read(batch)
    except CacheFull:
        if len(batch) == 1:
            raise
    half = len(batch) // 2
    return _in_parts(batch[:half], read) + _in_parts(batch[half:], read)


def _rows(request: Request, continuation: Sequence[int]) -> np.ndarray:
    """Indices of the run's tokens after which each token of the continuation is predicted."""
    first = len(request.tokens) - 1
    return np.arange(first, first + len(continuation))


def _children(trie: Trie, node: int, count: int) -> Named:
    """The log-probabilities of a node's children, wanted after the last of a run's `count` tokens."""
    children = trie.below(node)
    return Named(np.full(len(children), count - 1), trie.token[children])


def _batches(requests: Sequence[Request], extra: Sequence[int]) -> Iterator[list[int]]:
    """Batches of indices of requests with the same adapter, prefix and closed set and similar lengths, longest first;
    `extra` is the number of tokens that each needs after its prompt."""
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
