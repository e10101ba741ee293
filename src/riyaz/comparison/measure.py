"""Measures this machine's speeds with this model on these rows: a few real steps of each kind of work."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal, TypeVar

from riyaz import hardware
from riyaz.artifact import TextPart
from riyaz.comparison.folder import KEPT, ComparisonFolder, Settings
from riyaz.comparison.speeds import AnswerSpeed, Speeds, TrainSpeed
from riyaz.data import Example
from riyaz.data.task import Task
from riyaz.errors import RiyazError
from riyaz.evaluate import BaseFacts
from riyaz.events import Event, Listen, Progress
from riyaz.files import remove
from riyaz.methods import METHODS
from riyaz.methods.base import ArmPlan, Context, Method, instruction_only
from riyaz.methods.choices import answer_limit, answer_limits, base_predictor, candidate_scores
from riyaz.predictor import ModelPredictor
from riyaz.scoring import REOPEN_ROWS, answer_log_loss, predict
from riyaz.sources import Source

Cache = dict[tuple[TextPart, int], dict[str, float]]  # (text part, answer limit in tokens) -> `_answer_seconds`
T = TypeVar("T")

STEPS = 4  # training steps; the first is not counted
ROWS = 8  # answered in one batch
ANSWER_TOKENS = (16, 64)  # lengths of the two answers from which the time of a longer one is extrapolated
LONGEST_TRAINED = 2.0  # mean answer of a trained arm / mean accepted answer, at most: trained answers end by themselves
TRAINED_PASSES = 4.0  # passes over a prompt that a trained arm's search of a closed set takes, at most
LOOK_FACTOR = 1.6  # seconds of evaluating retrieval on a row / seconds of answering it


def measure_speeds(folder: ComparisonFolder, settings: Settings, source: Source, task: Task, listen: Listen) -> Speeds:
    """Measure the speeds of all methods; also writes the base's facts into the folder."""
    import torch

    threads = hardware.threads()
    torch.set_num_threads(threads)
    compute: Literal["bfloat16", "float32"] = "bfloat16" if hardware.bf16_is_fast() else "float32"
    train, valid = folder.rows(KEPT, "train"), folder.rows(KEPT, "valid")
    context = Context(
        source=source, tokenizer=source.tokenizer(), task=task, train=train, valid=valid, arm=ArmPlan("measure"),
        valid_rows=len(valid), compute=compute, seed=settings.settings.seed, folder=folder.path, listen=listen,
        prompt_text=instruction_only(task), collection=folder.collection(),
    )  # fmt: skip
    began = time.perf_counter()
    plain = base_predictor(context)
    load_seconds = time.perf_counter() - began
    began = time.perf_counter()
    BaseFacts.measure(plain, valid, settings.settings.general, folder.path)
    base_seconds = time.perf_counter() - began
    methods = [METHODS[name] for name in settings.methods]
    unable: dict[str, str] = {}
    measure_answers = partial(_answer_speed, plain=plain, context=context, load_seconds=load_seconds, cache={})
    predicting = _each(methods, measure_answers, unable)
    rss = hardware.peak_rss() / hardware.MB
    del plain, measure_answers  # free the base before training
    trained = [method for method in methods if method.recipe is not None and method.name not in unable]
    training = _each(trained, partial(_train_speed, context=context), unable)
    return Speeds(
        threads=threads, compute=compute, rss_mb=rss, base_seconds=base_seconds,
        predict=predicting, arms=training, unable=unable,
    )  # fmt: skip


def _each(methods: Sequence[Method], work: Callable[[Method], T], unable: dict[str, str]) -> dict[str, T]:
    """The result of `work` by method. Where it fails, such as for prompts that fit no context, the reason is added to
    `unable`: only that arm is skipped."""
    results = {}
    for method in methods:
        try:
            results[method.name] = work(method)
        except RiyazError as error:
            unable[method.name] = str(error)
    return results


def _answer_speed(
    method: Method, plain: ModelPredictor, context: Context, load_seconds: float, cache: Cache
) -> AnswerSpeed:
    """Seconds of a method's answers, measured with its prompts on the base model; methods with the same prompts share
    one measurement through `cache`."""
    if not method.candidates:
        return AnswerSpeed(0.001, 0.001, loss_seconds=0.0, choose_seconds=0.001, load_seconds=0.0, look_seconds=0.0)
    began = time.perf_counter()
    predictor, cost = method.probe(plain, context), method.cost
    load_seconds += time.perf_counter() - began  # a method with documents opens its index
    limit = answer_limits(context)[0] if method.recipe is None else answer_limit(context)
    key = predictor.text, limit
    if key not in cache:
        cache[key] = _answer_seconds(predictor, limit, context)
    seconds = dict(cache[key])
    if method.recipe is not None:
        seconds |= _after_training(seconds, limit, context)
    answering = 0.0
    if context.task.kind == "short":
        answering = method.answers_per_row * seconds["row"]
    elif context.task.kind == "free" and method.recipe is None:
        answering = seconds["row"]  # once, to choose the answer limit
    return AnswerSpeed(
        row_seconds=seconds["row"] * cost,
        answer_seconds=seconds["alone"] * cost,
        loss_seconds=seconds["loss"] * cost,
        choose_seconds=(method.candidates * seconds["candidate"] + answering) * cost,
        load_seconds=load_seconds,
        look_seconds=LOOK_FACTOR * seconds["row"] * cost if predictor.text.passages else 0.0,
    )


