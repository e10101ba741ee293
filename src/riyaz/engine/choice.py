"""Choosing a request's next token: what the runner is asked for, and the token that its result gives."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from riyaz.engine.grammar import Parse
from riyaz.engine.request import Added, Request, Scored
from riyaz.engine.runner import Best, Every, Top, Want, Whole
from riyaz.engine.sampling import draw, likeliest

TRIED = 8  # likeliest tokens that are asked for one by one whether they fit a grammar, before all are


def want(request: Request, answer: Sequence[int]) -> Best | Top | Every:
    """What the next token after `answer` is chosen from."""
    sampling = request.sampling
    seen: tuple[int, ...] = ()
    if sampling.repetition_penalty != 1:
        seen = tuple(sorted({*request.prefix, *request.tokens, *answer} - request.stop))
    if sampling.temperature > 0 or request.added is not None or request.grammar is not None:
        return Every(seen, sampling.repetition_penalty)
    if request.top is None and sampling.repetition_penalty == 1:
        return Best()
    return Top(max(1, request.top or 0), seen, sampling.repetition_penalty)


def choose(
    request: Request, answer: Sequence[int], result: Any, parse: Parse | None = None
) -> tuple[int, Scored | None]:
    """The next token after `answer`, from what the runner returned for `want`; and its probability, where asked for.
    `parse` is where the answer stands in the request's grammar. Raises Unfollowable."""
    if isinstance(result, int):
        return result, None
    if isinstance(result, tuple):  # the likeliest come first
        tokens, values = result
        token, own = int(tokens[0]), float(values[0])
        return token, None if request.top is None else _scored(token, own, tokens[: request.top], values)
    log_p: np.ndarray = result  # (V,)
    added = 0 if request.added is None else _additions(request.added, answer, len(log_p))
    changed = (log_p + added).astype(np.float32)
    if request.sampling.temperature > 0:
        if parse is not None:
            changed[~parse.allowed()] = -np.inf
        token = draw(changed, request.sampling, request.id, len(answer))
    else:
        token = int(changed.argmax()) if parse is None else _likeliest_fitting(changed, parse)
    if parse is not None:
        parse.accept(token)
    if request.top is None:
        return token, None
    return token, _scored(token, float(log_p[token]), *likeliest(log_p, request.top))


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


def _scored(token: int, own: float, tokens: np.ndarray, values: np.ndarray) -> Scored:
    """A chosen token with its log-probability, beside the likeliest tokens with theirs."""
    return Scored(token, own, tuple(zip(tokens.tolist(), values.tolist())))
