"""Instruction search: the wording of the prompt's instruction that scores best on the validation rows.

A pool of instructions (`fitting/instructions.py`) is halved on the same rows until the best two are left (TRIPLE-SH:
Shi et al. 2024, arXiv 2402.09723). The task's own instruction stays in every round, and another one replaces it only
if it is better by more than two standard errors of their paired difference.
"""

import time
from dataclasses import replace

from riyaz.artifact import WeightsPart
from riyaz.methods.fitting.base import Context, Fitted, Method, Rounds
from riyaz.methods.fitting.choices import base_predictor, choose, choose_answer_limit, fitted_temperature
from riyaz.methods.fitting.instructions import MOST, instructions
from riyaz.results import About
from riyaz.scoring import REOPEN_ROWS

ROUNDS: Rounds = ((8, 12), (16, 6), (32, 3))


def fit(context: Context) -> Fitted:
    """Choose the instruction on validation, whether the labels are listed behind it, and whether to calibrate."""
    plain, began = base_predictor(context), time.perf_counter()
    pool = instructions(context, plain)
    candidates = [
        replace(plain, text=replace(plain.text, instruction=each.text, list_labels=each.list_labels)) for each in pool
    ]
    notes = [{"instruction": each.text, "origin": each.origin} for each in pool]
    choice = choose(context, candidates, ROUNDS, notes=notes, first_stays=True)
    best = choice.predictor
    limit, limit_record = choose_answer_limit(context, best)
    return Fitted(
        best.text, WeightsPart(), calibrated=choice.calibrated, temperature=fitted_temperature(context, best),
        max_new_tokens=limit, search_seconds=time.perf_counter() - began,
        chosen={"instruction": best.text.instruction, "list_labels": best.text.list_labels,
                "calibrated": choice.calibrated, **limit_record, "candidates": choice.record},
        valid_loss=choice.log_loss(context.valid[:REOPEN_ROWS]), valid_score=choice.score,
    )  # fmt: skip


ABOUT = About(
    what="The base model with the instruction that scored best among some two dozen.",
    suits="a task that words can describe, and few examples to check the words with",
    colour=11, mark="d", weights="none",
)  # fmt: skip
METHOD = Method(
    name="instruct",
    about=ABOUT,
    fit=fit,
    candidates=MOST,
    rounds=ROUNDS,
    answers_questions=False,
    takes=("instructions",),
    left_out=2,
)
