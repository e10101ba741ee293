"""The speeds for a first estimate, before anything is measured: arithmetic on the model's size and the rows' lengths,
and a tenth of a second of matrix products.

A token costs two operations for each weight when a model reads it, and four to six when it learns from it. Which share
of the products' speed reading and training reach differs between machines, so the estimate may be half or twice of what
is measured later.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from riyaz import hardware
from riyaz.comparison.bases import arm_names, merged
from riyaz.comparison.plan import TooShort, make_plan
from riyaz.comparison.plan_inputs import full_recipes, plan_inputs
from riyaz.comparison.shorter_test import sizes_of
from riyaz.comparison.speeds import AnswerSpeed, Speeds, TrainSpeed, joint_speed
from riyaz.config import CompareConfig, Seconds
from riyaz.data import Example
from riyaz.data.general_text import TOKENS as GENERAL_TOKENS
from riyaz.data.rows import rendered
from riyaz.data.split import Split
from riyaz.data.task import Task
from riyaz.families import describe
from riyaz.methods import METHODS
from riyaz.methods.fitting.base import Method, instruction_only, unchanged
from riyaz.methods.fitting.choices import rows_scored
from riyaz.methods.fitting.recipe import Recipe
from riyaz.scoring import REOPEN_ROWS
from riyaz.sources import Source

MEASURING = 0.05  # of the budget, that measuring takes where it is not cut short
PROBE_SIZE, PROBE_SECONDS = 512, 0.1  # rows of the matrices whose product is timed, and for how long
READING, TRAINING = 1.0, 0.5  # operations per second of reading and of training / those of numpy's products
FORWARD, FROZEN, WHOLE = 2, 4, 6  # operations per weight and token: reading, training an adapter, training all weights
SEARCH = 1.5  # passes over a prompt that the search of a closed set takes
WRITING = 4.0  # seconds of a token that is written / of one that is read
EXAMPLES = 4  # rows that a prompt holds beside its own, or passages as long as these, where a method adds some
ROWS = 16  # of which the mean length is taken
PROCESS_MB, ADAPTER_BYTES, WHOLE_BYTES = 400.0, 4, 18  # memory of a process, and bytes of each weight while it trains
START_SECONDS, TORCH_SECONDS, OTHER_SECONDS = 1.0, 3.0, 5.0  # of a process, of torch, of a fit without a language model


def rough_estimate(
    bases: Mapping[str, Source], task: Task, parts: Split, methods: Sequence[str], config: CompareConfig, budget: float
) -> str:
    """The first estimate of a comparison, in one sentence: the seconds of its plan at the speeds of `rough_speeds`."""
    recipes = full_recipes(methods, config, task.kind)
    speeds = merged(
        {
            base: rough_speeds(source, task, parts.train, len(parts.valid), recipes, config.replay)
            for base, source in bases.items()
        }
    )
    inputs = plan_inputs(arm_names(methods, list(bases)), config, task.kind, speeds, sizes_of(parts))
    try:
        estimate = make_plan(inputs, budget=budget, spent=MEASURING * budget).estimate
    except TooShort:  # which only the measured speeds show
        peak = max([speeds.rss_mb, *(speed.rss_mb for speed in speeds.arms.values())])
        estimate = {"seconds": budget, "peak_rss_mb": peak}
    seconds, mb = Seconds(max(10, round(estimate["seconds"], -1))), round(estimate["peak_rss_mb"], -2)
    return f"rough estimate: {seconds}, {mb:,.0f} MB of memory; measuring this machine refines it"


def rough_speeds(
    source: Source, task: Task, train: Sequence[Example], valid: int, recipes: Mapping[str, Recipe | None],
    replay: float,
) -> Speeds:  # fmt: skip
    """The speeds of these methods on rows like `train`, with `valid` validation rows and the share `replay` of general
    text among what is learned, by arithmetic."""
    family, tokenizer, rows = describe(source), source.tokenizer(), train[:ROWS]
    pairs = list(zip(instruction_only(task).conversations([row.messages for row in rows]), rows))
    texts = rendered(tokenizer, pairs)
    prompt, answer = (sum(len(tokenizer.encode(text[i])) for text in texts) / len(texts) for i in (0, 1))
    operation = family.parameters / _products_per_second()  # seconds of one operation with every weight
    reading, training = operation * FORWARD / READING, operation / TRAINING
    predict, arms = {}, {}
    for name, recipe in recipes.items():
        method = METHODS[name]
        predict[name] = _answers(method, task, prompt, answer, reading, valid)
        if recipe is not None:
            work = training * (WHOLE if method.whole else FROZEN)
            bytes_each = WHOLE_BYTES if method.whole else ADAPTER_BYTES
            mb = family.parameters / hardware.MB
            arms[name] = TrainSpeed(
                step_seconds=recipe.batch_size * (prompt + answer) * work / (1 - replay * method.rehearses),
                validate_seconds=min(REOPEN_ROWS, valid) * (prompt + answer) * training * FORWARD,
                build_seconds=1.0, rss_mb=PROCESS_MB + bytes_each * mb,
                disk_mb=(4 * 3 * 4 if method.whole else 1) * mb, trainable=family.parameters if method.whole else 0,
            )  # fmt: skip
    predict |= {name: joint_speed(predict[part] for part in METHODS[name].of) for name in predict if METHODS[name].of}
    compute: Literal["bfloat16", "float32"] = "bfloat16" if hardware.bf16_is_fast() else "float32"
    return Speeds(
        threads=hardware.threads(), compute=compute, rss_mb=PROCESS_MB + 2 * family.parameters / hardware.MB,
        start_seconds=START_SECONDS, base_seconds=GENERAL_TOKENS * reading, predict=predict, arms=arms,
        torch_seconds=TORCH_SECONDS,
    )  # fmt: skip


def _answers(method: Method, task: Task, prompt: float, answer: float, reading: float, valid: int) -> AnswerSpeed:
    """The speed of a method's answers, from the tokens of a row and the seconds of reading one."""
    if not method.candidates:
        return AnswerSpeed(0.002, 0.002, loss_seconds=0.0, choose_seconds=OTHER_SECONDS, load_seconds=0.0,
                           look_seconds=0.0)  # fmt: skip
    examples = EXAMPLES if method.with_prompt is not unchanged else 0
    loss = (prompt + answer) * (1 + examples) * reading * method.cost
    row = SEARCH * loss if task.kind == "closed" else loss + WRITING * answer * reading
    return AnswerSpeed(
        row_seconds=row, answer_seconds=row, loss_seconds=loss, load_seconds=1.0,
        choose_seconds=rows_scored(method.candidates, valid, method.rounds) * (row if task.kind == "closed" else loss),
        look_seconds=row if method.needs_documents else 0.0,
    )  # fmt: skip


def _products_per_second() -> float:
    """Floating point operations per second of a matrix product in float32, the best of several."""
    matrix = np.ones((PROBE_SIZE, PROBE_SIZE), np.float32)
    best, began = float("inf"), time.perf_counter()
    while time.perf_counter() - began < PROBE_SECONDS:
        start = time.perf_counter()
        matrix @ matrix
        best = min(best, time.perf_counter() - start)
    return 2.0 * PROBE_SIZE**3 / best
