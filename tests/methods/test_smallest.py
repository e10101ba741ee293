"""The precision of a model that was trained whole: the rule, what is measured, and what the artifact then says."""

import json
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_llama
from fit_context import PLAN, TASK, examples, fit_context
from planned import given, measured
from scipy.special import log_softmax
from scipy.stats import t as student

from riyaz.comparison.arm_seconds import fixed_seconds
from riyaz.data import Example
from riyaz.data.task import Task
from riyaz.engine.opening import open_engine
from riyaz.events import Event, Progress
from riyaz.methods import full
from riyaz.methods.fitting import smallest
from riyaz.methods.fitting.base import Context, Fitted, instruction_only
from riyaz.precisions import TEXT_ROWS, Measured, compared, compared_rows, paired_bound, right_answer_nats
from riyaz.predictor import LabelHead, ModelPredictor, predictor_for
from riyaz.results import PrecisionScore, smallest_merged, smallest_precision
from riyaz.results.precisions import BOUND
from riyaz.sources import PRECISION, open_source

ARM = replace(PLAN, method="full", learning_rates=(1e-3,), refit=True)
TEXTS = Task("free", (), "chrf", "Answer.", "")
VALID = 60  # validation rows: enough to tell int8 from int4


@pytest.fixture(scope="module", autouse=True)
def short(one_core: pytest.MonkeyPatch) -> None:
    """Short recipes on one core."""


@pytest.fixture
def context(model_folder: Path, tmp_path: Path) -> Context:
    return fit_context(model_folder, tmp_path / "run", arm=ARM, valid=examples(VALID, "today"))


@pytest.fixture(scope="module")
def fitted(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fitted]:
    folder = tmp_path_factory.mktemp("fitted")
    yield full.fit(fit_context(model_folder, folder, arm=ARM, valid=examples(VALID, "today")))


def named(fitted: Fitted) -> str | None:
    """The precision in the configuration of the fitted model."""
    precision: str | None = json.loads(Path(fitted.files["config.json"]).read_text()).get(PRECISION)  # type: ignore[arg-type]
    return precision


def scores_of(fitted: Fitted) -> dict[str, PrecisionScore]:
    return {each["precision"]: PrecisionScore(**each) for each in fitted.chosen["precisions"]}


# the rule


def bound_by_hand(differences: np.ndarray, tokens: np.ndarray) -> tuple[float, float]:
    """The mean difference per token and its upper bound, in plain numpy."""
    n = len(differences)
    mean = differences.sum() / tokens.sum()
    values = differences * n / tokens.sum()
    error = np.sqrt(((values - mean) ** 2).sum() / (n - 1) / n)
    return mean, mean + student.ppf(0.95, n - 1) * error


@pytest.mark.parametrize("seed", range(5))
def test_the_bound_is_students_over_rows_of_whole_answers(seed: int) -> None:
    generator = np.random.default_rng(seed)
    differences, tokens = generator.normal(0.02, 0.1, 30), generator.integers(1, 9, 30).astype(float)
    assert paired_bound(differences, tokens) == pytest.approx(bound_by_hand(differences, tokens))
    pairs = np.repeat(differences, 2), np.repeat(tokens, 2)
    assert paired_bound(*pairs, np.repeat(np.arange(30), 2)) == pytest.approx(bound_by_hand(differences, tokens))
    assert paired_bound(*pairs)[1] < paired_bound(differences, tokens)[1], "as if they were independent"
    assert paired_bound(differences[:1], tokens[:1]) == (differences[0] / tokens[0], np.inf)


def score(precision: str, mb: float, at_most: float | None, worse_by: float = 0.0) -> PrecisionScore:
    return PrecisionScore(precision, precision, mb, 0.5, worse_by, at_most, 40, 9.0)


@pytest.mark.parametrize(
    ("int8", "int4", "chosen"),
    [
        (0.002, 0.009, "int4"), (0.002, BOUND, "int4"), (0.002, BOUND + 1e-6, "int8"), (0.02, 0.03, "bf16"),
        (0.02, 0.009, "int4"), (None, None, "bf16"), (-0.01, None, "int8"),
    ],
)  # fmt: skip
def test_the_smallest_within_the_bound_is_chosen(int8: float | None, int4: float | None, chosen: str) -> None:
    scores = [score("bf16", 200, 0.0), score("int8", 110, int8), score("int4", 60, int4)]
    assert smallest_precision(scores).precision == chosen
    best = smallest_merged(scores)
    assert (best.precision if best else "bf16") == chosen


