"""Speeds of this machine with this model on these rows, from a few real steps of each kind of work."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from riyaz import hardware
from riyaz.artifact import TextPart
from riyaz.comparison.folder import KEPT, ComparisonFolder, Settings
from riyaz.data import Example
from riyaz.data.task import Task
from riyaz.errors import RiyazError
from riyaz.evaluate import BaseFacts
from riyaz.events import Event, Listen, Progress
from riyaz.files import remove
from riyaz.methods import METHODS
from riyaz.methods.base import ArmPlan, Context, Method, instruction_only
from riyaz.methods.choices import answer_limit, answer_limits, base_predictor
from riyaz.predictor import ClosedPredictor, ModelPredictor
from riyaz.scoring import KNOWN_BY, answer_log_loss, predict, predict_raw_and_calibrated
from riyaz.sources import Source

Known = dict[tuple[TextPart, int], dict[str, float]]  # speeds by text and room for an answer

STEPS = 4  # the first is not counted
ROWS = 8  # predicted at once
TOKENS = (16, 64)  # of the two answers from which a long one's time is told
LONGER = 2.0  # answers of a trained arm beside the accepted ones, at most: they end, which the base's seldom do
SURE = 4.0  # passes over a prompt that a trained arm's search of a closed set costs at most


def measure_speeds(
    folder: ComparisonFolder, settings: Settings, source: Source, task: Task, listen: Listen
) -> dict[str, Any]:
    """What `plan.make` divides the budget by; also writes the base's facts into the folder."""
    import torch

    threads = hardware.cores()
    torch.set_num_threads(threads)
    train, valid = folder.rows(KEPT, "train"), folder.rows(KEPT, "valid")
    context = Context(
        source=source, tokenizer=source.tokenizer(), task=task, train=train, valid=valid, arm=ArmPlan("measure"),
        valid_rows=len(valid), compute="bfloat16" if hardware.bf16_is_fast() else "float32",
        seed=settings.settings.seed, folder=folder.path, listen=listen,
        prompt_text=instruction_only(task), collection=folder.collection(),
    )  # fmt: skip
    began = time.perf_counter()
    plain = base_predictor(context)
    load_seconds = time.perf_counter() - began
    began = time.perf_counter()
    BaseFacts.measure(plain, valid, settings.settings.general, folder.path)
    base_seconds = time.perf_counter() - began
    methods = [METHODS[name] for name in settings.methods]
    unable: dict[str, str] = {}  # such as prompts that fit no context: the arm's reason, not the comparison's end
    asked = partial(_predicting, plain=plain, context=context, load_seconds=load_seconds, known={})
    predicting = _each(methods, asked, unable)
    rss = hardware.peak_rss() / hardware.MB
    del plain, asked
    trained = [method for method in methods if method.recipe is not None and method.name not in unable]
    training = _each(trained, partial(_training, context=context), unable)
    return {
        "threads": threads, "compute": context.compute, "rss_mb": rss, "base_seconds": base_seconds,
        "predict": predicting, "arms": training, "unable": unable,
    }  # fmt: skip


def _each(
    methods: Sequence[Method], work: Callable[[Method], dict[str, float]], unable: dict[str, str]
) -> dict[str, dict[str, float]]:
    """What was measured of every method; of one that cannot be, the reason goes into `unable`."""
    found = {}
    for method in methods:
        try:
            found[method.name] = work(method)
        except RiyazError as error:
            unable[method.name] = str(error)
    return found


def _predicting(
    method: Method, plain: ModelPredictor, context: Context, load_seconds: float, known: Known
) -> dict[str, float]:
    """Seconds to answer a row among others, alone, and to judge it; and to weigh all candidate texts on one.

    `known` remembers them for texts that several methods share.
    """
    if not method.candidates:
        return dict.fromkeys(("row_seconds", "answer_seconds", "choose_seconds"), 0.001) | dict.fromkeys(
            ("loss_seconds", "load_seconds", "look_seconds"), 0.0
        )
    began = time.perf_counter()
    predictor, cost = method.probe(plain, context), method.cost
    load_seconds += time.perf_counter() - began  # an index is opened where the model is
    room = answer_limits(context)[0] if method.recipe is None else answer_limit(context)
    key = predictor.text, room
    if key not in known:
        known[key] = _answering(predictor, room, context)
    speed = dict(known[key])
    if method.recipe is not None:
        speed |= _once_trained(speed, room, context)
    answered = 0.0
    if context.task.kind == "short":
        answered = method.answers_per_row * speed["row"]
    elif context.task.kind == "free" and method.recipe is None:
        answered = speed["row"]  # once, to choose how long an answer may be
    return {
        "row_seconds": speed["row"] * cost,
        "answer_seconds": speed["alone"] * cost,
        "loss_seconds": speed["loss"] * cost,
        "choose_seconds": (method.candidates * speed["weigh"] + answered) * cost,
        "load_seconds": load_seconds,
        "look_seconds": 1.6 * speed["row"] * cost if predictor.text.passages else 0.0,
    }


