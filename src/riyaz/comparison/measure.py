"""Measures this machine's speeds with this model on these rows: a few real steps of each kind of work."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, TypeVar

from riyaz import hardware
from riyaz.artifact import TextPart
from riyaz.comparison.by_hand import by_hand
from riyaz.comparison.fit_part import rehearsing
from riyaz.comparison.folder import FINAL, TEACHER, Chosen, ComparisonFolder, Settings
from riyaz.comparison.speeds import AnswerSpeed, Speeds, TrainSpeed, joint_speed
from riyaz.data import Example
from riyaz.data.packing import batch
from riyaz.data.rows import Row, rows_per_step
from riyaz.data.task import Task
from riyaz.drift import BaseFacts
from riyaz.engine.opening import engine_name
from riyaz.engine.parts import finished
from riyaz.errors import RiyazError, joined
from riyaz.evaluate import prompt_tokens
from riyaz.events import Event, Listen, Phase, Progress
from riyaz.families import describe
from riyaz.files import remove
from riyaz.methods import METHODS
from riyaz.methods.fitting.base import VALID_ROWS, ArmPlan, Context, Method, instruction_only
from riyaz.methods.fitting.choices import (
    LIMIT_ROWS,
    answer_limit,
    answer_limits,
    base_predictor,
    candidate_points,
    rows_scored,
)
from riyaz.methods.fitting.label_rows import LABEL_VALID_ROWS, has_label_head, valid_examples, with_label_head
from riyaz.methods.fitting.learning_rate import judge_of
from riyaz.methods.fitting.recipe import ByHand, Recipe, pass_tokens
from riyaz.methods.fitting.smallest import precision_seconds
from riyaz.methods.fitting.taught import taught
from riyaz.predictor import ClosedPredictor, ModelPredictor
from riyaz.scoring import answer_log_loss, predict
from riyaz.sources import Source

# (text part, answer limit in tokens) -> (tokens of a prompt, `_answer_seconds` and the seconds that measuring took)
Cache = dict[tuple[TextPart, int], tuple[float, dict[str, float]]]
T = TypeVar("T")

STEPS = 4  # training steps; the first is not counted
# Peak memory of an arm / that of the few steps measured here: models of the search that come and go leave holes, and
# prompts with more examples or passages are read at once. It is at most MARGIN_MB more: such holes do not grow with the
# model. Of Qwen2.5-Coder-0.5B 4 steps of `full` needed 9,490 MB, the arm 9,685.
RSS_MARGIN, MARGIN_MB = 1.25, 1000.0
# bytes of a weight that trains: 16 bits to compute with and 16 for the rest, the gradient's sum, its mean, mean square
MASTER_BYTES = {"bfloat16": 2 + 2 + 4 + 2 + 4, "float32": 4 + 4 + 4 + 4}
BATCH_ROWS, QUESTION_ROWS = 8, 3  # answered in one batch, and where several questions are asked without a head
LENGTH_ROWS = 32  # whose prompts are counted, not read: a few rows may be shorter or longer than usual
SEEN_TOKENS = 64  # of an answer, at most; the length and the time of a longer one are extrapolated
LONGEST_TRAINED = 1.25  # mean answer of a trained arm / mean accepted answer: most end alike, some run to the limit
WHOLE_FACTOR = 1.5  # a step that trains the whole model / one that trains an adapter
CODED_FACTOR = 2.4  # the same where the adapter's base is in codes of 8 bits, which a whole model's never is
# The training of a second adapter is not measured if its prompts are at most ALIKE times as long as the first one's and
# the time limit of measuring, a tenth of the budget, is at least AMPLE times its training: then no arm is cut.
AMPLE, ALIKE = 2.0, 1.2
PAIR_READS = 5  # of a row's answers, where they are pairs: two by the arm, two by the base, and the accepted one
PYTHON_SECONDS = 0.5  # of starting a process, without torch
LOOK_FACTOR = 1.6  # seconds of evaluating retrieval on a row / seconds of answering it


def measure_speeds(
    folder: ComparisonFolder, settings: Settings, source: Source, task: Task, seconds: float, listen: Listen,
    base: str | None = None, known: Mapping[str, AnswerSpeed] | None = None,
) -> Speeds:  # fmt: skip
    """Measure the speeds of all methods on a base; also writes the base's facts into the folder that it has there.
    `known` are the speeds of the methods without a language model, where another base's measuring has them.

    After `seconds` no further method is measured, and a second adapter may not be either (AMPLE): the speed is derived
    from another method's. The base, one method's answers and one method's training are always measured.
    """
    began, threads = time.perf_counter(), hardware.threads()
    start_seconds = PYTHON_SECONDS + (_import_torch(threads) if engine_name() == "torch" else 0.0)
    compute: Literal["bfloat16", "float32"] = "bfloat16" if hardware.bf16_is_fast() else "float32"
    train, valid = folder.rows(FINAL, "train"), folder.rows(FINAL, "valid")
    context = Context(
        source=source, tokenizer=source.tokenizer(), task=task, train=train, valid=valid, arm=ArmPlan("measure"),
        valid_rows=len(valid), compute=compute, seed=settings.settings.seed, folder=folder.base(base), listen=listen,
        prompt_text=instruction_only(task), collection=folder.collection(), hand=ByHand.of(settings.settings),
        precision=settings.settings.precision, teacher=folder.path / TEACHER,
    )  # fmt: skip
    hands = {name: by_hand(name, settings.settings, settings.methods) for name in settings.methods}
    methods = [_among(METHODS[name].for_task(task.kind, hand), settings.methods) for name, hand in hands.items()
               if known is None or METHODS[name].about.language_model]  # fmt: skip
    pieces = 1 + sum(1 + (method.recipe is not None) for method in methods)
    bench = _Bench(context, settings.settings, began + seconds, pieces, seconds)
    bench.begin("the base on validation rows and general text")
    clock = time.perf_counter()
    plain = base_predictor(context)
    load_seconds, clock = time.perf_counter() - clock, time.perf_counter()
    BaseFacts.measure(plain, valid, settings.settings.general, folder.base(base))
    base_seconds = time.perf_counter() - clock
    answers = partial(_answer_speed, plain=plain, context=context, load_seconds=load_seconds, bench=bench)
    joining = [method for method in methods if method.of]
    apart = [method for method in methods if method.own_training]
    answering = [method for method in methods if not method.own_training and not method.of]
    predicting = bench.each(answering, "answers of", answers)
    rss = _peak_mb()
    del plain, answers  # free the base before training
    trained = [method for method in methods if method.recipe is not None and method.name not in bench.unable]
    trained.sort(key=lambda method: -method.left_out)  # those first that run in the shortest budgets
    torch_seconds = _import_torch(threads) if trained or apart else 0.0
    training = bench.each(trained, "training of", partial(_train_speed, bench=bench))
    predicting |= bench.each(apart, "training of", partial(_own_speed, context=context))
    predicting |= bench.each(joining, "answers of", partial(_joint_speed, known={**(known or {}), **predicting}))
    return Speeds(
        threads=threads, compute=compute, rss_mb=rss, start_seconds=start_seconds, base_seconds=base_seconds,
        predict=predicting, arms=training, unable=bench.unable, derived=tuple(bench.derived),
        torch_seconds=torch_seconds,
    )  # fmt: skip


def _among(method: Method, names: Sequence[str]) -> Method:
    """The method in a comparison of these methods: it tries no instruction of one that does not run."""
    return method if method.instruction_of in names else replace(method, instruction_of="")


def _import_torch(threads: int) -> float:
    """Import torch, which computes with so many threads then; returns the seconds that this took."""
    began = time.perf_counter()
    import torch

    torch.set_num_threads(threads)
    return time.perf_counter() - began


@dataclass
class _Bench:
    """The state of the measuring: what was measured so far, and until when."""

    context: Context
    chosen: Chosen  # of the comparison's settings
    deadline: float  # of time.perf_counter
    total: int  # pieces of work, for the progress
    seconds: float = 0.0  # that measuring may take
    done: int = 0
    unable: dict[str, str] = field(default_factory=dict)  # method -> why it could not be measured
    derived: dict[str, None] = field(default_factory=dict)  # methods whose speed is derived: `Speeds.derived`
    answers: Cache = field(default_factory=dict)
    training: dict[str, tuple[float, TrainSpeed]] = field(default_factory=dict)  # method -> (tokens a step, speed)
    slowest: float = 0.0  # seconds that measuring a training took, at most

    def begin(self, what: str) -> None:
        """Report the next piece of work."""
        self.context.listen(Phase("measure", what, method="measure"))
        self.context.listen(Progress("measure", self.done, self.total, method="measure"))
        self.done += 1

    def each(self, methods: Sequence[Method], what: str, work: Callable[[Method], T]) -> dict[str, T]:
        """The result of `work`, in words `what`, by method. Where it fails, such as for prompts that fit no context,
        the reason is added to `unable`: only that arm is skipped."""
        results = {}
        for method in methods:
            self.begin(f"{what} {method.name}")
            try:
                results[method.name] = work(method)
            except RiyazError as error:
                self.unable[method.name] = str(error)
        return results

    def late(self, last: float) -> bool:
        """Whether another piece of work, which may take as long as the `last` one, would end after the deadline."""
        return time.perf_counter() + last > self.deadline


def _answer_speed(
    method: Method, plain: ModelPredictor, context: Context, load_seconds: float, bench: _Bench
) -> AnswerSpeed:
    """Seconds of a method's answers, measured with its prompts on the base model; methods with the same prompts share
    one measurement."""
    if method.time is not None:
        return _own_speed(method, context)
    if not method.candidates:
        return AnswerSpeed(0.001, 0.001, loss_seconds=0.0, choose_seconds=0.1, load_seconds=0.0, look_seconds=0.0)
    context = taught(context) if method.needs_teacher else context
    began = time.perf_counter()
    predictor, cost = method.probe(plain, context), method.cost
    load_seconds += time.perf_counter() - began  # a method with documents opens its index
    limit = answer_limits(context)[0] if method.recipe is None else answer_limit(context)
    seconds = _measured_answers(method, predictor, limit, bench)
    if method.recipe is not None:
        seconds |= _after_training(seconds, limit, context)
    rows, answering = min(VALID_ROWS, len(context.valid)), 0.0
    if context.task.kind == "short":
        answering = method.answers_per_row * seconds["row"] * rows
    elif context.task.kind == "free" and method.recipe is None:
        answering = seconds["row"] * min(LIMIT_ROWS, rows)  # once, to choose the answer limit
    elif context.task.choices:
        answering = seconds["row"] * rows  # once, to fit the temperature
    scored = rows_scored(method.candidates, len(context.valid), method.rounds) * seconds["candidate"]
    scored += method.candidates * seconds["null"]
    if method.tried is not None and predictor.has_labels:
        whole = _whole_seconds(predictor, context)
        scored = rows_scored(method.tried(predictor), len(context.valid), method.rounds) * whole + seconds["null"]
    if method.instruction_of:  # the chosen candidate once more
        scored += rows * seconds["candidate"] + seconds["null"]
    if method.recipe is not None and has_label_head(context):  # nothing is searched, and all rows are judged
        scored = min(LABEL_VALID_ROWS, len(context.valid)) * seconds["candidate"]
    precisions = partial(precision_seconds, context, load_seconds, seconds["loss"] * cost, seconds["alone"] * cost)
    reads = PAIR_READS if context.task.metric == "preferred" else 1
    judging = reads * seconds["loss"] if context.task.kind == "free" else 0.0  # log-probabilities of given answers
    return AnswerSpeed(
        row_seconds=(seconds["row"] + judging) * cost,
        answer_seconds=seconds["alone"] * cost,
        loss_seconds=seconds["loss"] * cost,
        choose_seconds=(scored + answering) * cost + (precisions() if method.whole else 0.0),
        load_seconds=load_seconds,
        merge_seconds=precisions() if method.about.weights == "lora" else 0.0,
        look_seconds=LOOK_FACTOR * seconds["row"] * cost if predictor.text.passages else 0.0,
    )


def _joint_speed(method: Method, known: Mapping[str, AnswerSpeed]) -> AnswerSpeed:
    """The speed of a method that joins others: the sum of theirs. Raises RiyazError if one of them is not known."""
    if missing := [name for name in method.of if name not in known]:
        raise RiyazError(f"it joins {joined(method.of)}, and {missing[0]} cannot run")
    return joint_speed([known[name] for name in method.of])


def _own_speed(method: Method, context: Context) -> AnswerSpeed:
    """The speed of a method that estimates its own."""
    assert method.time is not None
    took = method.time(context)
    return AnswerSpeed(took.row, took.alone, loss_seconds=0.0, choose_seconds=took.fit, load_seconds=took.load,
                       look_seconds=0.0, rss_mb=took.rss_mb, disk_mb=took.disk_mb)  # fmt: skip


def _measured_answers(method: Method, predictor: ModelPredictor, limit: int, bench: _Bench) -> dict[str, float]:
    """`_answer_seconds`, once for equal prompts; after the deadline those of the longest measured prompts, times the
    tokens of these prompts / the tokens of those."""
    key = predictor.text, limit
    if key in bench.answers:
        return dict(bench.answers[key][1])
    began = time.perf_counter()
    tokens = prompt_tokens(predictor, _spread(bench.context.valid, BATCH_ROWS))
    if bench.answers and bench.late(max(seconds["measuring"] for _, seconds in bench.answers.values())):
        bench.derived[method.name] = None
        longest, known = max(bench.answers.values(), key=lambda entry: entry[0])
        return {name: value * (1.0 if name == "tokens" else tokens / longest) for name, value in known.items()}
    seconds = _answer_seconds(predictor, limit, bench.context)
    bench.answers[key] = tokens, seconds | {"measuring": time.perf_counter() - began}
    return dict(seconds)


def _after_training(seconds: dict[str, float], limit: int, context: Context) -> dict[str, float]:
    """The entries of `seconds` that training changes: one pass over the prompt scores the labels of a closed set; other
    answers end near the length of the accepted ones, wherever those of the base end."""
    if has_label_head(context):
        return {"row": seconds["loss"], "candidate": seconds["loss"], "alone": seconds["pass"]}
    mean = sum(map(len, context.tokenizer.answer_ids([row.said for row in context.valid]))) / len(context.valid)
    share = min(limit, LONGEST_TRAINED * mean) / max(1.0, seconds["tokens"])  # of the tokens that the base generates
    read = {"row": seconds["loss"], "alone": seconds["pass"]}
    return {name: before + share * max(0.0, seconds[name] - before) for name, before in read.items()}


def _answer_seconds(predictor: ModelPredictor, limit: int, context: Context) -> dict[str, float]:
    """Seconds per row: "loss" of its accepted answer, that of one row alone ("pass"), answering it in a batch ("row")
    and "alone", and scoring one "candidate" of `choices.choose` on it; the seconds of the "null" prompts of a
    candidate; and the "tokens" of a generated answer, 0 where answers are chosen. Of batches those of usual length."""
    rows = _spread(context.valid, BATCH_ROWS)
    read = _read if predictor.has_questions else answer_log_loss  # of questions a head gives all answers after a pass
    read(predictor, rows[:2])  # reads the shared prefix and warms up
    loss, once = (_seconds(partial(read, predictor, some)) / len(some) for some in (rows, rows[:1]))
    usual = _tokens_read(predictor, _spread(context.valid, LENGTH_ROWS))
    longer = usual / _tokens_read(predictor, rows)
    tokens = 0.0
    if predictor.has_questions:
        rows = rows[:QUESTION_ROWS]
        row, alone = (_seconds(partial(predict, predictor, some)) / len(some) for some in (rows, rows[:1]))
        row *= usual / _tokens_read(predictor, rows)
        candidate, null = row, 0.0
    elif predictor.has_labels:  # labels are as long as they are, whatever the limit
        predictor = replace(predictor, temperature=1.0)  # an answer of an artifact has a confidence
        row, alone = (_seconds(partial(predict, predictor, some)) / len(some) for some in (rows, rows[:1]))
        null = _seconds(lambda: predictor.null_offsets)  # kept, so that no row's time holds it
        candidate = longer * _seconds(lambda: candidate_points(context, predictor, rows)) / len(rows)
        row *= longer
    else:
        (took, seen), (took_alone, seen_alone) = (_generated(predictor, limit, some) for some in (rows, rows[:1]))
        tokens = expected_tokens(seen, min(limit, SEEN_TOKENS), limit)
        row = longer * loss + tokens * max(0.0, took - len(rows) * loss) / max(1, sum(seen))
        alone = once + tokens * max(0.0, took_alone - once) / max(1, sum(seen_alone))
        candidate, null = longer * loss, 0.0
    return {"loss": longer * loss, "pass": once, "row": row, "alone": alone, "candidate": candidate, "null": null,
            "tokens": tokens}  # fmt: skip


def _whole_seconds(predictor: ClosedPredictor, context: Context) -> float:
    """Seconds per row of reading all labels after its prompt."""
    rows = _spread(context.valid, BATCH_ROWS)
    requests = [each.request for each in predictor.prepare([row.messages for row in rows], [row.where for row in rows])]
    return _seconds(lambda: predictor.lm.choose(requests)) / len(rows)


def _tokens_read(predictor: ModelPredictor, rows: Sequence[Example]) -> float:
    """Mean tokens of the rows' prompts behind the shared prefix and of their accepted answers."""
    prepared = predictor.prepare([row.messages for row in rows], [row.where for row in rows])
    prompts = sum(len(each.request.tokens) for each in prepared)
    answers = 0 if predictor.has_questions else sum(map(len, predictor.tokenizer.answer_ids([r.said for r in rows])))
    return (prompts + answers) / len(rows)


