"""Drafts in the steps of an engine: which running answers read how many tokens of theirs, and what it took."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from riyaz.config import Lookup as Mode
from riyaz.engine.choice import want
from riyaz.engine.lookup import LONGEST, Counts, Follower, Lookup, Rates, Times, worth
from riyaz.engine.runner import Each, TokenRun
from riyaz.engine.scheduler import Answer

Run = tuple[Answer, TokenRun]
RECENT, LONG = 8, 256  # answers whose words the next ones may repeat, as those of one form do; and tokens of them
LEAD = 3  # tokens of the prompt before an answer, by which its beginning is found


class Drafts:
    """The drafts of an engine's answers: as many as pay (`auto`), as many as there are (`on`), or none (`off`). Where
    by its runner none `pay`, `auto` is `off`."""

    def __init__(self, mode: Mode = "auto", pay: bool = True) -> None:
        self.mode: Mode = "off" if mode == "auto" and not pay else mode
        # whether earlier answers are drafts: not where clients are strangers to each other, nor where times are taken
        # on rows that were answered before
        self.remembers = False
        self.counts = Counts()
        self._rates, self._times = Rates(), Times()
        self._recent: dict[str | None, deque[tuple[int, ...]]] = {}  # the last answers of each adapter

    def add(self, runs: Sequence[Run]) -> list[Run]:
        """The runs of a step, those of one token with the drafts that are to be read behind it."""
        if self.mode == "off":
            return list(runs)
        running = [answer for answer, run in runs if _goes_on(answer, run)]
        lookups = [self._lookup(answer) for answer in running]
        counts = [min(LONGEST, answer.request.limit - len(answer.tokens) - 1) for answer in running]
        if self.mode == "auto":
            counts = worth(lookups, counts, self._times)
        drafts = {
            answer.ticket: lookup.follower.draft(count)
            for answer, lookup, count in zip(running, lookups, counts) if count > 0
        }  # fmt: skip
        return [(answer, self._drafted(answer, run, drafts.get(answer.ticket, []))) for answer, run in runs]

    @contextmanager
    def timed(self, runs: Sequence[Run]) -> Iterator[None]:
        """Measures the pass of these runs, where all go on with answers."""
        before = time.perf_counter()
        yield
        if self.mode == "auto" and all(_goes_on(*run) for run in runs):
            self._times.measure(sum(len(run.tokens) for _, run in runs), time.perf_counter() - before)

    def took(self, answer: Answer, run: TokenRun, tokens: Sequence[int]) -> None:
        """An answer got these tokens from a run; fewer than were right, where it has ended."""
        if self.mode != "off" and (len(run.tokens) == 1 or isinstance(run.want, Each)):
            self.counts.tokens += len(tokens)
            self.counts.drafted += len(run.tokens) - 1
            self.counts.accepted += sum(one == other for one, other in zip(run.tokens[1:], tokens))
        if answer.lookup is not None:
            answer.lookup.advance(tokens)
            if answer.done and self.remembers:
                recent = self._recent.setdefault(answer.request.adapter, deque(maxlen=RECENT))
                recent.append((*answer.request.tokens[-LEAD:], *answer.tokens[:LONG]))

    def _lookup(self, answer: Answer) -> Lookup:
        if answer.lookup is None:
            request = answer.request
            text = (*request.prefix, *request.tokens, *answer.tokens)
            others = (*request.likely, *self._recent.get(request.adapter, ()))
            answer.lookup = Lookup(Follower(text, others), Rates(self._rates))
        return answer.lookup

    def _drafted(self, answer: Answer, run: TokenRun, draft: Sequence[int]) -> TokenRun:
        if not draft:
            return run
        wants = [want(answer.request, (*answer.tokens, *draft[:count])) for count in range(len(draft) + 1)]
        return TokenRun(run.sequence, (*run.tokens, *draft), Each(tuple(wants)))


def is_drafted(runs: Sequence[Run]) -> bool:
    """Whether one of the runs has a draft."""
    return any(isinstance(run.want, Each) for _, run in runs)


def undrafted(runs: Sequence[Run]) -> list[Run]:
    """The runs without their drafts."""
    return [
        (answer, TokenRun(run.sequence, run.tokens[:1], run.want.wants[0]) if isinstance(run.want, Each) else run)
        for answer, run in runs
    ]


def _goes_on(answer: Answer, run: TokenRun) -> bool:
    """Whether a run reads the last token of the answer, and nothing of its prompt. Behind a piece of a text that is
    read again, which wants nothing, other tokens follow."""
    return bool(answer.tokens) and run.want is not None and (len(run.tokens) == 1 or isinstance(run.want, Each))
