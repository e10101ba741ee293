"""A sentence encoder, minilm, fine-tuned as a whole: the answer is the label whose vector is nearest to the text's.

Every label has a vector, a prototype, that begins as the vector of the label's own text. Encoder and prototypes are
trained together by the cross-entropy of the cosines (as prototypical networks: Snell et al. 2017, arXiv 1703.05175).
Probabilities are calibrated on rows that the weights were not trained on: a fold's, by a model of the other folds. On
the same rows it is decided whether the logistic regression of `linear`, fitted to the same folds, takes part.
"""

import shutil
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from riyaz import hardware
from riyaz.artifact import TextPart, WeightsPart
from riyaz.classifiers.encoder import EncoderDocument, encoder_files, log_p
from riyaz.classifiers.fitting import fit_classifier
from riyaz.classifiers.linear import LinearClassifier
from riyaz.classifiers.shared import SharedEmbedder
from riyaz.data import Example
from riyaz.data.sampling import deal, without
from riyaz.data.task import Task
from riyaz.engine.opening import EMBEDDER, open_embedder
from riyaz.families import describe_embedder
from riyaz.files import remove
from riyaz.methods.fitting.base import Context, Fitted, Method, Timing
from riyaz.methods.fitting.encoder_training import (
    BATCH,
    LabelledTexts,
    examples_of,
    labelled_texts,
    pace_file,
    text_vectors,
    trained,
    training_steps,
)
from riyaz.methods.fitting.held_out import write_held_out
from riyaz.methods.fitting.questions import Part, parts_of
from riyaz.methods.fitting.weights import CURVE, WRITTEN
from riyaz.methods.linear import measure_time
from riyaz.metrics.calibration import fit_temperature, log_losses, probabilities, right_probability
from riyaz.metrics.decisions import row_scores
from riyaz.results import About
from riyaz.scoring import decided_points, right_places
from riyaz.sources import Source, open_source, safetensors

if TYPE_CHECKING:
    from riyaz.engine.embedder import ModelEmbedder
    from riyaz.models.text_classifier import TextClassifier
    from riyaz.retrieval.embedder import Embedder

FOLDS = 2  # each trains once more on a part of the rows
HELD = 2000  # rows of a fold that are scored, at most
SCORES = "fold-{}.safetensors"
ALIKE = 0.999  # smallest cosine of a text's vector in the engine that answers to the trained one
CHECKED = 16  # texts
# The encoder's share in the sum of log-probabilities. Half is within .02 nats of the best share on every set that was
# tried (docs/log.md); a fold's rows are too few to choose a finer one, but show where the regression is of no use.
SHARES = (0.5, 1.0)
GAIN = 0.02  # nats a row
STEPS = 4  # that are timed; the first is not counted
LINEAR_FITS = 1.5  # in terms of one on all rows: a fold's takes less
# memory beside the weights; bytes of a parameter in memory (its numbers in training) and on disk (a checkpoint and the
# one that is being written, and the artifact's files twice)
BASE_MB, PARAMETER_BYTES, DISK_BYTES = 600.0, 14, 14


def fit(context: Context) -> Fitted:
    """Train once for each fold, which calibrates, and once on all rows; the artifact's weights are a folder that
    transformers loads, and the prototypes."""
    began, source, plain = time.perf_counter(), open_source(EMBEDDER), open_embedder(EMBEDDER)
    examples = (*context.train, *context.valid)
    texts = labelled_texts(source, plain, context.task, examples)
    parts = parts_of(context.task, examples)
    held, cosines, of_linear = _out_of_fold(context, source, plain, texts, examples, parts)
    documents, scores, tried = _chosen(parts, held, cosines, of_linear)
    valid = np.flatnonzero(held >= len(context.train))
    if len(parts) == 1:
        write_held_out(context.folder, held[valid] - len(context.train), scores[valid], 1.0)
    searched = time.perf_counter() - began
    steps, checkpoints = training_steps(len(examples), texts.tokens), context.folder / "checkpoints"
    share = _shares(len(examples))[-1]
    model, state = trained(context, source, texts, texts.rows, checkpoints, steps, context.listen, share)
    first = text_vectors(model, texts.rows[:CHECKED])
    files = _save(context, source, model, parts, documents)
    for part, document in zip(parts, documents):
        if document.linear:
            regression = _linear(context, plain, examples, part, part.known)
            files |= regression.files(context.folder / WRITTEN, part.number)
    shutil.rmtree(checkpoints)
    remove(pace_file(context, checkpoints))
    for number in range(FOLDS):
        for name in (SCORES.format(number), f"fold-{number}"):
            remove(context.folder / name)
    return Fitted(
        TextPart(), WeightsPart("encoder"), files, calibrated=True,
        checks={"vectors_equal": _vectors_equal(context, texts, first)},
        chosen={"encoder": source.name, "steps": state.step, "rows": len(examples), "held_out_rows": len(held),
                "tried": tried, "tokens_s": state.tokens / state.seconds,
                **({"recipe_steps": steps} if state.step < steps else {})},
        search_seconds=searched, train_seconds=state.seconds,
        trainable_params=sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
        valid_score=_score(context.task, [examples[place] for place in held], parts, scores, held),
        curve=[{key: entry[key] for key in CURVE if key in entry} for entry in state.history],
    )  # fmt: skip


