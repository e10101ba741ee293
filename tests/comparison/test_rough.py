"""The first estimate, by arithmetic: it comes before anything is measured and grows with the model and the rows."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from fit_context import TASK, examples

from riyaz.comparison import rough
from riyaz.config import CompareConfig, Seconds
from riyaz.data.split import Split
from riyaz.families import describe
from riyaz.methods import METHODS
from riyaz.sources import Source, open_source

NAMES = ("nearest", "zero_shot", "few_shot", "lora", "full")
RECIPES = {name: METHODS[name].recipe for name in NAMES}


@pytest.fixture
def source(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    monkeypatch.setattr(rough, "_products_per_second", lambda: 1e9)
    return open_source(model_folder)


def test_seconds_and_memory_grow_with_the_model(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    small = rough.rough_speeds(source, TASK, examples(24, "please"), 9, RECIPES, 0.0)
    family = describe(source)
    monkeypatch.setattr(rough, "describe", lambda source: replace(family, parameters=10 * family.parameters))
    large = rough.rough_speeds(source, TASK, examples(24, "please"), 9, RECIPES, 0.0)
    for name in ("zero_shot", "few_shot", "lora"):
        assert large.predict[name].row_seconds == pytest.approx(10 * small.predict[name].row_seconds)
    assert small.predict["few_shot"].row_seconds > small.predict["zero_shot"].row_seconds > 0
    assert large.arms["full"].step_seconds == pytest.approx(10 * small.arms["full"].step_seconds)
    assert small.arms["full"].step_seconds == pytest.approx(1.5 * small.arms["lora"].step_seconds)
    assert large.arms["full"].rss_mb > small.arms["full"].rss_mb > small.rss_mb
    assert set(small.predict) == set(NAMES) and set(small.arms) == {"lora", "full"}


def test_what_is_rehearsed_is_a_share_of_all_tokens(source: Source) -> None:
    recipes = RECIPES | {"prompt_tuning": METHODS["prompt_tuning"].recipe}
    none, half = (
        rough.rough_speeds(source, TASK, examples(24, "please"), 9, recipes, share).arms for share in (0, 0.5)
    )
    factors = {name: half[name].step_seconds / none[name].step_seconds for name in half}
    assert factors == pytest.approx({"lora": 2, "full": 2, "prompt_tuning": 1}), "a soft prompt does not rehearse"


def test_the_estimate_is_one_sentence_and_never_above_the_budget(source: Source) -> None:
    parts = Split(examples(24, "please"), examples(9, "today"), examples(18, "now"))

    def estimate(budget: float) -> str:
        return rough.rough_estimate({"tiny": source}, TASK, parts, NAMES, CompareConfig(methods=NAMES), budget)

    assert estimate(3600).endswith(" MB of memory; measuring this machine refines it")
    said = {budget: estimate(budget).removeprefix("rough estimate: ").split(",")[0] for budget in (5.0, 60.0, 36000.0)}
    assert said[60.0] != said[36000.0] and float(Seconds(said[60.0])) <= 60, said
    assert said[5.0] == "10s", "too short for two arms, which the measured speeds will say"


def test_the_probe_of_the_machine_takes_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that ticks where it is looked at, a product takes two ticks, or one, which counts."""
    ticks, looks = itertools.cycle([2, 1, 1, 1]), itertools.count(1)
    now = itertools.accumulate(tick * rough.PROBE_SECONDS / 100 for tick in ticks)
    monkeypatch.setattr(rough.time, "perf_counter", lambda: next(looks) and next(now))
    best = rough.PROBE_SECONDS / 100
    assert rough._products_per_second() == pytest.approx(2 * rough.PROBE_SIZE**3 / best)
    assert next(looks) < 100, "it ended with its time"
