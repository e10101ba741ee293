"""Work that takes longer than a step of the model: done a part at a time, with a step of running answers after each."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from riyaz.engine.parts import Steps
from riyaz.engine.scheduler import MAX_RUNNING
from riyaz.predictor import Chooser, Prediction, Prepared


@dataclass(eq=False)
class Work:
    """Work in parts, with a step of running answers after each."""

    steps: Callable[[], Steps[Any]]
    result: "Future[Any]" = field(default_factory=Future)
    aside: bool = False  # while others wait for the engine, it gets ASIDE of its time


@dataclass(eq=False)
class Choose:
    """A prepared question whose answer a search chooses; those of one predictor are searched together."""

    chooser: Chooser
    prepared: Prepared
    result: "Future[Prediction]" = field(default_factory=Future)


Long = Work | Choose
ASIDE = 0.1  # of the engine's time, at most, for work that is done aside


class Line:
    """Works that are done one after the other. Each call of `go_on` does a part of the first. Questions that are
    searched together and fail are searched again in two halves, until the one that fails is alone."""

    def __init__(self) -> None:
        self._waiting: list[Long] = []
        self._again: list[list[Long]] = []  # halves of questions that failed together, the next one last
        self._now: tuple[list[Long], Steps[list[Any]]] | None = None  # who waits for it, and its parts

    @property
    def busy(self) -> bool:
        """Whether there is work."""
        return bool(self._waiting) or bool(self._again) or self._now is not None

    def add(self, work: Long) -> None:
        """Put a work at the end."""
        self._waiting.append(work)

    def go_on(self) -> None:
        """Do the next part; questions of one predictor are searched together."""
        self._waiting = [each for each in self._waiting if not each.result.cancelled()]
        if self._now is None and self._again:
            half = [each for each in self._again.pop() if not each.result.cancelled()]
            self._now = (half, _steps_of(half)) if half else None
        elif self._now is None and self._waiting:
            first = self._waiting[0]
            same = [each for each in self._waiting if _together(first, each)][:MAX_RUNNING]
            self._waiting = [each for each in self._waiting if each not in same]
            self._now = same, _steps_of(same)
        if self._now is None:
            return
        waiting, steps = self._now
        if all(each.result.cancelled() for each in waiting):  # nobody waits for it any longer
            steps.close()
            self._now = None
            return
        try:
            next(steps)
        except StopIteration as end:
            self._now = None
            for each, result in zip(waiting, end.value):
                if each.result.set_running_or_notify_cancel():
                    each.result.set_result(result)
        except Exception as error:
            self._now = None
            if len(waiting) == 1:
                _fail_long(waiting, error)
            else:
                middle = len(waiting) // 2
                self._again += [waiting[middle:], waiting[:middle]]

    def cut(self, error: Exception) -> None:
        """End every work with this error."""
        waiting = [*self._waiting, *(each for half in self._again for each in half)]
        self._waiting, self._again = [], []
        if self._now is not None:
            self._now[1].close()
            waiting += self._now[0]
            self._now = None
        _fail_long(waiting, error)


class Aside(Line):
    """A line that rests after each part while others wait for the engine, so that they have the rest of its time."""

    def __init__(self) -> None:
        super().__init__()
        self._rested = 0.0  # the time from which on the next part may be done

    def go_on_beside(self, others: bool) -> None:
        """Do the next part, unless `others` wait and the last part's rest is not over."""
        before = time.perf_counter()
        if not self.busy or (others and before < self._rested):
            return
        self.go_on()
        now = time.perf_counter()
        self._rested = now + (now - before) * (1 / ASIDE - 1)


def _together(one: Long, other: Long) -> bool:
    """Whether two works are done as one: they are questions to one predictor, or the same."""
    both = isinstance(one, Choose) and isinstance(other, Choose)
    return one is other or (both and one.chooser is other.chooser)  # type: ignore[union-attr]


def _steps_of(same: Sequence[Long]) -> Steps[list[Any]]:
    """The parts of works that are done as one, and the result of each."""
    first = same[0]
    if isinstance(first, Work):
        result = yield from first.steps()
        return [result]
    predictions = yield from first.chooser.choosing([each.prepared for each in same if isinstance(each, Choose)])
    return list(predictions)


def _fail_long(waiting: Sequence[Long], error: Exception) -> None:
    for each in waiting:
        if each.result.set_running_or_notify_cancel():
            each.result.set_exception(error)