def test_a_precision_that_is_no_smaller_is_not_chosen() -> None:
    assert smallest_precision([score("bf16", 100, 0.0), score("int8", 100, -0.1)]).precision == "bf16"


def test_what_is_compared_is_paired_by_row() -> None:
    rows, generator = examples(20, "now"), np.random.default_rng(0)
    apart, tokens = generator.normal(0.003, 0.001, 20), np.ones(20)
    nats = generator.uniform(0, 5, 20)  # rows differ much more than precisions do
    of = {"bf16": nats, "int8": nats + apart, "int4": nats + 20 * apart}
    many = [Measured(name, name, 100 / (place + 1), each, tokens, 1.0, None)
            for place, (name, each) in enumerate(of.items())]  # fmt: skip
    first, int8, int4 = compared(many, rows)
    assert (first.worse_by, first.at_most, first.rows) == (0.0, 0.0, 20)
    assert (int8.worse_by, int8.at_most) == pytest.approx(bound_by_hand(apart, tokens)) and int8.at_most < BOUND
    assert int4.at_most > BOUND and smallest_precision([first, int8, int4]) == int8
    assert [each.at_most for each in compared([replace(m, nats=m.nats[:1], tokens=tokens[:1]) for m in many], rows[:1])
            ] == [None] * 3  # fmt: skip


# what is measured


def test_a_labels_nats_are_those_of_its_calibrated_probability(context: Context) -> None:
    predictor = predictor_of(context, "fp32")
    rows = context.valid[:9]
    scores = predictor.label_scores([row.messages for row in rows])
    own = [TASK.labels.index(row.answer) for row in rows]
    nats, counts = right_answer_nats(replace(predictor, temperature=2.5), TASK, rows)
    assert nats == pytest.approx(-log_softmax(scores / 2.5, axis=1)[np.arange(9), own]) and counts.tolist() == [1.0] * 9
    fit = smallest._fit_for(context)
    by_fit, _ = right_answer_nats(predictor, TASK, rows, fit)
    assert by_fit.mean() <= min(nats.mean(), right_answer_nats(predictor, TASK, rows)[0].mean()) + 1e-6
    both = replace(rows[0], answers=(TASK.labels[0], TASK.labels[1]))
    (together,), _ = right_answer_nats(predictor, TASK, [both])
    p = np.exp(log_softmax(predictor.label_scores([both.messages])[0]))
    assert together == pytest.approx(-np.log(p[0] + p[1]))
    unknown = replace(rows[0], answers=("something else",))
    assert compared_rows(TASK, [unknown, *rows]) == rows


def test_a_texts_nats_are_those_of_its_tokens(context: Context) -> None:
    of_texts, open_in = text_model(context)
    predictor, rows = open_in("fp32"), of_texts.valid
    assert compared_rows(TEXTS, rows) == rows[:TEXT_ROWS] != rows
    nats, tokens = right_answer_nats(predictor, TEXTS, rows[:4])
    ids = context.tokenizer.answer_ids(["yes", "blue and red"])
    assert tokens.tolist() == [len(ids[0]), len(ids[1])] * 2
    prompts = predictor.prepare([row.messages for row in rows[:2]])
    by_hand = predictor.lm.logprobs([each.request for each in prompts], ids)
    assert nats[:2] == pytest.approx([-part.sum() for part in by_hand], abs=1e-4)


def text_model(context: Context) -> tuple[Context, Callable[[Any], ModelPredictor]]:
    """The context with rows of texts, and the base as it answers them in a precision."""
    rows = tuple(
        Example(({"role": "user", "content": f"question {i}"},), ("blue and red" if i % 2 else "yes",), where=f"t:{i}")
        for i in range(TEXT_ROWS + 5)
    )

    def open_in(precision: Any) -> ModelPredictor:
        prompted = instruction_only(TEXTS).read_by(context.tokenizer, open_engine(context.source, precision))
        return predictor_for(prompted, max_new_tokens=4)

    return replace(context, task=TEXTS, train=rows, valid=rows, prompt_text=instruction_only(TEXTS)), open_in


def predictor_of(context: Context, precision: Any) -> ModelPredictor:
    """The base with a drawn head of labels."""
    head = LabelHead(np.random.default_rng(0).normal(size=(3, 64)).astype(np.float32))
    prompted = instruction_only(TASK).read_by(context.tokenizer, open_engine(context.source, precision))
    return predictor_for(replace(prompted, head=head), max_new_tokens=8)


