"""Which requests run: they wait in their order until there is room for their prompt and their longest answer."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from riyaz.engine.request import Request

ROWS = 64  # requests that run together at most
SLOTS = 8192  # tokens of them, answers counted at their limits: 190 MB of keys and values for SmolLM2-135M in bf16


@dataclass(eq=False)
class Answer:
    """A request on its way: its tokens so far, and the runner's sequence while it runs."""

    request: Request
    ticket: int
    tokens: list[int] = field(default_factory=list)
    sequence: int | None = None
    done: bool = False

    @property
    def slots(self) -> int:
        """Places that it may come to take beside its prefix."""
        return len(self.request.tokens) + self.request.limit


class Scheduler:
    """Requests that wait, and those that run. Prompts of new requests are read in the pass that also makes the next
    token of those that run."""

    def __init__(self) -> None:
        self.waiting: deque[Answer] = deque()
        self.running: list[Answer] = []

    def add(self, answer: Answer) -> None:
        """Let a request wait."""
        self.waiting.append(answer)

    def admit(self) -> None:
        """Move the waiting requests for which there is room to those that run, in their order; one alone may be longer
        than SLOTS."""
        slots = sum(answer.slots for answer in self.running)
        while self.waiting and len(self.running) < ROWS:
            slots += self.waiting[0].slots
            if self.running and slots > SLOTS:
                break
            self.running.append(self.waiting.popleft())

    def drop(self, answers: Iterable[Answer]) -> None:
        """Forget requests, whether they wait or run."""
        gone = set(answers)
        self.running = [answer for answer in self.running if answer not in gone]
        self.waiting = deque(answer for answer in self.waiting if answer not in gone)
