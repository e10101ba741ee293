"""The methods on a tiny model: what each chooses among, and the search, the run and the checks of the trained ones."""

import math
import typing
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_comparison
import torch
from fit_context import PLAN, TASK, examples, fit_context
from pages_task import SHORT
from refusals import assert_refused

from riyaz.artifact import TextPart
from riyaz.config import Precision
from riyaz.data import Example
from riyaz.engine.engine import Engine
from riyaz.events import Event, Progress
from riyaz.methods import METHODS, few_shot, full, lora, nearest, prompt_tuning, zero_shot
from riyaz.methods.fitting import choices, pacing, weights
from riyaz.methods.fitting.base import HALVED, VALID_ROWS, Context, Fitted, combined
from riyaz.methods.fitting.choices import Choice, base_predictor, choose, rows_scored
from riyaz.methods.fitting.held_out import HELD_OUT
from riyaz.predictor import ClosedPredictor, ModelPredictor
from riyaz.results import LEARNED
from riyaz.scoring import answer_log_loss, predict, score
from riyaz.sources import Source

pytestmark = pytest.mark.usefixtures("in_float32")
((FIRST_ROWS, FINAL),) = HALVED
TRAINED = {"prompt_tuning": prompt_tuning, "lora": lora, "full": full}
KINDS = {"prompt_tuning": "soft_prompt", "lora": "lora", "full": "full"}


@pytest.fixture
def context(model_folder: Path, tmp_path: Path) -> Context:
    return fit_context(model_folder, tmp_path)


def contents(fitted: Fitted) -> dict[str, bytes]:
    return {name: file if isinstance(file, bytes) else file.read_bytes() for name, file in fitted.files.items()}


# the table


def test_the_table_holds_every_method_under_its_name() -> None:
    needing = ("needs_documents", "needs_model", "judged_by", "needs_teacher", "of")
    apart = {name for name, method in METHODS.items() if any(getattr(method, need) for need in needing)}
    assert tuple(name for name in METHODS if name not in apart) == tiny_comparison.METHODS
    for name, method in METHODS.items():
        assert method.name == name
        assert (
            (method.recipe is not None)
            == (method.build is not None)
            == (name in (*TRAINED, "rag_lora", "dpo", "orpo", "kto", "distil"))
        )
        assert method.recipe is None or method.recipe.share == (2 if name == "rag_lora" else 1)
        assert (method.candidates == 0) == (not method.about.language_model or method.of != ())
    for field in ("what", "suits", "colour", "mark"):
        assert len({getattr(method.about, field) for method in METHODS.values()}) == len(METHODS)


def test_a_method_trains_what_it_builds_for_as_long_as_its_recipe_says() -> None:
    with pytest.raises(AssertionError):
        replace(METHODS["lora"], build=None)
    with pytest.raises(AssertionError):
        combined("nothing_learned", lora.ABOUT, METHODS["lora"], METHODS["rag"])


# text arms


def test_nearest_keeps_training_and_validation_rows_and_loads_no_model(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choices, "open_engine", None)
    fitted = nearest.fit(context)
    rows = len(context.train) + len(context.valid)
    assert fitted.weights.kind == "copy" and contents(fitted)["examples.jsonl"].count(b"\n") == rows == 33
    assert fitted.valid_score == 1.0 and fitted.valid_loss is None and fitted.trainable_params == 0


