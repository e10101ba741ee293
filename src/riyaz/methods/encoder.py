"""A sentence encoder, minilm, fine-tuned as a whole: the answer is the label whose vector is nearest to the text's.

Every label has a vector, a prototype, that begins as the vector of the label's own text. Encoder and prototypes are
trained together by the cross-entropy of the cosines (as prototypical networks: Snell et al. 2017, arXiv 1703.05175).
Probabilities are calibrated on rows that the weights were not trained on: a fold's, by a model of the other folds.
"""

import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from riyaz import hardware
from riyaz.artifact import TextPart, WeightsPart
from riyaz.classifiers.encoder import EncoderDocument, encoder_files
from riyaz.data import Example
from riyaz.data.sampling import fold_keys
from riyaz.families import describe_embedder
from riyaz.files import remove
from riyaz.methods.fitting.base import Context, Fitted, Method, Timing
from riyaz.methods.fitting.encoder_training import (
    BATCH,
    LabelledTexts,
    labelled_texts,
    text_vectors,
    trained,
    training_steps,
)
from riyaz.methods.fitting.weights import CURVE, WRITTEN
from riyaz.metrics.calibration import fit_temperature
from riyaz.results import About
from riyaz.sources import Source, open_source, safetensors

if TYPE_CHECKING:
    from riyaz.models.text_classifier import TextClassifier

EMBEDDER = "minilm"
FOLDS = 2  # each trains once more on a part of the rows
SCORES = "fold-{}.safetensors"
ALIKE = 0.999  # smallest cosine of a text's vector in the engine that answers to the trained one
CHECKED = 16  # texts
STEPS = 4  # that are timed; the first is not counted
# of training: memory beside the weights, and bytes of a parameter in memory (its float32, the optimiser's numbers) and
# on disk (a checkpoint and the one that is being written)
BASE_MB, PARAMETER_BYTES, CHECKPOINT_BYTES = 500.0, 26, 24


def fit(context: Context) -> Fitted:
    """Train once for each fold, which calibrates, and once on all rows; the artifact's weights are a folder that
    transformers loads, and the prototypes."""
    from riyaz.engine.opening import open_embedder

    began, source = time.perf_counter(), open_source(EMBEDDER)
    examples = (*context.train, *context.valid)
    texts = labelled_texts(open_embedder(EMBEDDER), context.task.labels, examples)
    scores = _out_of_fold(context, source, texts, examples)
    accepted = np.array([[label in example.answers for label in context.task.labels] for example in examples])
    temperature = fit_temperature(scores, accepted)
    searched = time.perf_counter() - began
    steps = training_steps(len(examples), texts.tokens)
    model, state = trained(
        context, source, texts, texts.rows, context.folder / "checkpoints", steps, context.listen
    )  # fmt: skip
    first = text_vectors(model, texts.rows[:CHECKED])
    files = _save(context, source, model, EncoderDocument(temperature))
    shutil.rmtree(context.folder / "checkpoints")
    for number in range(FOLDS):
        remove(context.folder / SCORES.format(number))
    return Fitted(
        TextPart(), WeightsPart("encoder"), files, calibrated=True,
        checks={"vectors_equal": _vectors_equal(context, texts, first)},
        chosen={"encoder": source.name, "steps": state.step, "rows": len(examples), "temperature": temperature,
                "tokens_s": state.tokens / state.seconds},
        search_seconds=searched, train_seconds=state.seconds,
        trainable_params=sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        valid_score=float(accepted[np.arange(len(examples)), scores.argmax(1)].mean()),
        curve=[{key: entry[key] for key in CURVE if key in entry} for entry in state.history],
    )  # fmt: skip


def estimate(context: Context) -> Timing:
    """The time, memory and disk of `fit`, from STEPS steps of training in a temporary folder."""
    from riyaz.engine.opening import open_embedder

    began = time.perf_counter()
    source, embedder = open_source(EMBEDDER), open_embedder(EMBEDDER)
    load, examples = time.perf_counter() - began, (*context.train, *context.valid)
    texts = labelled_texts(embedder, context.task.labels, examples)
    prepare = time.perf_counter() - began
    few = [example.prompt for example in examples[:CHECKED]]
    row, alone = (_seconds(lambda some=some: embedder.embed(some)) / len(some) for some in (few, few[:1]))
    times, scratch = [time.perf_counter()], context.folder / "scratch"
    remove(scratch)  # left by a process that was killed
    try:
        _, state = trained(context, source, texts, texts.rows, scratch, STEPS,
                           lambda event: times.append(time.perf_counter()))  # fmt: skip
    finally:
        remove(scratch)
    step = (times[STEPS] - times[1]) / (STEPS - 1) * STEPS * BATCH * texts.tokens / state.tokens
    runs = _runs(len(examples))
    steps = sum(training_steps(rows, texts.tokens) for rows in runs)
    steps += len(examples) / BATCH  # the folds' rows are scored in at most the time of an epoch
    build = max(0.0, times[1] - times[0] - step)
    parameters = describe_embedder(source).parameters / hardware.MB
    return Timing(
        fit=prepare + len(runs) * build + steps * step, load=load, row=row, alone=alone,
        rss_mb=BASE_MB + PARAMETER_BYTES * parameters, disk_mb=CHECKPOINT_BYTES * parameters,
    )  # fmt: skip


def _runs(rows: int) -> list[int]:
    """The rows of each training run: every fold's, then the last."""
    return [*([rows * (FOLDS - 1) // FOLDS] * FOLDS), rows]


def _out_of_fold(context: Context, source: Source, texts: LabelledTexts, examples: Sequence[Example]) -> np.ndarray:
    """The labels' scores (n, L) for every row, by a model that was trained on the other folds. A fold that is done is
    read from its file."""
    scores = np.zeros((len(examples), len(context.task.labels)), np.float32)
    folds = fold_keys(examples, FOLDS, by_label=True, seed=context.seed, purpose="encoder")
    for number, keys in enumerate(folds):
        held = np.array([example.key in keys for example in examples])
        path, folder = context.folder / SCORES.format(number), context.folder / f"fold-{number}"
        if not path.exists():
            rest = [row for row, out in zip(texts.rows, held) if not out]
            model, _ = trained(
                context, source, texts, rest, folder, training_steps(len(rest), texts.tokens), context.listen
            )  # fmt: skip
            vectors = text_vectors(model, [row for row, out in zip(texts.rows, held) if out])
            safetensors.write(path, {"scores": vectors @ model.lm_head.weight.detach().numpy().T})
            shutil.rmtree(folder)
        scores[held] = safetensors.read(path).array("scores")
    return scores


def _save(
    context: Context, source: Source, model: "TextClassifier", document: EncoderDocument
) -> dict[str, Path | bytes]:
    """The artifact's files, written into the run's folder WRITTEN; the encoder's weights in the compute type."""
    import torch

    from riyaz.models import save_embedder

    out = context.folder / WRITTEN
    out.mkdir(exist_ok=True)
    save_embedder(model.encoder.to(getattr(torch, context.compute)), source, out)
    prototypes = model.lm_head.weight.detach().float().numpy()
    return {path.name: path for path in out.iterdir()} | encoder_files(document, prototypes, out)


def _vectors_equal(context: Context, texts: LabelledTexts, trained_vectors: np.ndarray) -> dict[str, Any]:
    """The check that the engine that answers gives the first rows the vectors of the trained model."""
    from riyaz.engine.opening import open_embedder

    first = [row.example.prompt for row in texts.rows[: len(trained_vectors)] if row.example]
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
    own_training=True, left_out=8,
)  # fmt: skip
