"""The engine over any Runner: Requests in, tokens and log-probabilities out.

    engine = open_engine(open_source("smollm2-135m"))
    engine.generate([Request(0, tokens, limit=16, stop=tokenizer.eos_ids)])

Requests with different adapters, prefixes and lengths run in one batch; a prefix is computed once and kept.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from riyaz.adapters import Adapter
from riyaz.config import Lookup
from riyaz.engine.choice import choose, prompt_scores, prompt_want, rows_before, want
from riyaz.engine.drafts import Drafts, is_drafted, undrafted
from riyaz.engine.forks import ForkScores, Stem, read_forks
from riyaz.engine.parts import Steps, batches, finished, in_parts
from riyaz.engine.prefixes import Prefixes, pieces
from riyaz.engine.request import Request, Scored
from riyaz.engine.runner import Best, CacheFull, Each, Every, Hidden, Named, Runner, TokenRun, Top, Whole
from riyaz.engine.scheduler import Answer, Scheduler
from riyaz.engine.search import MANY, Search
from riyaz.engine.trie import Trie
from riyaz.engine.walk import read_prompts, walk
from riyaz.errors import RiyazError
from riyaz.hardware import MB

WINDOW = 32  # requests whose distributions are computed together
ECHOED = 256  # tokens of a prompt whose distributions are computed together

Progress = Callable[[int], None]  # called with the number of requests that were just finished


@dataclass(frozen=True)
class Step:
    """The result of one step for a request: its new token (None at a stop token, and where none was asked for), and
    whether it is done; where they are asked for, the token Scored, a stop token too, and with it the prompt's. `cached`
    of the prompt's tokens were read by earlier requests; an `error` ends this request alone."""

    ticket: int
    token: int | None
    done: bool
    scored: Scored | None = None
    prompt: tuple[Scored, ...] = ()
    cached: int = 0
    error: Exception | None = None