def _read(predictor: ModelPredictor, rows: Sequence[Example]) -> None:
    """Read the prompts of rows once."""
    prepared = predictor.prepare([row.messages for row in rows], [row.where for row in rows])
    finished(predictor.lm.hidden_states([each.request for each in prepared]))


def _generated(predictor: ModelPredictor, limit: int, rows: Sequence[Example]) -> tuple[float, list[int]]:
    """(seconds, tokens of each answer) of answering the rows in one batch with SEEN_TOKENS tokens each, at most."""
    room, began = min(limit, SEEN_TOKENS), time.perf_counter()
    prepared = predictor.prepare([row.messages for row in rows], [row.where for row in rows], room=room)
    answers = predictor.lm.generate([each.request for each in prepared])
    return time.perf_counter() - began, [len(answer) for answer in answers]


def expected_tokens(seen: Sequence[int], room: int, limit: int) -> float:
    """Mean tokens of answers with a limit, from the tokens `seen` of some that had `room` for no more.

    Those that filled it are taken to end later as often in so many tokens as all have ended until then (an exponential
    time, whose rate is known from censored times); where none has ended they run to the limit.
    """
    ended = sum(tokens < room for tokens in seen)
    rate, left = ended / max(1, sum(seen)), limit - room
    more = (1 - math.exp(-rate * left)) / rate if rate else float(left)
    return (sum(seen) + (len(seen) - ended) * more) / len(seen)


