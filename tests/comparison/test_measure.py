"""Measuring within its share of the budget: what is always measured, what is derived from it, and what is kept."""

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_comparison
from fit_context import PLAN, fit_context
from tiny_comparison import METHODS, command

from riyaz import checkpoint
from riyaz.comparison import measure, preparing
from riyaz.comparison.folder import Chosen
from riyaz.comparison.measure import _Bench, _derived, _disk_factor
from riyaz.comparison.speeds import AnswerSpeed, Speeds, TrainSpeed
from riyaz.data.packing import batch
from riyaz.data.rows import Row
from riyaz.data.task import Task
from riyaz.errors import RiyazError
from riyaz.events import Event, Phase, Progress
from riyaz.families import describe
from riyaz.methods import METHODS as TABLE
from riyaz.methods import full, lora, prompt_tuning
from riyaz.methods.fitting import smallest
from riyaz.methods.fitting.base import VALID_ROWS, Context
from riyaz.methods.fitting.choices import base_predictor
from riyaz.methods.fitting.recipe import Recipe

TRAINED = [name for name in METHODS if TABLE[name].recipe]
SPEED = TrainSpeed(step_seconds=2.0, validate_seconds=3.0, build_seconds=1.0, rss_mb=500.0, disk_mb=9.0, trainable=7)
CHOSEN = Chosen(seed=0, general=None, replay=0.0)
pytestmark = pytest.mark.usefixtures("in_float32")


@pytest.fixture
def context(model_folder: Path, tmp_path: Path) -> Context:
    return fit_context(model_folder, tmp_path)


@pytest.fixture
def bench(context: Context) -> _Bench:
    """With no time left."""
    return _Bench(context, CHOSEN, 0.0, total=4)


def measured(
    share: float, folder: Path, asked: tuple, monkeypatch: pytest.MonkeyPatch
) -> tuple[Speeds, dict[str, Any], list[str]]:
    """The speeds measured within a share of the budget, the plan made from them, and what was really run."""
    ran: list[str] = []

    def watched(name: str) -> None:
        real = getattr(measure, name)

        def watch(*arguments: Any) -> Any:
            ran.append(getattr(arguments[0], "name", "answers"))
            return real(*arguments)

        monkeypatch.setattr(measure, name, watch)

    watched("_answer_seconds")
    watched("_timed_training")
    monkeypatch.setattr(preparing, "MEASURING_SHARE", share)
    data = tiny_comparison.write_rows(folder / "data/train.jsonl", tiny_comparison.closed_rows(45, "please")).parent
    tiny_comparison.write_rows(data / "test.jsonl", tiny_comparison.closed_rows(18, "today"))
    told = command("compare", data, *asked, "--dry-run", "--out", folder / "out")
    assert told.status == 0, told.err
    return Speeds.read(folder / "out/measured.json", METHODS, TRAINED), told.document["plan"], ran