class Engine:
    """Answers and log-probabilities from one model with any number of adapters."""

    def __init__(self, runner: Runner, served: str = "", lookup: Lookup = "auto") -> None:
        self.runner, self.served = runner, served  # how its weights are served, in words
        self.context = runner.context
        self._scheduler = Scheduler()
        self._tickets = 0
        self._prefixes = Prefixes(runner)
        self.drafts = Drafts(lookup, runner.drafts_pay)
        self._piece = 0  # most tokens of prompts that a step reads; 0: whole prompts

    def read_in_pieces(self, tokens: int, keep_bytes: int = 0) -> None:
        """From now on a step reads at most so many tokens of prompts, or one piece, so that running answers do not wait
        for a long prompt; and as many requests run together as fit the memory. Where a prompt is cut depends on its
        length alone. Keys and values of prompts are kept up to `keep_bytes`, for prompts that begin alike."""
        self._piece, self._scheduler.slots, self._prefixes.keep_bytes = tokens, np.inf, keep_bytes

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
        """One pass of the model: starts waiting requests and generates one token for every running one, and more where
        a draft was right, each a Step of its own. Returns an empty list when no request runs or waits, and may do so
        while prompts are read, or again what was read before a request had to wait."""
        self._scheduler.admit(self._fit)
        answers = self._scheduler.running
        try:
            failed, runs = self._runs(list(answers))
            return failed + [step for each in self._forward(self.drafts.add(runs)) for step in self._results(*each)]
        except BaseException:  # the sequences may be incomplete: the next step computes them from the start
            for answer in answers:
                self._close(answer)
            raise
        finally:
            self._end([answer for answer in answers if answer.done])

    def room(self, request: Request) -> int:
        """Most tokens that an answer to this request may have: as many as fit the context and, alone, the memory."""
        places = self.context - self.adapter_tokens(request.adapter) - request.length
        own = len(request.tokens)
        if self._prefixes.bytes_of([(request, own + places)]) <= self.runner.cache_limit:
            return places
        fits = lambda tokens: self._prefixes.bytes_of([(request, own + tokens)]) <= self.runner.cache_limit  # noqa: E731
        return bisect_left(range(places), True, key=lambda tokens: not fits(tokens + 1))

    @property
    def running(self) -> list[int]:
        """The tickets of the requests that run; the others wait."""
        return [answer.ticket for answer in self._scheduler.running]

    @property
    def cached_bytes(self) -> int:
        """Bytes of keys and values for which room is kept: of the requests that run and of their prefixes."""
        return self._prefixes.bytes_of([(answer.request, answer.reserved) for answer in self._scheduler.running])

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
                    _expect_answered(answer)
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
                for i in done:
                    _expect_answered(answers[i])
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
        for batch in batches(requests, [len(tokens) for tokens in continuations]):
            wants = {i: Named(rows_before(requests[i], continuations[i]), np.array(continuations[i])) for i in batch}
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
            for batch in batches(window, [len(tokens) for tokens in answers]):
                wants = {i: Whole(rows_before(window[i], answers[i])) for i in batch}
                log_p |= zip(batch, self._read(batch, window, answers, wants))
            yield from (log_p[i] for i in range(len(window)))

    def scored(self, request: Request, continuation: Sequence[int], top: int) -> list[Scored]:
        """Every token of a continuation with its log-probability, and the `top` likeliest in its place."""
        (rows,) = self._read([0], [request], [continuation], {0: Whole(rows_before(request, continuation))})
        return list(prompt_scores(rows, continuation, top))

    def next_tokens(self, tokens: Sequence[int], count: int, adapter: str | None = None) -> list[tuple[int, float]]:
        """The `count` likeliest tokens after the prompt `tokens`, with their log-probabilities, likeliest first."""
        request = Request(0, tuple(tokens), adapter=adapter)
        ((likeliest, log_probabilities),) = self._read([0], [request], [(0,)], {0: Top(count)})
        return list(zip(likeliest.tolist(), log_probabilities.tolist()))

    def choose(self, requests: Sequence[Request], progress: Progress | None = None) -> np.ndarray:
        """Exact log-probability (R, L) of every answer of the closed set, which all requests must share."""
        return finished(self.choosing(requests, progress))

    def choosing(self, requests: Sequence[Request], progress: Progress | None = None) -> Steps[np.ndarray]:
        """`choose` in parts."""
        results = yield from self._search(requests, None, progress)
        return np.stack([scores for scores, _ in results])

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
        return finished(self.finding(requests, offsets, progress))

    def wins(
        self, requests: Sequence[Request], accepted: np.ndarray, offsets: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Whether one of a request's answers `accepted` (R, L) is its `best` with each row of `offsets` (M, L): (M, R),
        exact, and with few accepted answers reading fewer nodes than `best_each`, as it need not know which of the
        others is the best. And the log-probabilities (R, L) of the answers that were read, as the accepted ones always
        are; NaN of others."""
        results = finished(self._search(requests, offsets, None, accepted))
        won = [[rows[best[m][0]] for (_, best), rows in zip(results, accepted)] for m in range(len(offsets))]
        return np.array(won), np.stack([scores for scores, _ in results])

    def finding(
        self, requests: Sequence[Request], offsets: np.ndarray, progress: Progress | None = None
    ) -> Steps[list[list[tuple[int, float]]]]:
        """`best_each` in parts."""
        results = yield from self._search(requests, offsets, progress)
        return [[best[m] for _, best in results] for m in range(len(offsets))]

    def hidden_states(self, requests: Sequence[Request], progress: Progress | None = None) -> Steps[np.ndarray]:
        """The hidden state after each prompt, behind the final norm: (R, C) float32, of at least one request, in
        parts."""
        states: list[Any] = [None] * len(requests)

        def read(batch: list[int]) -> Steps[list[Any]]:
            return read_prompts(self._prefixes, [requests[i] for i in batch], Hidden(), self._piece)

        for batch in batches(requests, [0] * len(requests)):
            rows = yield from in_parts(batch, read)
            for i, row in zip(batch, rows):
                states[i] = row
            if progress is not None:
                progress(len(batch))
        return np.stack(states)

    def forking(self, stems: Sequence[Stem]) -> Steps[list[ForkScores]]:
        """The log-probabilities of all endings of the forks behind each stem, in parts. Raises CacheFull."""
        return read_forks(self._prefixes, stems, self._piece)

    def estimating(
        self, requests: Sequence[Request], offsets: np.ndarray, within: float, progress: Progress | None = None
    ) -> Steps[np.ndarray]:
        """Log-probability (R, L) of every answer, in parts: exact where with `offsets` (L,) it is among the two highest
        or at most `within` nats below the highest, else an estimate by its first tokens, `Search.estimates`."""
        results = yield from self._search(requests, offsets[None], progress, within=within)
        return np.stack([scores for scores, _ in results])

    def _check(self, request: Request) -> None:
        assert request.tokens, "a request has at least one token of its own"
        assert request.echo is None or not request.prefix, "a prompt whose tokens are wanted is read whole"
        places = self.adapter_tokens(request.adapter) + request.length + request.limit
        if places > self.context:
            raise RiyazError(f"prompt and answer take {places} tokens of a context of {self.context}")
        need, limit = self._prefixes.bytes_of([(request, len(request.tokens) + request.limit)]), self.runner.cache_limit
        if need > limit:
            figures = f"{need / MB:,.1f} MB of keys and values, and {limit / MB:,.1f} MB of memory may hold them"
            raise CacheFull(f"a prompt and answer of {places:,} tokens need {figures}")

    def _fit(self, answers: Sequence[Answer]) -> bool:
        """Whether keys and values of these requests, as far as room is kept for them, fit the memory together."""
        wanted = [(answer.request, answer.reserved) for answer in answers]
        return self._prefixes.bytes_of(wanted) <= self.runner.cache_limit

    def _begin(self, request: Request) -> Answer:
        self._check(request)
        self._tickets += 1
        parse = request.grammar.start() if request.grammar else None
        answer = Answer(request, self._tickets, done=request.limit < 1 and request.echo is None, parse=parse)
        if not answer.done:
            self._scheduler.add(answer)
        return answer

    def _runs(self, answers: Sequence[Answer]) -> tuple[list[Step], list[tuple[Answer, TokenRun]]]:
        """The runs of a step: the last token of each answer, and pieces of prompts as many as there is room for; and
        the ends of requests whose prefix finds no room."""
        failed: list[Step] = []
        runs, read = [], 0
        for answer in answers:
            if answer.sequence is None:
                try:
                    if not self._opens(answer):
                        break  # its prefix is long: others are read when it is
                except CacheFull as error:
                    if len(answers) == 1:
                        failed.append(_failure(answer, error))
                    else:
                        self._scheduler.put_back(answer)
                    break
            assert answer.sequence is not None
            if not answer.unread:
                runs.append((answer, TokenRun(answer.sequence, answer.tokens[-1:], self._want(answer))))
            elif not (read and self._piece and read + len(answer.unread[0]) > self._piece):
                piece = answer.unread.pop(0)
                read += len(piece)
                runs.append((answer, self._reading(answer, piece)))
        return failed, runs

    def _opens(self, answer: Answer) -> bool:
        """Open the sequence of a request, if its prefix is read; else read the next piece of that. Raises CacheFull."""
        request = answer.request
        if not answer.begun:
            answer.begun, answer.cached = True, len(request.prefix) if self._prefixes.keeps(request) else 0
        if not self._prefixes.read_on(request, self._piece):
            return False
        echoed = request.echo is not None
        answer.sequence, read = self._prefixes.open(request, () if echoed else request.tokens, request.limit)
        answer.cached += 0 if answer.tokens else read
        answer.prompt.clear()
        answer.unread = pieces(request.tokens[read:], self._piece or (ECHOED if echoed else 0), answer.tokens)
        return True

    def _forward(self, runs: list[tuple[Answer, TokenRun]]) -> Iterator[tuple[Answer, TokenRun, Any]]:
        """Each run with its result, or the error that it has alone. Where keys and values find no room, the latest
        request waits again."""
        while runs:
            try:
                with self.drafts.timed(runs):
                    results = self._prefixes.forward([run for _, run in runs])
            except CacheFull as error:
                if is_drafted(runs):
                    runs = undrafted(runs)
                    continue
                latest = max(self._scheduler.running, key=lambda answer: answer.ticket)
                if len(self._scheduler.running) == 1:
                    yield (*runs[0], error)
                    return
                self._close(latest)
                self._scheduler.put_back(latest)
                runs = [each for each in runs if each[0] is not latest]
            except RiyazError as error:  # of one of them
                if is_drafted(runs):
                    runs = undrafted(runs)
                    continue
                if len(runs) == 1:
                    yield (*runs[0], error)
                    return
                for each in runs:
                    yield from self._forward([each])
                return
            else:
                yield from ((*each, result) for each, result in zip(runs, results))
                return

    def _reading(self, answer: Answer, piece: tuple[int, ...]) -> TokenRun:
        """The run of a piece of a prompt; after the last one the answer begins."""
        assert answer.sequence is not None
        if answer.scores_prompt:
            return TokenRun(answer.sequence, piece, prompt_want(len(piece)))
        return TokenRun(answer.sequence, piece, None if answer.unread else self._want(answer))

    def _want(self, answer: Answer) -> Best | Top | Every:
        return want(answer.request, answer.tokens)

    def _results(self, answer: Answer, run: TokenRun, result: Any) -> Iterator[Step]:
        """What a step has for a request: its tokens, as many as were right of a draft and one more, or the end of a
        request that fails alone."""
        if isinstance(result, Exception):
            yield _failure(answer, result)
            return
        before = len(answer.tokens)
        try:
            for draft, each in zip((*run.tokens[1:], None), result) if isinstance(run.want, Each) else [(None, result)]:
                step = self._take(answer, run, each)
                if step is not None:
                    yield step
                if step is None or step.done or step.token != draft:
                    break
        except Exception as error:  # its grammar can go no further
            yield _failure(answer, error)
        self.drafts.took(answer, run, answer.tokens[before:])
        if isinstance(run.want, Each) and not answer.done:
            assert answer.sequence is not None
            read = self.adapter_tokens(answer.request.adapter) + answer.request.length + len(answer.tokens) - 1
            self.runner.truncate(answer.sequence, read)

    def _take(self, answer: Answer, run: TokenRun, result: Any) -> Step | None:
        """Append the next token to a running request; None while its prompt is read."""
        request = answer.request
        if not answer.tokens and not answer.unread and self._prefixes.keep_bytes:
            assert answer.sequence is not None
            self._prefixes.keep(request, answer.sequence)
        if isinstance(run.want, Whole):
            result = self._echoed(answer, run, result)
        if answer.unread:
            return None
        prompt = tuple(answer.prompt)
        answer.prompt.clear()
        if not request.limit:
            answer.done = True
            return Step(answer.ticket, None, True, prompt=prompt, cached=answer.cached)
        token, scored = choose(request, answer.tokens, result, answer.parse)
        if token in request.stop:
            answer.done = True
            return Step(answer.ticket, None, True, scored, prompt, answer.cached)
        answer.tokens.append(token)
        answer.done = len(answer.tokens) == request.limit
        return Step(answer.ticket, token, answer.done, scored, prompt, answer.cached)

    def _echoed(self, answer: Answer, run: TokenRun, rows: np.ndarray) -> np.ndarray:
        """Keep the prompt's tokens that a piece predicts, and return the distribution (V,) after it."""
        assert answer.request.echo is not None
        following = (*run.tokens[1:], *(answer.unread[0][:1] if answer.unread else ()))
        answer.prompt += prompt_scores(rows, following, answer.request.echo)
        last: np.ndarray = rows[-1]
        return last

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

        def read(batch: list[int]) -> Steps[list[Any]]:
            runs: list[TokenRun] = []
            try:
                for i in batch:
                    tokens = (*requests[i].tokens, *continuations[i][:-1])
                    runs.append(TokenRun(self._prefixes.open(requests[i])[0], tokens, wants[i], keep=False))
                return self._prefixes.forward(runs)
            finally:
                for run in runs:
                    self._prefixes.close(run.sequence)
            yield

        return finished(in_parts(batch, read))

    def _search(
        self, requests: Sequence[Request], offsets: np.ndarray | None, progress: Progress | None,
        accepted: np.ndarray | None = None, within: float | None = None,
    ) -> Steps[list[tuple[np.ndarray, list[tuple[int, float]]]]]:  # fmt: skip
        """Scores (L,) and best answers of every request, from `Search` over its trie."""
        answers: list[Any] = [None] * len(requests)
        tries = [request.constraint for request in requests]
        inner = [len(trie.inner) if trie and offsets is None else MANY for trie in tries]
        for batch in batches(requests, inner):
            trie = tries[batch[0]]
            assert trie is not None, "a request without a constraint has no closed set to search"

            def read(batch: list[int], trie: Trie = trie) -> Steps[list[Any]]:
                search = Search(trie, len(batch), offsets, None if accepted is None else accepted[batch], within)
                yield from walk(self._prefixes, [requests[i] for i in batch], search, self._piece)
                return list(zip(search.scores() if within is None else search.estimates(), search.best()))

            results = yield from in_parts(batch, read)
            for i, answer in zip(batch, results):
                answers[i] = answer
            if progress is not None:
                progress(len(batch))
        return answers


def _failure(answer: Answer, error: Exception) -> Step:
    """The end of a request that fails alone."""
    answer.done, answer.error = True, error
    return Step(answer.ticket, None, True, error=error)


def _expect_answered(answer: Answer) -> None:
    if answer.error is not None:
        raise answer.error
