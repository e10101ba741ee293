"""`encoder` and `lora` answer together: the probabilities of both, multiplied.

A sentence encoder and a language model are wrong about different texts. Nothing is trained: the artifact holds what the
two arms of the same comparison have learned. The language model has a third of the sum of the log-probabilities (a
logarithmic opinion pool: Genest and Zidek 1986). The temperature of the whole is fitted on validation rows, by weights
that have not learned these.
"""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from riyaz.artifact import TRAINED, Artifact, WeightsPart
from riyaz.classifiers import open_classifier
from riyaz.errors import RiyazError
from riyaz.methods.fitting.base import Context, Fitted, Method
from riyaz.methods.fitting.held_out import read_held_out
from riyaz.metrics.calibration import LEAST, fit_temperature
from riyaz.predictor import open_artifact
from riyaz.predictor.beside import Beside
from riyaz.results import FIT, About, Fit
from riyaz.scoring import REOPEN_ROWS, accepted_labels, answer_log_loss

CLASSIFIER, MODEL = "encoder", "lora"
# The model's share in the sum. A quarter and two fifths are within .03 nats of the best share on each of five sets
# (docs/log.md); validation rows are too few to choose one.
SHARE = 1 / 3


def fit(context: Context) -> Fitted:
    """Fit the temperature; the artifact has the files of both arms' artifacts, whose training counts as its own."""
    began = time.perf_counter()
    folders = {name: context.others[name] / "artifact" for name in METHOD.of}
    parts = {name: Artifact.read(folder) for name, folder in folders.items()}
    fits = [Fit.read(context.others[name] / FIT) for name in METHOD.of]
    classifier, model, accepted = held_out_together(context)
    scores = SHARE * model + (1 - SHARE) * classifier
    # The artifact's temperature divides log p of the head + factor · log p of the classifier. `model` is divided by the
    # head's own temperature already.
    own = parts[MODEL].temperature or 1.0
    factor, temperature = own * (1 - SHARE) / SHARE, fit_temperature(scores, accepted) * own / SHARE
    predictor = open_artifact(folders[MODEL], precision=context.precision)
    assert predictor.has_model and predictor.has_labels
    beside = Beside(open_classifier(CLASSIFIER, folders[CLASSIFIER], context.task.labels), factor)
    whole = replace(predictor, beside=beside, temperature=temperature)
    files: dict[str, Path | bytes] = {
        name: folders[method] / name for method in METHOD.of for name in parts[method].checksums if name != TRAINED
    }
    return Fitted(
        parts[MODEL].text, WeightsPart("lora", label_head=True, beside=CLASSIFIER, factor=factor), files,
        temperature=temperature, max_new_tokens=parts[MODEL].max_new_tokens,
        chosen={"of": list(METHOD.of), "share": SHARE, "held_out_rows": len(accepted), "label_head": True},
        search_seconds=sum(fit.search_seconds for fit in fits) + time.perf_counter() - began,
        train_seconds=sum(fit.train_seconds for fit in fits),
        trainable_params=sum(fit.trainable_params for fit in fits),
        refit_loss=answer_log_loss(whole, context.valid[:REOPEN_ROWS]),
        valid_score=float(accepted[np.arange(len(accepted)), scores.argmax(1)].mean()),
    )  # fmt: skip


def held_out_together(context: Context) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Calibrated log-probabilities of the classifier and of the model, and the accepted labels, (n, L) each, of the
    validation rows that both have held out. Raises RiyazError where there are none."""
    classifier, model = (read_held_out(context.others[name]) for name in METHOD.of)
    rows = sorted(classifier.keys() & model.keys())
    if not rows:
        raise RiyazError(f"no validation row was held out by both {CLASSIFIER} and {MODEL}")
    accepted = accepted_labels(context.task, [context.valid[row] for row in rows])
    of_classifier = np.maximum([classifier[row] for row in rows], np.log(LEAST))  # as when it answers
    return of_classifier, np.array([model[row] for row in rows]), accepted


ABOUT = About(
    what="The answers of encoder and lora together: the probabilities of both, multiplied.",
    suits="labels, where an answer may take the time of both models",
    colour=10, mark="*", weights="lora",
)  # fmt: skip
METHOD = Method(
    name="ensemble",
    about=ABOUT,
    fit=fit,
    candidates=0,
    of=(CLASSIFIER, MODEL),
    needs_labels=True,
    answers_questions=False,
    left_out=4,
)
