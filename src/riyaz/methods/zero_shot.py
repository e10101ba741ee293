"""Zero-shot: a prompt with the instruction only; for a closed set with its labels, if they fit and help."""

import time
from dataclasses import replace

import numpy as np

from riyaz.artifact import WeightsPart
from riyaz.methods.fitting.base import Context, Fitted, Method
from riyaz.methods.fitting.choices import base_predictor, choose, choose_answer_limit, fitted_temperature
from riyaz.methods.fitting.questions import fitted_temperatures
from riyaz.metrics.calibration import probabilities
from riyaz.metrics.decisions import row_scores
from riyaz.predictor import DecisionModel
from riyaz.results import About
from riyaz.scoring import REOPEN_ROWS, decided_log_p, decided_points, right_places

LIST_SHARE = 0.25  # largest share of the context that the list of labels may take


def fit(context: Context) -> Fitted:
    """Choose on validation whether the prompt lists the labels and whether to calibrate."""
    plain = base_predictor(context)
    if plain.has_questions:
        return _fit_questions(context, plain)
    began = time.perf_counter()
    candidates = [plain]
    labels = context.tokenizer.encode("\n".join(context.task.labels))
    if labels and len(labels) <= LIST_SHARE * plain.lm.context:
        candidates.append(replace(plain, text=replace(plain.text, list_labels=True)))
    choice = choose(context, candidates)
    best = choice.predictor
    limit, limit_record = choose_answer_limit(context, best)
    return Fitted(
        best.text, WeightsPart(), calibrated=choice.calibrated,
        temperature=fitted_temperature(context, best), max_new_tokens=limit,
        search_seconds=time.perf_counter() - began,
        chosen={"list_labels": best.text.list_labels, "calibrated": choice.calibrated, **limit_record,
                "candidates": choice.record},
        valid_loss=choice.log_loss(context.valid[:REOPEN_ROWS]), valid_score=choice.score,
    )  # fmt: skip


def _fit_questions(context: Context, plain: DecisionModel) -> Fitted:
    """Calibrate each question on the validation rows; nothing else is chosen."""
    began, rows = time.perf_counter(), context.valid[: context.valid_rows]
    scores = plain.question_scores([row.messages for row in rows], [row.where for row in rows])
    temperatures = fitted_temperatures(context.task, scores, rows)
    p = [probabilities(part, temperature) for part, temperature in zip(scores, temperatures)]
    log_p = decided_log_p(context.task, scores, temperatures, rows)[:REOPEN_ROWS]
    valid_score = row_scores(decided_points(context.task, p, right_places(context.task, rows))).mean()
    return Fitted(
        plain.text, WeightsPart(), temperatures=temperatures, search_seconds=time.perf_counter() - began,
        chosen={"temperatures": temperatures}, valid_loss=-float(np.concatenate(log_p).mean()),
        valid_score=float(valid_score),
    )  # fmt: skip


ABOUT = About(
    what="The base model with an instruction, without examples or training.",
    suits="a first look, before there are examples",
    colour=1, mark="s", weights="none",
)  # fmt: skip
METHOD = Method(name="zero_shot", about=ABOUT, fit=fit, candidates=2, left_out=7)