# what the artifact says


def test_int8_is_served_where_int4_is_worse(fitted: Fitted) -> None:
    scores = scores_of(fitted)
    assert list(scores) == ["bf16", "int8", "int4"] and named(fitted) == "int8"
    assert scores["int8"].at_most <= BOUND < scores["int4"].at_most  # type: ignore[operator]
    assert scores["int4"].mb < scores["int8"].mb < 0.6 * scores["bf16"].mb
    assert all(each.rows == VALID and each.ms_per_answer > 0 and each.score for each in scores.values())
    assert fitted.chosen["refit_steps"] and fitted.refit_loss is not None, "the refitted model has the same precision"


def test_a_model_with_outliers_needs_more_bits(context: Context, tmp_path: Path) -> None:
    """One weight of each 32, those that share a scale, is much larger, so that few levels are left for the others."""
    chosen = {}
    for factor in (1.0, 8.0):
        folder = tiny_llama.write_hf_folder(tmp_path / str(factor), seed=1)
        arrays = tiny_llama.weights(tiny_llama.Tiny(seed=1))
        for name in (name for name in arrays if "proj" in name):
            arrays[name][:, ::32] *= factor
        tiny_llama.write_safetensors(folder / "model.safetensors", arrays)
        scores = smallest.precision_scores(*text_model(replace(context, source=open_source(folder))))
        chosen[factor] = smallest.chosen_precision(scores)
    assert chosen == {1.0: "int8", 8.0: "bf16"}


def test_models_are_never_open_beside_each_other(context: Context) -> None:
    opened: list[weakref.ref[Any]] = []

    def open_in(precision: Any) -> ModelPredictor:
        assert not any(reference() for reference in opened)
        predictor = predictor_of(context, precision)
        opened.append(weakref.ref(predictor.lm))
        return predictor

    smallest.precision_scores(context, open_in)
    assert len(opened) == 3


@pytest.mark.parametrize("precision", ["bf16", "int4"])
def test_the_users_precision_is_kept(context: Context, precision: Any) -> None:
    fitted = full.fit(replace(context, precision=precision, arm=replace(ARM, refit=False)))
    assert named(fitted) == precision and "precisions" not in fitted.chosen


def test_one_validation_row_says_too_little(context: Context) -> None:
    scores = smallest.precision_scores(replace(context, valid=context.valid[:1]), lambda p: predictor_of(context, p))
    assert [each.at_most for each in scores] == [None] * 3 and smallest.chosen_precision(scores) == "bf16"
    assert smallest.precision_scores(replace(context, valid=()), lambda p: predictor_of(context, p)) == []


def test_a_fit_that_is_stopped_while_it_chooses_goes_on_to_the_same(context: Context, fitted: Fitted) -> None:
    def listen(event: Event) -> None:
        if isinstance(event, Progress) and event.phase == "choose" and (event.done, event.total) == (2, 3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        full.fit(replace(context, listen=listen))
    again = full.fit(context)
    assert named(again) == named(fitted)
    assert Path(again.files["model.safetensors"]).read_bytes() == Path(fitted.files["model.safetensors"]).read_bytes()  # type: ignore[arg-type]
    timeless = [[{**each, "ms_per_answer": 0} for each in one.chosen["precisions"]] for one in (again, fitted)]
    assert timeless[0] == timeless[1]


def test_the_torch_engine_chooses_none(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    assert smallest.chooses_precision(context) and not smallest.chooses_precision(replace(context, precision="int8"))
    monkeypatch.setenv("RIYAZ_ENGINE", "torch")
    assert not smallest.chooses_precision(context)
    assert smallest.precision_seconds(context, 1.0, 0.1, 0.5) == 0


# what it takes


def test_the_estimate_has_the_seconds_of_three_models(context: Context) -> None:
    assert smallest.precision_seconds(context, 1.0, 0.1, 0.5) == 3 * (1.0 + VALID * 0.1 + 16 * 0.5)
    assert smallest.precision_seconds(context, 1.0, 0.1, 9.0) == 3 * (1.0 + VALID * 0.1 + 10 + 9), "it ends after 10 s"
    assert smallest.precision_seconds(replace(context, precision="bf16"), 1.0, 0.1, 0.5) == 0
    plain, merging = (fixed_seconds(given("lora", speeds=measured({"lora": {"merge_seconds": more}})))["lora"]
                      for more in (0.0, 7.0))  # fmt: skip
    assert merging["evaluate"] == pytest.approx(plain["evaluate"] + 7)
