"""Samples during training: continuations of fixed prompts, and the likeliest tokens after "The quick brown fox", or
after the user's own prompt.

Texts are sampled with random numbers from (seed, step, prompt) alone, so sampling does not change the run.
"""

import math
from typing import Any

from riyaz.engine import Request, Sampling
from riyaz.engine.engine import Engine
from riyaz.errors import RiyazError
from riyaz.text.tokenizer import Tokenizer

PROMPTS = ("The", "Once upon a time", "In order to")
FOX = "The quick brown fox"
WORDS = 10
CHARACTERS = 160  # length of one text, about
TEMPERATURE, TOP_K = 0.8, 40


def draw_samples(
    model: Any, tokenizer: Tokenizer, opening: str, bytes_per_token: float, seed: int, step: int,
    watched: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """One line of samples.jsonl. `opening` is a further prompt, from the held-out text; a prompt that the tokenizer
    cannot encode is left out. `watched` takes the place of the fixed prompts."""
    from riyaz.engine.torch.runner import TorchRunner

    engine = Engine(TorchRunner(model))
    beginnings = (*(PROMPTS if watched is None else (watched,)), opening)
    prompts = [(prompt, ids) for prompt in dict.fromkeys(beginnings) if (ids := token_ids(tokenizer, prompt))]
    room = min(round(CHARACTERS / bytes_per_token), engine.context - max((len(ids) for _, ids in prompts), default=0))
    sampling = Sampling(TEMPERATURE, TOP_K, seed=seed)
    requests = [
        Request(step * len(prompts) + row, tuple(ids), limit=max(room, 0), sampling=sampling, stop=tokenizer.eos_ids)
        for row, (_, ids) in enumerate(prompts)
    ]
    texts = [
        {"prompt": prompt, "text": tokenizer.decode(ids)}
        for (prompt, _), ids in zip(prompts, engine.generate(requests), strict=True)
    ]
    words = next_words(engine, tokenizer, watched or FOX)
    return {"step": step, "texts": texts, "next": {"prompt": watched or FOX, "words": words}}


def next_words(engine: Engine, tokenizer: Tokenizer, text: str) -> list[dict[str, Any]]:
    """The WORDS likeliest next tokens and their probabilities, likeliest first; empty when `text` cannot be encoded."""
    ids = token_ids(tokenizer, text)[-engine.context :]
    if not ids:
        return []
    return [
        {"text": tokenizer.token_text(token), "p": math.exp(log_probability)}
        for token, log_probability in engine.next_tokens(ids, WORDS)
    ]


def check(tokenizer: Tokenizer, watched: str | None, context: int) -> None:
    """Raises RiyazError for a prompt of the user's that the tokenizer cannot encode, or that fills the context."""
    if watched is None:
        return
    ids = token_ids(tokenizer, watched)
    if not ids:
        what = f"{watched!r} has characters that the tokenizer does not know"
        raise RiyazError(what, "--prompt", "give another text")
    if len(ids) >= context:
        raise RiyazError(f"has {len(ids)} tokens; the context is {context}", "--prompt", "give a shorter text")


def token_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """The tokens of a text behind those that every text begins with; none where it cannot be encoded."""
    try:
        ids = tokenizer.encode(text)
    except RiyazError:
        return []
    return [*tokenizer.beginning, *ids] if ids else []
