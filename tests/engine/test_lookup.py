"""Drafts of prompt lookup: what is drafted, how long a draft pays, and that it never pays on random text."""

import numpy as np
import pytest

from riyaz.engine.lookup import LONGEST, MATCH, NONE, Follower, Lookup, Rates, Times, worth


def plain_match(tokens: list[int]) -> tuple[int, int]:
    """(length, where it goes on) of the longest match of the end of a text, of several the latest, by plain loops."""
    best = (0, 0)
    for at in range(1, len(tokens)):
        length = 0
        while length < min(at, MATCH) and tokens[at - 1 - length] == tokens[-1 - length] != NONE:
            length += 1
        if length and length >= best[0]:
            best = length, at
    return best


@pytest.mark.parametrize("seed", range(4))
def test_the_longest_match_is_followed(seed: int) -> None:
    generator = np.random.default_rng(seed)
    text = generator.integers(0, 4, 40).tolist()
    follower = Follower(text)
    for token in generator.integers(0, 4, 200).tolist():
        goes_on = follower.length and follower.following == token
        follower.append(token)
        text.append(token)
        length, at = plain_match(text)
        if not goes_on:  # else the match that was followed goes on, though another may be as long
            assert min(follower.length, MATCH) == length
            assert not length or follower.draft(3)[0] == text[at]
        assert follower.draft(1) == ([follower.following] if follower.length else [])


def test_a_draft_repeats_what_followed_and_ends_with_its_text() -> None:
    assert Follower([1, 2, 3, 4, 5, 1, 2]).draft(3) == [3, 4, 5]
    assert Follower([7, 1, 2, 1, 2]).draft(5) == [1, 2, 1, 2, 1]  # as in a repetition
    assert Follower([8, 1, 2], others=[(5, 1, 2, 6, 7)]).draft(9) == [6, 7]
    assert Follower([8, 1, 2], others=[(5, 1, 2)]).draft(9) == []
    assert Follower([1, 2, 3]).draft(4) == []


def answer_of(text: list[int], shared: Rates | None = None) -> Lookup:
    return Lookup(Follower(text), Rates(shared))


def test_a_repeating_answer_gets_long_drafts_and_a_random_one_none() -> None:
    generator, times = np.random.default_rng(1), Times()
    repeating, random_ = answer_of([1, 2, 3, 4] * 6), answer_of(generator.integers(0, 9, 40).tolist())
    repeating.advance([1, 2, 3, 4] * 20)
    random_.advance(generator.integers(0, 9, 200).tolist())
    assert random_.follower.length > 0
    assert worth([repeating, random_], [LONGEST] * 2, times)[1] == 0
    assert worth([repeating], [LONGEST], times)[0] > 4
    assert worth([repeating], [2], times) == [2]
    times.measure(4, 0.004)
    times.measure(1, 0.001)  # the line goes through 0
    times.measure(1, 0.001)
    assert worth([], [], times) == []


def test_a_dear_token_is_not_drafted() -> None:
    lookup, dear, cheap = answer_of([1, 2, 3, 4] * 6), Times(), Times()
    lookup.advance([1, 2, 3, 4] * 20)
    for tokens in (1, 8, 1, 8):
        dear.measure(tokens, 0.001 * tokens)  # a further token takes as long as a pass
        cheap.measure(tokens, 0.001)
    assert worth([lookup], [LONGEST], dear) == [0]
    assert worth([lookup], [LONGEST], cheap) == [LONGEST]


def test_times_are_a_line_and_a_pass_that_was_held_up_counts_little() -> None:
    times = Times()
    for tokens in (1, 8, 1, 4, 1, 6) * 5:
        times.measure(tokens, 0.004 + 0.001 * tokens)
    assert times.of(1) == pytest.approx(0.005, rel=0.02)
    assert times.of(8) == pytest.approx(0.012, rel=0.02)
    assert times.of(12) == pytest.approx(0.016, rel=0.02)  # as no long pass is known
    times.measure(8, 100.0)
    assert times.of(8) < 0.02


def test_long_passes_have_times_of_their_own() -> None:
    times = Times()
    for _ in range(9):
        times.measure(1, 0.004)
        times.measure(4, 0.005)
    times.measure(12, 0.4)  # as on a machine whose cores others use
    assert times.of(12) > 0.2 and times.of(8) < 0.01
    lookups = [answer_of([1, 2, 3, 4] * 6) for _ in range(4)]
    for lookup in lookups:
        lookup.advance([1, 2, 3, 4] * 20)
    assert sum(worth(lookups, [LONGEST] * 4, times)) == 4
    for _ in range(1000):
        times.measure(1, 0.004)
    assert times.of(12) < 0.02  # long ago


def test_what_other_answers_say_begins_a_new_one() -> None:
    shared = Rates()
    for _ in range(300):
        Rates(shared).count(2, right=False)
    assert Rates(shared).rate(2) < 0.05 < Rates().rate(2)
    own = Rates(shared)
    for _ in range(30):
        own.count(2, right=True)
    assert own.rate(2) > 0.5
