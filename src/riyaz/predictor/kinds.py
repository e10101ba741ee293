"""Chooses one of the four kinds of predictors from the task and the text part."""

from riyaz.predictor.closed import ClosedPredictor
from riyaz.predictor.copy import CopyPredictor
from riyaz.predictor.free import CHAT_TOKENS, FreePredictor
from riyaz.predictor.prompt import PromptedModel
from riyaz.predictor.span import SpanPredictor

ModelPredictor = FreePredictor | ClosedPredictor | SpanPredictor
Predictor = ModelPredictor | CopyPredictor  # `lm` is None only for CopyPredictor


def predictor_for(
    model: PromptedModel, *, max_new_tokens: int = CHAT_TOKENS, calibrated: bool = False
) -> ModelPredictor:
    """A ClosedPredictor for a closed task, a SpanPredictor for a text part with `span_words` and passages, else a
    FreePredictor. `calibrated` applies to the first, `max_new_tokens` to the others."""
    if model.task is not None and model.task.kind == "closed":
        return ClosedPredictor(**model.parts(), calibrated=calibrated)
    if model.text.span_words and model.text.passages:
        return SpanPredictor(**model.parts(), max_new_tokens=max_new_tokens)
    return FreePredictor(**model.parts(), max_new_tokens=max_new_tokens)
