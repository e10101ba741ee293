"""Evaluates an artifact on test rows: predictions, latency, forgetting, divergence from the base, and checks.

It sees a Predictor, never a method. It runs in its own process, so opening the artifact is tested too.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from riyaz import hardware
from riyaz.artifact import Artifact
from riyaz.config import Precision
from riyaz.data import Example
from riyaz.data.task import Task
from riyaz.drift import BaseFacts, against_base
from riyaz.engine.opening import engine_name, own_precision
from riyaz.errors import RiyazError
from riyaz.events import Listen, Phase, Progress
from riyaz.families import describe
from riyaz.files import atomic_file
from riyaz.json_files import json_line, write_json
from riyaz.precisions import Measured, compared, compared_rows, measure, right_answer_nats, weights_mb
from riyaz.predictor import (
    ModelPredictor,
    Prediction,
    Predictor,
    open_artifact,
    source_for,
)
from riyaz.results import (
    ELSEWHERE,
    FAR,
    PREDICTIONS,
    RESULT,
    Answer,
    Evaluation,
    Flips,
    PrecisionScore,
    Remeasured,
    Retrieval,
)
from riyaz.retrieval.measures import recall, reciprocal_rank
from riyaz.retrieval.open_retriever import RestrictedRetriever, without_own
from riyaz.retrieval.search import ranked_names
from riyaz.scoring import (
    REOPEN_ROWS,
    answer_log_loss,
    answer_log_probabilities,
    answers_alone,
    calibration_of,
    confidence_fields,
    predict,
    row_extras,
    score,
    with_accepted,
)

ROUNDING_TOLERANCE = 0.03  # nats per token: training and engine round differently
REOPENED_TOLERANCE = {"int8": 0.06, "int4": 0.5}  # where the weights are rounded further for serving
ADAPTED_TOLERANCE = 0.06  # of an adapter, beside which the base may have trained in codes of 8 bits
MERGED_TOLERANCE = 0.05  # nats per token: merging rounds the sum of base and adapter
BESIDE, SMALLER = "beside", ("int8", "int4")  # an adapter that is not merged, and precisions that it is merged in
LATENCY_ROWS = 8
AGAIN_SECONDS = 20.0  # after which a latency that is measured again takes no further row
RETRIEVAL_ROWS = 30  # test rows on which retrieval is evaluated, at most
GROUNDED_SHARE = 0.5  # share of these rows on which log p of the answer is compared with and without passages
RANKS = (1, 3, 5, 10)  # k of recall@k


def evaluate_artifact(
    folder: Path, test: Sequence[Example], valid: Sequence[Example], out: Path, *, base: BaseFacts | None,
    kl_rows: Sequence[Example], latency_rows: int, retrieval_rows: int, general: str | None,
    expected_ms: float | None = None, precision: Precision = "auto", listen: Listen,
) -> Evaluation:  # fmt: skip
    """Evaluate the artifact in `folder`; writes `predictions.jsonl` and `result.json` into `out`.

    Retrieval is evaluated on `retrieval_rows` test rows. `base` is None for an artifact of a fold or of an extra run:
    latency, forgetting and divergence are then not measured. All is measured in the `precision` in which the artifact
    will be served. Merged precisions, of which one may be chosen, are compared and timed on `valid`. A latency far
    above `expected_ms`, that of the plan, is measured again at the end. Raises RiyazError.
    """
    began, cpu = time.perf_counter(), hardware.cpu_time()
    opened = open_artifact(folder, precision=precision)
    artifact, predictor = Artifact.read(folder), _without_own(opened, (*test, *valid, *kl_rows))
    assert artifact.task is not None

    def progress(done: int, total: int) -> None:
        listen(Progress("evaluate", done, total))

    predictions = predict(predictor, test, progress, task=artifact.task)
    _check_inputs(predictor, test, predictions)
    rows = answers_of(predictor, artifact.task, predictions, test)
    _write_answers(rows, out)
    known: list[np.ndarray] = []
    result: dict[str, Any] = {"served": predictor.served, "calibration": calibration_of(rows)}
    if base is not None:
        sample = (test or valid)[:latency_rows]
        listen(Phase("evaluate", "latency, forgetting, drift"))
        alone, milliseconds = answers_alone(predictor, sample)
        alone = with_accepted(predictor, artifact.task, alone, sample)
        result["ms_per_answer"] = statistics.median(milliseconds)
        if predictor.has_model and test:
            batch = predictions[: len(sample)]
            points = [score(artifact.task, answers, sample).each.tolist() for answers in (batch, alone)]
            result["batch_flips"] = _flips(_texts(batch), _texts(alone), *points)
        result["prompt_tokens"] = prompt_tokens(predictor, sample)
        result["serve_rss_mb"] = hardware.peak_rss() / hardware.MB or None
        drift, known = against_base(artifact.weights.kind, predictor, base, kl_rows, general)
        result |= drift
    alike = all(a == b for a, b in zip(kl_rows[: len(known)], valid))
    held = _held(folder, precision)
    checks = {"reopened": _reopened(artifact, predictor, valid[:REOPEN_ROWS], held, known if alike else ())}
    if base is not None and predictor.has_model and valid and _can_merge(artifact, folder):
        judged_rows, timed = compared_rows(artifact.task, valid), valid[:latency_rows]
        checks["merged"], merged = _merged(folder, predictor, artifact.task, judged_rows, timed, precision, held)
        result["merged_ms"], result["merged"] = merged[1].ms_per_answer, merged if len(merged) > 2 else None
    if predictor.has_model and predictor.text.passages and test and retrieval_rows:
        result["retrieval"] = _retrieval(predictor, artifact.task, test, predictions, retrieval_rows)
    if predictor.has_model and expected_ms and result.get("ms_per_answer", 0.0) > FAR * expected_ms:
        result |= _measured_again(predictor, sample, expected_ms, result["ms_per_answer"])
    evaluation = Evaluation(
        metric=artifact.task.metric, checks=checks, eval_seconds=time.perf_counter() - began,
        peak_rss_mb=hardware.peak_rss() / hardware.MB, cpu_waited=hardware.share_waited(cpu, hardware.cpu_time()),
        **result,
    )  # fmt: skip
    write_json(out / RESULT, evaluation, ascii=True)
    return evaluation


def _without_own(predictor: Predictor, rows: Sequence[Example]) -> Predictor:
    """The predictor, for which these rows do not find the documents that are the rows themselves."""
    if not predictor.has_model or predictor.retriever is None:
        return predictor
    return replace(predictor, retriever=without_own(predictor.retriever, rows))


def _measured_again(predictor: Predictor, sample: Sequence[Example], planned: float, first: float) -> dict[str, Any]:
    """The latency measured again, in case another process was in the way at first: the smaller median counts."""
    again = statistics.median(answers_alone(predictor, sample, seconds=AGAIN_SECONDS)[1])
    return {"ms_per_answer": min(first, again), "remeasured": Remeasured(planned, first, again)}


def answer_alone(
    folder: Path, test: Sequence[Example], out: Path, listen: Listen, precision: Precision = "auto"
) -> Evaluation:
    """Answer every test row one at a time, as the artifact in `folder` is served, and write these answers into
    `predictions.jsonl` in place of those that were made in batches; `result.json` tells how many differ.

    Does nothing the second time. Raises RiyazError if the file holds other rows.
    """
    evaluation = Evaluation.read(out / RESULT)
    if evaluation.alone:
        return evaluation
    rows = Answer.read(out / PREDICTIONS)
    if [row.where for row in rows] != [example.where for example in test]:
        raise RiyazError("its rows are not the test rows", str(out / PREDICTIONS), ELSEWHERE)
    artifact, predictor = Artifact.read(folder), _without_own(open_artifact(folder, precision=precision), test)
    assert artifact.task is not None
    answers, _ = answers_alone(predictor, test, lambda done, total: listen(Progress("evaluate", done, total)))
    answers = with_accepted(predictor, artifact.task, answers, test)
    points = score(artifact.task, answers, test).each.tolist()
    flips = evaluation.batch_flips
    if flips is None or flips.rows < len(test):  # else a process counted them and was killed before its end
        flips = _flips([row.prediction for row in rows], _texts(answers), [row.score for row in rows], points)
    new = [
        replace(row, prediction=answer.text, score=point, log_probability=answer.log_probability,
                citations=list(answer.citations) or None, extras=extra or None, **fields)
        for row, answer, point, extra, fields in zip(
            rows, answers, points, row_extras(artifact.task, answers, test),
            confidence_fields(artifact.task, answers, test))
    ]  # fmt: skip
    evaluation = replace(evaluation, batch_flips=flips, calibration=calibration_of(new))
    write_json(out / RESULT, evaluation, ascii=True)
    _write_answers(new, out)
    evaluation = replace(evaluation, alone=True)
    write_json(out / RESULT, evaluation, ascii=True)
    return evaluation


def _texts(predictions: Sequence[Prediction]) -> list[str]:
    return [prediction.text for prediction in predictions]


def _flips(batch: Sequence[str], alone: Sequence[str], before: Sequence[Any], after: Sequence[Any]) -> Flips:
    """Counts the answers that differ between a batch and alone, and their scores `before` and `after` that do."""
    return Flips(len(alone), _differing(batch, alone), _differing(before, after))


def _differing(some: Sequence[Any], others: Sequence[Any]) -> int:
    return sum(a != b for a, b in zip(some, others, strict=True))


def _check_inputs(predictor: Predictor, test: Sequence[Example], predictions: Sequence[Prediction]) -> None:
    """Raises RiyazError if passages were retrieved and none fits the context of any prompt."""
    if not predictor.has_model or any(prediction.citations for prediction in predictions):
        return
    if any(predictor.passages([example.messages for example in test])):
        what = f"no passage fits the context of {predictor.lm.context} tokens beside the question"
        raise RiyazError(what, test[0].where, "take a model with a longer context")


def answers_of(
    predictor: Predictor, task: Task, predictions: Sequence[Prediction], test: Sequence[Example]
) -> list[Answer]:
    """The lines of predictions.jsonl."""
    scores = score(task, predictions, test).each if test else np.zeros(0)
    losses, extras = _answer_log_probabilities(predictor, task, predictions, test), row_extras(task, predictions, test)
    return [
        Answer(
            where=example.where, prompt=example.prompt, answers=list(example.answers),
            prediction=prediction.text, score=float(points), slice=example.slice,
            log_probability=prediction.log_probability, answer_log_probability=loss,
            citations=list(prediction.citations) or None, group=example.group, extras=extra or None, **fields,
        )
        for example, prediction, points, loss, extra, fields in zip(
            test, predictions, scores, losses, extras, confidence_fields(task, predictions, test)
        )
    ]  # fmt: skip


def _write_answers(rows: Sequence[Answer], out: Path) -> None:
    with atomic_file(out / PREDICTIONS) as file:
        for row in rows:
            file.write(json_line(row, ascii=True))


def _retrieval(
    predictor: ModelPredictor, task: Task, test: Sequence[Example], predictions: Sequence[Prediction], most: int
) -> Retrieval:
    """Evaluate retrieval on at most `most` test rows, taken from those that name documents if there are any.

    Scores without passages (`closed_book`), with the retrieved ones (`retrieved`) and with the right documents alone
    (`oracle`); `grounded_nats` is by how much the passages raise log p of the accepted answer, per token. Recall and
    oracle need rows that name documents.
    """
    assert predictor.retriever is not None
    count = predictor.text.passages
    naming = [i for i, row in enumerate(test) if row.doc_ids] or list(range(len(test)))
    places = [naming[i] for i in _spread(len(naming), most)]  # the same rows for all three scores
    rows, answered = [test[i] for i in places], [predictions[i] for i in places]
    grounded = [rows[i] for i in _spread(len(rows), max(1, round(most * GROUNDED_SHARE)))]
    closed = replace(predictor, text=replace(predictor.text, passages=0))
    values: dict[str, Any] = {
        "k": count, "rows": len(rows), "grounded_rows": len(grounded),
        "closed_book": score(task, predict(closed, rows, task=task), rows).mean,
        "retrieved": score(task, answered, rows).mean,
        "grounded_nats": _lift(predictor, closed, grounded),
    }  # fmt: skip
    named = [row for row in test if row.doc_ids]
    if named:
        hits = predictor.retriever.search([row.prompt for row in named], max(RANKS))
        wanted = [row.doc_ids for row in named]
        ranked = [ranked_names(ranking, names) for ranking, names in zip(hits, wanted)]
        values["recall"] = {str(k): recall(ranked, wanted, k) for k in RANKS}
        values |= {"mrr": reciprocal_rank(ranked, wanted), "named_rows": len(named)}
        within = RestrictedRetriever(predictor.retriever, {row.prompt: row.doc_ids for row in rows})
        values["oracle"] = score(task, predict(replace(predictor, retriever=within), rows, task=task), rows).mean
    return Retrieval(**values)


def _lift(with_passages: ModelPredictor, without: ModelPredictor, rows: Sequence[Example]) -> float:
    """Mean nats per token by which passages raise the log-probability of the accepted answers."""
    return answer_log_loss(without, rows) - answer_log_loss(with_passages, rows)


def _spread(count: int, most: int) -> list[int]:
    """At most `most` of the indices 0..count-1, evenly spaced."""
    return list(range(count)) if count <= most else [round(i * (count - 1) / max(1, most - 1)) for i in range(most)]


def _answer_log_probabilities(
    predictor: Predictor, task: Task, predictions: Sequence[Prediction], test: Sequence[Example]
) -> Sequence[float | None]:
    """Log-probability of each accepted answer in nats, the second score of free text; None for other tasks."""
    if task.metric == "nats":
        return [prediction.accepted_log_probability for prediction in predictions]
    if not predictor.has_model or task.kind != "free" or not test:
        return [None] * len(test)
    return [float(part.sum()) for part in answer_log_probabilities(predictor, test)]


def _reopened(
    artifact: Artifact, predictor: Predictor, valid: Sequence[Example], precision: Precision = "auto",
    known: Sequence[np.ndarray] = (),
) -> dict[str, Any]:  # fmt: skip
    """Check: opened in this process, with weights held in `precision`, the artifact has the validation loss that it
    records. Of the first rows the log probabilities of the answers' tokens are `known`."""
    before = artifact.validation.get("answer_log_loss")
    if before is None or not predictor.has_model:
        return {"ok": True, "note": "no model"}
    parts = [*known[: len(valid)], *answer_log_probabilities(predictor, valid[len(known) :])]
    after = -float(np.concatenate(parts).mean(dtype=np.float64))
    alike = ADAPTED_TOLERANCE if artifact.weights.kind in ("lora", "soft_prompt") else ROUNDING_TOLERANCE
    tolerance = REOPENED_TOLERANCE.get(precision, alike) * max(1.0, before)
    return {"ok": abs(after - before) <= tolerance, "before": before, "after": after}


