"""Choosing a request's next token: what the runner is asked for, and the token that its result gives."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from riyaz.engine.grammar import Parse
from riyaz.engine.request import Added, Request, Scored
from riyaz.engine.runner import Best, Every, Top, Want, Whole
from riyaz.engine.sampling import draw, falling, likeliest

TRIED = 8  # likeliest tokens that are asked for one by one whether they fit a grammar, before all are


def want(request: Request, answer: Sequence[int], vocab_size: int) -> Best | Top | Every:
    """What the next token after `answer` is chosen from."""
    sampling = request.sampling
    changed = request.added is not None or request.grammar is not None
    whole = changed or sampling.temperature > 0
    count = sampling.top_k if sampling.top_k and not changed else vocab_size
    count = max(count if whole else 1, request.top or 0)
    if sampling.repetition_penalty == 1:
        if request.grammar is not None and _takes_likeliest(request):
            return Every()
        return Best() if not whole and request.top is None else Top(count)
    seen = {*request.prefix, *request.tokens, *answer} - request.stop
    return Top(count, tuple(sorted(seen)), sampling.repetition_penalty)


def choose(
    request: Request, answer: Sequence[int], result: Any, parse: Parse | None = None
) -> tuple[int, Scored | None]:
    """The next token after `answer`, from what the runner gave for `want`; and its probability, where asked for.
    `parse` is where the answer stands in the request's grammar. Raises Unfollowable."""
    if isinstance(result, int):
        return result, None
    if isinstance(result, np.ndarray):
        assert parse is not None
        token = _likeliest_fitting(result, parse)
        parse.accept(token)
        return token, None
    tokens, log_p = result
    sampling = request.sampling
    order, adjusted = np.arange(len(tokens)), log_p
    if request.added is not None:
        adjusted = adjusted + _additions(request.added, answer, len(tokens))[tokens]
        order = falling(adjusted.astype(np.float32))
    if parse is not None:
        order = order[parse.allowed()[tokens[order]]]
    if sampling.temperature > 0:
        token = draw(tokens[order], adjusted[order], sampling, request.id, len(answer))
    else:
        token = int(tokens[order[0]])
    if parse is not None:
        parse.accept(token)
    return token, None if request.top is None else _scored(token, tokens, log_p, request.top)


def _takes_likeliest(request: Request) -> bool:
    """Whether the likeliest token that fits is the next one, and nothing else is asked for."""
    return request.sampling.temperature == 0 and request.added is None and request.top is None


def _likeliest_fitting(log_p: np.ndarray, parse: Parse) -> int:
    """The likeliest token (V,) that fits, then the lower one; overwrites `log_p`. The likeliest of all mostly fits."""
    for _ in range(TRIED):
        token = int(log_p.argmax())
        if parse.fits(token):
            return token
        log_p[token] = -np.inf
    return int(np.where(parse.allowed(), log_p, -np.inf).argmax())


def prompt_want(length: int) -> Want:
    """What a piece of a prompt is asked for, where the prompt's tokens are wanted."""
    return Whole(np.arange(length))


def prompt_scores(rows: np.ndarray, following: Sequence[int], top: int) -> Iterator[Scored]:
    """The tokens that follow each token of a piece, (R,), by the distributions (R, V) after them."""
    for row, token in zip(rows, following):
        best = likeliest(row, top) if top else ((), ())
        yield Scored(token, float(row[token]), tuple(zip(map(int, best[0]), map(float, best[1]))))


def rows_before(request: Request, continuation: Sequence[int]) -> np.ndarray:
    """Indices of the request's own tokens, and those of a continuation, after which each of the latter is predicted."""
    first = len(request.tokens) - 1
    return np.arange(first, first + len(continuation))


def _additions(added: Added, answer: Sequence[int], vocab_size: int) -> np.ndarray:
    """What is added to the log-probability of each token, (V,)."""
    values = np.zeros(vocab_size)
    for token, value in added.bias:
        if 0 <= token < vocab_size:
            values[token] += value
    for token, count in Counter(answer).items():
        values[token] -= added.frequency_penalty * count + added.presence_penalty
    return values


def _scored(token: int, tokens: np.ndarray, log_p: np.ndarray, top: int) -> Scored:
    """A chosen token among those that were asked for, likeliest first."""
    own = float(log_p[np.flatnonzero(tokens == token)[0]])
    return Scored(token, own, tuple(zip(tokens[:top].tolist(), log_p[:top].tolist())))
