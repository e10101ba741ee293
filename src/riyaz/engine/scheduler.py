"""Decides which requests run: they wait, first come first served, for room for prompt and answer."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from riyaz.engine.grammar import Parse
from riyaz.engine.lookup import Lookup
from riyaz.engine.request import Request, Scored

MAX_RUNNING = 64  # most requests that run together
AHEAD = 256  # tokens of each answer for which room is kept; a longer one may make later requests wait again
SLOTS = 8192  # most tokens of them, answers at their limits: 190 MB of keys and values for SmolLM2-135M in bf16


@dataclass(eq=False)
class Answer:
    """The state of a request: the answer's tokens so far, where they stand in its grammar, and the runner's sequence
    while it runs."""

    request: Request
    ticket: int
    tokens: list[int] = field(default_factory=list)
    sequence: int | None = None
    unread: list[tuple[int, ...]] = field(default_factory=list)  # the pieces of the prompt that are still to be read
    prompt: list[Scored] = field(default_factory=list)  # the prompt's tokens, where they are asked for
    begun: bool = False  # it has run, so that `cached` is known
    cached: int = 0  # tokens of its prompt that were read by earlier requests
    done: bool = False
    error: Exception | None = None  # why it has no answer
    parse: Parse | None = None
    lookup: Lookup | None = None  # once it has a token, where answers are looked up

    @property
    def slots(self) -> int:
        """Most tokens that it may take, its prefix not counted."""
        return len(self.request.tokens) + self.request.limit

    @property
    def reserved(self) -> int:
        """Tokens for which there should be room, its prefix not counted: few answers are as long as they may be."""
        return len(self.request.tokens) + min(self.request.limit, len(self.tokens) + AHEAD)

    @property
    def scores_prompt(self) -> bool:
        """Whether the prompt's tokens are still to be scored: with the answer's first token they are."""
        return self.request.echo is not None and not self.tokens


class Scheduler:
    """The waiting and the running requests. One pass reads the prompts of new requests and generates the next token of
    running ones."""

    def __init__(self) -> None:
        self.slots = float(SLOTS)  # most tokens of the running requests, answers at their limits
        self.waiting: deque[Answer] = deque()
        self.running: list[Answer] = []

    def add(self, answer: Answer) -> None:
        """Append a request to the queue."""
        self.waiting.append(answer)

    def admit(self, fit: Callable[[Sequence[Answer]], bool]) -> None:
        """Start the waiting requests for which there is room, in order, as long as those that run `fit` together; a
        request that runs alone may exceed `slots`."""
        slots = sum(answer.slots for answer in self.running)
        while self.waiting and len(self.running) < MAX_RUNNING:
            slots += self.waiting[0].slots
            if self.running and slots > self.slots:
                break
            if self.running and not fit([*self.running, self.waiting[0]]):
                break
            self.running.append(self.waiting.popleft())

    def put_back(self, answer: Answer) -> None:
        """Let a running request wait again, before all others."""
        self.running.remove(answer)
        self.waiting.appendleft(answer)

    def drop(self, answers: Iterable[Answer]) -> None:
        """Remove requests, whether they wait or run."""
        dropped = set(answers)
        self.running = [answer for answer in self.running if answer not in dropped]
        self.waiting = deque(answer for answer in self.waiting if answer not in dropped)
