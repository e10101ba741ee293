"""The one thread that owns the engines: requests enter, leave and are cancelled between two steps of the model.

Handlers run in the event loop and never call an engine. They put a `Job`, whose steps come back in its queue, ask for a
quick function to be called between two steps, or for work in parts, such as the exact search of a closed set, of which
one part is done after each step.
"""

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from riyaz.engine import Request
from riyaz.engine.engine import Engine, Step
from riyaz.engine.parts import Steps
from riyaz.predictor import Chooser, Prediction, Prepared
from riyaz.serve.long_work import Aside, Choose, Line, Long, Work
from riyaz.serve.owners import owner

T = TypeVar("T")


@dataclass(eq=False)
class Job:
    """A request to generate. `events` gets (job, step), or (job, error) at its end; several jobs may share it. With the
    last of them `ended` is called with the index, whether or not somebody takes them. `began` is the time at which the
    engine started it."""

    lm: Engine
    request: Request
    events: "Events"
    ended: Callable[[int], None]
    index: int = 0
    began: float | None = None
    ticket: int = 0


Events = asyncio.Queue[tuple[Job, Step | Exception] | None]


@dataclass(eq=False)
class Call:
    """A function to be called between two steps."""

    function: Callable[[], Any]
    result: "Future[Any]" = field(default_factory=Future)


@dataclass(eq=False)
class Cancel:
    """A job whose client has gone, or that has enough."""

    job: Job


@dataclass(eq=False)
class CutOff:
    """Every job and search ends now with this error."""

    error: Exception


Item = Job | Call | Long | Cancel | CutOff | None  # None ends the thread


class EngineThread:
    """Starts with `start`, inside the event loop that gets the events, and ends with `stop`."""

    def __init__(self) -> None:
        self._inbox: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._jobs: dict[tuple[Engine, int], Job] = {}
        self._calls: list[Call] = []
        self._long, self._aside = Line(), Aside()
        self._thread = threading.Thread(target=self._run, name="riyaz-engine", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Start the thread; events go to the running loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def stop(self) -> None:
        """End the thread after its step; jobs that are left get no more events."""
        self._inbox.put(None)
        self._thread.join()

    @property
    def running(self) -> int:
        """Number of requests that generate now."""
        return sum(job.began is not None for job in list(self._jobs.values()))

    def add(self, job: Job) -> None:
        """Queue a request of who asks."""
        job.request = replace(job.request, owner=owner())
        self._inbox.put(job)

    def cancel(self, job: Job) -> None:
        """End a job before its next step; no effect on one that is done."""
        self._inbox.put(Cancel(job))

    def cut_off(self, error: Exception) -> None:
        """End every job and search with this error before the next step."""
        self._inbox.put(CutOff(error))

    async def call(self, function: Callable[[], T]) -> T:
        """What a function gives that is called between two steps."""
        call = Call(function)
        self._inbox.put(call)
        value: T = await asyncio.wrap_future(call.result)
        return value

    async def work(self, steps: Callable[[], Steps[T]], aside: bool = False) -> T:
        """What work in parts gives; `aside`: it gets a small share of the engine's time while others wait for that. A
        task that is cancelled takes it back."""
        work = Work(steps, aside=aside)
        self._inbox.put(work)
        value: T = await asyncio.wrap_future(work.result)
        return value

    async def choose(self, predictor: Chooser, prepared: Prepared) -> Prediction:
        """The answer that a search chooses. A task that is cancelled takes its question back."""
        owned = replace(prepared, request=replace(prepared.request, owner=owner()))
        choose = Choose(predictor, owned)
        self._inbox.put(choose)
        return await asyncio.wrap_future(choose.result)

    def _run(self) -> None:
        while self._receive():
            self._call_all()
            self._long.go_on()
            self._aside.go_on_beside(others=bool(self._jobs) or self._long.busy)
            for lm in {lm for lm, _ in self._jobs}:
                self._step(lm)

    def _receive(self) -> bool:
        """Take what has come in, waiting if there is nothing to do; False at the end."""
        idle = not self._jobs and not self._long.busy and not self._aside.busy
        while True:
            try:
                item = self._inbox.get(block=idle)
            except queue.Empty:
                return True
            idle = False
            if item is None:
                return False
            if isinstance(item, Job):
                self._begin(item)
            elif isinstance(item, Cancel):
                self._cancel(item.job)
            elif isinstance(item, CutOff):
                self._fail(list(self._jobs.values()), item.error)
                self._long.cut(item.error)
                self._aside.cut(item.error)
            elif isinstance(item, Call):
                self._calls.append(item)
            elif isinstance(item, Work) and item.aside:
                self._aside.add(item)
            else:
                self._long.add(item)

    def _begin(self, job: Job) -> None:
        try:
            job.ticket = job.lm.add(job.request)
        except Exception as error:
            self._tell([(job, error)])
        else:
            self._jobs[job.lm, job.ticket] = job

    def _cancel(self, job: Job) -> None:
        if self._jobs.pop((job.lm, job.ticket), None):
            job.lm.cancel(job.ticket)

    def _call_all(self) -> None:
        calls, self._calls = self._calls, []
        for call in calls:
            if call.result.set_running_or_notify_cancel():
                try:
                    call.result.set_result(call.function())
                except Exception as error:
                    call.result.set_exception(error)

    def _step(self, lm: Engine) -> None:
        """One step of an engine, and its events. A request may fail alone; where the step fails, all that run do."""
        before = time.perf_counter()
        try:
            steps = lm.step()
        except Exception as error:
            self._fail([self._jobs[lm, ticket] for ticket in lm.running], error)
            return
        pairs = [(self._jobs[lm, step.ticket], step) for step in steps]
        for ticket in (*lm.running, *(step.ticket for step in steps)):
            job = self._jobs[lm, ticket]
            job.began = job.began or before
        for job, step in pairs:
            if step.done:
                del self._jobs[lm, job.ticket]
        self._tell([(job, step.error or step) for job, step in pairs])

    def _fail(self, jobs: Sequence[Job], error: Exception) -> None:
        for job in jobs:
            self._cancel(job)
        self._tell([(job, error) for job in jobs])

    def _tell(self, events: Sequence[tuple[Job, Step | Exception]]) -> None:
        def deliver() -> None:
            for job, event in events:
                job.events.put_nowait((job, event))
                if isinstance(event, Exception) or event.done:
                    job.ended(job.index)

        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # the loop has ended, and with it whoever waited
            self._loop.call_soon_threadsafe(deliver)
