"""Instruction search: the wording of the prompt's instruction that scores best on the validation rows.

A pool of instructions (`fitting/instructions.py`) is halved on the same rows until the best two are left (TRIPLE-SH:
Shi et al. 2024, arXiv 2402.09723). The task's own instruction stays in every round, and another one replaces it only
if it is better by more than chance explains. Among labels the score is the log-loss with even labels, which is finer
than the share of right ones; among texts the log-loss of the answers.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from riyaz.artifact import WeightsPart
from riyaz.data import Example
from riyaz.errors import RiyazError, brief, few
from riyaz.events import Note, Progress
from riyaz.methods.fitting.base import Context, Fitted, Method, Rounds
from riyaz.methods.fitting.choices import Choice, base_predictor, choose, choose_answer_limit, stages
from riyaz.methods.fitting.even_labels import EvenLabels, even_labels, label_losses, lower
from riyaz.methods.fitting.instructions import MOST, Instruction, bare, instructions
from riyaz.metrics.calibration import fit_temperature
from riyaz.predictor import ClosedPredictor, ModelPredictor
from riyaz.results import About
from riyaz.scoring import REOPEN_ROWS, accepted_labels

ROUNDS: Rounds = ((8, 12), (16, 6), (32, 3))
LABEL_TOKENS, LEAST = 1200, 3  # tokens of labels that all candidates read for a row, and candidates at least
# Standard errors by which a wording must be better than the task's own, among labels: with 1 and more the gain on other
# training rows of snips was half as large, and on quickstart's equal (docs/log.md).
SURE = 0.5


def fit(context: Context) -> Fitted:
    """Choose the instruction on validation, whether the labels are listed behind it, and how they are corrected."""
    plain, began = base_predictor(context), time.perf_counter()
    pool = instructions(context, plain)
    candidates = [
        replace(plain, text=replace(plain.text, instruction=each.text, list_labels=each.list_labels)) for each in pool
    ]
    if plain.has_labels:
        fitted = _fit_labels(context, {each: it for each, it in zip(pool, candidates) if it.has_labels}, began)
        _note_untried(context, fitted.chosen["candidates"])
        return fitted
    notes = [{"instruction": each.text, "origin": each.origin} for each in pool]
    choice = choose(context, candidates, ROUNDS, notes=notes, first_stays=True)
    best = choice.predictor
    limit, limit_record = choose_answer_limit(context, best)
    _note_untried(context, choice.record)
    return Fitted(
        best.text, WeightsPart(), max_new_tokens=limit, search_seconds=time.perf_counter() - began,
        chosen={"instruction": best.text.instruction, **limit_record, "candidates": choice.record},
        valid_loss=choice.log_loss(context.valid[:REOPEN_ROWS]), valid_score=choice.score,
    )  # fmt: skip


def _note_untried(context: Context, record: Sequence[Mapping[str, Any]]) -> None:
    """Say which of the user's instructions are not among those that were scored."""
    scored = {bare(entry["instruction"]) for entry in record}
    left = [text for text in context.instructions if bare(text) not in scored]
    if left:
        why = "with many or long labels few are tried, and none that takes a quarter of the context"
        what = f"{len(left)} of your {len(context.instructions)} instructions were not tried"
        context.listen(Note(f"{what} ({why}): {few(map(brief, left))}"))


