"""POST /v1/completions: a text or its tokens goes on as it is, without a chat template; `echo` scores the prompt too.

With `echo`, `logprobs` and prompts of tokens this is what lm-eval's `local-completions` asks for.
"""

import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from riyaz import engine
from riyaz.engine.request import Scored
from riyaz.predictor import PromptedModel
from riyaz.predictor.prompt import TooLong
from riyaz.serve import asking
from riyaz.serve.asking import Body
from riyaz.serve.chat import NO_LOGPROBS, usage_of
from riyaz.serve.fields import COMPLETIONS
from riyaz.serve.generation import Generation, Piece, Usage, generated
from riyaz.serve.http import EventStream, dumped, read_body, unless_gone
from riyaz.serve.large import dumped_in_parts, json_response
from riyaz.serve.problems import Problem
from riyaz.serve.shelf import Served
from riyaz.serve.state import State, state_of
from riyaz.serve.text import Text
from riyaz.serve.tokens import written

USUAL = 16  # tokens of an answer where the request does not say, as OpenAI has it


@dataclass(frozen=True, eq=False)
class Completion:
    """A checked request."""

    state: State
    served: Served
    model: PromptedModel
    body: Body
    usage: Usage = field(default_factory=Usage)
    id: str = field(default_factory=lambda: f"cmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def top(self) -> int | None:
        """Number of likeliest tokens with each token; None without log-probabilities."""
        return self.body.get("logprobs")

    @property
    def echo(self) -> bool:
        """Whether the prompt stands before its answer."""
        return bool(self.body.get("echo"))

    @property
    def limit(self) -> int:
        """Most tokens of an answer."""
        limit = asking.limit_of(self.body, self.state.config.max_tokens)
        return USUAL if limit is None else limit

    @property
    def head(self) -> dict[str, Any]:
        """The members that a response and every chunk begin with."""
        return {"id": self.id, "object": "text_completion", "created": self.created, "model": self.served.name,
                "system_fingerprint": "riyaz"}  # fmt: skip


async def completions(request: Request) -> Response:
    """Continue prompts, at once or as a stream of chunks."""
    body, headers = await read_body(request, COMPLETIONS)
    state = state_of(request)
    completion = checked(state, body)
    if body.get("stream"):
        return EventStream(_chunks(completion), headers, state)
    return await unless_gone(request.receive, _whole(completion, headers))


def checked(state: State, body: Body) -> Completion:
    """The request of a body whose fields are each valid. Raises Problem."""
    served = state.shelf.find(body["model"])
    if not served.predictor.has_model:
        raise Problem(400, f"model: {served.name} {NO_LOGPROBS}; ask /v1/chat/completions", "model")
    made = Completion(state, served, served.predictor, body)
    if made.limit == 0 and not made.echo:
        raise Problem(400, "max_tokens: 0 needs echo", "max_tokens")
    if made.echo and body.get("repetition_penalty", 1) != 1:
        raise Problem(400, "repetition_penalty: not together with echo", "repetition_penalty")
    if body.get("stream_options") and not body.get("stream"):
        raise Problem(400, "stream_options: needs stream", "stream_options")
    asking.added_of(body, made.model.lm)
    return made


def prompts_of(prompt: Any) -> list[str | list[int]]:
    """The prompts of a request: texts or tokens, one or several."""
    one = isinstance(prompt, str) or (isinstance(prompt, list) and not isinstance(prompt[0], str | list))
    return [prompt] if one else list(prompt)


def token_ids(served: Served, prompt: str | Sequence[int], where: str) -> tuple[int, ...]:
    """The tokens of a prompt. Raises Problem for one without tokens, or with a token that the model has not."""
    tokenizer, size = served.open.tokenizer, served.open.lm.runner.vocab_size
    if isinstance(prompt, str):
        asking.expect_short(prompt, where)
        ids: Sequence[int] = [*tokenizer.beginning, *tokenizer.encode(prompt)]
    else:
        ids = [int(token) for token in prompt]
        if ids and max(ids) >= size:
            raise Problem(400, f"{where}: {max(ids)} is no token of the model, which has {size}", where)
    if not ids:
        raise Problem(400, f"{where}: the prompt is empty", where)
    return tuple(ids)


def _generations(completion: Completion) -> list[Generation]:
    """The requests of all prompts, each as often as `n` says, with an `id` that a seed draws by
    as it does for the prompt alone. Raises Problem, TooLong."""
    body, model, served = completion.body, completion.model, completion.served
    count, limit = int(body.get("n", 1)), completion.limit
    generations: list[Generation] = []
    for place, prompt in enumerate(prompts_of(body["prompt"])):
        ids = token_ids(served, prompt, f"prompt.{place}")
        if len(ids) + limit > model.context:
            raise TooLong(len(ids), limit, model.context, f"prompt.{place}")
        completion.usage.prompt += len(ids)
        for copy in range(count):
            request = engine.Request(
                copy, ids, adapter=model.adapter, limit=limit, sampling=asking.sampling_of(body, model),
                stop=frozenset() if body.get("ignore_eos") else model.tokenizer.eos_ids,
                added=asking.added_of(body, model.lm), top=completion.top,
                echo=completion.top if completion.echo else None,
            )  # fmt: skip
            generations.append(Generation(model.lm, request, Text(model.tokenizer, asking.stops_of(body)), copy == 0))
    return generations


async def _pieces(completion: Completion) -> AsyncIterator[tuple[Generation, Piece]]:
    """The answers piece by piece. Raises Problem, RiyazError."""
    state, body = completion.state, completion.body
    count = len(prompts_of(body["prompt"])) * int(body.get("n", 1))
    with state.place(count, completion.served) as places:
        generations = await state.prepare(lambda: _generations(completion))
        state.metrics.prompt_tokens += completion.usage.prompt
        if completion.echo and completion.top is None and not completion.limit:  # there is nothing to compute
            for index, each in enumerate(generations):
                yield each, Piece(index, finish="length")
            return
        async for piece in generated(state, places, generations, completion.usage):
            yield generations[piece.index], piece


class Choice:
    """What one choice shows so far: with `echo` the prompt first."""

    def __init__(self, completion: Completion, generation: Generation) -> None:
        self._completion, self._generation, self._begun, self._offset = completion, generation, False, 0

    def add(self, piece: Piece) -> tuple[str, dict[str, Any] | None]:
        """(new text, the log-probabilities of its tokens)."""
        text, tokens = piece.text, [*piece.tokens]
        scored: list[Scored | int] = [*tokens]
        if not self._begun and self._completion.echo:
            ids = self._generation.request.tokens
            text = written(self._completion.model.tokenizer, ids) + text
            scored = [ids[0], *piece.prompt, *tokens]
        self._begun = True
        return text, None if self._completion.top is None else self._logprobs(scored)

    def _logprobs(self, scored: Sequence[Scored | int]) -> dict[str, Any]:
        """The lists of OpenAI's completions; nothing is known of the first token of a prompt."""
        tokenizer = self._completion.model.tokenizer
        names = [tokenizer.token_text(each if isinstance(each, int) else each.token) for each in scored]
        offsets = []
        for name in names:
            offsets.append(self._offset)
            self._offset += len(name)
        return {
            "tokens": names, "text_offset": offsets,
            "token_logprobs": [None if isinstance(each, int) else each.log_probability for each in scored],
            "top_logprobs": [None if isinstance(each, int) else self._likeliest(each) for each in scored],
        }  # fmt: skip

    def _likeliest(self, scored: Scored) -> dict[str, float]:
        """The likeliest tokens by their texts, the token itself always among them."""
        text = self._completion.model.tokenizer.token_text
        named: dict[str, float] = {}
        for token, value in ((scored.token, scored.log_probability), *scored.top):
            named[text(token)] = max(value, named.get(text(token), value))
        return named


async def _whole(completion: Completion, headers: dict[str, str]) -> Response:
    """All answers in one response."""
    kept: dict[int, tuple[Generation, list[Piece]]] = {}
    async for generation, piece in _pieces(completion):
        kept.setdefault(piece.index, (generation, []))[1].append(piece)

    def response() -> Response:
        choices = (_choice(completion, *kept[index]) for index in sorted(kept))
        usage = {"usage": usage_of(completion.usage), "timings": completion.usage.timings()}
        return json_response({**completion.head, "choices": choices, **usage}, headers)

    numbers = sum(_numbers(completion, piece) for _, pieces in kept.values() for piece in pieces)
    return await completion.state.write(response, numbers)


def _choice(completion: Completion, generation: Generation, pieces: Sequence[Piece]) -> dict[str, Any]:
    """A whole choice."""
    choice, logprobs = Choice(completion, generation), dict[str, list[Any]]()
    texts = []
    for piece in pieces:
        text, more = choice.add(piece)
        texts.append(text)
        for name, values in (more or {}).items():
            logprobs.setdefault(name, []).extend(values)
    ends = {"logprobs": logprobs or None, "finish_reason": pieces[-1].finish}
    return {"index": pieces[0].index, "text": "".join(texts), **ends}


def _numbers(completion: Completion, piece: Piece) -> int:
    """Log-probabilities that a piece shows."""
    return (len(piece.prompt) + len(piece.tokens)) * (1 + (completion.top or 0))


async def _chunks(completion: Completion) -> AsyncGenerator[str, None]:
    wanted = bool((completion.body.get("stream_options") or {}).get("include_usage"))
    by_index: dict[int, Choice] = {}
    async for generation, piece in _pieces(completion):
        choice = by_index.setdefault(piece.index, Choice(completion, generation))
        chunk = partial(_chunk, completion, choice, piece, wanted)
        yield await completion.state.write(chunk, _numbers(completion, piece))
    if wanted:
        end = {"choices": [], "usage": usage_of(completion.usage), "timings": completion.usage.timings()}
        yield dumped({**completion.head, **end})


def _chunk(completion: Completion, choice: Choice, piece: Piece, usage: bool) -> str:
    text, logprobs = choice.add(piece)
    shown = {"index": piece.index, "text": text, "logprobs": logprobs, "finish_reason": piece.finish}
    written = dumped if logprobs is None else dumped_in_parts
    return written({**completion.head, "choices": [shown], **({"usage": None} if usage else {})})
