"""The pick rule: who is picked, how it is called, and that the reason says so in two sentences."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from riyaz.comparison import pick as module
from riyaz.comparison.pick import Pick, choose
from riyaz.metrics.paired import ROWS_CAP, shortfall
from riyaz.results import ArmResult


def arm(method: str, ms: float | None = 10.0, **fields: Any) -> ArmResult:
    known = {"metric": "accuracy", "ms_per_answer": ms, "peak_rss_mb": 500.0, "forgetting_nats": 0.0}
    return ArmResult(method, **{"status": "ok"} | known | fields)


def right(count: int, n: int = 300) -> np.ndarray:
    """Row scores with the first `count` of `n` rows right."""
    return (np.arange(n) < count).astype(float)


def noisy(accuracy: float, seed: int, n: int = 300) -> np.ndarray:
    return (np.random.default_rng(seed).random(n) < accuracy).astype(float)


def sentences(reason: str) -> list[str]:
    assert reason.endswith(".")
    return reason[:-1].split(". ")


def check(result: Pick, pick: str | None, decision: str, *words: str) -> None:
    assert (result.pick, result.decision) == (pick, decision), result.reason
    assert 1 <= len(sentences(result.reason)) <= 2, result.reason
    assert (result.rows_needed is not None) == (decision == "undecided" and pick is not None)
    for word in words:
        assert word in result.reason, (word, result.reason)


def test_clear_best() -> None:
    arms = [arm("zero_shot", 40), arm("lora", 42), arm("nearest", 0.1)]
    result = choose(arms, {"zero_shot": right(90), "lora": right(240), "nearest": right(150)})
    check(result, "lora", "clear", "accuracy 0.800 on 300 test rows", "runner-up nearest (0.500)", "optimistic")
    assert result.runner_up == "nearest"


def test_cheapest_of_the_surely_close_arms_is_a_tie() -> None:
    scores = {"nearest": right(100), "lora": right(200), "full": right(201)}
    arms = [arm("nearest", 0.1), arm("full", 41), arm("lora", 40)]
    result = choose(arms, scores)
    check(result, "lora", "tie", "cheapest to serve of 2 arms", "within 0.02", "runner-up full")
    check(choose([arm("nearest", 0.1), arm("full", 40), arm("lora", 41)], scores), "full", "tie")


def test_memory_decides_between_equally_fast_arms() -> None:
    scores = {"a": right(200), "b": right(200)}
    check(choose([arm("a"), arm("b", peak_rss_mb=400.0)], scores), "b", "tie", "equal scores on every row")
    # Memory while serving counts where it was measured, not the peak of the training.
    check(choose([arm("a", serve_rss_mb=300.0), arm("b", peak_rss_mb=400.0)], scores), "a", "tie")
    check(choose([arm("a", None), arm("b")], scores), "b", "tie")


def test_undecided_picks_the_best_by_score_and_says_how_many_rows() -> None:
    scores = {"cheap": noisy(0.70, 1), "dear": noisy(0.70, 2)}
    best, other = sorted(scores, key=lambda method: -scores[method].mean())
    result = choose([arm("cheap", 1), arm("dear", 99)], scores)
    check(result, best, "undecided", "best by score", f"runner-up {other}", "test rows would decide")
    assert result.runner_up == other
    assert isinstance(result.rows_needed, int) and 300 < result.rows_needed < 50_000
    assert f"about {result.rows_needed:,} test rows" in result.reason.lower()


def test_the_margin_that_is_said_to_change_the_pick_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "shortfall", partial(shortfall, resamples=499))
    arms = [arm("few_shot", 20), arm("lora", 40), arm("full", 60)]
    base = noisy(0.7, 3)
    flip = np.random.default_rng(4).random(300)
    scores = {
        "few_shot": base,
        "lora": np.where(flip < 0.05, 1 - base, base),
        "full": np.where(flip < 0.08, 1, base),
    }
    picked, said = {}, 0
    for margin in np.arange(0, 100, 5) / 1000:
        result = choose(arms, scores, float(margin))
        picked[round(margin, 3)] = result.pick
        for clause in sentences(result.reason)[1].lower().split("; "):
            if clause.startswith("a margin of "):
                other, method = clause.removeprefix("a margin of ").split(" would pick ")
                said, then = said + 1, choose(arms, scores, float(other))
                assert then.pick == method.removesuffix(" for certain") and then.decision != "undecided"
                assert (result.pick, result.decision) != (then.pick, then.decision)
                assert method.endswith(" for certain") == (result.pick == then.pick)
    assert set(picked.values()) == {"few_shot", "full"} and said >= 10
    # The margin said is the smallest of three decimals.
    two = [arms[0], arms[2]]
    clause = sentences(choose(two, scores, 0.0).reason)[1].split(";")[0]
    least = float(clause.removeprefix("A margin of ").removesuffix(" would pick few_shot"))
    assert choose(two, scores, least).pick == "few_shot"
    assert choose(two, scores, least - 0.001).pick == "full"


def test_limits_drop_arms_and_the_reason_names_them() -> None:
    arms = [
        arm("nearest", 0.1, forgetting_nats=None),
        arm("few_shot", 250),
        arm("lora", 40, peak_rss_mb=900.0),
        arm("full", 45, forgetting_nats=0.7, trainable_params=9),
    ]
    scores = {"nearest": right(100), "few_shot": right(280), "lora": right(240), "full": right(200)}
    everything = {"max_ms": 200, "max_rss_mb": 800, "max_forgetting": 0.5}
    result = choose(arms, scores, limits=everything)
    check(result, "nearest", "clear", "--max-ms 200 leaves out few_shot (250 ms per answer)")
    check(result, "nearest", "clear", "--max-rss-mb 800 leaves out lora (900 MB)")
    check(result, "nearest", "clear", "--max-forgetting 0.5 leaves out full (0.7 nats/token)")
    assert result.runner_up is None and "Without --max-ms 200 few_shot would be picked" in result.reason
    result = choose(arms, scores, limits={"max_ms": 200, "max_rss_mb": None})
    check(result, "lora", "clear", "runner-up full", "Without --max-ms 200 few_shot would be picked")
    # A limit that only drops losers changes nothing and is not said to.
    assert "Without" not in choose(arms, scores, limits={"max_forgetting": 0.5}).reason


def test_a_limit_is_said_to_change_the_pick_only_when_it_does_alone() -> None:
    arms = [arm("cheap", 1), arm("over", 50), arm("best", 60, peak_rss_mb=900.0)]
    scores = {"cheap": right(234), "over": right(237), "best": right(240)}
    assert choose(arms, scores, margin=0.03).pick == "over"
    limits = {"max_ms": 20.0, "max_rss_mb": 800.0}
    # Without --max-ms alone `best` stays out, and beside `over` the cheap arm is good enough.
    assert choose(arms, scores, margin=0.03, limits={"max_rss_mb": 800.0}).pick == "cheap"
    assert "Without" not in choose(arms, scores, margin=0.03, limits=limits).reason


def test_what_was_not_measured_is_not_within_a_limit() -> None:
    arms = [arm("a", None), arm("b", forgetting_nats=None, trainable_params=5), arm("c")]
    scores = {"a": right(250), "b": right(240), "c": right(200)}
    result = choose(arms, scores, limits={"max_ms": 100, "max_forgetting": 1.0})
    check(result, "c", "clear", "a (not measured)", "b (not measured)")


def test_no_arm_within_the_limits() -> None:
    arms = [arm("lora", 40), arm("full", 45), arm("few_shot", status="failed")]
    result = choose(arms, {"lora": right(9), "full": right(8)}, limits={"max_ms": 10})
    check(result, None, "undecided", "No arm is within the limits", "lora (40 ms per answer) and full (45 ms")
    assert result.runner_up is None and result.rows_needed is None


def test_only_finished_arms_are_eligible() -> None:
    arms = [arm("full", status="failed"), arm("few_shot", status="skipped"), arm("lora", status="cut")]
    scores = {"full": right(299), "few_shot": right(298), "lora": right(100)}
    check(choose(arms, scores), "lora", "clear", "only arm")
    check(choose(arms[:2], scores), None, "undecided", "full failed; few_shot skipped")
    check(choose([], {}), None, "undecided", "none was run")


def test_a_cut_arm_might_win_with_more_time() -> None:
    arms = [arm("lora", 40), arm("full", 45, status="cut")]
    check(
        choose(arms, {"lora": right(250), "full": right(150)}),
        "lora",
        "clear",
        "With more time full might win, having been cut short",
    )
    assert "cut short" not in choose(arms, {"lora": right(150), "full": right(250)}).reason


def test_broken_row_scores_leave_an_arm_out() -> None:
    broken = right(290)
    broken[:3] = np.nan
    arms = [arm("full"), arm("lora"), arm("few_shot")]
    result = choose(arms, {"full": broken, "lora": right(200)})
    check(result, "lora", "clear", "full is left out (3 of 300 row scores not a number)")
    assert "few_shot is left out (no row scores)" in result.reason
    check(choose(arms[:1], {"full": broken}), None, "undecided", "full is left out")


def test_identical_arms_tie_however_few_the_rows() -> None:
    for scores in (np.ones(3), np.zeros(3), np.array([1.0])):
        check(choose([arm("dear", 9), arm("cheap", 1)], {"dear": scores, "cheap": scores}), "cheap", "tie")
    # Also beside a third arm that is far behind.
    three = {"dear": right(60, 80), "cheap": right(60, 80), "poor": right(5, 80)}
    check(choose([arm("dear", 9), arm("cheap", 1), arm("poor", 0.1)], three), "cheap", "tie")


def test_few_rows_decide_nothing_small() -> None:
    result = choose([arm("a", 1), arm("b", 2)], {"a": right(14, 20), "b": right(15, 20)})
    check(result, "b", "undecided")
    check(choose([arm("a"), arm("b")], {"a": np.array([0.0]), "b": np.array([1.0])}), "b", "undecided")


def test_equal_means_on_different_rows_are_undecided_and_never_decidable_at_margin_zero() -> None:
    a = right(150)
    result = choose([arm("dear", 9), arm("cheap", 1)], {"dear": a, "cheap": 1 - a}, margin=0.0)
    check(result, "cheap", "undecided", "Even 1,000,000 test rows may not decide")
    assert result.rows_needed == ROWS_CAP


def test_free_text_scores() -> None:
    generator = np.random.default_rng(5)
    base = generator.beta(2, 3, size=200)
    close = np.clip(base + 0.02 * generator.normal(size=200), 0, 1)
    scores = {"dear": base, "cheap": close, "poor": base * 0.6}
    arms = [arm("dear", 9), arm("cheap", 2), arm("poor", 1, metric="rouge_l")]
    check(choose(arms, scores), "cheap", "tie")
    check(choose(arms[2:], scores), "poor", "clear", "rouge l 0.")


def test_the_same_seed_gives_the_same_pick() -> None:
    arms = [arm("a", 1), arm("b", 2), arm("c", 3)]
    scores = {name: noisy(0.6, i) for i, name in enumerate("abc")}
    assert choose(arms, scores, seed=7) == choose(arms, scores, seed=7)


def test_an_arm_worse_than_the_margin_is_rarely_called_sure(monkeypatch: pytest.MonkeyPatch) -> None:
    """The promise of the rule: at most about 5 % of sure picks fall short by more than the margin."""
    monkeypatch.setattr(module, "shortfall", partial(shortfall, resamples=299))
    generator, wrong, simulations = np.random.default_rng(6), 0, 250
    truth = np.array([0.78, 0.78, 0.72, 0.72])  # the two cheap arms are just over the margin of 0.06
    arms = [arm(name, i) for i, name in enumerate("dcba")]
    for seed in range(simulations):
        rows = 0.9 * generator.normal(size=200) + 0.19**0.5 * generator.normal(size=(4, 200))
        scores = dict(zip("abcd", (rows < norm.ppf(truth)[:, None]).astype(float)))
        result = choose(arms, scores, margin=0.0599, seed=seed)
        wrong += result.decision != "undecided" and result.pick in "cd"
    assert wrong / simulations <= 0.08