def test_without_time_one_answer_and_one_training_are_measured_and_the_rest_is_derived(
    inside: list, asked: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speeds, plan, ran = measured(0.0, tmp_path, asked, monkeypatch)
    assert ran == ["answers", "lora"], "the arm that is left out last"
    assert set(speeds.derived) == {"few_shot", "prompt_tuning", "full"} and not speeds.unable
    assert set(speeds.predict) == set(METHODS) and set(speeds.arms) == set(TRAINED)
    few, zero = speeds.predict["few_shot"], speeds.predict["zero_shot"]
    assert few.row_seconds > 2 * zero.row_seconds, "its prompts are longer"
    assert speeds.arms["full"].step_seconds > speeds.arms["lora"].step_seconds
    assert speeds.arms["full"].trainable > speeds.arms["lora"].trainable
    assert [arm["method"] for arm in plan["arms"]] == list(METHODS)
    assert all(arm["steps"] == tiny_comparison.STEPS for arm in plan["arms"] if arm["method"] in TRAINED)


def test_with_time_every_different_prompt_and_every_training_is_measured(
    inside: list, asked: tuple, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "AMPLE", 1e9)  # a budget that every plan needs
    speeds, _, ran = measured(1.0, tmp_path, asked, monkeypatch)
    assert speeds.derived == () and not speeds.unable
    assert ran == ["answers", "answers", *sorted(TRAINED, key=lambda name: -TABLE[name].left_out)], "equal prompts once"
    document = json.loads((tmp_path / "out/measured.json").read_text())
    document["derived"] = ["nobody", 3]
    (tmp_path / "out/measured.json").write_text(json.dumps(document))
    with pytest.raises(RiyazError, match="derived"):
        Speeds.read(tmp_path / "out/measured.json", METHODS, TRAINED)


def test_work_begins_only_if_it_would_end_in_time(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure.time, "perf_counter", lambda: 1000.0)
    bench = _Bench(context, CHOSEN, 1060.0, total=1)
    assert not bench.late(0.0) and not bench.late(60.0) and bench.late(60.5)
    assert not replace(bench, deadline=1000.0).late(0.0) and replace(bench, deadline=999.0).late(0.0)


def test_each_method_is_told_and_one_that_fails_is_left_out(bench: _Bench) -> None:
    seen: list[Event] = []
    bench.context = replace(bench.context, listen=seen.append)

    def work(method: Any) -> str:
        if method.name == "lora":
            raise RiyazError("the prompt does not fit", "row 3")
        return method.name.upper()

    assert bench.each([TABLE["full"], TABLE["lora"]], "answers of", work) == {"full": "FULL"}
    assert bench.each([TABLE["rag"]], "training of", work) == {"rag": "RAG"}
    assert bench.unable == {"lora": "row 3: the prompt does not fit"}
    assert [(event.done, event.total) for event in seen if isinstance(event, Progress)] == [(0, 4), (1, 4), (2, 4)]
    said = [event.detail for event in seen if isinstance(event, Phase)]
    assert said == ["answers of full", "answers of lora", "training of rag"], "each has its line"


def test_answers_are_derived_from_the_longest_prompts_by_their_tokens(
    bench: _Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = base_predictor(bench.context)
    tokens = {"a": 40.0, "b": 100.0, "c": 50.0}
    monkeypatch.setattr(measure, "prompt_tokens", lambda predictor, rows: tokens[predictor.text.instruction])
    monkeypatch.setattr(measure, "_answer_seconds", lambda *rest: {"row": 3.0, "loss": 1.0})

    def of(name: str, deadline: float = 0.0) -> dict[str, float]:
        bench.deadline = deadline
        text = replace(plain.text, instruction=name)
        found = measure._measured_answers(TABLE["few_shot"], replace(plain, text=text), 8, bench)
        return {key: found[key] for key in ("row", "loss")}

    assert of("a") == {"row": 3.0, "loss": 1.0} and not bench.derived, "one is measured always"
    monkeypatch.setattr(measure, "_answer_seconds", lambda *rest: {"row": 10.0, "loss": 4.0})
    assert of("b", math.inf) == {"row": 10.0, "loss": 4.0}
    assert of("a") == {"row": 3.0, "loss": 1.0} and not bench.derived, "measured before"
    assert of("c") == {"row": 5.0, "loss": 2.0} and list(bench.derived) == ["few_shot"]


@pytest.mark.parametrize("seed", range(5))
def test_the_longest_row_is_in_the_first_step_and_no_row_is_lost(seed: int) -> None:
    rows = [Row((1,) * (length % 17 + 1), (2,)) for length in range(40)]
    first = measure.longest_first(rows, 8, seed)
    assert max(len(first[i].prompt) for i in batch(40, 8, seed, 0)) == 17
    assert sorted(len(row.prompt) for row in first) == sorted(len(row.prompt) for row in rows)


def test_training_is_derived_by_the_tokens_of_a_step(bench: _Bench) -> None:
    bench.training["lora"] = 100.0, SPEED
    speed = _derived(replace(TABLE["lora"], name="rag_lora"), 150.0, bench)
    assert speed == replace(SPEED, step_seconds=3.0, validate_seconds=4.5)
    numbers = prompt_tuning.TOKENS * describe(bench.context.source).config.hidden_size
    disk = _disk_factor(prompt_tuning.RECIPE) * 4 * numbers / 2**20
    assert _derived(TABLE["prompt_tuning"], 150.0, bench) == replace(speed, trainable=numbers, disk_mb=disk)


def test_an_adapter_is_not_measured_where_no_plan_depends_on_it(bench: _Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    monkeypatch.setattr(measure, "_timed_training", lambda method, *rest: ran.append(method.name) or SPEED)
    recipe = TABLE["prompt_tuning"].recipe
    assert recipe is not None
    needed = 2 * recipe.steps(len(bench.context.train)) * SPEED.step_seconds
    for seconds, expected in ((needed, []), (needed - 1, ["prompt_tuning"])):
        given = replace(bench, seconds=seconds, deadline=math.inf, training={}, derived={})
        for name in ("lora", "full", "prompt_tuning"):
            measure._train_speed(TABLE[name], given)
        assert ran == ["lora", "full", *expected], "neither the first, nor one that trains the whole model"
        assert list(given.derived) == [name for name in ("prompt_tuning",) if name not in expected]
        ran.clear()
    given = replace(bench, seconds=1e9, deadline=math.inf, training={"lora": (1.0, SPEED)}, derived={})
    measure._train_speed(TABLE["prompt_tuning"], given)
    assert ran == ["prompt_tuning"], "longer prompts"


@pytest.mark.parametrize(("base", "factor"), [("exact", measure.WHOLE_FACTOR), ("int8", measure.CODED_FACTOR)])
def test_full_fine_tuning_is_derived_with_the_memory_of_every_parameter(
    bench: _Bench, monkeypatch: pytest.MonkeyPatch, base: str, factor: float
) -> None:
    monkeypatch.setenv("RIYAZ_FROZEN", base)
    bench.training["lora"] = 100.0, SPEED
    parameters = measure._parameters(bench.context)
    speed = _derived(TABLE["full"], 100.0, bench)
    assert speed.step_seconds == SPEED.step_seconds * factor and speed.trainable == parameters
    bytes_each = 16 - {"exact": 4, "int8": 2}[base]
    held = 500 + bytes_each * parameters / 2**20
    assert speed.rss_mb == pytest.approx(held), "weight, gradient and two moments in place of the base's weight"
    in_bf16 = replace(bench, context=replace(bench.context, compute="bfloat16"))
    assert _derived(TABLE["full"], 100.0, in_bf16).rss_mb == pytest.approx(500 + (14 - 2) * parameters / 2**20)
    assert speed.disk_mb == pytest.approx(_disk_factor(full.RECIPE) * 4 * parameters / 2**20)
    whole = replace(SPEED, trainable=parameters)
    bench.training["lora"] = 100.0, whole
    assert _derived(TABLE["full"], 100.0, bench) == whole, "from one that trains the whole model too"


@pytest.mark.parametrize("rates", [(1e-3,), (1e-3, 2e-3), (1e-3, 2e-3, 4e-3)])
def test_a_training_writes_no_more_than_the_disk_that_is_estimated(
    context: Context, monkeypatch: pytest.MonkeyPatch, rates: tuple[float, ...]
) -> None:
    sizes, rename = [], checkpoint.os.rename

    def watched(old: Path, new: Path) -> None:
        files = [path for path in context.folder.rglob("*") if path.is_file()]
        sizes.append(sum(path.stat().st_size for path in files))
        rename(old, new)

    monkeypatch.setattr(checkpoint.os, "rename", watched)
    arm = replace(PLAN, learning_rates=rates, steps=16, recipe_steps=16)
    fitted = lora.fit(replace(context, arm=arm))
    weights = 4 * fitted.trainable_params
    estimated = _disk_factor(Recipe(1, 1, 1, rates, rates[0])) * weights
    assert 0.7 * estimated < max(sizes) < 1.15 * estimated, "beside the weights, names and states"


@pytest.mark.parametrize(
    ("seen", "limit", "tokens"),
    [
        ([9, 3], 64, 6.0),  # all have ended
        ([64, 64], 200, 200.0),  # none has
        ([10, 64], 64, 37.0),  # the limit is reached
        ([20, 60, 64, 64], 200, (208 + 2 * (1 - math.exp(-136 * 2 / 208)) * 208 / 2) / 4),
    ],
)
def test_the_length_of_answers_follows_from_those_that_were_seen_to_end(
    seen: list[int], limit: int, tokens: float
) -> None:
    assert measure.expected_tokens(seen, 64, limit) == pytest.approx(tokens)


@pytest.mark.parametrize("kind, metric, row", [("free", "rouge_l", 3.0), ("short", "exact_match", 2.0)])
def test_a_row_of_free_text_takes_its_answer_and_the_log_probability_of_the_accepted_one(
    context: Context, monkeypatch: pytest.MonkeyPatch, kind: Any, metric: Any, row: float
) -> None:
    taken = {"row": 2.0, "loss": 1.0, "alone": 2.0, "pass": 1.0, "candidate": 1.0, "null": 0.0, "tokens": 9.0}
    monkeypatch.setattr(measure, "_measured_answers", lambda *_: dict(taken))
    judged = replace(context, task=Task(kind, (), metric, "Answer.", ""))
    speed = measure._answer_speed(TABLE["zero_shot"], base_predictor(judged), judged, 0.0, SimpleNamespace())
    assert speed.row_seconds == row and speed.answer_seconds == 2.0


def test_another_arms_instruction_is_tried_on_the_validation_rows_once_more(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = dict.fromkeys(("row", "loss", "alone", "pass", "tokens"), 0.0) | {"candidate": 1.0, "null": 0.25}
    monkeypatch.setattr(measure, "_measured_answers", lambda *_: dict(taken))

    def seconds(*methods: str) -> float:
        method, plain = measure._among(TABLE["few_shot"], methods), base_predictor(context)
        return measure._answer_speed(method, plain, context, 0.0, SimpleNamespace()).choose_seconds  # type: ignore[arg-type]

    rows = min(VALID_ROWS, len(context.valid))
    assert seconds("few_shot", "instruct") == seconds("few_shot", "lora") + rows + 0.25 > rows


def test_models_in_several_precisions_are_counted_where_one_is_chosen(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = {"row": 2.0, "loss": 1.0, "alone": 3.0, "pass": 3.0, "candidate": 1.0, "null": 0.0, "tokens": 9.0}
    monkeypatch.setattr(measure, "_measured_answers", lambda *_: dict(taken))
    monkeypatch.setattr(smallest, "chooses_precision", lambda context: context.precision == "auto")

    def speed(method: str, precision: Any) -> AnswerSpeed:
        own = replace(context, precision=precision)
        return measure._answer_speed(TABLE[method], base_predictor(own), own, 0.5, SimpleNamespace())  # type: ignore[arg-type]

    rows = len(context.valid)
    three = 3 * (0.5 + rows * 1.0 + min(10.0 + 3.0, rows * 3.0))
    auto, fixed = speed("full", "auto"), speed("full", "fp32")
    assert auto.choose_seconds - fixed.choose_seconds == pytest.approx(three, rel=0.01)
    assert auto.merge_seconds == fixed.merge_seconds == 0
    lora = speed("lora", "auto")
    assert lora.merge_seconds == pytest.approx(3 * (0.5 + rows * 1.2 + min(10.0 + 3.6, rows * 3.6)), rel=0.01)
    assert speed("lora", "fp32").merge_seconds == speed("zero_shot", "auto").merge_seconds == 0


class Ending:
    """An engine whose answers have these lengths, one second for every token read or made."""

    context = 4096

    def __init__(self, lengths: list[int], clock: list[float]) -> None:
        self.lengths, self.clock = lengths, clock

    def adapter_tokens(self, adapter: Any) -> int:
        return 0

    def generate(self, requests: list[Any], progress: Any = None) -> list[list[int]]:
        made = [[7] * min(length, request.limit) for length, request in zip(self.lengths, requests)]
        self.clock[0] += sum(len(each.tokens) + len(each.prefix) for each in requests) + sum(map(len, made))
        return made


def test_a_few_short_rows_do_not_make_the_others_fast(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    free = replace(context, task=Task("free", (), "rouge_l", "Answer.", ""))
    ask = lambda words: replace(free.valid[0], messages=[{"role": "user", "content": "word " * words}])  # noqa: E731
    free = replace(free, valid=[ask(4 if place % 4 == 0 else 60) for place in range(32)])  # the first of four is read
    clock, plain = [0.0], base_predictor(free)
    tokens = lambda row: len(plain.prepare([row.messages])[0].request.tokens)  # noqa: E731
    answer = len(free.tokenizer.answer_ids([free.valid[0].said])[0])

    def loss(_: Any, rows: Any) -> None:
        clock[0] += sum(tokens(row) + answer for row in rows)

    monkeypatch.setattr(measure.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(measure, "answer_log_loss", loss)
    seconds = measure._answer_seconds(replace(plain, lm=Ending([10] * 8, clock)), 40, free)
    assert seconds["pass"] == tokens(free.valid[0]) + answer
    assert seconds["loss"] == pytest.approx(sum(tokens(row) + answer for row in free.valid) / 32)


def test_generated_answers_take_the_time_of_the_tokens_that_were_made(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = replace(context, task=Task("free", (), "rouge_l", "Answer.", ""))
    clock = [0.0]
    monkeypatch.setattr(measure.time, "perf_counter", lambda: clock[0])
    plain = base_predictor(free)
    read = sum(len(each.request.tokens) for each in plain.prepare([row.messages for row in free.valid[:8]])) / 8

    def loss(_: Any, rows: Any) -> None:
        clock[0] += read * len(rows)

    monkeypatch.setattr(measure, "answer_log_loss", loss)
    ending = replace(plain, lm=Ending([10] * 8, clock))
    seconds = measure._answer_seconds(ending, 40, free)
    assert seconds["tokens"] == 10 and seconds["row"] == pytest.approx(read + 10, rel=0.01), "not up to the limit"
    running = measure._answer_seconds(replace(plain, lm=Ending([500] * 8, clock)), 200, free)
    assert running["tokens"] == 200 and running["row"] == pytest.approx(read + 200, rel=0.02)
    mean = sum(map(len, free.tokenizer.answer_ids([row.said for row in free.valid]))) / len(free.valid)
    for base in (seconds, running):  # however long the base talks, a trained arm answers as its rows do
        trained = measure._after_training(base, 200, free)
        assert trained["row"] == pytest.approx(read + measure.LONGEST_TRAINED * mean, rel=0.05)


@pytest.mark.parametrize(("peak", "estimate"), [(800, 1000), (9490, 10490)])
def test_the_margin_over_the_measured_peak_does_not_grow_with_the_model(
    monkeypatch: pytest.MonkeyPatch, peak: float, estimate: float
) -> None:
    monkeypatch.setattr(measure.hardware, "peak_rss", lambda: peak * 2**20)
    assert measure._peak_mb() == estimate
