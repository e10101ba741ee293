"""What the model writes while it learns: texts from fixed prompts, and what it expects after "The quick brown fox".

Everything is drawn from (seed, step, prompt), with numbers of its own, so looking changes nothing of a run.
"""

from typing import Any

import numpy as np

from riyaz.errors import RiyazError
from riyaz.tokenizer import Tokenizer

PROMPTS = ("The", "Once upon a time", "In order to")
FOX = "The quick brown fox"
WORDS = 10
CHARACTERS = 160  # of one text, about
TEMPERATURE, LIKELIEST = 0.8, 40  # draw among so many next tokens


def look(
    model: Any, tokenizer: Tokenizer, opening: str, bytes_per_token: float, seed: int, step: int
) -> dict[str, Any]:
    """One line of samples.jsonl. `opening` is a prompt from the held-out text; a prompt that the tokenizer cannot
    encode is left out."""
    known = [(prompt, ids) for prompt in dict.fromkeys((*PROMPTS, opening)) if (ids := _ids(tokenizer, prompt))]
    room = min(
        round(CHARACTERS / bytes_per_token), model.config.context - max((len(ids) for _, ids in known), default=0)
    )
    texts = _texts(model, [ids for _, ids in known], tokenizer.eos_ids, max(room, 0), seed, step)
    return {
        "step": step,
        "texts": [
            {"prompt": prompt, "text": tokenizer.decode(ids)} for (prompt, _), ids in zip(known, texts, strict=True)
        ],
        "next": {"prompt": FOX, "words": next_words(model, tokenizer, FOX)},
    }


def next_words(model: Any, tokenizer: Tokenizer, text: str) -> list[dict[str, Any]]:
    """The likeliest next tokens after a text with their probabilities, best first; none when it cannot be encoded."""
    ids = _ids(tokenizer, text)[-model.config.context :]
    if not ids:
        return []
    (logits,) = _logits(model, [ids])
    p = np.exp(logits - logits.max())
    p /= p.sum()
    best = (-p).argsort(kind="stable")[:WORDS].tolist()
    return [{"text": tokenizer.token_text(number), "p": float(p[number])} for number in best]


def _texts(
    model: Any, prompts: list[list[int]], ends: frozenset[int], room: int, seed: int, step: int
) -> list[list[int]]:
    """At most `room` drawn tokens after each prompt, without the end of text."""
    draws = [np.random.default_rng([seed, step, row]) for row in range(len(prompts))]
    written: list[list[int]] = [[] for _ in prompts]
    open_rows = list(range(len(prompts)))
    for _ in range(room):
        if not open_rows:
            break
        logits = _logits(model, [prompts[row] + written[row] for row in open_rows])
        for row, scores in zip(tuple(open_rows), logits, strict=True):
            token = _draw(scores, draws[row])
            if token in ends:
                open_rows.remove(row)
            else:
                written[row].append(token)
    return written


def _draw(logits: np.ndarray, draw: np.random.Generator) -> int:
    """A token among the likeliest."""
    best = (-logits).argsort(kind="stable")[:LIKELIEST]
    p = np.exp((logits[best] - logits[best[0]]) / TEMPERATURE)
    return int(best[np.searchsorted(np.cumsum(p / p.sum()), draw.random()).clip(max=len(best) - 1)])


def _logits(model: Any, rows: list[list[int]]) -> list[np.ndarray]:
    """Logits (V,) of the token after each row, rows read side by side."""
    import torch

    from riyaz.layers.attention import packed

    lengths = [len(row) for row in rows]
    tokens = torch.tensor([number for row in rows for number in row])
    positions = torch.cat([torch.arange(length) for length in lengths])
    with torch.inference_mode():
        hidden = model(tokens, positions, packed(lengths))  # (T, C)
        return list(model.head(hidden[torch.tensor(lengths).cumsum(0) - 1]).double().numpy())


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    try:
        ids = tokenizer.encode(text)
    except RiyazError:
        return []
    return [*tokenizer.beginning, *ids] if ids else []