def estimate(context: Context) -> Timing:
    """The time, memory and disk of `fit`, from STEPS steps of training in a temporary folder."""
    began = time.perf_counter()
    source, embedder = open_source(EMBEDDER), open_embedder(EMBEDDER)
    load, examples = time.perf_counter() - began, (*context.train, *context.valid)
    texts = labelled_texts(source, embedder, context.task, examples)
    prepare = time.perf_counter() - began
    few = [example.prompt for example in examples[:CHECKED]]
    row, alone = (_seconds(partial(embedder.embed, some)) / len(some) for some in (few, few[:1]))
    times, scratch = [time.perf_counter()], context.folder / "scratch"
    remove(scratch)  # left by a process that was killed
    try:
        _, state = trained(context, source, texts, texts.rows, scratch, STEPS,
                           lambda event: times.append(time.perf_counter()))  # fmt: skip
    finally:
        remove(scratch)
    step = (times[STEPS] - times[1]) / (STEPS - 1) * STEPS * BATCH * texts.tokens / state.tokens
    runs = _runs(len(examples))
    steps = float(sum(training_steps(rows, texts.tokens) for rows in runs))
    steps += len(examples) / BATCH  # the folds' rows are scored in at most the time of an epoch
    build = max(0.0, times[1] - times[0] - step)
    linear = measure_time(context)
    parameters = describe_embedder(source).parameters / hardware.MB
    return Timing(
        fit=prepare + len(runs) * build + steps * step + LINEAR_FITS * linear.fit, load=load + linear.load,
        row=row + linear.row, alone=alone + linear.alone,
        rss_mb=BASE_MB + max(PARAMETER_BYTES * parameters, linear.rss_mb), disk_mb=DISK_BYTES * parameters,
    )  # fmt: skip