def test_the_best_candidate_is_chosen_and_of_equals_the_first(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = base_predictor(context)
    texts = [TextPart(name) for name in ("first", "second", "third")]
    reached = {"first": 0.5, "second": 0.75, "third": 0.75}
    points = lambda _, p, rows: [(p, False, np.array([reached[p.text.instruction]]), np.zeros(1))]  # noqa: E731
    monkeypatch.setattr(choices, "candidate_points", points)
    choice = choose(context, [replace(plain, text=text) for text in texts])
    assert choice.predictor.text.instruction == "second" and choice.score == 0.75
    assert [entry["validation"] for entry in choice.record] == [0.5, 0.75, 0.75]


def scored(
    context: Context, monkeypatch: pytest.MonkeyPatch, first: list[float], final: list[float] | None = None
) -> tuple[Choice, list[tuple[str, int]]]:
    """The choice among candidates that score `first` on FIRST_ROWS rows and `final` on the others, and what was scored:
    (candidate, rows)."""
    plain, done = base_predictor(context), list[tuple[str, int]]()

    def scores(_: Context, predictor: ModelPredictor, rows: Sequence[Example]) -> list[tuple]:
        name = predictor.text.instruction
        done.append((name, len(rows)))
        points = np.full(len(rows), (first if final is None or rows[0] == context.valid[0] else final)[int(name)])
        log_p = np.array([-float(row.where.rpartition(":")[2]) for row in rows])
        return [(predictor, False, points - 0.01, log_p), (predictor, True, points, log_p)]

    monkeypatch.setattr(choices, "candidate_points", scores)
    return choose(context, [replace(plain, text=TextPart(str(i))) for i in range(len(first))]), done


def test_of_many_candidates_the_best_two_are_compared_on_all_rows(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = replace(context, valid=examples(30, "today"), valid_rows=25)
    choice, done = scored(context, monkeypatch, [0.1, 0.7, 0.3, 0.9], [0.0, 0.6, 1.0, 0.2])
    assert done == [("0", 16), ("1", 16), ("2", 16), ("3", 16), ("1", 9), ("3", 9)], "no row is scored twice"
    assert choice.predictor.text.instruction == "1" and choice.calibrated
    assert choice.score == pytest.approx((16 * 0.7 + 9 * 0.6) / 25) == 0.664
    assert choice.log_p.tolist() == [-row for row in range(1, 26)]
    assert [entry["rows"] for entry in choice.record] == [16] * 8 + [25] * 4
    assert [entry["validation"] for entry in choice.record][-4:] == [0.654, 0.664, 0.638, 0.648]
    choice, done = scored(context, monkeypatch, [0.5, 0.7, 0.7, 0.7], [0.9, 0.6, 0.6, 0.9])
    assert done[4:] == [("1", 9), ("2", 9)] and choice.predictor.text.instruction == "1", "of equals the first"


@pytest.mark.parametrize(("candidates", "rows"), [(2, 25), (4, 16), (4, 9), (1, 5)])
def test_few_candidates_or_rows_are_compared_at_once(
    context: Context, monkeypatch: pytest.MonkeyPatch, candidates: int, rows: int
) -> None:
    context = replace(context, valid=examples(30, "today"), valid_rows=rows)
    choice, done = scored(context, monkeypatch, [0.1, 0.7, 0.9, 0.3][:candidates])
    assert done == [(str(i), rows) for i in range(candidates)] and {entry["rows"] for entry in choice.record} == {rows}


def test_rows_scored_is_how_often_choose_scores_a_row(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    for candidates in range(1, 7):
        for rows in (1, FIRST_ROWS, FIRST_ROWS + 1, VALID_ROWS, VALID_ROWS + 5):
            given = replace(context, valid=examples(rows, "today"), valid_rows=min(VALID_ROWS, rows))
            _, done = scored(given, monkeypatch, [0.5] * candidates)
            assert rows_scored(candidates, rows) == sum(count for _, count in done)
    assert rows_scored(6, 500) == 6 * FIRST_ROWS + FINAL * (VALID_ROWS - FIRST_ROWS), (
        "whatever the budget and the machine"
    )


def test_a_closed_set_is_chosen_by_accuracy_raw_and_calibrated(context: Context) -> None:
    plain = base_predictor(context)
    assert isinstance(plain, ClosedPredictor)
    choice = choose(replace(context, valid_rows=7), [plain, replace(plain, text=TextPart("Where is it?"))])
    rows = context.valid[:7]
    expected = [
        score(TASK, predict(replace(plain, text=TextPart(text), calibrated=on), rows), rows).mean
        for text in (TASK.instruction, "Where is it?")
        for on in (False, True)
    ]
    assert [entry["validation"] for entry in choice.record] == pytest.approx(expected, abs=1e-6)
    assert [entry["calibrated"] for entry in choice.record] == [False, True, False, True]
    assert choice.score == max(expected)
    for read in (choice, replace(choice, log_p=choice.log_p[:3]), replace(choice, log_p=choice.log_p * np.nan)):
        for count in (3, 7):
            wanted = answer_log_loss(choice.predictor, rows[:count])
            assert read.log_loss(rows[:count]) == pytest.approx(wanted, abs=1e-5), "the rest is read"
    assert replace(choice, log_p=choice.log_p - 1).log_loss(rows) > wanted + 0.1, "what was read is not read again"
    assert isinstance(choice.predictor, ClosedPredictor)
    assert choice.predictor.calibrated == choice.calibrated == choice.record[int(np.argmax(expected))]["calibrated"]


def test_other_tasks_are_chosen_by_log_loss(context: Context) -> None:
    plain = base_predictor(replace(context, task=SHORT))
    texts = [TextPart("billing"), TextPart("delivery refund")]
    choice = choose(replace(context, task=SHORT), [replace(plain, text=text) for text in texts])
    losses = [answer_log_loss(replace(plain, text=text), context.valid) for text in texts]
    assert choice.score == pytest.approx(-min(losses)) and not choice.calibrated
    assert choice.predictor.text == texts[int(np.argmin(losses))]
    assert choice.log_loss(context.valid) == pytest.approx(min(losses))


def test_a_candidate_that_does_not_fit_the_context_is_left_out(context: Context) -> None:
    plain = base_predictor(context)
    long = replace(plain, text=TextPart("where is my refund? " * 400))
    choice = choose(context, [long, plain])
    assert choice.predictor.text == plain.text and len(choice.record) == 2
    with assert_refused("does not fit", "today.jsonl:1"):
        choose(context, [long])


def test_zero_shot_lists_the_labels_when_they_fit(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = zero_shot.fit(context)
    listed = [entry["list_labels"] for entry in fitted.chosen["candidates"]]
    assert listed == [False, False, True, True] and fitted.weights.kind == "none" and not fitted.files
    assert fitted.text.list_labels == fitted.chosen["list_labels"]
    assert fitted.valid_score == pytest.approx(max(e["validation"] for e in fitted.chosen["candidates"]), abs=1e-6)
    monkeypatch.setattr(zero_shot, "LIST_SHARE", 0.001)
    assert [entry["list_labels"] for entry in zero_shot.fit(context).chosen["candidates"]] == [False, False]
    open_task = zero_shot.fit(replace(context, task=SHORT))
    assert len(open_task.chosen["candidates"]) == 1 and not open_task.calibrated


def test_few_shot_weighs_counts_and_kinds_of_examples(context: Context) -> None:
    fitted = few_shot.fit(context)
    tried = {(entry["k"], entry["examples"]) for entry in fitted.chosen["candidates"]}
    assert tried == {(k, kind) for k in (1, 4, 8) for kind in ("fixed", "nearest")}
    kept = contents(fitted)["examples.jsonl"].count(b"\n")
    assert kept == (fitted.text.k if fitted.text.examples == "fixed" else 24)
    few = few_shot.fit(replace(context, train=context.train[:5]))
    assert {entry["k"] for entry in few.chosen["candidates"]} == {1, 4}


def test_fixed_examples_show_different_answers_first() -> None:
    rows = examples(9, "please")  # three of each label in turn
    assert [row.answer for row in few_shot.diverse_examples(rows, 4)] == ["billing", "delivery", "refund", "billing"]
    assert few_shot.diverse_examples(rows, 1) == rows[:1] and set(few_shot.diverse_examples(rows, 9)) == set(rows)


# trained arms


@pytest.mark.parametrize("method", TRAINED)
def test_a_trained_arm_learns_and_its_checks_hold(method: str, context: Context) -> None:
    phases: list[str] = []
    rates = (1e-1, 2e-1) if method == "prompt_tuning" else PLAN.learning_rates
    arm = replace(PLAN, learning_rates=rates)
    fitted = TRAINED[method].fit(replace(context, arm=arm, listen=lambda event: phases.append(event.phase)))
    assert all(check["ok"] for check in fitted.checks.values()) and "step0_loss" in fitted.checks
    assert fitted.weights.kind == KINDS[method] and fitted.trainable_params > 0
    before = answer_log_loss(base_predictor(context), context.valid)
    assert fitted.valid_loss is not None and fitted.valid_loss < before - 1
    assert list(dict.fromkeys(phases)) == ["search", "train", "choose"]
    assert fitted.chosen["steps"] == 10 and 1 <= fitted.chosen["best_step"] <= 10
    assert {path.name for path in context.folder.iterdir()} == {"search.json", LEARNED, HELD_OUT, "out"}
    assert fitted.search_seconds > 0 and fitted.train_seconds > 0


class Clock:
    """Seconds that go on by a second with every step, and by `slow` of them from the step `since` on."""

    def __init__(self, context: Context, since: int, slow: float) -> None:
        self.now, self.since, self.slow, self.steps = 0.0, since, slow, 0
        self.context = replace(context, listen=self.listen)

    def listen(self, event: Event) -> None:
        if isinstance(event, Progress) and event.phase == "train":
            self.now += self.slow if event.done >= self.since else 1.0
            self.steps = event.done


LONG = replace(PLAN, steps=40, recipe_steps=40, learning_rates=(1e-3,), opening=0, validate_every=10, step_seconds=1.0,
               train_limit=48.0, after_seconds=2.0)  # fmt: skip


@pytest.mark.parametrize(("since", "slow", "least", "most"), [(99, 1.0, 40, 40), (1, 1.1, 40, 40), (1, 4.0, 9, 13),
                                                              (20, 4.0, 24, 28)])  # fmt: skip
def test_a_run_whose_steps_are_slow_is_shortened_to_its_share(
    context: Context, monkeypatch: pytest.MonkeyPatch, since: int, slow: float, least: int, most: int
) -> None:
    clock = Clock(replace(context, arm=LONG), since, slow)
    monkeypatch.setattr(pacing.time, "perf_counter", lambda: clock.now)
    fitted = lora.fit(clock.context)
    assert least <= fitted.chosen["steps"] == clock.steps <= most and clock.now <= 48 + 4
    assert ("shortened" in fitted.chosen) == (most < 40)
    assert pacing.Paced.read(context.folder / pacing.PACE).changes == fitted.chosen.get("shortened", ())
    assert "valid_loss" in fitted.curve[-1], "the last step is validated"


def test_a_shortened_run_that_is_stopped_and_continued_has_the_same_weights(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    arm = replace(LONG, opening=8, checkpoint_every=3)
    clock = Clock(replace(context, arm=arm, folder=context.folder / "whole"), 12, 4.0)
    monkeypatch.setattr(pacing.time, "perf_counter", lambda: clock.now)
    whole = lora.fit(clock.context)
    (step, length), *_ = whole.chosen["shortened"]
    clock = Clock(replace(context, arm=arm, folder=context.folder / "stopped"), 12, 4.0)

    def stop(event: Event) -> None:
        clock.listen(event)
        if clock.steps == whole.chosen["shortened"][-1][0] + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        lora.fit(replace(clock.context, listen=stop))
    clock.slow = 1.0  # it would have time for more steps now, but the run had the length that it had
    continued = lora.fit(replace(clock.context, arm=replace(arm, train_limit=0.0)))
    assert continued.chosen["steps"] == whole.chosen["steps"] < 40 and step < length
    assert contents(continued) == contents(whole)


@pytest.mark.parametrize("method", TRAINED)
@pytest.mark.parametrize("phase", ["search", "train"])
def test_a_run_stopped_anywhere_and_continued_is_the_same_run(method: str, phase: str, context: Context) -> None:
    whole = TRAINED[method].fit(replace(context, folder=context.folder / "whole"))
    context = replace(context, folder=context.folder / "stopped")
    seen: list[Event] = []

    def stop(event: Event) -> None:
        if isinstance(event, Progress) and event.phase == phase:
            seen.append(event)
            if len(seen) == (6 if phase == "search" else 4):  # in the second rate's opening, or after a checkpoint
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        TRAINED[method].fit(replace(context, listen=stop))
    assert (context.folder / "search.json").exists() == (phase == "train")
    again: list[Any] = []
    continued = TRAINED[method].fit(replace(context, listen=again.append))
    assert contents(continued) == contents(whole)
    assert continued.chosen["search"] == whole.chosen["search"]
    steps = [event.done for event in again if isinstance(event, Progress) and event.phase == "train"]
    assert steps == (list(range(5, 11)) if phase == "search" else [7, 8, 9, 10]), "from the opening or a checkpoint"
    searched = [event.done for event in again if isinstance(event, Progress) and event.phase == "search"]
    assert searched == ([1, 2, 3, 4] if phase == "search" else []), "the first rate's opening is not trained again"


def test_a_full_disk_is_not_taken_for_a_high_learning_rate(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    from riyaz import checkpoint
    from riyaz.errors import RiyazError

    def full_disk(*arguments: Any) -> None:
        raise RiyazError("the disk is full")

    monkeypatch.setattr(checkpoint.Checkpoints, "save", full_disk)
    with assert_refused("the disk is full"):
        lora.fit(context)


@pytest.mark.parametrize("method", TRAINED)
@pytest.mark.parametrize("part", ["opening", "fit"])
def test_a_trained_model_is_freed_before_the_engine_opens(
    method: str, part: str, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both would not always fit the memory, and a training would end without its artifact."""
    built: list[weakref.ref[Any]] = []
    sources: list[Path] = []
    build, open_engine = TRAINED[method].build, weights.open_engine

    def watched(context: Context) -> Any:
        model = build(context)
        built.extend(map(weakref.ref, model.parameters()))
        return model

    def opened(source: Source, precision: Precision) -> Engine:
        assert not [weight for weight in built if weight() is not None]
        kept = {path.name for path in context.folder.iterdir()}
        assert kept <= {"search.json", LEARNED, "openings", "checkpoints", "out"}, (
            "what a killed process leaves is found again"
        )
        sources.append(source.path)
        return open_engine(source, precision)

    monkeypatch.setattr(TRAINED[method], "build", watched)
    monkeypatch.setattr(weights, "open_engine", opened)
    if part == "opening":
        weights.begin_weights(context, watched)
        assert not (context.folder / "out").exists()
        assert sources == [context.folder / "out" if method == "full" else context.source.path] * 2
    else:
        TRAINED[method].fit(replace(context, arm=replace(PLAN, learning_rates=(1e-3,))))
        # a whole model in each precision, then in the chosen one
        assert sources == ([context.folder / "out"] * 4 if method == "full" else [context.source.path])


def test_without_a_search_the_default_rate_is_used(context: Context) -> None:
    fitted = lora.fit(replace(context, arm=replace(PLAN, learning_rates=(3e-3,), opening=0)))
    assert fitted.chosen["learning_rate"] == 3e-3 and fitted.chosen["search"] == []


@pytest.mark.parametrize(
    ("rate", "check"),
    [(0.0, "weights_moved"), (1e-3, "step0_loss")],
)
def test_checks_that_do_not_hold_are_seen(
    context: Context, monkeypatch: pytest.MonkeyPatch, rate: float, check: str
) -> None:
    if check == "step0_loss":  # an adapter that is not the base's identity at the start
        whole: Callable[[Context], Any] = lora.build

        def biased(context: Context) -> Any:
            model = whole(context)
            with torch.no_grad():
                for name, weight in model.named_parameters():
                    if weight.requires_grad and "lora_B" in name:
                        weight.fill_(1.0)
                    elif name.endswith("norm.weight"):  # far from equal probabilities, which an adapter hardly changes
                        weight.mul_(4.0)
            return model

        monkeypatch.setattr(lora, "build", biased)
    fitted = lora.fit(replace(context, arm=replace(PLAN, learning_rates=(rate,), opening=0)))
    assert {name for name, found in fitted.checks.items() if not found["ok"]} == {check}


@pytest.mark.parametrize(
    ("training", "base", "ok", "words"),
    [
        (8.069, 8.002, True, ()),  # a healthy LoRA on German tickets
        (
            8.2,
            8.002,
            True,
            ("8.200 nats per token in training and 8.002 in the engine", "within the 5% that rounding"),
        ),
        (9.2, 8.002, False, ("9.200 nats per token in training and 8.002 in the engine", "more than the 5%")),
        (0.06, 0.05, True, ()),  # a share of one nat where the loss is lower
        (0.2, 0.05, False, ("0.200 nats per token in training and 0.050 in the engine", "more than the 5%")),
        (math.nan, 2.0, False, ("nan nats per token in training and 2.000 in the engine", "more than the 5%")),
        (12.0, 12.0, False, ("the first loss is 12.000 nats per token, above 11.000 of a guess among all tokens",)),
    ],
)
def test_the_first_loss_is_compared_as_a_share_and_says_both_numbers(
    training: float, base: float, ok: bool, words: tuple[str, ...]
) -> None:
    check = weights.step0_check(training, base, vocabulary=round(math.exp(10.0)))
    assert check["ok"] == ok and ("warning" in check) == bool(words)
    assert all(each in check["warning"] for each in words)


def test_a_loss_that_is_no_number_ends_the_run(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    with assert_refused("the loss is", "at step"):
        lora.fit(replace(context, arm=replace(PLAN, learning_rates=(1e30,), opening=0)))
    from riyaz import train

    context = replace(context, folder=context.folder / "again")
    context.folder.mkdir()
    monkeypatch.setattr(train, "validate", lambda *rest: {"valid_loss": math.nan})
    monkeypatch.setattr(weights, "_check_step0", lambda *rest: {"ok": True})
    with assert_refused("the loss on validation rows is not finite; give a lower --learning-rate"):
        lora.fit(replace(context, arm=replace(PLAN, learning_rates=(1e-3,), opening=0)))


@pytest.mark.parametrize("method", TRAINED)
@pytest.mark.parametrize("value", [math.nan, -math.inf])
def test_weights_that_are_no_numbers_are_not_kept(
    context: Context, monkeypatch: pytest.MonkeyPatch, method: str, value: float
) -> None:
    from riyaz import train

    whole = train.train

    def spoilt(model: Any, *rest: Any, **options: Any) -> Any:
        state = whole(model, *rest, **options)  # whose loss is finite
        with torch.no_grad():
            next(weight for weight in model.parameters() if weight.requires_grad).view(-1)[-1] = value
        return state

    monkeypatch.setattr(train, "train", spoilt)
    with assert_refused("the trained weights hold a NaN or an infinity; give a lower --learning-rate"):
        TRAINED[method].fit(replace(context, arm=replace(PLAN, learning_rates=(1e-3,), opening=0)))
    assert {path.name for path in context.folder.iterdir()} == {"checkpoints", "search.json", LEARNED}, (
        "no weights are written"
    )


def test_rows_too_long_for_the_context_are_counted(context: Context) -> None:
    long = Example(({"role": "user", "content": "where is my refund? " * 300},), ("refund",), where="please.jsonl:99")
    rows = (*examples(29, "please"), long)
    fitted = lora.fit(replace(context, train=rows, arm=replace(PLAN, learning_rates=(1e-3,), opening=0)))
    assert fitted.checks["fits_context"]["failed"] == 1 and fitted.checks["fits_context"]["ok"]
    with assert_refused("2 of 24 rows are longer than 1024 tokens", "please.jsonl:99"):
        lora.fit(replace(context, train=(*context.train[:22], long, long)))


def test_the_command_line_names_every_method() -> None:
    from riyaz.cli import adapt

    told = typing.get_type_hints(adapt.adapt, include_extras=True)["method"].__metadata__[0].help
    *others, last = sorted(METHODS)
    assert told == f"{', '.join(others)} or {last}"
