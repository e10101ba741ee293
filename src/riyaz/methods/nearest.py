"""The baseline without a model: copy the answer of the training example with the nearest prompt by BM25."""

from riyaz.artifact import EXAMPLES, TextPart, WeightsPart, examples_bytes
from riyaz.methods.fitting.base import Context, Fitted, Method
from riyaz.metrics.calibration import fit_temperature
from riyaz.predictor import CopyPredictor
from riyaz.results import About
from riyaz.scoring import accepted_labels, predict, score


def fit(context: Context) -> Fitted:
    """Keep the training rows as the index; the validation score is only reported."""
    rows = context.valid[: context.valid_rows]
    predictor = CopyPredictor(task=context.task, examples=context.train)
    points = score(context.task, predict(predictor, rows), rows).mean
    temperature = None
    if context.task.kind == "closed":
        scores = predictor.label_scores([row.messages for row in context.valid])
        temperature = fit_temperature(scores, accepted_labels(context.task, context.valid))
    return Fitted(
        TextPart(examples_file=EXAMPLES), WeightsPart("copy"), {EXAMPLES: examples_bytes(context.train)},
        chosen={"index": "BM25 over the training prompts", "examples": len(context.train)}, valid_score=points,
        temperature=temperature,
    )  # fmt: skip


ABOUT = About(
    what="Copies the answer of the most similar training question; no language model runs.",
    suits="questions that repeat almost word for word; the baseline that every model has to beat",
    colour=0, mark="o", weights="copy", language_model=False,
)  # fmt: skip
METHOD = Method(name="nearest", about=ABOUT, fit=fit, candidates=0, left_out=8)
