"""The floor: copy the answer of the training example with the nearest prompt by BM25. No model at all."""

from riyaz.artifact import EXAMPLES, TextPart, WeightsPart, examples_bytes
from riyaz.methods.base import Context, Fitted, Method
from riyaz.predictor import CopyPredictor
from riyaz.scoring import predict, score


def fit(context: Context) -> Fitted:
    """Keep the training rows; validation only measures."""
    rows = context.valid[: context.valid_rows]
    predictor = CopyPredictor(task=context.task, examples=context.train)
    reached = score(context.task, predict(predictor, rows), rows).mean
    return Fitted(
        TextPart(examples_file=EXAMPLES), WeightsPart("copy"), {EXAMPLES: examples_bytes(context.train)},
        chosen={"index": "BM25 over the training prompts", "examples": len(context.train)}, valid_score=reached,
    )  # fmt: skip


METHOD = Method(name="nearest", fit=fit, texts=0)
