"""The dial of pretraining: sizes, what a budget affords, and the reasons it gives. Nothing is trained here."""

import dataclasses
import json
import math
from collections.abc import Callable
from typing import Any, get_args, get_type_hints

import pytest

from riyaz.config import PretrainConfig, Seconds
from riyaz.data.packing import batch
from riyaz.errors import RiyazError
from riyaz.families import FRESH, gpt2, llama
from riyaz.json_files import from_json, to_json
from riyaz.pace import Pace
from riyaz.pretraining import plan as planning
from riyaz.pretraining.plan import PretrainingPlan, Text, make_plan
from riyaz.pretraining.shapes import (
    SIZES,
    Shape,
    configured,
    flops_per_token,
    heads_for,
    memory_mb,
    parameters,
)
from riyaz.train import TrainPlan, learning_rate

BOOK = Text(train_tokens=20_000_000, train_windows=20_000_000 // 256, valid_windows=4000)


class Machine:
    """Does so many floating point operations a second, twice as many in bfloat16."""

    def __init__(self, flops: float = 2e11) -> None:
        self.flops, self.asked = flops, list[int]()

    def tokens_s(self, config: Any, compute: str) -> float:
        self.asked.append(parameters(config))
        return self.flops * (1 if compute == "bfloat16" else 0.5) / flops_per_token(config)

    def quicker(self, config: Any) -> str:
        return "bfloat16"


def planned(
    text: Text = BOOK, machine: Machine | None = None, spent: float = 10, memory: float = 16_000, **asked: Any
) -> PretrainingPlan:
    machine = machine or Machine()
    return make_plan(
        PretrainConfig(**asked), text, 4096, 256, machine, spent=lambda: spent + 5 * len(machine.asked), memory=memory
    )


def test_local_steps_round_the_distance_of_validations_and_checkpoints_up() -> None:
    shape: dict[str, Any] = {"layers": 2, "width": 64, "steps": 100}
    plan = planned(**shape, local_steps=8, validate_every=20, checkpoint_every=16)
    assert (plan.train["validate_every"], plan.train["checkpoint_every"], plan.local_steps) == (24, 16, 8)
    assert plan.effective["validate_every"] == 24 and plan.effective["local_steps"] == 8
    (value,) = [value for value in plan.derived if value.name == "local steps"]
    assert value.value == "8 of each process alone" and "every 24 steps" in value.why
    alone = planned(**shape, validate_every=20)
    assert "local_steps" not in alone.effective and alone.local_steps == 0 and alone.train["validate_every"] == 20


@pytest.mark.parametrize(("name", "family"), [(name, family) for name in SIZES for family in ("llama", "gpt2")])
def test_a_size_has_the_parameters_of_its_name(name: str, family: str) -> None:
    config = configured(family, SIZES[name], 4096, 256)
    assert parameters(config) == pytest.approx(1e6 * int(name[:-1]), rel=0.16)
    module = {"llama": llama, "gpt2": gpt2}[family]
    assert module.from_hf(module.to_hf(config)) == config
    # 6 for every parameter of a matrix product, and the attention of half a context a layer
    beside = 6 * config.n_layers * config.hidden_size * config.context
    assert flops_per_token(config) - beside == pytest.approx(6 * parameters(config), rel=0.1)


def test_flops_of_a_small_model_are_counted_by_hand() -> None:
    config = configured("llama", Shape(2, 2, 64), 100, 32)
    matrices = 2 * (4 * 64 * 64 + 3 * 64 * config.intermediate_size) + 100 * 64
    attention = 2 * 2 * 2 * 64 * 32 / 2  # scores and sums, of two layers, for half of the positions
    assert flops_per_token(config) == 3 * (2 * matrices + attention)


@pytest.mark.parametrize("width", [32, 48, 64, 96, 128, 192, 256, 320, 384, 576, 768, 1024, 50, 6])
def test_heads_share_the_width_in_pairs(width: int) -> None:
    assert width % heads_for(width) == 0 and width // heads_for(width) % 2 == 0


def test_more_time_affords_a_larger_model_and_every_number_has_a_reason() -> None:
    found = {}
    for budget in ("2m", "15m", "5h", "100h"):
        plan = planned(budget=Seconds(budget))
        found[budget] = plan.model["parameters"]
        assert plan.tokens / plan.tokens_s <= Seconds(budget) * planning.TRAINING + 60
        assert all(value.why and value.value for value in plan.derived)
        assert plan.estimate["seconds"] <= Seconds(budget) + 1
    assert list(found.values()) == sorted(found.values()) and found["2m"] < found["100h"]


def test_without_anything_the_budget_is_a_quarter_of_an_hour() -> None:
    assert planned().train == planned(budget=Seconds("15m")).train and planned().effective["budget"] == 900


def test_a_size_alone_reads_twenty_tokens_a_parameter_or_sixteen_times_the_text() -> None:
    plan = planned(size="5m")
    assert plan.tokens == pytest.approx(20 * plan.model["parameters"], rel=0.01) and plan.effective["budget"] is None
    short = Text(300_000, 300_000 // 256, 60)
    plan = planned(short, size="5m")
    assert plan.tokens == pytest.approx(16 * 300_000, rel=0.02) and plan.train["dropout"] == 0.1
    assert any("16 epochs of the 300,000 tokens" in value.why for value in plan.derived)
    plan = planned(short, budget=Seconds("10h"))  # the text, not the time, is what is missing
    assert plan.tokens <= 16 * 300_000 * 1.02 and plan.estimate["seconds"] < 36_000


def test_larger_models_are_not_measured_once_one_is_too_large() -> None:
    machine = Machine()
    planned(machine=machine, budget=Seconds("2m"))
    assert max(machine.asked) < 6e6


def test_measuring_is_part_of_the_budget() -> None:
    plan = planned(budget=Seconds("60s"), size="1m", spent=10)
    assert plan.tokens == pytest.approx((60 - 15 - plan.end_seconds) * planning.TRAINING * plan.tokens_s, rel=0.02)
    assert plan.estimate["seconds"] == pytest.approx(60, abs=1)


def test_the_end_of_a_run_is_part_of_the_budget() -> None:
    small, large = (planned(budget=Seconds("1h"), size=size) for size in ("1m", "50m"))
    judging = [planning.JUDGED * 256 / 3 / plan.tokens_s for plan in (small, large)]
    assert small.end_seconds == pytest.approx(planning.END_SECONDS + judging[0], abs=0.1)
    assert large.end_seconds == pytest.approx(planning.END_SECONDS + judging[1] + 2, abs=0.2), "200 MB at 100 MB/s"
    few = planned(Text(20_000_000, 20_000_000 // 256, 3), budget=Seconds("1h"), size="50m")
    assert large.end_seconds - few.end_seconds == pytest.approx(judging[1] * 61 / 64, rel=0.01)


class Clock:
    """A run of `Pace` whose steps take what a function of the step says; seconds of training."""

    def __init__(self, plan: TrainPlan, budget: float | None, took: Callable[[int], float], before: float = 5) -> None:
        self.plan, self.took, self.seconds = plan, took, 0.0
        self.recorded: list[TrainPlan] = []
        self.pace = Pace(budget, before, 1.0, 4.0, lambda: self.seconds, self.recorded.append)

    def run(self, first: int = 0) -> int:
        step = first
        while step < self.plan.length:
            self.plan = self.pace.adjusted(self.plan, step)
            step += 1
            self.seconds += self.took(step)
        return step


@pytest.mark.parametrize(
    ("took", "steps"),
    [
        (lambda step: 1.0, 100),
        (lambda step: 0.5, 100),  # never more than were planned
        (lambda step: 2.0, 53),  # 115 - 5 - 2 * 4 seconds
        (lambda step: 1.0 if step <= 50 else 2.0, 78),
        (lambda step: 2.0 if step <= 20 else 1.0, 83),  # what was cut at first comes back
        (lambda step: 1.0 if step != 60 else 31.0, 73),
        (lambda step: 40.0, 2),  # a single step is a third of the budget
    ],
)
def test_a_run_takes_the_steps_that_its_budget_holds(took: Callable[[int], float], steps: int) -> None:
    clock = Clock(TrainPlan(steps=100, learning_rate=1.0), 115.0, took)
    assert clock.run() == pytest.approx(steps, abs=2)
    took_all = 5 + clock.seconds + 4 * max(1.0, clock.seconds / clock.plan.length)
    assert (took_all <= 115 + 2 * took(1) or steps == 2) and len(clock.recorded) < 30
    assert clock.plan.changes == (clock.recorded[-1].changes if clock.recorded else ())
    last = learning_rate(clock.plan, clock.plan.length - 1)
    assert last < 0.15 or steps == 2, "the rate has fallen to a tenth"


def test_a_run_without_a_budget_has_its_length_and_a_resumed_one_the_recorded_changes() -> None:
    plan = TrainPlan(steps=100, learning_rate=1.0)
    clock = Clock(plan, None, lambda step: 50.0)
    assert clock.run() == 100 and clock.recorded == []
    plan = dataclasses.replace(plan, changes=((30, 70),))
    clock = Clock(plan, 115.0, lambda step: 3.0)
    clock.seconds = 25 * 3.0
    assert clock.pace.adjusted(plan, 25) is plan, "it was at step 30 that the run was shortened"
    assert clock.run(25) < 45 and clock.plan.changes[0] == (30, 70) and clock.plan.changes[1][0] > 30


def test_a_flag_without_effect_is_refused() -> None:
    with pytest.raises(RiyazError) as error:
        planning.check(PretrainConfig(budget=60.0, steps=3))
    assert str(error.value) == "--budget: has no effect beside --steps; give one of them"
    planning.check(PretrainConfig(budget=60.0, size="1m"))


@pytest.mark.parametrize(
    ("asked", "flag", "what"),
    [
        ({"family": "gpt2", "width": 100, "heads": 4}, "--heads", "the head size 25 is odd"),
        ({"width": 1040, "heads": 1, "layers": 1}, "--heads", "head_dim is 1040, not a whole number from 1 to 1024"),
        ({"family": "gpt2", "width": 1040, "heads": 1}, "--heads", "head_dim is 1040"),
        ({"layers": 1025}, "--layers", "num_hidden_layers is 1025"),
        ({"family": "gpt2", "context": 2**31}, "--context", "n_positions is 2147483648"),
        ({"width": 2**18, "heads": 2**10}, "--width", "hidden_size is 262144"),
    ],
)
def test_a_shape_that_its_own_reader_refuses_is_none(asked: dict[str, Any], flag: str, what: str) -> None:
    with pytest.raises(RiyazError) as error:
        planning.check(PretrainConfig(**asked))
    assert error.value.where == flag and error.value.what.startswith(what)


def test_a_shape_of_ones_own_has_no_size() -> None:
    for asked in ({"layers": 40}, {"width": 1024}, {"width": 1024, "steps": 9}, {"size": "5m", "heads": 8}):
        plan = planned(budget=None if "steps" in asked else Seconds("1h"), **asked)
        assert plan.effective["size"] is None and "1m" not in plan.derived[0].why, plan.derived[0]
    assert planned(layers=40, budget=Seconds("15m")).derived[0].why.endswith(" allow 8.07 million 0.3")
    with pytest.raises(RiyazError, match=r"this model .* million parameters"):
        planned(layers=40, memory=100)


def test_a_step_that_the_budget_does_not_hold_is_refused() -> None:
    slow = Machine(flops=3e9)
    with pytest.raises(
        RiyazError, match=r"one step of 78,125 windows takes about [\d,]+s and the budget of 1m has"
    ) as e:
        planned(machine=slow, budget=Seconds("1m"), batch=10**9)
    assert e.value.where == "--batch"
    with pytest.raises(RiyazError) as e:
        planned(machine=slow, budget=Seconds("1m"), size="50m", memory=10**6)
    assert e.value.where == "--budget"


def test_a_batch_that_the_text_cuts_says_so() -> None:
    for asked in ({"steps": 3}, {"budget": Seconds("100h")}):
        (batch,) = (value for value in planned(size="1m", batch=10**9, **asked).derived if value.name == "batch")
        assert batch.value.startswith("78125 windows") and batch.why == "given, but the text has only 78,125 windows"


def test_what_is_given_stands() -> None:
    given: dict[str, Any] = {
        "size": "1m", "budget": 600.0, "family": "gpt2", "layers": 4, "heads": 8, "width": 128, "batch": 7,
        "steps": 123, "lr": 1e-4, "dropout": 0.2, "compute": "float32", "validate_every": 11, "checkpoint_every": 9,
        "seed": 6,
    }  # fmt: skip
    plan = planned(**given)
    assert {k: v for k, v in plan.effective.items() if k in given} == {**given, "size": None}
    assert plan.train | {"steps": 123, "batch_size": 7, "learning_rate": 1e-4, "dropout": 0.2, "seed": 6} == plan.train
    asked = PretrainConfig(**given)
    assert planning.differences(asked, asked, plan.effective) == []
    assert planning.differences(asked, dataclasses.replace(asked, steps=5, lr=1.0), plan.effective) == [
        "--steps 5 instead of 123", "--lr 1.0 instead of 0.0001",
    ]  # fmt: skip
    assert planning.differences(PretrainConfig(), PretrainConfig(steps=123, seed=4), plan.effective) == [
        "--seed 4 instead of 6"
    ]
    assert planning.differences(PretrainConfig(), PretrainConfig(budget=60.0), {}) == ["--budget 1m instead of none"]


def test_a_plan_goes_through_json_unchanged() -> None:
    plan = planned(size="1m")
    again = from_json(PretrainingPlan, json.loads(to_json(plan)), "plan.json")
    assert to_json(again) == to_json(plan) and again.config == plan.config


def test_what_does_not_fit_is_refused_with_the_estimate() -> None:
    with pytest.raises(
        RiyazError, match=r"50m \(5\d\.\d million parameters\) needs about [\d,]+ MB .* and 900 MB are free"
    ):
        planned(size="50m", memory=900)
    with pytest.raises(RiyazError, match=r"1m .* 100 MB are free"):
        planned(memory=100)
    assert planned(budget=Seconds("100h"), memory=900).model["parameters"] < 50e6  # the largest that does fit
    with pytest.raises(
        RiyazError, match=r"the budget of 30s is used up by what comes before the training \(31s\) and after it \(4s\)"
    ):
        planned(budget=Seconds("30s"), spent=26)


def test_memory_is_that_of_the_type_that_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    config = configured("llama", SIZES["50m"], 4096, 256)
    least, most = (memory_mb(config, compute, 2056) for compute in ("bfloat16", "float32"))
    assert planned(size="50m", memory=(least + most) / 2).effective["compute"] == "bfloat16"
    monkeypatch.setattr(Machine, "quicker", lambda machine, config: "float32")
    with pytest.raises(RiyazError, match="MB are free"):
        planned(size="50m", memory=(least + most) / 2)
    assert planned(budget=Seconds("1000h"), memory=(least + most) / 2).effective["size"] == "15m"


@pytest.mark.parametrize(("size", "peak"), [("1m", 605), ("5m", 766), ("15m", 945), ("50m", 1880)])
def test_memory_is_about_what_was_measured(size: str, peak: float) -> None:
    assert memory_mb(configured("llama", SIZES[size], 4096, 256), "bfloat16", 2056) == pytest.approx(peak, rel=0.15)


def test_memory_grows_with_what_it_is_made_of() -> None:
    small, large = (configured("llama", SIZES[name], 4096, 256) for name in ("1m", "50m"))
    assert memory_mb(small, "bfloat16", 2048) < memory_mb(large, "bfloat16", 2048)
    assert memory_mb(large, "float32", 2048) > memory_mb(large, "bfloat16", 2048)


@pytest.mark.parametrize(
    ("count", "size", "steps"), [(10, 4, 1), (10, 4, 3), (10, 4, 7), (5, 5, 3), (100, 64, 9), (7, 1, 9)]
)
def test_rows_read_are_those_of_the_loop(count: int, size: int, steps: int) -> None:
    assert planning.rows_read(count, size, steps) == sum(len(batch(count, size, 0, step)) for step in range(steps))


def test_a_short_text_gets_a_small_vocabulary_and_context() -> None:
    kinds = [planning.kind_of_tokenizer(PretrainConfig(), size)[:2] for size in (10_000, 100_000, 300_000, 10_000_000)]
    assert kinds == [("bytes", 0), ("bpe", 1024), ("bpe", 2048), ("bpe", 4096)]
    assert planning.kind_of_tokenizer(PretrainConfig(tokenizer="chars"), 9)[0] == "chars"
    assert [planning.context_for(PretrainConfig(), tokens)[0] for tokens in (1000, 5000, 10_000, 1e6)] == [
        32,
        64,
        128,
        256,
    ]
    assert planning.context_for(PretrainConfig(context=999), 5)[0] == 999
    assert [planning.smaller(size) for size in (4096, 2048, 1024)] == [2048, 1024, None]


def test_validations_are_few_where_time_is_short() -> None:
    short, long = planned(size="1m", steps=30), planned(size="5m", budget=Seconds("5h"))
    assert math.ceil(30 / short.train["validate_every"]) <= 5
    assert long.train["steps"] / long.train["validate_every"] <= planning.VALIDATIONS
    assert 16 <= short.valid_windows < long.valid_windows == planning.JUDGED


def test_heads_alone_leave_the_sizes_that_they_fit() -> None:
    planning.check(PretrainConfig(heads=6, budget=600.0))
    plan = planned(heads=6, budget=600.0)
    assert (plan.model["heads"], plan.model["width"]) == (6, 384)
    with pytest.raises(RiyazError, match="7 heads do not share a width of 128 evenly"):
        planned(heads=7, budget=600.0)


def test_the_named_sizes_and_families_are_the_choices_of_the_flags() -> None:
    hints = get_type_hints(PretrainConfig)
    assert get_args(get_args(hints["size"])[0]) == tuple(SIZES)
    assert set(get_args(get_args(hints["family"])[0])) == set(FRESH)
