"""The pick rule: who is picked, how it is called, and that the reason says so in a few sentences."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from riyaz.comparison import ranking as module
from riyaz.comparison.floor import majority_floor
from riyaz.comparison.pick import Pick, choose
from riyaz.config import Metric
from riyaz.data import Example
from riyaz.data.task import Task
from riyaz.metrics.paired import ROWS_CAP, paired_test, shortfall
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
    assert 1 <= len(sentences(result.reason)) <= 5, result.reason
    assert result.rows_needed is None or decision == "undecided"
    for word in words:
        assert word in result.reason, (word, result.reason)


def test_certified_best() -> None:
    arms = [arm("zero_shot", 40), arm("lora", 42), arm("nearest", 0.1)]
    result = choose(arms, {"zero_shot": right(90), "lora": right(240), "nearest": right(150)})
    check(result, "lora", "certified", "accuracy 0.800 on 300 test rows", "runner-up nearest (0.500)", "optimistic")
    assert "is certified with 95 % confidence to be the best of 3 methods" in result.reason
    assert result.runner_up == "nearest"


def test_cheapest_of_the_surely_close_arms_is_a_tie() -> None:
    scores = {"nearest": right(100), "lora": right(200), "full": right(201)}
    arms = [arm("nearest", 0.1), arm("full", 41), arm("lora", 40)]
    result = choose(arms, scores)
    check(
        result,
        "lora",
        "tie",
        "Of 2 methods with 95 % confidence within 0.02 of the best, lora",
        "cheapest to serve, ahead",
        "runner-up full",
    )
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
    check(
        result,
        best,
        "undecided",
        "leads, but the test is too small to separate the leaders: no method is",
        f"runner-up {other}",
        "test rows would decide",
    )
    assert result.runner_up == other and result.rows_needed is not None
    low, high = result.rows_needed
    assert 300 < low < high < 50_000
    assert f"about {low:,}–{high:,} test rows would decide" in result.reason.lower()


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
        for clause in sentences(result.reason)[-1].lower().split("; "):
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
    check(result, "nearest", "certified", "--max-ms 200 leaves out few_shot (250 ms per answer)")
    check(result, "nearest", "certified", "--max-rss-mb 800 leaves out lora (900 MB)")
    check(result, "nearest", "certified", "--max-forgetting 0.5 leaves out full (0.7 nats/token)")
    assert result.runner_up is None and "Without --max-ms 200 few_shot would be picked" in result.reason
    result = choose(arms, scores, limits={"max_ms": 200, "max_rss_mb": None})
    check(result, "lora", "certified", "runner-up full", "Without --max-ms 200 few_shot would be picked")
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
    check(result, "c", "certified", "a (not measured)", "b (not measured)")


def test_no_arm_within_the_limits() -> None:
    arms = [arm("lora", 40), arm("full", 45), arm("few_shot", status="failed")]
    result = choose(arms, {"lora": right(9), "full": right(8)}, limits={"max_ms": 10})
    check(result, None, "undecided", "No method is within the limits", "lora (40 ms per answer) and full (45 ms")
    assert result.runner_up is None and result.rows_needed is None


def test_only_finished_arms_are_eligible() -> None:
    skipped = arm("few_shot", status="skipped", ruled_out="it cannot run")
    arms = [arm("full", status="failed"), skipped, arm("lora", status="cut")]
    scores = {"full": right(299), "few_shot": right(298), "lora": right(100)}
    check(choose(arms, scores), "lora", "certified", "only method")
    check(choose(arms[:2], scores), None, "undecided", "full failed; few_shot skipped")
    check(choose([], {}), None, "undecided", "none was run")


def test_a_cut_arm_might_win_with_more_time() -> None:
    arms = [arm("lora", 40), arm("full", 45, status="cut")]
    check(
        choose(arms, {"lora": right(250), "full": right(150)}),
        "lora",
        "certified",
        "With more time full might win, having been cut short",
    )
    assert "cut short" not in choose(arms, {"lora": right(150), "full": right(250)}).reason


def test_broken_row_scores_leave_an_arm_out() -> None:
    broken = right(290)
    broken[:3] = np.nan
    arms = [arm("full"), arm("lora"), arm("few_shot")]
    result = choose(arms, {"full": broken, "lora": right(200)})
    check(result, "lora", "certified", "full is left out (3 of 300 row scores not a number)")
    assert "few_shot is left out (no row scores)" in result.reason
    check(choose(arms[:1], {"full": broken}), None, "undecided", "full is left out")


def test_identical_arms_tie_however_few_the_rows() -> None:
    for scores in (np.ones(3), np.array([0.0, 0.5, 0.0]), np.array([1.0])):
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
    check(result, "cheap", "undecided", "more than 1,000,000 test rows would decide")
    assert result.rows_needed is not None and result.rows_needed[1] == ROWS_CAP


def test_free_text_scores() -> None:
    generator = np.random.default_rng(5)
    base = generator.beta(2, 3, size=200)
    close = np.clip(base + 0.02 * generator.normal(size=200), 0, 1)
    scores = {"dear": base, "cheap": close, "poor": base * 0.6}
    arms = [arm("dear", 9), arm("cheap", 2), arm("poor", 1, metric="rouge_l")]
    check(choose(arms, scores), "cheap", "tie")
    check(choose(arms[2:], scores), "poor", "certified", "ROUGE-L 0.")


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


def test_nothing_is_picked_where_every_arm_scores_zero() -> None:
    """A tie of arms that answer nothing right is no result."""
    arms, zero = [arm("nearest", 0.1), arm("lora", 40), arm("few_shot", 250)], np.zeros(60)
    result = choose(arms, dict.fromkeys(("nearest", "lora", "few_shot"), zero))
    check(result, None, "nothing", "Nothing works here: all 3 methods score 0 on 60 test rows.")
    assert result.reason.endswith(
        "Check the instruction and the wording of the answers, give more rows, or take a larger model."
    )
    assert result.runner_up is None
    check(choose(arms[:1], {"nearest": zero}), None, "nothing", "the only method, nearest, scores 0 on 60 test rows.")
    # A limit may leave out the arm that works, and time may be what the others lack.
    short = [arm("nearest", 0.1), arm("lora", 40, status="cut", steps=9, recipe_steps=100), arms[2]]
    scores = {"nearest": zero, "lora": zero, "few_shot": right(30, 60)}
    result = choose(short, scores, limits={"max_ms": 200})
    check(result, None, "nothing", "all 2 methods score 0", "--max-ms 200 leaves out few_shot (250 ms per answer)")
    assert "lora (9 of 100); --more 30m continues it." in result.reason
    scores["nearest"] = right(1, 60)
    assert choose(short, scores, limits={"max_ms": 200}).pick == "nearest"


def examples(answers: str, where: str) -> tuple[Example, ...]:
    """One row for each letter of `answers`, numbered from the last to the first."""
    messages = ({"role": "user", "content": "?"},)
    return tuple(Example(messages, (a,), where=f"{where}:{100 - i}") for i, a in enumerate(answers))


def by(metric: Metric) -> Task:
    """A task that this metric decides."""
    return Task("closed", (), metric, "", "")


def test_the_floor_is_the_most_frequent_training_answer_on_the_test_rows() -> None:
    made = majority_floor(examples("baabc", "train"), examples("aabc", "test"), by("accuracy"))
    assert made is not None
    floor, scores = made
    assert (floor.answer, floor.score) == ("a", 0.5) and scores.tolist() == [1, 0, 0, 1], "by `where` as text"
    assert 0 < floor.ci_low < 0.5 < floor.ci_high < 1
    made = majority_floor(examples("bbaac", "train"), examples("b", "test"), by("exact_match"))
    assert made is not None and made[0].score == 0.0, "of equally frequent answers the first in the alphabet"
    assert majority_floor(examples("abc", "train"), examples("a", "test"), by("rouge_l")) is None, "none is frequent"


def test_the_reason_says_when_the_leader_is_not_above_the_floor() -> None:
    made = majority_floor(examples("aab", "train"), examples("a" * 20 + "b" * 80, "test"), by("accuracy"))
    assert made is not None
    scores = made[1]
    near = {"lora": np.roll(scores, 3), "nearest": np.zeros(100)}
    result = choose([arm("lora", 40), arm("nearest", 1)], near, floor=made)
    p_value = paired_test(near["lora"], scores).p_value
    said = (
        f"the score of lora is not above the floor beyond chance: always answering 'a' scores 0.200 (p {p_value:.2g})"
    )
    assert said[1:] in result.reason
    assert "floor" not in choose([arm("lora", 40)], {"lora": right(90, 100)}, floor=made).reason


def test_an_arm_that_did_not_run_leaves_the_pick_undecided() -> None:
    scores = {"linear": right(240), "lora": right(150)}
    arms = [arm("linear", 1), arm("lora", 40), arm("full", None, status="skipped", reason="no time was left for it")]
    result = choose(arms, scores, more="riyaz compare … --more 30m")
    said = "linear (accuracy 0.800 on 300 test rows) leads, but full did not run and may be better; runner-up lora"
    check(result, "linear", "undecided", said, "Without a result: full; riyaz compare … --more 30m runs it")
    two = [*arms, arm("few_shot", None, status="skipped")]
    check(choose(two, scores), "linear", "undecided", "full and few_shot did not run", "runs them")
    check(choose([arms[0], arms[2]], scores), "linear", "undecided", "leads, as the only method that ran")
    # one that something speaks against, or that could not be used if it won, changes nothing
    ruled_out = replace(arms[2], ruled_out="it is tried only where every recipe fits the budget")
    check(choose([*arms[:2], ruled_out], scores), "linear", "certified")
    check(choose([*arms[:2], replace(arms[2], status="failed")], scores), "linear", "certified")


def test_a_cut_arm_that_was_still_improving_is_not_certified_against() -> None:
    scores = {"linear": right(240), "lora": right(190)}  # its interval ends at .68
    improving = {"steps": 80, "recipe_steps": 120, "chosen": {"best_step": 80, "steps": 80}, "ci_high": 0.71}
    arms = [arm("linear", 1), arm("lora", 40, status="cut", **improving)]
    result = choose(arms, scores, more="--more 30m")
    check(result, "linear", "undecided", "too little training to be judged",
          "Cut while validation still improved: lora (80 of 120); --more 30m continues it")  # fmt: skip
    both = [*arms, arm("full", None, status="skipped")]
    check(choose(both, scores), "linear", "undecided", "lora (80 of 120); without a result: full; --more 30m continues "
          "them")  # fmt: skip
    for changed in ({"ci_high": 0.65}, {"chosen": {"best_step": 60, "steps": 80}}, {"status": "ok"}):
        check(choose([arms[0], replace(arms[1], **changed)], scores), "linear", "certified")


def test_half_trained_arms_leave_the_pick_undecided() -> None:
    """An arm at a tenth of its steps may still win, so it certifies nothing for another one."""
    scores = {"nearest": right(240), "lora": right(100), "full": right(20)}
    cut = [
        arm("nearest", 0.1),
        arm("lora", 40, status="cut", steps=12, recipe_steps=120),
        arm("full", 45, status="cut", steps=9, recipe_steps=100),
    ]
    result = choose(cut, scores, more="riyaz compare … --out x --more 30m")
    check(
        result,
        "nearest",
        "undecided",
        "nearest (accuracy 0.800 on 300 test rows) leads, but another method has",
    )
    said = "Trained for less than half of the recipe's steps: lora (12 of 120) and full (9 of 100); "
    assert f"{said}riyaz compare … --out x --more 30m continues them." in result.reason
    assert result.rows_needed is None and "margin" not in result.reason, "neither rows nor a margin would decide"
    # From half of the steps on, for the pick itself, after a lost race, and where the steps are not known, nothing
    # changes.
    lost = {"steps": 30, "recipe_steps": 120, "waited": True}
    for fields in ({"steps": 60, "recipe_steps": 120}, lost, {}):
        check(choose([cut[0], arm("lora", 40, status="cut", **fields)], scores), "nearest", "certified", "cut short")
    check(choose(cut[:2], scores | {"lora": right(299)}), "lora", "certified")
    check(choose([cut[0], replace(cut[1], status="failed")], scores), "nearest", "certified")
    # A tie is no certainty either: the best by score leads.
    tie = {"nearest": right(240), "lora": right(241), "few_shot": right(240)}
    result = choose([*cut[:2], arm("few_shot", 250)], tie)
    check(result, "lora", "undecided", "lora (12 of 120); --more 30m continues it")


def test_an_optional_arm_that_is_cut_far_below_the_best_leaves_the_pick_certified() -> None:
    """Had it been skipped it would not count, though nothing was measured of it."""
    scores = {"rag_lora": right(174), "prompt_tuning": right(27)}
    early = {"steps": 110, "recipe_steps": 350, "ci_high": 0.13, "chosen": {"best_step": 110, "steps": 110}}
    cut = arm("prompt_tuning", 33, status="cut", **early)
    check(choose([arm("rag_lora", 104), cut], scores), "rag_lora", "undecided", "prompt_tuning (110 of 350)")
    optional = replace(cut, ruled_out="it is optional")
    check(choose([arm("rag_lora", 104), optional], scores), "rag_lora", "certified", "With more time prompt_tuning")
    near = replace(optional, ci_high=0.49)  # .58 less GAIN is .48
    check(choose([arm("rag_lora", 104), near], scores), "rag_lora", "undecided", "prompt_tuning (110 of 350)")


def test_when_undecided_the_cheapest_arm_that_may_be_as_good_is_named() -> None:
    shares = {"cheap": 150, "fair": 205, "dear": 207, "dearest": 213}
    scores = {method: np.roll(right(count), 7 * count) for method, count in shares.items()}
    arms = [arm("cheap", 1), arm("fair", 20), arm("dear", 30), arm("dearest", 1188.1)]
    result = choose(arms, scores)
    leader = str(result.pick)
    assert leader == "dearest"
    p_value = paired_test(scores["fair"], scores[leader]).p_value
    assert p_value >= 0.05 > paired_test(scores["cheap"], scores[leader]).p_value
    said = (
        f"({scores['fair'].mean():.3f}, 20 instead of 1,188 ms per answer) is not worse beyond chance (p {p_value:.2g})"
    )
    check(result, leader, "undecided", f"The cheaper fair {said}")
    forgetful = [arms[0], arm("fair", 20, forgetting_nats=0.7), *arms[2:]]
    assert "The cheaper dear (" in choose(forgetful, scores).reason, "not one that forgot much"
    assert "cheaper" not in choose(arms[::3], scores).reason, "the only cheaper one is worse"
    assert "cheaper" not in choose([replace(each, ms_per_answer=None) for each in arms], scores).reason


def test_no_number_of_rows_is_named_for_a_small_test() -> None:
    arms = [arm("cheap", 1), arm("dear", 99)]
    for n in (99, 100):
        result = choose(arms, {"cheap": noisy(0.7, 1, n), "dear": noisy(0.7, 2, n)})
        assert result.decision == "undecided" and (result.rows_needed is None) == (n < 100)
        assert ("would decide" in result.reason) == (n >= 100)


def test_forgetting_is_warned_of_and_breaks_ties() -> None:
    same = {"wild": right(200), "calm": right(200), "nearest": right(20)}
    arms = [arm("wild", 40, forgetting_nats=6.8), arm("calm", 41, forgetting_nats=0.1), arm("nearest", 1)]
    kept = "the cheapest to serve that forgot at most 0.5 nats per token, ahead of runner-up wild"
    check(choose(arms, same), "calm", "tie", kept)
    assert "Warning" not in choose(arms, same).reason
    # Where nothing is sure, it decides between equal scores.
    result = choose(arms[:2], {"wild": right(15, 30), "calm": 1 - right(15, 30)})
    check(result, "calm", "undecided")
    # 0.5 nats themselves are no reason, and cost decides again.
    check(choose([replace(arms[0], forgetting_nats=0.5), *arms[1:]], same), "wild", "tie", "cheapest to serve, ahead")
    result = choose([arms[0], arms[2]], same)
    check(result, "wild", "certified", "Warning: wild forgot 6.8 nats per token of general text.")
