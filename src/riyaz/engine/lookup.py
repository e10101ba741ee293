"""Prompt lookup: the next tokens of an answer are often those that followed the same tokens before, in its prompt or in
itself (Yang et al. 2023, arXiv 2304.04487).

Such a draft is read in one pass, and as many of its tokens are kept as the model would have chosen. What a draft costs
and how often drafts are right is measured: a draft is as long as it pays, and mostly that is nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

import numpy as np

LONGEST = 7  # most tokens of a draft: with the one before it a pass is short
SHORT = 8  # most tokens of a short pass, `FEW` in native/engine/head.cpp
MATCH = 12  # longest match that is told from longer ones
# How often the token behind a match of 1, 2, … tokens is taken to be the next one, before any is known, and the weight
# of this: in tokens, of the belief for all answers, and of what all answers say for a new one.
BELIEF = (0.05, 0.2, 0.4, 0.55, 0.65, 0.7, 0.75, 0.8, 0.82, 0.85, 0.87, 0.9)
WEIGHT, SHARED_WEIGHT = 8.0, 4.0
FORGET = 0.98  # what earlier tokens weigh beside each new one
SLOPE, SLOPE_WEIGHT = 0.25, 1.0  # a further token's share of the time of a pass of one, before it is known
LEAST_SLOPE = 0.03  # however the times that are measured scatter
FORGET_TIMES = 0.97  # what earlier passes weigh beside each new one
FORGET_LONG, KNOWN = 0.999, 0.5  # the same of long passes beside each short one, and least weight that is believed
SETTLED, HELD_UP = 4.0, 3.0  # passes from which on one that takes so many times as long as expected counts as that
MARGIN = 1.03  # least gain, by expectation, of a pass with drafts
NONE = -1  # no token: it separates texts


class Follower:
    """A text that grows, and where in it, or in the `others` before it, the tokens at its end stood last."""

    def __init__(self, tokens: Sequence[int], others: Sequence[Sequence[int]] = ()) -> None:
        before = [token for other in others for token in (*other, NONE)]
        self._tokens = np.array([*before, *tokens, *[NONE] * 64], np.int64)
        self._end = len(before) + len(tokens)
        self._at = 0  # where the match goes on; `_end` without one
        self.length = 0  # of the match, in tokens
        self._match()

    def append(self, token: int) -> None:
        """Go on with a token."""
        if self._end == len(self._tokens):
            self._tokens = np.concatenate((self._tokens, np.full(self._end, NONE)))
        follows = bool(self.length) and self._tokens[self._at] == token
        self._tokens[self._end] = token
        self._end += 1
        if follows:
            self._at, self.length = self._at + 1, self.length + 1
        if not follows or self._tokens[self._at] == NONE:
            self._match()

    @property
    def following(self) -> int:
        """The token that followed the match; NONE without a match."""
        return int(self._tokens[self._at]) if self.length else NONE

    def draft(self, most: int) -> list[int]:
        """At most so many tokens that followed the match; behind the text's end they begin again, as in a repetition.
        Empty without a match."""
        if not self.length or most < 1:
            return []
        period = self._end - self._at
        draft = [int(self._tokens[self._at + i % period]) for i in range(most)]
        return draft[: draft.index(NONE)] if NONE in draft else draft

    def _match(self) -> None:
        """Find the longest match of the text's end, of several the latest."""
        tokens, last = self._tokens, self._end - 1
        ends, self.length = np.flatnonzero(tokens[:last] == tokens[last]), 0
        while len(ends) and self.length < MATCH:
            self.length += 1
            self._at = int(ends[-1]) + 1
            ends = ends[ends >= self.length]
            ends = ends[tokens[ends - self.length] == tokens[last - self.length]]
        if self.length and tokens[self._at] == NONE:
            self.length = 0


class Rates:
    """How often the token behind a match is the next one, by the length of the match; `shared` says so of other
    answers."""

    def __init__(self, shared: "Rates | None" = None) -> None:
        self._shared = shared
        self._right, self._all = [0.0] * MATCH, [0.0] * MATCH

    def count(self, length: int, right: bool) -> None:
        """A token behind a match of this length was the next one, or not."""
        place = min(length, MATCH) - 1
        self._right[place] = FORGET * self._right[place] + right
        self._all[place] = FORGET * self._all[place] + 1
        if self._shared is not None:
            self._shared.count(length, right)

    def rate(self, length: int) -> float:
        """The share of right tokens behind matches of this length."""
        place = min(length, MATCH) - 1
        weight = WEIGHT if self._shared is None else SHARED_WEIGHT
        belief = BELIEF[place] if self._shared is None else self._shared.rate(length)
        return (self._right[place] + weight * belief) / (self._all[place] + weight)