def _train_speed(method: Method, bench: _Bench) -> TrainSpeed:
    """Time, memory and disk of training, from STEPS steps with one validation in a temporary folder; after the deadline
    derived from a measured method's."""
    from riyaz.methods.fitting.weights import rehearsed_rows, rows_for

    recipe = method.recipe
    context = method.with_prompt(replace(bench.context, **rehearsing(bench.chosen, method)))
    assert recipe is not None
    began = time.perf_counter()
    rows, valid = rows_for(context, context.train), rows_for(context, valid_examples(context), whole=False)
    rows += rehearsed_rows(context, rows)
    tokens = rows_per_step(rows, recipe.batch_size) * sum(row.tokens for row in rows) / len(rows)
    if bench.training and (bench.late(bench.slowest) or _is_ample(method, tokens, bench)):
        bench.derived[method.name] = None
        return _derived(method, tokens, bench)
    speed = _timed_training(method, context, rows, valid, tokens)
    bench.slowest = max(bench.slowest, time.perf_counter() - began)
    bench.training[method.name] = tokens, speed
    return speed


def _is_ample(method: Method, tokens: float, bench: _Bench) -> bool:
    """Whether the training of a method need not be measured, as AMPLE says."""
    name, (known_tokens, known) = next(iter(bench.training.items()))
    assert method.recipe is not None
    alike = not method.whole and not METHODS[name].whole and tokens <= ALIKE * known_tokens
    return alike and AMPLE * method.recipe.steps(len(bench.context.train)) * known.step_seconds <= bench.seconds


