"""The answers to one HTTP request while they are made: prepared prompts in, pieces of text out.

The one place that hands requests to the engine's thread, times them, and takes them back when the client has gone, an
answer has its stop string, or time is up.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field, replace

from riyaz.engine import Request
from riyaz.engine.engine import Engine, Step
from riyaz.engine.request import Scored
from riyaz.predictor import Chooser, Prediction, Prepared
from riyaz.serve.engine_thread import Events, Job
from riyaz.serve.problems import Problem, problem_of
from riyaz.serve.state import RETRY, Places, State
from riyaz.serve.text import Text
from riyaz.text.calls import Calls


@dataclass(eq=False)
class Generation:
    """One answer to generate: the engine's request, how its tokens become text, and what finds calls of tools in it.
    Of several answers to one prompt the `first` says how much of it was kept from earlier requests."""

    lm: Engine
    request: Request
    text: Text
    first: bool = True
    calls: Calls | None = None


@dataclass(frozen=True)
class Piece:
    """What is new of one answer: text, whole calls of tools as OpenAI writes them, tokens. At its end `finish` is
    "stop", "length", or for an answer with calls that was not cut `Calls.finish`; `stopped_by` is the stop string that
    was found."""

    index: int
    text: str = ""
    tokens: tuple[Scored, ...] = ()
    prompt: tuple[Scored, ...] = ()
    finish: str | None = None
    citations: tuple[dict, ...] = ()
    confidence: float | None = None  # of a chosen answer: `Prediction.confidence`, and the label that comes next
    runner_up: str | None = None
    stopped_by: str | None = None
    calls: tuple[dict, ...] = ()


@dataclass(eq=False)
class Usage:
    """Tokens and times of the answers to one request; `arrived` is when it came."""

    arrived: float = field(default_factory=time.perf_counter)
    prompt: int = 0
    cached: int = 0
    completion: int = 0
    began: float = 0.0
    first: float = 0.0
    ended: float = 0.0

    def timings(self) -> dict[str, float]:
        """Times in milliseconds and speeds, as llama.cpp's server names them."""
        reading, making = max(self.first - self.began, 0.0), max(self.ended - self.first, 0.0)
        read = self.prompt - self.cached
        return {
            "cache_n": self.cached, "prompt_n": read, "prompt_ms": round(1000 * reading, 3),
            "prompt_per_second": round(read / reading, 3) if reading else 0.0,
            "predicted_n": self.completion, "predicted_ms": round(1000 * making, 3),
            "predicted_per_second": round(max(self.completion - 1, 0) / making, 3) if making else 0.0,
            "queue_ms": round(1000 * max(self.began - self.arrived, 0.0), 3),
        }  # fmt: skip


async def generated(
    state: State, places: Places, generations: Sequence[Generation], usage: Usage
) -> AsyncIterator[Piece]:
    """The pieces of all answers as they come, each with its index. The place of each is free when it is made, also
    where its pieces are still to be taken. Raises Problem."""
    events: Events = asyncio.Queue()
    jobs = [Job(each.lm, each.request, events, places.free, index) for index, each in enumerate(generations)]
    left, latest = dict.fromkeys(jobs), dict.fromkeys(jobs, 0.0)
    loop, config = asyncio.get_running_loop(), state.config
    alarms = [
        loop.call_later(after, events.put_nowait, None) for after in (config.queue_timeout, config.request_timeout)
    ]
    try:
        for job in jobs:
            state.engine.add(job)
        while left:
            event = await events.get()
            if event is None:
                if not _is_over(state, left, usage):
                    continue
                for job in left:  # time is up: what there is, is the answer
                    answer = generations[job.index]
                    yield _told(answer, Piece(job.index, answer.text.finish(cut=True), finish="length"))
                    _count_end(state, usage, "length")
                break
            job, step = event
            if isinstance(step, Exception):
                raise problem_of(step)
            if job not in left:  # its stop string was found
                continue
            if generations[job.index].first and not latest[job]:
                usage.cached += step.cached
                state.metrics.cached_tokens += step.cached
            _time(state, usage, job, step, latest)
            piece = _piece(generations[job.index], job, step)
            if piece.finish is not None:
                del left[job]
                if not step.done:
                    state.engine.cancel(job)
                    places.free(job.index)
                _count_end(state, usage, "length" if piece.finish == "length" else "stop")
            if piece.text or piece.calls or piece.tokens or piece.prompt or piece.finish:
                yield piece
    finally:
        for alarm in alarms:
            alarm.cancel()
        for job in left:
            state.engine.cancel(job)


async def chosen(state: State, chooser: Chooser, prepared: Prepared, usage: Usage) -> Prediction:
    """The answer that a search chooses. Raises Problem."""
    usage.began = time.perf_counter()
    try:
        async with asyncio.timeout(state.config.request_timeout):
            prediction = await state.engine.choose(chooser, prepared)
    except TimeoutError:
        raise Problem(503, f"no answer was found within {state.config.request_timeout:g} s") from None
    except Exception as error:
        raise problem_of(error) from error
    _count_end(state, usage, "stop")
    usage.first = usage.ended  # the answer comes at once, which is no speed
    return prediction


def _is_over(state: State, left: Iterable[Job], usage: Usage) -> bool:
    """Whether the answers' time is up. Raises Problem where none of them started in time."""
    if time.perf_counter() >= usage.arrived + state.config.request_timeout:
        return True
    if not any(job.began for job in left):
        message = f"the request did not start within {state.config.queue_timeout:g} s"
        raise Problem(429, message, headers={"Retry-After": str(RETRY)})
    return False


def _piece(generation: Generation, job: Job, step: Step) -> Piece:
    """What a step adds to an answer."""
    scored = () if step.scored is None else (step.scored,)
    if step.token is None:
        finish = "stop" if generation.request.limit else "length"
        return _told(generation, Piece(job.index, generation.text.finish(cut=False), scored, step.prompt, finish))
    text = generation.text.push(step.token)
    if generation.text.stopped or step.done:
        text += generation.text.finish(cut=not generation.text.stopped)
    finish = "stop" if generation.text.stopped else "length" if step.done else ""
    piece = Piece(job.index, text, scored, step.prompt, finish or None, stopped_by=generation.text.stopped_by)
    return _told(generation, piece)


def _told(generation: Generation, piece: Piece) -> Piece:
    """The piece with its calls apart from its text. An answer that has the one call which it may have ends with it."""
    calls = generation.calls
    if calls is None:
        return piece
    text, made = calls.push(piece.text, last=piece.finish is not None)
    finish = "stop" if calls.over else piece.finish
    finish = calls.finish if finish == "stop" and calls.count else finish
    return replace(piece, text=text, calls=tuple(made), finish=finish)


def _time(state: State, usage: Usage, job: Job, step: Step, latest: dict[Job, float]) -> None:
    """Count a step's token and the times up to it."""
    now = time.perf_counter()
    if not usage.began:
        usage.began = job.began or now
        state.metrics.queued.add(max(usage.began - usage.arrived, 0.0))
    if step.token is not None:
        usage.completion += 1
        state.metrics.generation_tokens += 1
    if not usage.first:
        usage.first = now
        state.metrics.first_token.add(now - usage.arrived)
    if latest[job]:
        state.metrics.between_tokens.add(now - latest[job])
    latest[job] = now


def _count_end(state: State, usage: Usage, finish: str) -> None:
    usage.ended = time.perf_counter()
    state.metrics.success[finish] += 1
    state.metrics.whole.add(usage.ended - usage.arrived)