def _after_training(seconds: dict[str, float], limit: int, context: Context) -> dict[str, float]:
    """The entries of `seconds` that training changes: in a closed set few labels stay likely, so the search is short;
    other answers end near the length of the accepted ones instead of at the limit."""
    if context.task.kind == "closed":
        return {name: min(seconds[name], TRAINED_PASSES * seconds["loss"]) for name in ("loss", "row", "candidate")}
    mean = sum(map(len, context.tokenizer.answer_ids([row.answer for row in context.valid]))) / len(context.valid)
    share = min(1.0, LONGEST_TRAINED * mean / limit)  # of the tokens that the base generates
    return {name: seconds["loss"] + share * max(0.0, seconds[name] - seconds["loss"]) for name in ("row", "alone")}


def _answer_seconds(predictor: ModelPredictor, limit: int, context: Context) -> dict[str, float]:
    """Seconds per row: "loss" of its accepted answer, answering it in a batch ("row") and "alone", and scoring one
    "candidate" of `choices.choose` on it."""
    rows = _spread(context.valid, ROWS)
    answer_log_loss(predictor, rows[:2])  # reads the shared prefix and warms up
    loss = _seconds(lambda: answer_log_loss(predictor, rows)) / len(rows)
    if context.task.kind == "closed":  # labels are as long as they are, whatever the limit
        row, alone = (_seconds(partial(predict, predictor, some)) / len(some) for some in (rows, rows[:1]))
        candidate = _seconds(lambda: candidate_scores(context, predictor, rows)) / len(rows)
    else:
        row, alone = (_generation_seconds(predictor, limit, some) / len(some) for some in (rows, rows[:1]))
        candidate = loss
    return {"loss": loss, "row": row, "alone": alone, "candidate": candidate}


def _generation_seconds(predictor: ModelPredictor, limit: int, rows: Sequence[Example]) -> float:
    """Seconds to answer the rows in one batch with `limit` tokens each; a large limit is extrapolated linearly."""
    if limit <= ANSWER_TOKENS[-1]:
        return _seconds(lambda: predict(predictor, rows, max_tokens=limit))
    short, longer = (_seconds(partial(predict, predictor, rows, max_tokens=count)) for count in ANSWER_TOKENS)
    per_token = max(0.0, longer - short) / (ANSWER_TOKENS[1] - ANSWER_TOKENS[0])
    return short + (limit - ANSWER_TOKENS[0]) * per_token


def _train_speed(method: Method, context: Context) -> TrainSpeed:
    """Time, memory and disk of training, from STEPS steps with one validation in a temporary folder."""
    from riyaz.methods.weights import rows_for
    from riyaz.train import TrainPlan, train

    recipe, build, context = method.recipe, method.build, method.with_prompt(context)
    assert recipe is not None and build is not None
    began = time.perf_counter()
    model = build(context)
    build_seconds = time.perf_counter() - began
    rows, valid = rows_for(context, context.train), rows_for(context, context.valid[:REOPEN_ROWS])
    times = [time.perf_counter()]

    def listen(event: Event) -> None:
        times.append(time.perf_counter())
        if isinstance(event, Progress):
            event = replace(event, phase="measure", method=method.name)
        context.listen(event)

    scratch = context.folder / "scratch"
    remove(scratch)  # left by a process that was killed
    try:
        plan = TrainPlan(steps=STEPS, learning_rate=recipe.learning_rates[0], batch_size=recipe.batch_size,
                         validate_every=10**9, compute=context.compute, seed=context.seed)  # fmt: skip
        state = train(model, rows, valid, plan, scratch, listen)
        saved = (scratch / "best.safetensors").stat().st_size / hardware.MB
    finally:
        remove(scratch)
    tokens_per_step = state.tokens / STEPS
    mean_tokens = recipe.batch_size * sum(len(row.prompt) + len(row.answer) for row in rows) / len(rows)
    step = (times[STEPS - 1] - times[1]) / (STEPS - 2)
    return TrainSpeed(
        step_seconds=step * mean_tokens / tokens_per_step,
        validate_seconds=max(0.0, times[STEPS] - times[STEPS - 1] - step),
        build_seconds=build_seconds,
        rss_mb=hardware.peak_rss() / hardware.MB,
        disk_mb=5 * saved,
        trainable=sum(p.numel() for p in model.parameters() if p.requires_grad),
    )


def _spread(rows: Sequence[Example], count: int) -> tuple[Example, ...]:
    """At most `count` of the rows, evenly spaced."""
    step = max(1, len(rows) // count)
    return tuple(rows[::step][:count])


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