def _derived(method: Method, tokens: float, bench: _Bench) -> TrainSpeed:
    """The training of a method that was not measured, from one that was: time by the tokens of a step; a soft prompt
    takes its own disk; a method that trains the whole model takes longer, and its memory holds weight, gradient and
    two moments of every parameter in place of the base's weight."""
    assert method.recipe is not None
    known_tokens, known = next(iter(bench.training.values()))
    factor = tokens / known_tokens
    speed = replace(known, step_seconds=known.step_seconds * factor, validate_seconds=known.validate_seconds * factor)
    if method.prefix_tokens:
        trainable = method.prefix_tokens * describe(bench.context.source).config.hidden_size
        speed = replace(speed, trainable=trainable, disk_mb=_disk_factor(method.recipe) * 4 * trainable / hardware.MB)
    if method.whole and known.trainable < _parameters(bench.context):
        from riyaz.layers.swaps.frozen import is_int8

        parameter_mb = 4 * _parameters(bench.context) / hardware.MB  # one float32 of each
        compute = bench.context.compute
        base_bytes = 2 if is_int8() or compute == "bfloat16" else 4  # two codes of 8 bits, or one number
        more_mb = (MASTER_BYTES[compute] - base_bytes) / 4 * parameter_mb
        slower = CODED_FACTOR if is_int8() else WHOLE_FACTOR
        speed = replace(
            speed, step_seconds=speed.step_seconds * slower, rss_mb=known.rss_mb + more_mb,
            disk_mb=_disk_factor(method.recipe) * parameter_mb, trainable=_parameters(bench.context),
        )  # fmt: skip
    return speed