def tried(predictor: ModelPredictor) -> int:
    """How many instructions are tried: fewer where labels are many or long, each of which is read for every row."""
    if not predictor.has_labels:
        return MOST
    tokens = sum(map(len, predictor.tokenizer.answer_ids(list(predictor.task.labels))))
    return max(LEAST, min(MOST, LABEL_TOKENS // tokens))


@dataclass(frozen=True)
class _Wording:
    """A candidate on the validation rows read so far."""

    instruction: Instruction
    predictor: ClosedPredictor
    log_p: np.ndarray  # (n, L) of the labels
    accepted: np.ndarray  # (n, L)

    @cached_property
    def even(self) -> EvenLabels:
        return even_labels(self.log_p, self.accepted)

    def entry(self, losses: np.ndarray, scores: np.ndarray, first: "_Wording", **more: bool) -> dict[str, Any]:
        """Its entry of the record, with the difference from the first one, above 0 where it is better."""
        gain, error = lower(losses, first.even.losses)
        right = self.accepted[np.arange(len(scores)), scores.argmax(1)].mean()
        return {
            "instruction": self.instruction.text, "origin": self.instruction.origin,
            "list_labels": self.instruction.list_labels, **more, "validation": round(float(right), 6),
            "nats": round(float(losses.mean()), 6), "rows": len(scores), "difference": round(gain, 6),
            "error": round(error, 6) if math.isfinite(error) else None,
        }  # fmt: skip

    @property
    def even_entry(self) -> tuple[np.ndarray, np.ndarray]:
        """Its losses and the scores of its labels where these are even."""
        return self.even.losses, self.log_p + self.even.offsets


def _fit_labels(context: Context, candidates: Mapping[Instruction, ClosedPredictor], began: float) -> Fitted:
    """Choose among labels: the wording with even labels whose log-loss is lowest; the task's own with its labels as
    they are, or corrected by null prompts, where that is lower still."""
    best, record = _halved(context, candidates)
    own = best[0]
    chosen = min(best, key=lambda each: each.even.nats)
    gain, error = lower(chosen.even.losses, own.even.losses)
    chosen = read = chosen if gain > SURE * error else own
    predictor = replace(chosen.predictor, label_offsets=tuple(chosen.even.offsets.tolist()))
    losses, scores = chosen.even_entry
    for calibrated in (False, True):
        plain = own.log_p + own.predictor.null_offsets * calibrated
        of_plain = label_losses(plain, own.accepted)
        record.append(own.entry(of_plain, plain, own, even_labels=False, calibrated=calibrated))
        if of_plain.mean() <= losses.mean():
            predictor, losses, scores, read = replace(own.predictor, calibrated=calibrated), of_plain, plain, own
    right = float(own.accepted[np.arange(len(scores)), scores.argmax(1)].mean())
    seconds = time.perf_counter() - began
    choice = Choice(predictor, predictor.calibrated, right, record, seconds, _of_answers(read, context.valid))
    return Fitted(
        predictor.text, WeightsPart(), calibrated=predictor.calibrated, label_offsets=predictor.label_offsets,
        temperature=fit_temperature(scores, own.accepted), search_seconds=seconds,
        chosen={"instruction": predictor.text.instruction, "list_labels": predictor.text.list_labels,
                "calibrated": predictor.calibrated, "even_labels": bool(predictor.label_offsets),
                "candidates": record},
        valid_loss=choice.log_loss(context.valid[:REOPEN_ROWS]), valid_score=right,
    )  # fmt: skip


def _of_answers(wording: _Wording, rows: Sequence[Example]) -> np.ndarray:
    """The log-probability (n,) of the first accepted label of each row that was read."""
    place = {label: number for number, label in enumerate(wording.predictor.task.labels)}
    return np.array([log_p[place[row.answer]] for log_p, row in zip(wording.log_p, rows)])


def _halved(
    context: Context, candidates: Mapping[Instruction, ClosedPredictor]
) -> tuple[list[_Wording], list[dict[str, Any]]]:
    """The wordings that are left on all rows, the task's own first, and the record of all rounds."""
    rows, record = context.valid[: context.valid_rows], list[dict[str, Any]]()
    accepted = accepted_labels(context.task, rows)
    left = [_Wording(each, predictor, np.zeros((0, accepted.shape[1])), accepted[:0])
            for each, predictor in candidates.items()]  # fmt: skip
    left = left[: tried(left[0].predictor)]
    for until, keep in stages(len(left), len(rows), ROUNDS):
        read: list[_Wording] = []
        for place, each in enumerate(left):
            context.listen(Progress("choose", place, len(left)))
            try:
                log_p = np.concatenate((each.log_p, _log_p(each.predictor, rows[len(each.log_p) : until])))
            except RiyazError:  # a prompt does not fit the context
                if place == 0:
                    raise
                continue
            read.append(_Wording(each.instruction, each.predictor, log_p, accepted[:until]))
        left = read
        first, *others = left
        record += [each.entry(*each.even_entry, first, even_labels=True) for each in left]
        if until < len(rows):
            left = [first, *sorted(others, key=lambda each: each.even.nats)[: keep - 1]]
    return left, record


def _log_p(predictor: ClosedPredictor, rows: Sequence[Example]) -> np.ndarray:
    """The exact log-probabilities (n, L) of all labels."""
    prepared = predictor.prepare([row.messages for row in rows], [row.where for row in rows])
    return predictor.lm.choose([each.request for each in prepared])


ABOUT = About(
    what="The base model with the instruction that scored best among some two dozen, and labels made equally likely.",
    suits="a task that words can describe, and few examples to check the words with",
    colour=11, mark="d", weights="none",
)  # fmt: skip
METHOD = Method(
    name="instruct",
    about=ABOUT,
    fit=fit,
    candidates=MOST,
    tried=tried,
    rounds=ROUNDS,
    answers_questions=False,
    takes=("instructions",),
    left_out=2,
)