class Line:
    """A line through the seconds of passes by their number of tokens, the later passes counting more."""

    def __init__(self) -> None:
        self.weight = 0.0
        self._sums = [0.0] * 4  # tokens, seconds, tokens², tokens · seconds
        self._slope, self._at_none = SLOPE, 1 - SLOPE  # in any unit until something is measured

    def measure(self, tokens: int, seconds: float) -> None:
        """A pass of so many tokens took so long; of one that was held up little is believed."""
        if self.weight > SETTLED:
            seconds = min(seconds, HELD_UP * self.of(tokens))
        self.forget(FORGET_TIMES)
        new = (tokens, seconds, tokens * tokens, tokens * seconds)
        self.weight, self._sums = self.weight + 1, [old + each for old, each in zip(self._sums, new)]
        x, y, xx, xy = (each / self.weight for each in self._sums)
        believed = SLOPE * y / (1 + SLOPE * (x - 1))
        spread = self.weight * max(0.0, xx - x * x)
        slope = (self.weight * (xy - x * y) + SLOPE_WEIGHT * believed) / (spread + SLOPE_WEIGHT)
        # a further token takes at most as long as a pass of its own
        self._slope = min(max(slope, LEAST_SLOPE * y / (1 + LEAST_SLOPE * (x - 1))), y / x)
        self._at_none = y - self._slope * x

    def forget(self, factor: float) -> None:
        """What was measured so far weighs less."""
        self.weight, self._sums = self.weight * factor, [factor * each for each in self._sums]

    def of(self, tokens: int) -> float:
        """The time of a pass of so many tokens."""
        return self._at_none + self._slope * tokens


class Times:
    """Seconds of a pass by its number of tokens: a line for short passes, and one for longer ones, which a machine that
    is busy otherwise may compute very much slower."""

    def __init__(self) -> None:
        self._short, self._long = Line(), Line()

    def measure(self, tokens: int, seconds: float) -> None:
        """A pass of so many tokens took so long."""
        if tokens > SHORT:
            self._long.measure(tokens, seconds)
        else:
            self._short.measure(tokens, seconds)
            self._long.forget(FORGET_LONG)

    def of(self, tokens: int) -> float:
        """The time of a pass of so many tokens."""
        if tokens > SHORT:
            line = self._long if self._long.weight > KNOWN else self._short
        else:
            line = self._short if self._short.weight or not self._long.weight else self._long
        return line.of(tokens)


@dataclass
class Counts:
    """What came of lookup: tokens of answers behind their first ones, those of drafts that were read, and of these the
    ones that were right."""

    tokens: int = 0
    drafted: int = 0
    accepted: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.tokens + other.tokens, self.drafted + other.drafted, self.accepted + other.accepted)

    @property
    def words(self) -> str:
        """`prompt lookup gave 1,204 of 3,310 tokens; 71 % of its drafts' tokens were right`; "" where it read none."""
        if not self.drafted:
            return ""
        right = f"{self.acceptance:.0%}".replace("%", " %")
        drafts = f"{right} of its drafts' tokens were right"
        return f"prompt lookup gave {self.accepted:,} of {self.tokens:,} tokens; {drafts}"

    @property
    def acceptance(self) -> float:
        """Share of the drafts' tokens that were right; 0 without drafts."""
        return self.accepted / self.drafted if self.drafted else 0.0


@dataclass(eq=False)
class Lookup:
    """The state of one answer: its text, and how often drafts were right in it."""

    follower: Follower
    rates: Rates

    def advance(self, tokens: Sequence[int]) -> None:
        """Count what a draft would have been worth, whether it was read or not, and go on with these tokens."""
        follower = self.follower
        for token in tokens:
            if follower.length:
                self.rates.count(follower.length, follower.following == token)
            follower.append(token)


def worth(lookups: Sequence[Lookup], most: Sequence[int], times: Times) -> list[int]:
    """How many tokens to draft for each answer, at most `most` (A,): as many as by expectation give most tokens in a
    second, none where that is not MARGIN times what a pass without drafts gives, which has a token of each answer."""
    if not lookups:
        return []
    counts, expected, read = [0] * len(lookups), float(len(lookups)), len(lookups)
    usual = rate = expected / times.of(read)
    next_best = []  # (-chance that the draft is right up to its next token, answer)
    for i, lookup in enumerate(lookups):
        if lookup.follower.length and most[i] > 0:
            next_best.append((-lookup.rates.rate(lookup.follower.length), i))
    heapify(next_best)
    while next_best:
        chance, i = heappop(next_best)
        faster = (expected - chance) / times.of(read + 1)
        if faster <= rate:  # nor would a less likely token
            break
        counts[i], expected, read, rate = counts[i] + 1, expected - chance, read + 1, faster
        if counts[i] < most[i]:
            further = lookups[i].rates.rate(lookups[i].follower.length + counts[i])
            heappush(next_best, (chance * further, i))
    return counts if rate > MARGIN * usual else [0] * len(lookups)
