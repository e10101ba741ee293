"""The four kinds of predictors, and which of them a task and a text part ask for."""

from riyaz.predictor.closed import ClosedPredictor
from riyaz.predictor.copy import CopyPredictor
from riyaz.predictor.free import CHAT_TOKENS, FreePredictor
from riyaz.predictor.prompt import PromptedModel
from riyaz.predictor.span import SpanPredictor

ModelPredictor = FreePredictor | ClosedPredictor | SpanPredictor
Predictor = ModelPredictor | CopyPredictor  # `lm` is None for the last alone


def predictor_for(
    model: PromptedModel, *, max_new_tokens: int = CHAT_TOKENS, calibrated: bool = False
) -> ModelPredictor:
    """The model as a predictor: from a closed set where its task has one, by a span where its text part says so, else
    freely; `calibrated` is for the first, `max_new_tokens` for the others."""
    if model.task is not None and model.task.kind == "closed":
        return ClosedPredictor(**model.parts(), calibrated=calibrated)
    if model.text.span_words and model.text.passages:
        return SpanPredictor(**model.parts(), max_new_tokens=max_new_tokens)
    return FreePredictor(**model.parts(), max_new_tokens=max_new_tokens)