def _runs(rows: int) -> list[int]:
    """The rows of each training run: every fold's, then the last."""
    return [*([rows * (FOLDS - 1) // FOLDS] * FOLDS), rows]


def _shares(rows: int) -> list[float]:
    """The share of the training time that each of these runs has."""
    return [each / sum(_runs(rows)) for each in _runs(rows)]


def choose_factors(
    cosines: np.ndarray, of_linear: np.ndarray, accepted: np.ndarray
) -> tuple[EncoderDocument, list[dict[str, float]]]:
    """The factors of cosines and of the regression's log p, (n, L) each, with the lowest log-loss on n rows, and a
    record of all SHARES; the first one is left only for a gain of more than GAIN."""
    temperature = fit_temperature(cosines, accepted)
    tried: list[dict[str, float]] = []
    best, document = np.inf, EncoderDocument(1 / temperature)
    for share in SHARES:
        scores = share / temperature * cosines + (1 - share) * of_linear
        whole = fit_temperature(scores, accepted)
        p = probabilities(scores, whole)
        loss = float(log_losses(right_probability(p, accepted)).mean())
        tried.append(
            {"share": share, "log_loss": loss, "score": float(accepted[np.arange(len(p)), p.argmax(1)].mean())}
        )
        if loss < best - GAIN:
            best, document = loss, EncoderDocument(share / (temperature * whole), (1 - share) / whole)
    return document, tried


def _chosen(
    parts: Sequence[Part], held: np.ndarray, cosines: np.ndarray, of_linear: np.ndarray
) -> tuple[list[EncoderDocument], np.ndarray, list[list[dict[str, float]]]]:
    """For each part the factors that fit the rows that were held out (n,) and answer it; the scores (n, L) of all
    choices, and the records of `choose_factors`."""
    documents, tried, scores = [], [], np.zeros_like(cosines)
    for part in parts:
        rows, columns = np.isin(held, part.known), part.columns
        document, record = choose_factors(cosines[rows, columns], of_linear[rows, columns], part.accepted[held[rows]])
        documents.append(document)
        tried.append(record)
        scores[:, columns] = document.cosine * cosines[:, columns] + document.linear * of_linear[:, columns]
    return documents, scores, tried


def _score(task: Task, rows: Sequence[Example], parts: Sequence[Part], scores: np.ndarray, held: np.ndarray) -> float:
    """The score of the rows that were held out (n,), from the scores (n, L) of all choices."""
    if not task.questions:
        return float(parts[0].accepted[held, scores.argmax(1)].mean())
    p = [probabilities(scores[:, part.columns], 1.0) for part in parts]
    return float(row_scores(decided_points(task, p, right_places(task, rows))).mean())


def _out_of_fold(
    context: Context, source: Source, plain: "ModelEmbedder", texts: LabelledTexts, examples: Sequence[Example],
    parts: Sequence[Part],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Places (n,) of the last HELD rows of each fold, at most, and their labels' cosines and the regression's log p,
    (n, L) each, by an encoder and a regression that were fitted to the other folds. A fold that is done is read from
    its file."""
    held: list[int] = []
    scores: list[safetensors.SafetensorsFile] = []
    for number, (rest, out) in enumerate(_folds(examples, context.seed, not context.task.questions)):
        path = context.folder / SCORES.format(number)
        if not path.exists():
            folder = context.folder / f"fold-{number}"
            safetensors.write(path, _fold(context, source, plain, texts, rest, out, folder, parts))
            remove(folder)
            remove(pace_file(context, folder))
        scores.append(safetensors.read(path))
        held += out
    cosines, of_linear = (np.concatenate([file.array(name) for file in scores]) for name in ("cosines", "linear"))
    return np.array(held), cosines, of_linear


def _folds(examples: Sequence[Example], seed: int, by_label: bool = True) -> list[tuple[list[int], list[int]]]:
    """(places of the rows that are fitted, of the last HELD rows that are held out at most) for each fold. No group is
    on both sides, and no copy of a row that is held out is fitted; where all others are copies, these are."""
    folds = []
    for fold in deal(examples, FOLDS, by_label=by_label, seed=seed, purpose="encoder"):
        held, kept = {id(row) for row in fold}, {id(row) for row in without(examples, fold)}
        out = [place for place, row in enumerate(examples) if id(row) in held]
        rest = [place for place, row in enumerate(examples) if (id(row) in kept if kept else id(row) not in held)]
        folds.append((rest, out[-HELD:]))
    return folds


def _fold(
    context: Context, source: Source, plain: "ModelEmbedder", texts: LabelledTexts, rest: Sequence[int],
    out: Sequence[int], folder: Path, parts: Sequence[Part],
) -> dict[str, Any]:  # fmt: skip
    """Cosines and log p of the rows at the places `out`, by models that were fitted to those at `rest`."""
    kept, held = [texts.rows[place] for place in rest], [texts.rows[place] for place in out]
    steps, share = training_steps(len(kept), texts.tokens), _shares(len(texts.rows))[0]
    model, _ = trained(context, source, texts, kept, folder, steps, context.listen, share)
    cosines = text_vectors(model, held) @ model.label_head.weight.detach().numpy().T
    examples, shown = examples_of(texts.rows), [example.prompt for example in examples_of(held)]
    shared = SharedEmbedder(plain)
    each = [_linear(context, shared, examples, part, rest).probabilities(shown) for part in parts]
    return {"cosines": cosines, "linear": log_p(np.concatenate(each, axis=1))}


def _linear(
    context: Context, plain: "Embedder", examples: Sequence[Example], part: Part, places: Sequence[int] | np.ndarray
) -> LinearClassifier:
    """The regression on the words of the rows at these places that answer a part, and their vectors by the plain
    encoder."""
    used = np.intersect1d(places, part.known).tolist()
    answers = [part.keys[part.accepted[place].argmax()] for place in used]
    if part.number is None:
        answers = [examples[place].answer for place in used]
    shown, groups = [examples[place].prompt for place in used], [examples[place].group for place in used]
    return fit_classifier(shown, answers, part.keys, plain, context.seed, groups=groups).classifier


def _save(
    context: Context, source: Source, model: "TextClassifier", parts: Sequence[Part],
    documents: Sequence[EncoderDocument],
) -> dict[str, Path | bytes]:  # fmt: skip
    """The artifact's files, written into the run's folder WRITTEN; the encoder's weights in the compute type."""
    import torch

    from riyaz.models import save_embedder

    out = context.folder / WRITTEN
    out.mkdir(exist_ok=True)
    save_embedder(model.encoder.to(getattr(torch, context.compute)), source, out)
    prototypes = model.label_head.weight.detach().float().numpy()
    files: dict[str, Path | bytes] = {path.name: path for path in out.iterdir()}
    for part, document in zip(parts, documents):
        files |= encoder_files(document, np.ascontiguousarray(prototypes[part.columns]), out, part.number)
    return files


def _vectors_equal(context: Context, texts: LabelledTexts, trained_vectors: np.ndarray) -> dict[str, Any]:
    """The check that the engine that answers gives the first rows the vectors of the trained model."""
    first = [example.prompt for example in examples_of(texts.rows[: len(trained_vectors)])]
    vectors = open_embedder(str(context.folder / WRITTEN)).embed(first)
    cosine = float((vectors * trained_vectors).sum(1).min())
    return {"ok": cosine >= ALIKE, "cosine": cosine}


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


ABOUT = About(
    what="A small sentence encoder is trained whole, with one vector for each label; no language model runs.",
    suits="labels with few or many rows, at a few milliseconds an answer",
    colour=9, mark="<", weights="encoder", language_model=False,
)  # fmt: skip
METHOD = Method(
    name="encoder", about=ABOUT, fit=fit, candidates=0, time=estimate, needs_labels=True, needs_model=EMBEDDER,
    embeds=True, own_training=True, left_out=8,
)  # fmt: skip
