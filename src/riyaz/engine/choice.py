"""Choosing a request's next token: what the runner is asked for, and the token that its result gives."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from riyaz.engine.request import Added, Request, Scored
from riyaz.engine.runner import Best, Top, Want, Whole
from riyaz.engine.sampling import draw, falling, likeliest


def want(request: Request, answer: Sequence[int], vocab_size: int) -> Best | Top:
    """What the next token after `answer` is chosen from."""
    sampling = request.sampling
    changed = request.added is not None or request.grammar is not None
    whole = changed or sampling.temperature > 0
    count = sampling.top_k if sampling.top_k and not changed else vocab_size
    count = max(count if whole else 1, request.top or 0)
    if sampling.repetition_penalty == 1:
        return Best() if not whole and request.top is None else Top(count)
    seen = {*request.prefix, *request.tokens, *answer} - request.stop
    return Top(count, tuple(sorted(seen)), sampling.repetition_penalty)


def choose(request: Request, answer: Sequence[int], result: Any) -> tuple[int, Scored | None]:
    """The next token after `answer`, from what the runner gave for `want`; and its probability, where asked for."""
    if isinstance(result, int):
        return result, None
    tokens, log_p = result
    sampling = request.sampling
    order, adjusted = np.arange(len(tokens)), log_p
    if request.added is not None:
        adjusted = adjusted + _additions(request.added, answer, len(tokens))[tokens]
    if request.grammar is not None:
        adjusted = np.where(request.grammar.allowed()[tokens], adjusted, -np.inf)
    if adjusted is not log_p:
        order = falling(adjusted.astype(np.float32))
    if sampling.temperature > 0:
        token = draw(tokens[order], adjusted[order], sampling, request.id, len(answer))
    else:
        token = int(tokens[order[0]])
    if request.grammar is not None:
        request.grammar.accept(token)
    return token, None if request.top is None else _scored(token, tokens, log_p, request.top)


def prompt_want(length: int) -> Want:
    """What a piece of a prompt is asked for, where the prompt's tokens are wanted."""
    return Whole(np.arange(length))


def prompt_scores(rows: np.ndarray, following: Sequence[int], top: int) -> Iterator[Scored]:
    """The tokens that follow each token of a piece, (R,), by the distributions (R, V) after them."""
    for row, token in zip(rows, following):
        best = likeliest(row, top) if top else ((), ())
        yield Scored(token, float(row[token]), tuple(zip(map(int, best[0]), map(float, best[1]))))


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