def _held(folder: Path, precision: Precision) -> Precision:
    """How the weights of an artifact's model are held, where `precision` is asked for: as its files may name it."""
    source = source_for(folder) if precision == "auto" and engine_name() == "native" else None
    return own_precision(source, precision) if source is not None else precision


def _can_merge(artifact: Artifact, folder: Path) -> bool:
    """Whether a part beside the weights could be added to them: a LoRA, on a base that is not ternary."""
    alone = artifact.weights.kind == "lora" and not artifact.weights.beside
    source = source_for(folder) if alone else None
    return source is not None and not describe(source).has_ternary


def _merged(
    folder: Path, predictor: ModelPredictor, task: Task, rows: Sequence[Example], timed: Sequence[Example],
    precision: Precision, held: Precision,
) -> tuple[dict[str, Any], list[PrecisionScore]]:  # fmt: skip
    """Check: merged into the weights, the adapter has the same loss as beside them. And the adapter beside the weights
    and merged into them in `precision`, which `held` names, where it is auto also in smaller ones, one after the other:
    their losses on the validation `rows`, their scores and milliseconds on the `timed` ones of these."""
    nats, tokens = right_answer_nats(predictor, task, rows)
    measured = [Measured(BESIDE, predictor.served, weights_mb(predictor), nats, tokens, 0.0, None)]
    for each in (precision, *(SMALLER if precision == "auto" and engine_name() == "native" else ())):
        inside = open_artifact(folder, precision=each, merged=True)
        assert inside.has_model
        measured.append(measure(each, inside, task, rows, timed))
        del inside
    scores = compared(measured, rows)
    apart, merged = scores[0].nats, scores[1].nats
    alike = abs(apart - merged) <= REOPENED_TOLERANCE.get(held, MERGED_TOLERANCE) * max(1.0, apart)
    return {"ok": alike, "apart": apart, "merged": merged}, scores


def prompt_tokens(predictor: Predictor, rows: Sequence[Example]) -> float:
    """Mean tokens of a prompt, shared prefix and soft prompt included; 0 if no model is used."""
    if not predictor.has_model:
        return 0.0
    lengths = [each.request.length for each in predictor.prepare([row.messages for row in rows])]
    return predictor.lm.adapter_tokens(predictor.adapter) + float(np.mean(lengths))
