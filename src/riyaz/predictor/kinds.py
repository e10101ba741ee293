"""The kinds of predictors, and which one a task and a text part need.

Every kind says what callers must know of it: `has_model` (else no language model runs), `has_labels` (each answer is a
label of the task), `has_questions` (each answers the questions of the task), `from_set` (no token is drawn, so sampling
changes nothing), `answers_are` (in words). The type checker narrows a Predictor by the first three.
"""

from riyaz.predictor.classifier import ClassifierPredictor
from riyaz.predictor.closed import ClosedPredictor
from riyaz.predictor.copy import CopyPredictor
from riyaz.predictor.decisions import DecisionClassifier, DecisionModel
from riyaz.predictor.free import CHAT_TOKENS, FreePredictor
from riyaz.predictor.prompt import PromptedModel
from riyaz.predictor.span import SpanPredictor

ModelPredictor = FreePredictor | ClosedPredictor | SpanPredictor | DecisionModel
Predictor = ModelPredictor | CopyPredictor | ClassifierPredictor | DecisionClassifier


def predictor_for(
    model: PromptedModel, *, max_new_tokens: int = CHAT_TOKENS, calibrated: bool = False,
    temperature: float | None = None, temperatures: tuple[float, ...] = (),
) -> ModelPredictor:  # fmt: skip
    """A DecisionModel for a task of questions, a ClosedPredictor for a closed one, a SpanPredictor for a text part with
    `span_words` and passages, else a FreePredictor. `temperatures` apply to the first, `calibrated` and `temperature`
    to the second, `max_new_tokens` to the others."""
    if model.task is not None and model.task.questions:
        return DecisionModel(**model.parts(), temperatures=temperatures)
    if model.task is not None and model.task.kind == "closed":
        return ClosedPredictor(**model.parts(), calibrated=calibrated, temperature=temperature)
    if model.text.span_words and model.text.passages:
        return SpanPredictor(**model.parts(), max_new_tokens=max_new_tokens)
    return FreePredictor(**model.parts(), max_new_tokens=max_new_tokens)