def _once_trained(speed: dict[str, float], room: int, context: Context) -> dict[str, float]:
    """What differs when the base has been trained: sure of the labels it learned after few of them, and done where
    such answers end."""
    if context.task.kind == "closed":
        return {name: min(speed[name], SURE * speed["loss"]) for name in ("loss", "row", "weigh")}
    mean = sum(map(len, context.tokenizer.answer_ids([row.answer for row in context.valid]))) / len(context.valid)
    said = min(1.0, LONGER * mean / room)
    return {name: speed["loss"] + said * max(0.0, speed[name] - speed["loss"]) for name in ("row", "alone")}


def _answering(predictor: ModelPredictor, room: int, context: Context) -> dict[str, float]:
    """Seconds a row of a predictor: to judge its answer, to answer it among others and alone, to weigh a text on it."""
    rows = _some(context.valid, ROWS)
    answer_log_loss(predictor, rows[:2])  # reads the shared prefix and warms up
    loss = _seconds(lambda: answer_log_loss(predictor, rows)) / len(rows)
    row, alone = _generating(predictor, room, rows) / len(rows), _generating(predictor, room, rows[:1])
    weigh = loss
    if isinstance(predictor, ClosedPredictor):
        weigh = _seconds(lambda: predict_raw_and_calibrated(predictor, rows)) / len(rows)
    return {"loss": loss, "row": row, "alone": alone, "weigh": weigh}


def _generating(predictor: ModelPredictor, room: int, rows: Sequence[Example]) -> float:
    """Seconds to answer the rows; where answers may be long, from two short ones, as a token takes what it takes."""
    if isinstance(predictor, ClosedPredictor) or room <= TOKENS[-1]:
        return _seconds(lambda: predict(predictor, rows, max_tokens=room))
    short, longer = (_seconds(partial(predict, predictor, rows, max_tokens=count)) for count in TOKENS)
    return short + (room - TOKENS[0]) * max(0.0, longer - short) / (TOKENS[1] - TOKENS[0])


def _training(method: Method, context: Context) -> dict[str, float]:
    """Seconds of an average step, of a validation, of making a fresh model; peak memory; disk of its files."""
    from riyaz.methods.weights import rows_for
    from riyaz.train import TrainPlan, train

    plan, build, context = method.recipe, method.build, method.with_prompt(context)
    assert plan is not None and build is not None
    began = time.perf_counter()
    model = build(context)
    build_seconds = time.perf_counter() - began
    rows, valid = rows_for(context, context.train), rows_for(context, context.valid[:KNOWN_BY])
    times = [time.perf_counter()]

    def listen(event: Event) -> None:
        times.append(time.perf_counter())
        if isinstance(event, Progress):
            event = replace(event, phase="measure", method=method.name)
        context.listen(event)

    scratch = context.folder / "scratch"
    remove(scratch)  # of a process that was killed
    try:
        steps = TrainPlan(steps=STEPS, learning_rate=plan.learning_rates[0], batch_size=plan.batch_size,
                          validate_every=10**9, compute=context.compute, seed=context.seed)  # fmt: skip
        state = train(model, rows, valid, steps, scratch, listen)
        saved = (scratch / "best.safetensors").stat().st_size / hardware.MB
    finally:
        remove(scratch)
    tokens = state.tokens / STEPS
    mean = plan.batch_size * sum(len(row.prompt) + len(row.answer) for row in rows) / len(rows)
    step = (times[STEPS - 1] - times[1]) / (STEPS - 2)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {
        "step_seconds": step * mean / tokens,
        "validate_seconds": max(0.0, times[STEPS] - times[STEPS - 1] - step),
        "build_seconds": build_seconds, "save_seconds": 0.0, "rss_mb": hardware.peak_rss() / hardware.MB,
        "disk_mb": 5 * saved, "trainable": trained,
    }  # fmt: skip


def _some(rows: Sequence[Example], count: int) -> tuple[Example, ...]:
    """Rows spread over all of them."""
    step = max(1, len(rows) // count)
    return tuple(rows[::step][:count])


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