def _peak_mb() -> float:
    """The peak memory of an arm whose few steps this process has measured, in MB."""
    peak = hardware.peak_rss() / hardware.MB
    return min(RSS_MARGIN * peak, peak + MARGIN_MB)


def _parameters(context: Context) -> int:
    return describe(context.source).parameters


def _timed_training(
    method: Method, context: Context, rows: list[Row], valid: list[Row], mean_tokens: float
) -> TrainSpeed:
    """The measured time, memory and disk of training on these rows, for steps of `mean_tokens` tokens."""
    from riyaz.train import TrainPlan, train

    recipe, build = method.recipe, method.build
    assert recipe is not None and build is not None
    began = time.perf_counter()
    model = with_label_head(context, build)(context)
    build_seconds = time.perf_counter() - began
    times = [time.perf_counter()]

    def listen(event: Event) -> None:
        times.append(time.perf_counter())

    scratch = context.folder / "scratch"
    remove(scratch)  # left by a process that was killed
    try:
        plan = TrainPlan(steps=STEPS, learning_rate=recipe.learning_rates[0],
                         batch_size=rows_per_step(rows, recipe.batch_size), validate_every=10**9,
                         micro_tokens=pass_tokens(describe(context.source).config), compute=context.compute,
                         seed=context.seed)  # fmt: skip
        rows = longest_first(rows, plan.batch_size, plan.seed)
        train(model, rows, valid, plan, scratch, listen, objective=context.objective, judge=judge_of(context))
        saved = (scratch / "best.safetensors").stat().st_size / hardware.MB
    finally:
        remove(scratch)
    counted = [rows[i] for step in range(1, STEPS - 1) for i in batch(len(rows), plan.batch_size, plan.seed, step)]
    tokens, step = sum(row.tokens for row in counted), (times[STEPS - 1] - times[1]) / (STEPS - 2)
    return TrainSpeed(
        step_seconds=step * mean_tokens * (STEPS - 2) / tokens,
        validate_seconds=max(0.0, times[STEPS] - times[STEPS - 1] - step),
        build_seconds=build_seconds,
        rss_mb=_peak_mb(),
        disk_mb=_disk_factor(recipe) * saved,
        trainable=sum(p.numel() for p in model.parameters() if p.requires_grad),
    )


def longest_first(rows: Sequence[Row], batch_size: int, seed: int) -> list[Row]:
    """The rows with the longest among those of the first step, which is not timed: it needs the most memory."""
    rows, place = list(rows), batch(len(rows), batch_size, seed, 0)[0]
    longest = max(range(len(rows)), key=lambda i: rows[i].tokens)
    rows[place], rows[longest] = rows[longest], rows[place]
    return rows


def _disk_factor(recipe: Recipe) -> int:
    """Disk of a training / disk of its weights. A checkpoint holds weights and two moments: there is one of every
    rate's opening, or the chosen opening's and the last one, and one that is being written; then the best weights."""
    return 3 * (max(2, len(recipe.learning_rates)) + 1) + 1


def _spread(rows: Sequence[Example], count: int) -> tuple[Example, ...]:
    """At most `count` of the rows, evenly spaced."""
    count = min(count, len(rows))
    return tuple(rows[place * len(rows) // count] for place in range(count))


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
